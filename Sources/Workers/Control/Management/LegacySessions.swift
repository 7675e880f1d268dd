// What RIG 1 says about sessions, in its shapes, to clients of both ports (contract §7). Whoever asks has been judged.

import HTTP
import Kit
import Links
import NIOHTTP1
import Settings
import Tokens

final class LegacySessions {
  /// RIG 1 lists users with this role unless it is told otherwise.
  private static let usualRole = "user"
  private static let secondsPerHour: UInt32 = 3_600
  private static let msPerSecond: Int64 = 1_000

  private let store: SessionStore
  private let hasher: SessionHasher
  private let role: String
  private let defaultSeconds: UInt32
  private let unixMs: () -> Int64

  /// - Parameter unixMs: the present time, in milliseconds since 1970; nil: the wall clock's, but for its jumps.
  init(
    store: SessionStore, hasher: SessionHasher, settings: Settings,
    unixMs: (() -> Int64)? = nil
  ) {
    self.store = store
    self.hasher = hasher
    role = settings.sessionRole ?? Self.usualRole
    defaultSeconds = UInt32(clamping: settings.jwtBlacklistDefaultExpiryHours) * Self.secondsPerHour
    self.unixMs = unixMs ?? SteadyWallClock.reader(settings)
  }

  /// `done` is called once, perhaps at once.
  func answer(_ question: SessionQuestion, _ done: @escaping (HTTPResponse) -> Void) {
    switch question {
    case .users: done(list { SessionListing.names($0.online(role: role)) })
    case .devices(let user):
      done(list { SessionListing.devices($0.connections(of: Name(user)).map(\.connection), of: user) })
    case .end(let session, let atLeastUntil): end(session, atLeastUntil: atLeastUntil, done)
    }
  }

  private func list(_ body: (PresenceRegistry) -> [UInt8]) -> HTTPResponse {
    store.incomplete ?? .json(body(store.registry), headers: ["cache-control": "no-store"])
  }

  /// The session's connections are closed by being on the list. One that has none is put there as well: its tokens may be shown yet.
  private func end(_ session: String, atLeastUntil: UInt32, _ done: @escaping (HTTPResponse) -> Void) {
    guard let digest = hasher.digest(session) else {
      return done(.problem(.internalServerError, "the session's digest can't be computed"))
    }
    let now = UInt32(clamping: unixMs() / Self.msPerSecond)
    let known = store.registry.end(ofSession: session).map { remaining(until: $0, now) }
    // Before every worker has reported, there may be connections with tokens that end later.
    let seconds: UInt32 =
      if let known, store.registry.isComplete {
        known
      } else {
        max(known ?? 0, max(defaultSeconds, remaining(until: atLeastUntil, now)))
      }
    let bounded = min(max(seconds, 1), UInt32(clamping: BlacklistOrder.maximumSeconds))
    store.blacklist(digest, seconds: bounded) { done($0.answer(.empty(.noContent))) }
  }

  private func remaining(until end: UInt32, _ now: UInt32) -> UInt32 {
    // The whole second in which they end, too.
    end > now ? end - now + 1 : 0
  }
}
