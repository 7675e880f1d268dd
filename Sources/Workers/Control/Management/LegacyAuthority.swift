// Who may use RIG 1's paths: the bearer of a valid token, not blacklisted, whose claim scopes.rg.actions names the action.
// With a MANAGEMENT_TOKEN whoever shows that one (ManagementGuard has looked), as on the paths of today that do the same.

import Kit
import Links
import Logging
import Settings
import Tokens

final class LegacyAuthority {
  enum Verdict: Equatable {
    /// - Parameter validUntil: of the token that allows it, in seconds since 1970; nil: none is needed, or it never ends.
    case allowed(validUntil: Double?)
    case unauthorized(String)
    /// No token names the action.
    case forbidden
    case unavailable(String)
  }

  private let isReplaced: Bool
  private let verifier: ConfiguredVerifier
  private let unixMs: () -> Int64

  /// - Parameter unixMs: the present time, in milliseconds since 1970; nil: the wall clock's, but for its jumps.
  init(
    settings: Settings, log: Logger, calls: CallClient? = nil,
    unixMs: (() -> Int64)? = nil
  ) throws(UnusableKeys) {
    isReplaced = settings.managementToken != nil
    verifier = try ConfiguredVerifier(settings: settings, log: log)
    if let calls { verifier.fetch = { calls.fetchKeySet($0, $1) } }
    self.unixMs = unixMs ?? SteadyWallClock.reader(settings)
  }

  /// Once per second: looks at the JWK set if that is due.
  func tick() { verifier.tick(unixMs: unixMs()) }

  /// Judges the values of a request's `Authorization` fields. One token that allows the action, by RIG 1's name, is enough.
  func verdict(on fields: [String], _ action: String, isBlacklisted: (String) -> Bool) -> Verdict {
    guard !isReplaced else { return .allowed(validUntil: nil) }
    do throws(TokenError) {
      let tokens = try BearerTokens.parse(fields, takesBare: true)
      guard !tokens.isEmpty else { return .unauthorized("header authorization has no bearer token") }
      let now = unixMs()
      var allowing: VerifiedToken?
      // Every token must be right: a request with a dead one is refused, as on the inbound port.
      for token in tokens {
        let verified = try verifier.verify(token, unixMs: now)
        if let session = verified.session, isBlacklisted(session) {
          return .unauthorized("header authorization: the session is on the blacklist")
        }
        if verified.allows(action: action) { allowing = verified }
      }
      guard let allowing else { return .forbidden }
      return .allowed(validUntil: allowing.validUntil)
    } catch {
      if case .unavailable = error { return .unavailable("header authorization: \(error)") }
      return .unauthorized("header authorization: \(error)")
    }
  }
}
