// What the event loop has to do, and when. Pure: the clock comes in as a parameter.

struct Agenda {
  /// How often a starting worker is looked at.
  static let lookInterval: Nanoseconds = .milliseconds(20)
  /// Time from a failed spawn until the tree hears of it: what is lacking now (processes, memory, a binary that is just
  /// being replaced) may be there in a moment, and must not use up the restarts within that moment.
  private static let failedSpawnDelay: Nanoseconds = .milliseconds(500)

  private var timers: [(token: TimerToken, deadline: Nanoseconds)] = []
  /// Exits of workers that couldn't be started, and when the tree hears of it.
  private var failedSpawns: [(due: Nanoseconds, event: TreeEvent)] = []
  private var nextLook: Nanoseconds = .max
  private var nextRound: Nanoseconds
  /// When it was last found that the supervisor had been kept from running; 0: never.
  private(set) var blindUntil: Nanoseconds = 0

  init(firstRound: Nanoseconds) {
    nextRound = firstRound
  }

  mutating func set(_ token: TimerToken, _ deadline: Nanoseconds) {
    timers.append((token, deadline))
  }

  mutating func cancel(_ token: TimerToken) {
    timers.removeAll { $0.token == token }
  }

  mutating func spawnFailed(_ event: TreeEvent, at now: Nanoseconds) {
    failedSpawns.append((due: now + Self.failedSpawnDelay, event))
  }

  /// The moment of what comes first.
  mutating func next(isAnyStarting: Bool, at now: Nanoseconds) -> Nanoseconds {
    if !isAnyStarting {
      nextLook = .max
    } else if nextLook == .max {
      // A worker that began to start since the last look.
      nextLook = now + Self.lookInterval
    }
    var earliest = min(nextRound, nextLook)
    for timer in timers { earliest = min(earliest, timer.deadline) }
    for failed in failedSpawns { earliest = min(earliest, failed.due) }
    return earliest
  }

  /// Whether starting workers have to be looked at now.
  mutating func takeLook(at now: Nanoseconds) -> Bool {
    guard now >= nextLook else { return false }
    nextLook = now + Self.lookInterval
    return true
  }

  /// Something that the tree has to hear now.
  mutating func takeEvent(at now: Nanoseconds) -> TreeEvent? {
    if let index = timers.firstIndex(where: { $0.deadline <= now }) {
      return .timer(timers.remove(at: index).token)
    }
    return failedSpawns.firstIndex { $0.due <= now }.map { failedSpawns.remove(at: $0).event }
  }

  /// Whether the time of a round has come; the next one is `interval` from now.
  mutating func takeRound(at now: Nanoseconds, every interval: Nanoseconds) -> Bool {
    guard now >= nextRound else { return false }
    nextRound = now + interval
    return true
  }

  /// Time in which this process didn't run, and perhaps none of the gateway's, is nobody's fault: nobody is judged by
  /// it, and no timer runs on in it.
  ///
  /// - Parameter due: when the alarm should have gone off.
  /// - Returns: how much was lost; nil: nothing to speak of.
  mutating func excuse(from due: Nanoseconds, to now: Nanoseconds) -> Nanoseconds? {
    guard Heartbeat.isBlind(due: due, now: now) else { return nil }
    blindUntil = now
    let lost = now - due
    for index in timers.indices { timers[index].deadline = timers[index].deadline.addingSaturating(lost) }
    return lost
  }
}
