// Whether one more call of a service may begin now, wait, or is refused: a pure state machine that knows neither clock nor
// socket.
//
//            fails `failures` times in a row                openNs later
//   closed ─────────────────────────────────► open ─────────────────────────► half open: one call as a probe
//      ▲                                       ▲                                  │
//      └───────── the probe is answered ───────┼──────────────────────────────────┤
//                                              └─────── the probe fails ──────────┘
//
// While it is closed at most `concurrent` calls are in progress and at most `waiting` wait, oldest first. A failure is
// a service that can't be reached or doesn't answer in time; whatever status it answers, it is there.

import DequeModule

struct ServiceGate<Call> {
  struct Limits: Equatable {
    var concurrent: Int
    var waiting: Int
    var failures: Int
    var openNs: UInt64
  }

  enum Admission: Equatable {
    /// Begin it now, and report its end by `ended`.
    case begin
    /// It will come out of `next`.
    case waits
    /// Too many wait already.
    case full
    /// The service is left alone for so long.
    case open(forNs: UInt64)
  }

  private enum Circuit: Equatable {
    case closed(failures: Int)
    case open(untilNs: UInt64)
    case probing
  }

  let limits: Limits
  private var circuit = Circuit.closed(failures: 0)
  private(set) var inProgress = 0
  private var queue = Deque<Call>()

  init(_ limits: Limits) { self.limits = limits }

  var waiting: Int { queue.count }
  var isOpen: Bool { if case .closed = circuit { false } else { true } }

  mutating func admit(_ call: Call, nowNs: UInt64) -> Admission {
    switch circuit {
    case .open(let untilNs) where nowNs < untilNs: return .open(forNs: untilNs - nowNs)
    case .open:
      circuit = .probing
      inProgress += 1
      return .begin
    case .probing: return .open(forNs: 0)
    case .closed: break
    }
    if inProgress < limits.concurrent {
      inProgress += 1
      return .begin
    }
    guard queue.count < limits.waiting else { return .full }
    queue.append(call)
    return .waits
  }

  /// A call that had begun has ended.
  mutating func ended(isFailure: Bool, nowNs: UInt64) {
    inProgress -= 1
    guard isFailure else {
      circuit = .closed(failures: 0)
      return
    }
    switch circuit {
    case .closed(let failures) where failures + 1 < limits.failures: circuit = .closed(failures: failures + 1)
    case .closed, .probing: circuit = .open(untilNs: nowNs + limits.openNs)
    case .open: break
    }
  }

  /// A call that had begun was given up by its caller, which says nothing of the service.
  mutating func abandoned(nowNs: UInt64) {
    inProgress -= 1
    // The next one is the probe.
    if circuit == .probing { circuit = .open(untilNs: nowNs) }
  }

  /// The next waiting call that may begin now; nil: none may.
  mutating func next() -> Call? {
    guard case .closed = circuit, inProgress < limits.concurrent, let call = queue.popFirst() else {
      return nil
    }
    inProgress += 1
    return call
  }

  /// Takes out every waiting call for which `isOver` holds.
  mutating func remove(where isOver: (Call) -> Bool) -> [Call] {
    let over = queue.filter(isOver)
    if !over.isEmpty { queue.removeAll(where: isOver) }
    return Array(over)
  }
}
