// Replies that have to wait: for a check service, for the keys of tokens, or for their share of a turn.

import HTTP
import Kit
import NIOCore

enum Deferred {
  /// A reply that comes later, once. If the client goes first, it is given up.
  ///
  /// - Parameter start: begins what the reply waits for; it is given what takes the reply, and returns what gives it up.
  static func reply(
    on loop: EventLoop, _ start: (_ complete: @escaping (Reply) -> Void) -> (() -> Void)?
  ) -> Reply {
    let promise = loop.makePromise(of: Reply.self)
    var isSettled = false
    func settle(_ result: Result<Reply, any Error>) {
      guard !isSettled else { return }
      isSettled = true
      promise.assumeIsolated().completeWith(result)
    }
    let giveUp = start { settle(.success($0)) }
    return .eventually(
      promise.futureResult,
      onClientGone: {
        giveUp?()
        settle(.failure(ClientGone()))
      })
  }
}

/// Requests of which many may cost much: each has its turn (TurnWork).
struct SharedTurns {
  private static let retrySeconds = 1

  private let work: TurnWork
  private let clock: LoopClock
  private let metrics: WorkerMetrics

  init(_ work: TurnWork, _ clock: LoopClock, _ metrics: WorkerMetrics) {
    self.work = work
    self.clock = clock
    self.metrics = metrics
  }

  /// The reply of `body`, which costs so many units: at once if the turn has something left, else when its turn has come; 503 if too
  /// many wait already.
  func reply(costing units: Int, on loop: EventLoop, _ body: @escaping () -> Reply) -> Reply {
    var reply: Reply?
    var complete: ((Reply) -> Void)?
    var isGivenUp = false
    let isTaken = work.start { [work, clock] _ in
      guard !isGivenUp else { return true }
      work.spend(units)
      clock.refresh()
      if let complete { complete(body()) } else { reply = body() }
      return true
    }
    if let reply { return reply }
    guard isTaken else {
      metrics.refused(SubscriptionLimit.waiting)
      return .response(
        .unavailable(retryAfterSeconds: Self.retrySeconds, WorkerAnswer.tooMuchWaits.text))
    }
    return Deferred.reply(on: loop) {
      complete = $0
      return { isGivenUp = true }
    }
  }
}

/// The client didn't wait for its answer; nobody sees this.
struct ClientGone: Error {}
