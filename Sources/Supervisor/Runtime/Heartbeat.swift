// When a worker counts as hung. Pure: the clock comes in as a parameter.

enum Heartbeat {
  /// A beat that is further ahead than this was not taken from the clock: who writes that can't be trusted to beat.
  static let tolerance: Nanoseconds = .seconds(1)
  /// A look that comes later than this says that the supervisor itself was kept from running, and its workers perhaps
  /// with it: their time begins anew.
  static let latestLook: Nanoseconds = .seconds(1)

  /// - Parameters:
  ///   - beat: the moment of the last beat, as the worker wrote it.
  ///   - now: read after `beat`.
  ///   - limit: age from which on it is too old.
  ///   - excusedUntil: the last moment at which the worker may have been kept from running; 0: never.
  static func isHung(
    beat: Nanoseconds, now: Nanoseconds, limit: Nanoseconds, excusedUntil: Nanoseconds = 0
  ) -> Bool {
    guard beat <= now else { return beat - now > tolerance }
    return now - max(beat, min(excusedUntil, now)) > limit
  }

  /// Whether a look that was due at `due` came too late to judge anybody by it.
  static func isBlind(due: Nanoseconds, now: Nanoseconds) -> Bool {
    now > due && now - due > latestLook
  }
}
