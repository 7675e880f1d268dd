// Judges tokens for this worker: signatures, times and claims, and the blacklist, which is asked after every verification
// because the verifier's memory knows nothing of it.

import Kit
import Links
import Logging
import Settings
import Tokens

/// Belongs to the worker's loop.
final class TokenAuthority {
  private let verifier: ConfiguredVerifier
  private let hasher: SessionHasher
  private var blacklist = SessionBlacklist()
  /// Seconds since the machine was started, by which the blacklist counts.
  private let bootSecond: () -> UInt32

  /// - Throws: what is wrong with the configured key, or with OpenSSL.
  init(
    settings: Settings, log: Logger, calls: CallClient? = nil,
    bootSecond: @escaping () -> UInt32 = BootClock.second
  ) throws {
    self.bootSecond = bootSecond
    guard let hasher = SessionHasher() else { throw TokenError.unavailable("OpenSSL has no SHA-256") }
    self.hasher = hasher
    verifier = try ConfiguredVerifier(settings: settings, log: log)
    if let calls { verifier.fetch = { calls.fetchKeySet($0, $1) } }
  }

  /// The key set that a token needs, if that is on its way.
  func keySetOnItsWay(for token: String) -> Int? { verifier.fetchedSet(for: token) }

  /// Calls `body` once, when the set has come or can't be had.
  func whenKeySetIsThere(_ set: Int, _ body: @escaping () -> Void) { verifier.whenFetched(set, body) }

  /// Whether any token can be valid.
  var isConfigured: Bool { verifier.isConfigured }

  /// Verifies a token at `unixMs`.
  func verify(_ token: String, unixMs: Int64) throws(TokenError) -> VerifiedToken {
    try verifier.verify(token, unixMs: unixMs)
  }

  /// The digests of a token's sessions; nil if one of them is on the blacklist, or can't be looked up.
  func digests(of sessions: [String]) -> [SessionDigest]? {
    var digests: [SessionDigest] = []
    let now = bootSecond()
    for session in sessions {
      guard let digest = hasher.digest(session), !blacklist.contains(digest, now: now) else {
        return nil
      }
      digests.append(digest)
    }
    return digests
  }

  /// The session's tokens are dead until `until`, a second of the boot clock. Whether that is still to come.
  func blacklist(_ session: SessionDigest, until: UInt32) -> Bool {
    let now = bootSecond()
    blacklist.add(session, until: until, now: now)
    return until > now
  }

  /// Once per second.
  func tick(unixMs: Int64) { verifier.tick(unixMs: unixMs) }
}
