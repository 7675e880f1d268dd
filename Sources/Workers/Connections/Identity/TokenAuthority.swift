// Judges tokens for this worker: keys as configured, signatures, times, claims, and the blacklist, which is asked after
// every verification because the verifier's memory knows nothing of it.

import Foundation
import Identity
import Kit
import Logging
import Settings

/// Tokens can't be verified the way that the configuration wants it.
struct UnusableKeys: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// Belongs to the worker's loop.
final class TokenAuthority {
  /// An unknown key in a token may mean that the set has changed: it is looked at again, but not for every such token.
  private static let unknownKeyRestSeconds: Int64 = 10

  private let settings: Settings
  private let verifier: TokenVerifier
  private let configured: KeySet
  private let hasher: SessionHasher
  private let log: Logger
  private var blacklist = SessionBlacklist()
  private var fileRead: (contents: Data, second: Int64)?

  /// - Throws: what is wrong with the configured key.
  init(settings: Settings, log: Logger) throws {
    guard let hasher = SessionHasher() else { throw UnusableKeys("OpenSSL has no SHA-256") }
    self.hasher = hasher
    self.settings = settings
    self.log = log
    let algorithms = try Self.algorithms(settings)
    do {
      configured =
        try settings.jwtSecretKey.map { try KeySet(configured: $0.revealed, algorithms: algorithms) }
        ?? KeySet()
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
  var isConfigured: Bool { settings.jwtSecretKey != nil || !settings.jwtJWKS.isEmpty }

  var blacklistedSessions: Int { blacklist.count }

  /// Those of `JWT_ALG`; if that is unset HS256, and with a set of public keys alone every asymmetric one.
  static func algorithms(_ settings: Settings) throws(UnusableKeys) -> [SignatureAlgorithm] {
    guard settings.jwtAlgorithms.isEmpty else {
      return try settings.jwtAlgorithms.map { (name) throws(UnusableKeys) in
        guard let algorithm = SignatureAlgorithm(rawValue: name) else {
          throw UnusableKeys("JWT_ALG: '\(name)' is unknown")
        }
        return algorithm
      }
    }
    guard settings.jwtSecretKey == nil, !settings.jwtJWKS.isEmpty else { return [.hs256] }
    return SignatureAlgorithm.allCases.filter { !$0.rawValue.hasPrefix("HS") }
  }

  // MARK: Tokens

  /// Verifies a token at `unixMs`.
  func verify(_ token: String, unixMs: Int64) throws(TokenError) -> VerifiedToken {
    let now = Double(unixMs) / 1000
    do throws(TokenError) {
      return try verifier.verify(token, now: now)
    } catch {
      guard error.isUnknownKey, readKeys(atSecond: unixMs / 1000, restSeconds: Self.unknownKeyRestSeconds)
      else { throw error }
      return try verifier.verify(token, now: now)
    }
  }

  /// The digests of a token's sessions; nil if one of them is on the blacklist, or can't be looked up.
  func digests(of sessions: [String], unixMs: Int64) -> [SessionDigest]? {
    var digests: [SessionDigest] = []
    for session in sessions {
      guard let digest = hasher.digest(session), !blacklist.contains(digest, now: Self.second(unixMs)) else {
        return nil
      }
      digests.append(digest)
    }
    return digests
  }

  /// The session's tokens are dead until `until`.
  func blacklist(_ session: SessionDigest, until: UInt32, unixMs: Int64) {
    blacklist.add(session, until: until, now: Self.second(unixMs))
  }

  private static func second(_ unixMs: Int64) -> UInt32 { UInt32(clamping: unixMs / 1000) }

  // MARK: Keys

  /// Once per second: reads the JWK set if it is due.
  func tick(unixMs: Int64) {
    _ = readKeys(atSecond: unixMs / 1000, restSeconds: Int64(settings.jwtJWKSRefreshSeconds))
  }

  /// Reads the file of the JWK set unless it was read a moment ago. Whether there are other keys now.
  private func readKeys(atSecond second: Int64, restSeconds: Int64) -> Bool {
    guard !settings.jwtJWKS.isEmpty else { return false }
    if let fileRead, second - fileRead.second < restSeconds { return false }
    let before = fileRead?.contents
    do {
      let contents = try Data(contentsOf: URL(fileURLWithPath: settings.jwtJWKS))
      fileRead = (contents, second)
      guard contents != before else { return false }
      let set = try contents.withUnsafeBytes { try KeySet(jwks: $0, algorithms: verifier.policy.algorithms) }
      warn(set)
      verifier.keys = configured.adding(set)
      log.info("the JWK set is read", metadata: ["keys": "\(set.keys.count)"])
      return true
    } catch {
      fileRead = (before ?? Data(), second)
      let reason = error is KeyProblem ? "\(error)" : "it can't be read"
      // The keys known so far stay in use.
      log.error("JWT_JWKS: the JWK set can't be used", metadata: ["reason": "\(reason)"])
      return false
    }
  }

  private func warn(_ keys: KeySet) {
    for warning in keys.warnings { log.warning("keys of tokens", metadata: ["reason": "\(warning)"]) }
  }
}
