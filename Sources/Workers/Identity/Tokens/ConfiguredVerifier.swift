// Verifies tokens as the configuration wants it: which keys, which algorithms, where the claims are; and reads the JWK set
// again when it is due, or when a token names a key that nobody knows: a file at once, one of a URL by whoever calls
// services. Keys that are known stay in use when the set can't be had.

import Kit
import Logging
import Settings

/// Tokens can't be verified the way that the configuration wants it.
public struct UnusableKeys: Error, CustomStringConvertible {
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
  private let log: Logger
  /// The set as it was read last, and when that was tried last.
  private var lastRead: (contents: [UInt8], second: Int64)?
  private var remote = RemoteKeySet()
  /// Fetches the set from its URL, and calls back once, on the same thread. The set's contents, or why it can't be had.
  public var fetch: ((@escaping (Result<[UInt8], UnusableKeys>) -> Void) -> Void)?

  /// - Throws: what is wrong with the configured key.
  public init(settings: Settings, log: Logger) throws(UnusableKeys) {
    self.settings = settings
    self.log = log
    let algorithms = try Self.algorithms(settings)
    do throws(KeyProblem) {
      configured =
        if let key = settings.jwtSecretKey {
          try KeySet(configured: key.revealed, algorithms: algorithms)
        } else {
          KeySet()
        }
    } catch {
      throw UnusableKeys("JWT_SECRET_KEY: \(error)")
    }
    let policy = TokenPolicy(
      algorithms: algorithms, leeway: Double(settings.jwtLeewaySeconds),
      sessionPointer: settings.jwtSessionPointer,
      userPointers: settings.jwtUserPointer.map { [$0] } ?? TokenPolicy.defaultUserPointers,
      rolesPointer: settings.jwtRolesPointer)
    verifier = TokenVerifier(keys: configured, policy: policy)
    warn(configured)
  }

  /// Whether any token can be valid.
  public var isConfigured: Bool { settings.jwtSecretKey != nil || !settings.jwtJWKS.isEmpty }

  /// Those of `JWT_ALG`; if that is unset HS256, and with a set of public keys alone every asymmetric one.
  private static func algorithms(_ settings: Settings) throws(UnusableKeys) -> [SignatureAlgorithm] {
    guard settings.jwtAlgorithms.isEmpty else {
      return try settings.jwtAlgorithms.map { (name) throws(UnusableKeys) in
        guard let algorithm = SignatureAlgorithm(rawValue: name) else {
          throw UnusableKeys("JWT_ALG: '\(name)' is unknown")
        }
        return algorithm
      }
    }
    guard settings.jwtSecretKey == nil, !settings.jwtJWKS.isEmpty else { return [.hs256] }
    return SignatureAlgorithm.allCases.filter { if case .hmac = $0.scheme { false } else { true } }
  }

  /// Verifies a token at `unixMs`.
  public func verify(_ token: String, unixMs: Int64) throws(TokenError) -> VerifiedToken {
    let now = Double(unixMs) / 1000
    do throws(TokenError) {
      return try verifier.verify(token, now: now)
    } catch {
      guard mayBeOutdated(error) else { throw error }
      if readKeys(atSecond: unixMs / 1000, restSeconds: Self.unknownKeyRestSeconds) {
        return try verifier.verify(token, now: now)
      }
      // As long as there was no answer to which keys there are, no token is known to be wrong.
      if isWithoutRemoteKeys { throw .unavailable("the JWK set of JWT_JWKS couldn't be fetched yet") }
      throw error
    }
  }

  private func mayBeOutdated(_ error: TokenError) -> Bool {
    // Before the set was read for the first time there are no keys at all.
    if isWithoutRemoteKeys, error.concernsKeys { return true }
    return error.isUnknownKey || error == .noKeys
  }

  private var isWithoutRemoteKeys: Bool { settings.jwtJWKSURL != nil && lastRead == nil }

  /// Once per second: reads the JWK set if it is due.
  public func tick(unixMs: Int64) {
    _ = readKeys(atSecond: unixMs / 1000, restSeconds: Int64(settings.jwtJWKSRefreshSeconds))
  }

  /// Reads the JWK set unless that was tried a moment ago. Whether there are other keys now.
  private func readKeys(atSecond second: Int64, restSeconds: Int64) -> Bool {
    guard !settings.jwtJWKS.isEmpty else { return false }
    guard settings.jwtJWKSURL == nil else {
      beginFetch(atSecond: second, restSeconds: restSeconds)
      return false
    }
    if let lastRead, second - lastRead.second < restSeconds { return false }
    do {
      return try use(Array(try TextFile.read(settings.jwtJWKS).utf8), atSecond: second)
    } catch {
      lastRead = (lastRead?.contents ?? [], second)
      complain(error)
      return false
    }
  }

  /// Takes the keys of a set. Whether they are others than before.
  private func use(_ contents: [UInt8], atSecond second: Int64) throws -> Bool {
    guard contents != lastRead?.contents else {
      lastRead?.second = second
      return false
    }
    let set = try contents.withUnsafeBytes { try KeySet(jwks: $0, algorithms: verifier.policy.algorithms) }
    lastRead = (contents, second)
    warn(set)
    verifier.keys = configured.adding(set)
    log.info("the JWK set is read", metadata: ["keys": "\(set.keys.count)"])
    return true
  }

  private func complain(_ error: any Error) {
    // The keys known so far stay in use.
    log.error("JWT_JWKS: the JWK set can't be used", metadata: ["reason": "\(error)"])
  }

  // MARK: A set behind a URL

  /// Whether the set is being fetched.
  public var isFetching: Bool { remote.isFetching }

  /// Calls `body` once, when the fetch in progress has ended; at once if there is none.
  public func whenFetched(_ body: @escaping () -> Void) {
    if remote.isFetching { remote.waiting.append(body) } else { body() }
  }

  private func beginFetch(atSecond second: Int64, restSeconds: Int64) {
    guard let fetch, remote.isDue(atSecond: second, restSeconds: restSeconds) else { return }
    remote.isFetching = true
    remote.lastTry = second
    fetch { [weak self] result in self?.fetched(result, atSecond: second) }
  }

  private func fetched(_ result: Result<[UInt8], UnusableKeys>, atSecond second: Int64) {
    remote.isFetching = false
    do {
      _ = try use(try result.get(), atSecond: second)
      remote.hasFailed = false
    } catch {
      remote.hasFailed = true
      complain(error)
    }
    let waiting = remote.waiting
    remote.waiting = []
    for body in waiting { body() }
  }

  private func warn(_ keys: KeySet) {
    for warning in keys.warnings { log.warning("keys of tokens", metadata: ["reason": "\(warning)"]) }
  }
}

/// How far the fetching of a JWK set from its URL has come.
private struct RemoteKeySet {
  /// After a failure it is tried again sooner than when it is due.
  private static let failureRestSeconds: Int64 = 5

  var isFetching = false
  var hasFailed = false
  /// The second of the last try; nil: there was none.
  var lastTry: Int64?
  var waiting: [() -> Void] = []

  func isDue(atSecond second: Int64, restSeconds: Int64) -> Bool {
    guard !isFetching else { return false }
    guard let lastTry else { return true }
    return second - lastTry >= (hasFailed ? min(restSeconds, Self.failureRestSeconds) : restSeconds)
  }
}
