// One turn of the worker: what there is to do, a bounded share of everything, in a fixed order. Everything happens on one event loop.
//
//   wake-up ─► turn:  ended sessions, before anything else is done for them                 StateFeed
//                     events: read ≤ 256 records or 1 MiB ─► match ─► encode once
//                             ─► one send per connection ─► commit                          LiveDelivery
//                     questions of other workers, answers of services                       PeerServer, CallClient, PublicationClient
//                     history of connections that come back                                 Replayer
//                     a share of large changes of subscriptions                             TurnWork, Subscriptions
//                     polls, presence                                                       Polls, PresenceReporter
//                     nothing left: declare asleep, look again ─► wait      else: next turn, after the sockets' turn
//
// Records are committed after their effect: what a crash repeats is one turn. A turn must never block.

import IPC
import Kit
import Links

/// What the worker's loop does for it; a test has one of its own.
struct LoopTasks {
  /// Calls the closure on the loop, behind what it is doing now and before it waits.
  var run: (@escaping () -> Void) -> Void
  /// Lets the loop call `Turn.schedule` after it has looked at its sockets.
  var wakeAgain: () -> Void
  /// Calls the closure after about a millisecond.
  var soon: (@escaping () -> Void) -> Void
  /// Calls the closure after so many milliseconds; what is returned gives that up.
  var after: (_ ms: Int, @escaping () -> Void) -> (() -> Void)
}

/// Belongs to the worker's loop.
final class Turn {
  /// A share of one thing. Whether there is more to do without waiting for anything.
  typealias Part = () -> Bool

  /// What a turn consists of.
  struct Parts {
    var inOrder: [Part]
    /// The worker is about to wait; false: there is something to read. `declareAwake` takes it back.
    var declareAsleep: () -> Bool
    var declareAwake: () -> Void
  }

  private let loop: LoopTasks
  private let clock: LoopClock
  private var parts: Parts?
  private var isScheduled = false
  private var isRunning = false

  init(_ loop: LoopTasks, _ clock: LoopClock) {
    self.loop = loop
    self.clock = clock
  }

  /// Says what turns consist of: once, before the first.
  func begin(_ parts: Parts) { self.parts = parts }

  /// There are no more turns. What takes part in them may hold the turn.
  func end() { parts = nil }

  /// Lets a turn happen behind what the loop is doing now. For whoever has put something where a turn finds it.
  func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    loop.run { [unowned self] in run() }
  }

  /// The same for what the present turn, if there is one, still comes to.
  func scheduleUnlessRunning() {
    if !isRunning { schedule() }
  }

  /// One turn. Called directly by tests, otherwise through `schedule`. Nothing within a turn.
  func run() {
    guard let parts, !isRunning else { return }
    isScheduled = false
    isRunning = true
    parts.declareAwake()
    clock.refresh()
    var hasMore = false
    for part in parts.inOrder where part() { hasMore = true }
    isRunning = false
    if !isScheduled, hasMore || !parts.declareAsleep() { loop.wakeAgain() }
  }
}
