// Who may use RIG 1's paths: the bearer of a valid token, not blacklisted, whose claim scopes.rg.actions names the action.
// With a MANAGEMENT_TOKEN whoever shows that one (ManagementGuard has looked), as on the paths of today that do the same.

import Identity
import Kit
import Logging
import Settings

final class LegacyAuthority {
  enum Action: String { case getSessions, getSessionConnections, deleteConnection }

  enum Verdict: Equatable {
    case allowed
    case unauthorized(String)
    case forbidden(String)
    /// It can't be judged now.
    case unavailable(String)
  }

  private static let claim = ["scopes", "rg", "actions"]

  private let isReplaced: Bool
  private let verifier: ConfiguredVerifier
  private let unixMs: () -> Int64

  /// - Parameter unixMs: the present time, in milliseconds since 1970.
  init(
    settings: Settings, log: Logger, calls: CallClient? = nil,
    unixMs: @escaping () -> Int64 = SteadyWallClock.reader()
  ) throws(UnusableKeys) {
    isReplaced = settings.managementToken != nil
    verifier = try ConfiguredVerifier(settings: settings, log: log)
    if let calls { verifier.fetch = { calls.fetchKeySet($0, $1) } }
    self.unixMs = unixMs
  }

  /// Once per second: looks at the JWK set if that is due.
  func tick() { verifier.tick(unixMs: unixMs()) }

  /// Judges the values of a request's `Authorization` fields. One token that allows the action is enough.
  func verdict(on fields: [String], _ action: Action, isBlacklisted: (String) -> Bool) -> Verdict {
    guard !isReplaced else { return .allowed }
    do throws(TokenError) {
      let tokens = try BearerTokens.parse(fields)
      guard !tokens.isEmpty else { return .unauthorized("header authorization has no bearer token") }
      let now = unixMs()
      var isAllowed = false
      // Every token must be right: a request with a dead one is refused, as on the inbound port.
      for token in tokens {
        let verified = try verifier.verify(token, unixMs: now)
        if let session = verified.session, isBlacklisted(session) {
          return .unauthorized("header authorization: the session is on the blacklist")
        }
        let actions = verified.claims.strings(at: Self.claim) ?? []
        if actions.contains(where: { $0.utf8.elementsEqual(action.rawValue.utf8) }) { isAllowed = true }
      }
      if isAllowed { return .allowed }
      return .forbidden("the token's claim scopes.rg.actions doesn't contain \(action.rawValue)")
    } catch {
      if case .unavailable = error { return .unavailable("header authorization: \(error)") }
      return .unauthorized("header authorization: \(error)")
    }
  }
}
