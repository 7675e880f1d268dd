// Verifies tokens as the configuration wants it: which keys, which algorithms, where the claims are; and reads the file of
// the JWK set again when it is due, or when a token names a key that nobody knows.

import Kit
import Logging
import Settings

/// Tokens can't be verified the way that the configuration wants it.
public struct UnusableKeys: Error, CustomStringConvertible {
  public let description: String

  init(_ description: String) { self.description = description }
}

/// Belongs to one thread.
public final class ConfiguredVerifier {
  /// An unknown key in a token may mean that the set has changed: it is looked at again, but not for every such token.
  private static let unknownKeyRestSeconds: Int64 = 10

  private let settings: Settings
  private let verifier: TokenVerifier
  private let configured: KeySet
  private let log: Logger
  private var fileRead: (contents: [UInt8], second: Int64)?

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
      guard mayBeOutdated(error),
        readKeys(atSecond: unixMs / 1000, restSeconds: Self.unknownKeyRestSeconds)
      else { throw error }
      return try verifier.verify(token, now: now)
    }
  }

  private func mayBeOutdated(_ error: TokenError) -> Bool {
    // Before the set was read for the first time there are no keys at all.
    error.isUnknownKey || error == .noKeys
  }

  /// Once per second: reads the JWK set if it is due.
  public func tick(unixMs: Int64) {
    _ = readKeys(atSecond: unixMs / 1000, restSeconds: Int64(settings.jwtJWKSRefreshSeconds))
  }

  /// Reads the file of the JWK set unless it was read a moment ago. Whether there are other keys now.
  private func readKeys(atSecond second: Int64, restSeconds: Int64) -> Bool {
    guard !settings.jwtJWKS.isEmpty else { return false }
    if let fileRead, second - fileRead.second < restSeconds { return false }
    let before = fileRead?.contents
    do {
      let contents = Array(try TextFile.read(settings.jwtJWKS).utf8)
      fileRead = (contents, second)
      guard contents != before else { return false }
      let set = try contents.withUnsafeBytes { try KeySet(jwks: $0, algorithms: verifier.policy.algorithms) }
      warn(set)
      verifier.keys = configured.adding(set)
      log.info("the JWK set is read", metadata: ["keys": "\(set.keys.count)"])
      return true
    } catch {
      fileRead = (before ?? [], second)
      // The keys known so far stay in use.
      log.error("JWT_JWKS: the JWK set can't be used", metadata: ["reason": "\(error)"])
      return false
    }
  }

  private func warn(_ keys: KeySet) {
    for warning in keys.warnings { log.warning("keys of tokens", metadata: ["reason": "\(warning)"]) }
  }
}
