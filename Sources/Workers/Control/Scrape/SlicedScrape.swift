// Runs a scrape beside everything else: the loop keeps answering while 64 workers are looked at.
//
//   loop    text() ──▶ step step step ┊ sockets ┊ step step ┊ sockets ┊ … ──┐              ┌──▶ bodies
//                      └── a slice ──┘          └ a slice ┘                 ▼              │
//   thread                                                                  sort and write ┘
//
// Requests that come while a scrape runs get its result: two scrapers cost as much as one, and no number of requests can
// make a queue of scrapes.

import Kit
import NIOCore
import NIOPosix

/// Makes the bodies of /metrics. Use it on its loop only.
final class SlicedScrape: @unchecked Sendable {
  /// One look at one thing; takes about a millisecond at most.
  typealias Step = (inout FamilyCollector) -> Void
  typealias Bodies = [ExpositionFormat: ByteBuffer]

  /// How long the loop works on a scrape without looking at its sockets, nanoseconds.
  static let sliceNs: UInt64 = 2_000_000
  /// For how long it does something else then. NIO looks at sockets only when no task is due.
  private static let pause = TimeAmount.microseconds(500)

  private enum Phase {
    case idle
    /// Steps are being made; `wanted` may still grow.
    case looking
    /// The thread writes what is wanted.
    case writing
  }

  private let loop: EventLoop
  private let thread: NIOThreadPool
  private let sliceNs: UInt64
  private let steps: [Step]
  /// Called with the number of series that were left out.
  private let dropped: (Int) -> Void
  private var phase = Phase.idle
  private var collector = FamilyCollector()
  private var wanted: Set<ExpositionFormat> = []
  private var result: EventLoopPromise<Bodies>

  /// - Parameter thread: borrowed; it must run as long as texts are asked for.
  init(
    loop: EventLoop, thread: NIOThreadPool, sliceNs: UInt64 = SlicedScrape.sliceNs, steps: [Step],
    dropped: @escaping (Int) -> Void = { _ in }
  ) {
    self.loop = loop
    self.thread = thread
    self.sliceNs = sliceNs
    self.steps = steps
    self.dropped = dropped
    result = loop.makePromise()
    result.succeed([:])
  }

  /// The numbers as of now, or of the scrape that is running.
  func text(_ format: ExpositionFormat) -> EventLoopFuture<ByteBuffer> {
    switch phase {
    case .idle:
      result = loop.makePromise()
      wanted = [format]
      collector = FamilyCollector()
      phase = .looking
      let future = result.futureResult
      look(from: 0)
      return future.map { $0[format] ?? ByteBuffer() }
    case .writing where !wanted.contains(format):
      // It is over before this continues.
      return result.futureResult.flatMap { _ in self.text(format) }
    case .looking, .writing:
      wanted.insert(format)
      return result.futureResult.map { $0[format] ?? ByteBuffer() }
    }
  }

  private func look(from first: Int) {
    let start = MonotonicTime.now()
    var next = first
    repeat {
      guard next < steps.count else { return write() }
      steps[next](&collector)
      next += 1
    } while MonotonicTime.now() &- start < sliceNs
    loop.assumeIsolated().scheduleTask(in: Self.pause) { self.look(from: next) }
  }

  private func write() {
    phase = .writing
    let (collector, wanted) = (self.collector, self.wanted)
    self.collector = FamilyCollector()
    thread.runIfActive(eventLoop: loop) { Self.bodies(of: collector, wanted) }
      .assumeIsolated().whenComplete { written in
        self.phase = .idle
        switch written {
        case .success(let (bodies, dropped)):
          self.dropped(dropped)
          self.result.succeed(bodies)
        case .failure(let error):
          self.result.fail(error)
        }
      }
  }

  private static func bodies(
    of collector: FamilyCollector, _ formats: Set<ExpositionFormat>
  ) -> (bodies: Bodies, dropped: Int) {
    var collector = collector
    let families = collector.families()
    var bodies: Bodies = [:]
    for format in formats { bodies[format] = ByteBuffer(bytes: Exposition.text(families, format)) }
    return (bodies, collector.dropped)
  }
}
