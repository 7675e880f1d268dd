// Verifies tokens as the configuration wants it: which keys, which algorithms, where the claims are; and has a JWK set read
// again when it is due, or when a token names a key that nobody knows.
//
//   JWT_SECRET_KEY and a set without issuer   one pool of keys, for tokens of every issuer
//   sets with issuers                         each for the tokens of its issuer alone; JWT_SECRET_KEY for those of all others

import Kit
import Logging
import Settings

/// Tokens can't be verified the way that the configuration wants it.
public struct UnusableKeys: ConfigurationFault, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// Belongs to one thread.
public final class ConfiguredVerifier {
  /// An unknown key in a token may mean that the set has changed: it is looked at again, but not for every such token.
  private static let unknownKeyRestSeconds: Int64 = 10

  private let settings: Settings
  private let verifier: TokenVerifier
  private let configured: KeySet
  /// In the order of JWT_JWKS.
  private let feeds: [KeySetFeed]
  /// Fetches a set, by its place in JWT_JWKS, from its URL, and calls back once, on the same thread. The set's contents, or
  /// why it can't be had.
  public var fetch: ((Int, @escaping (Result<[UInt8], UnusableKeys>) -> Void) -> Void)?

  /// - Throws: what is wrong with the configured key.
  public init(settings: Settings, log: Logger) throws(UnusableKeys) {
    self.settings = settings
    let algorithms = try Self.algorithms(settings)
    configured = try Self.configuredKeys(settings, algorithms)
    let policy = TokenPolicy(
      algorithms: algorithms, leeway: Double(settings.jwtLeewaySeconds),
      requiresExpiry: settings.jwtRequireExpiry, audiences: settings.jwtAudiences,
      issuers: settings.jwtIssuers, sessionPointer: settings.jwtSessionPointer,
      userPointers: settings.jwtUserPointer.map { [$0] } ?? TokenPolicy.defaultUserPointers,
      rolesPointer: settings.jwtRolesPointer)
    verifier = TokenVerifier(keys: configured, policy: policy)
    feeds = settings.jwtKeySets.map { KeySetFeed($0, algorithms: algorithms, log: log) }
    for warning in configured.warnings {
      log.warning("keys of tokens", metadata: ["reason": "\(warning)"])
    }
    useKeys()
  }

  private static func configuredKeys(
    _ settings: Settings, _ algorithms: [SignatureAlgorithm]
  ) throws(UnusableKeys) -> KeySet {
    guard let key = settings.jwtSecretKey else { return KeySet() }
    do throws(KeyProblem) {
      return try KeySet(configured: key.revealed, algorithms: algorithms)
    } catch {
      throw UnusableKeys("JWT_SECRET_KEY: \(error)")
    }
  }

  /// Says what of the keys can't be used: the configured one, and the sets in files. Those of URLs aren't asked for.
  public static func judge(_ settings: Settings, _ found: inout ConfigurationFindings) {
    guard let algorithms = found.judge({ try Self.algorithms(settings) }) else { return }
    if let keys = found.judge({ try configuredKeys(settings, algorithms) }) {
      found.warnings += keys.warnings.map { "JWT_SECRET_KEY: \($0)" }
    }
    for source in settings.jwtKeySets where source.url == nil {
      guard let keys = found.judge({ try keySet(inFile: source.location, algorithms) }) else { continue }
      found.warnings += keys.warnings.map { "JWT_JWKS: '\(source.location)': \($0)" }
    }
  }

  private static func keySet(
    inFile path: String, _ algorithms: [SignatureAlgorithm]
  ) throws(UnusableKeys) -> KeySet {
    do {
      let contents = Array(try TextFile.read(path).utf8)
      return try contents.withUnsafeBytes { try KeySet(jwks: $0, algorithms: algorithms) }
    } catch let problem as ValueProblem {
      throw UnusableKeys("JWT_JWKS: \(problem)")
    } catch {
      throw UnusableKeys("JWT_JWKS: '\(path)': \(error)")
    }
  }

  /// Whether any token can be valid.
  public var isConfigured: Bool { settings.jwtSecretKey != nil || !feeds.isEmpty }

  /// Those of `JWT_ALG`; if that is unset HS256, and with sets of public keys alone every asymmetric one.
  private static func algorithms(_ settings: Settings) throws(UnusableKeys) -> [SignatureAlgorithm] {
    guard settings.jwtAlgorithms.isEmpty else {
      return try settings.jwtAlgorithms.map { (name) throws(UnusableKeys) in
        guard let algorithm = SignatureAlgorithm(rawValue: name) else {
          throw UnusableKeys("JWT_ALG: '\(name)' is unknown")
        }
        return algorithm
      }
    }
    guard settings.jwtSecretKey == nil, !settings.jwtKeySets.isEmpty else { return [.hs256] }
    return SignatureAlgorithm.allCases.filter { if case .hmac = $0.scheme { false } else { true } }
  }

  /// Verifies a token at `unixMs`.
  public func verify(_ token: String, unixMs: Int64) throws(TokenError) -> VerifiedToken {
    let now = Double(unixMs) / 1000
    do throws(TokenError) {
      return try verifier.verify(token, now: now)
    } catch {
      guard error.concernsKeys, let index = feed(for: token) else { throw error }
      let feed = feeds[index]
      // Before a set has been read for the first time there are no keys at all.
      guard feed.isAwaited || error.isUnknownKey || error == .noKeys else { throw error }
      if read(index, atSecond: unixMs / 1000, restSeconds: Self.unknownKeyRestSeconds) {
        return try verifier.verify(token, now: now)
      }
      // As long as there was no answer to which keys there are, no token is known to be wrong.
      if feed.isAwaited { throw .unavailable("the JWK set of JWT_JWKS couldn't be fetched yet") }
      throw error
    }
  }

  /// Once per second: has every JWK set read that is due.
  public func tick(unixMs: Int64) {
    for index in feeds.indices {
      _ = read(index, atSecond: unixMs / 1000, restSeconds: Int64(settings.jwtJWKSRefreshSeconds))
    }
  }

  /// The set that the token's keys are from, by its place in JWT_JWKS, if it is being fetched.
  public func fetchedSet(for token: String) -> Int? {
    feed(for: token).flatMap { feeds[$0].isFetching ? $0 : nil }
  }

  /// Calls `body` once, when the fetch of this set that is in progress has ended; at once if there is none.
  public func whenFetched(_ set: Int, _ body: @escaping () -> Void) {
    if feeds.indices.contains(set) { feeds[set].whenFetched(body) } else { body() }
  }

  // MARK: Sets

  private var haveIssuers: Bool { feeds.contains { $0.source.issuer != nil } }

  private func feed(for token: String) -> Int? {
    haveIssuers ? verifier.issuerKeys(for: token) : feeds.indices.first
  }

  /// Whether there are other keys now.
  private func read(_ index: Int, atSecond second: Int64, restSeconds: Int64) -> Bool {
    let areOthers = feeds[index].read(
      atSecond: second, restSeconds: restSeconds,
      fetch: fetch.map { fetch in { fetch(index, $0) } },
      changed: { [weak self] in self?.useKeys() })
    if areOthers { useKeys() }
    return areOthers
  }

  private func useKeys() {
    if haveIssuers {
      verifier.issuerKeys = feeds.compactMap { feed in
        feed.source.issuer.map { IssuerKeys(issuer: $0, keys: feed.keys ?? KeySet()) }
      }
    } else if let keys = feeds.first?.keys {
      verifier.keys = configured.adding(keys)
    }
  }
}
