// The life of a worker on one event loop, the same for each of them.
//
//   make ──▶ begin ──▶ ready ──SIGTERM, SIGINT──▶ stop ──▶ end ──▶ run returns
//                        ├── eventfd: a ring has something for this worker
//                        ├── SIGHUP: files are to be read again
//                        └── once a second: beat, time-outs (nothing else wakes an idle worker)
//
// A worker that can't go on ends with its reason, at any time: `run` throws that.

import IPC
import Kit
import NIOCore
import NIOPosix

/// What a worker does in its life, on its loop.
public protocol LoopWorker: AnyObject, Sendable {
  /// Begins to serve; what it throws ends the worker.
  func begin() throws
  /// It serves, and everybody sees that.
  func began()
  /// A ring has something for it.
  func scheduleTurn()
  /// A second has passed.
  func tick()
  /// Files are to be read again.
  func reload()
  /// It is told to end, once. When it has, it calls `LoopLife.end`.
  func stop(_ signal: CInt)
}

/// `@unchecked Sendable`: made on the main thread, then used on its loop only.
public final class LoopLife: @unchecked Sendable {
  private static let beatInterval = TimeAmount.seconds(1)
  /// How often it is looked, while the worker ends, whether the last client has gone.
  private static let goneLook = TimeAmount.milliseconds(20)

  public let context: WorkerContext
  public let loop: EventLoop
  /// Whether the worker has been told to end.
  public private(set) var isStopping = false
  /// Tells the worker to end; nil: it hasn't begun, or has ended.
  private var tell: ((CInt) -> Void)?
  private let turns: TurnMeter
  private var signals: LoopSignals?
  private var reloads: LoopSignals?
  private var wake: LoopWake?
  private var heartbeat: RepeatedTask?
  /// nil before it has begun, and when it has ended.
  private var ended: EventLoopPromise<Void>?

  private init(_ context: WorkerContext, _ loop: EventLoop, _ turns: TurnMeter) {
    self.context = context
    self.loop = loop
    self.turns = turns
  }

  /// A worker's whole life: returns when it has ended in order, and throws why it couldn't go on.
  ///
  /// - Parameters:
  ///   - make: puts the worker together, before its loop does anything for it.
  ///   - beforeLoopEnds: the worker has ended, and its loop may still be called.
  public static func run<Worker: LoopWorker>(
    _ context: WorkerContext, beforeLoopEnds: () throws -> Void = {}, _ make: (LoopLife) throws -> Worker
  ) throws {
    let turns = TurnMeter(context)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: LoopTurns(turns))
    let life = LoopLife(context, group.next(), turns)
    let worker = try make(life)
    let result = Result { try life.loop.flatSubmit { life.begin(worker) }.wait() }
    try beforeLoopEnds()
    try group.syncShutdownGracefully()
    try result.get()
  }

  private func begin(_ worker: some LoopWorker) -> EventLoopFuture<Void> {
    let ended = loop.makePromise(of: Void.self)
    self.ended = ended
    tell = { worker.stop($0) }
    do {
      signals = try LoopSignals(descriptor: context.signals, on: loop) { [unowned self] in stop($0) }
      reloads = try LoopSignals(descriptor: context.reloads, on: loop) { _ in worker.reload() }
      wake = try LoopWake(eventfd: context.manifest.wake, on: loop) { worker.scheduleTurn() }
      try worker.begin()
    } catch {
      end(error)
      return ended.futureResult
    }
    heartbeat = loop.scheduleRepeatedTask(initialDelay: Self.beatInterval, delay: Self.beatInterval) { _ in
      self.context.status.beat()
      self.context.lookAtKeeper()
      worker.tick()
    }
    worker.scheduleTurn()
    context.status.beat()
    context.status.state = .ready
    turns.start()
    worker.began()
    return ended.futureResult
  }

  /// Tells the worker to end, as a signal does.
  public func stop(_ signal: CInt) {
    guard !isStopping else { return }
    isStopping = true
    tell?(signal)
  }

  /// While the worker ends: calls `look` again and again, until that returns true. It is the last time when `isLate`, since
  /// `patience` is over.
  public func whenGone(
    within patience: TimeAmount, _ look: @escaping @Sendable (_ isLate: Bool) -> Bool
  ) {
    let deadline = NIODeadline.now() + patience
    loop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.goneLook) { task in
      let isLate = NIODeadline.now() >= deadline
      if look(isLate) || isLate { task.cancel() }
    }
  }

  /// Nothing calls the worker any more: no signal, no ring, no second.
  public func quiet() {
    heartbeat?.cancel()
    signals?.stop()
    reloads?.stop()
    wake?.stop()
  }

  /// The worker has ended: in order, or because it can't go on.
  public func end(_ failure: (any Error)? = nil) {
    isStopping = true
    tell = nil
    quiet()
    guard let ended else { return }
    self.ended = nil
    if let failure { ended.fail(failure) } else { ended.succeed(()) }
  }
}

/// Tells a meter of each turn of the one loop of its group. A tick of NIO is the tasks of a turn alone; from the end of one tick to that
/// of the next one lie its sockets too.
public struct LoopTurns: NIOEventLoopMetricsDelegate {
  private let meter: TurnMeter

  public init(_ meter: TurnMeter) {
    self.meter = meter
  }

  public func processedTick(info: NIOEventLoopTickInfo) {
    meter.turnEnded(wallNs: info.endTime.uptimeNanoseconds)
  }
}
