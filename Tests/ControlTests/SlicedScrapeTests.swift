// A scrape in slices of the loop's time.

import NIOCore
import NIOPosix
import Testing

@testable import Control

@Suite struct SlicedScrapeTests {
  /// A scrape of three steps, and what became of them. Touched on the loop only.
  private final class Run: @unchecked Sendable {
    private(set) var steps = 0
    private(set) var dropped: [Int] = []
    private var scrape: SlicedScrape?

    init(_ loop: EventLoop, _ thread: NIOThreadPool, sliceNs: UInt64) {
      let step: SlicedScrape.Step = { [unowned self] families in
        steps += 1
        families.set(.gauge, "step_\(steps)", [], .integer(1))
        families.add(.gauge, "not a series", 1)
      }
      scrape = SlicedScrape(
        loop: loop, thread: thread, sliceNs: sliceNs, steps: [step, step, step],
        dropped: { [unowned self] in dropped.append($0) })
    }

    /// The steps that are in the text, and whether it is OpenMetrics.
    func text(_ format: ExpositionFormat, on loop: EventLoop) -> EventLoopFuture<[String]> {
      guard let scrape else { return loop.makeSucceededFuture([]) }
      return scrape.text(format).map { body in
        String(buffer: body).split(separator: "\n").map(String.init)
          .filter { !$0.hasPrefix("# HELP") && !$0.hasPrefix("# TYPE") }
      }
    }
  }

  private func withRun(sliceNs: UInt64, _ body: (Run, EventLoop) async throws -> Void) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let thread = NIOThreadPool(numberOfThreads: 1)
    thread.start()
    let loop = group.next()
    let run = try await loop.submit { Run(loop, thread, sliceNs: sliceNs) }.get()
    let result: Result<Void, any Error>
    do { result = .success(try await body(run, loop)) } catch { result = .failure(error) }
    try await thread.shutdownGracefully()
    try await group.shutdownGracefully()
    try result.get()
  }

  @Test("A scrape that fits into a slice is made in one turn of the loop")
  func whole() async throws {
    try await withRun(sliceNs: .max) { run, loop in
      let (lines, steps) = try await loop.flatSubmit {
        let future = run.text(.prometheus, on: loop)
        let steps = run.steps
        return future.map { ($0, steps) }
      }.get()
      #expect(steps == 3)
      #expect(lines == ["step_1 1", "step_2 1", "step_3 1"])
      #expect(try await loop.submit { run.dropped }.get() == [1])
    }
  }

  @Test("A scrape that doesn't gives the loop back between slices, and serves all who ask meanwhile")
  func slices() async throws {
    try await withRun(sliceNs: 0) { run, loop in
      let (first, second, steps) = try await loop.flatSubmit {
        let first = run.text(.prometheus, on: loop)
        let second = run.text(.openMetrics, on: loop)
        let steps = run.steps
        return first.and(second).map { ($0, $1, steps) }
      }.get()
      #expect(steps == 1)
      #expect(first == ["step_1 1", "step_2 1", "step_3 1"])
      #expect(second == first + ["# EOF"])
      let third = try await loop.flatSubmit { run.text(.prometheus, on: loop) }.get()
      #expect(third == ["step_4 1", "step_5 1", "step_6 1"])
      #expect(try await loop.submit { run.dropped }.get() == [1, 1])
    }
  }

  @Test("Who asks for another format when the text is being written gets the next scrape")
  func late() async throws {
    try await withRun(sliceNs: .max) { run, loop in
      let (first, same, other, steps) = try await loop.flatSubmit {
        let first = run.text(.prometheus, on: loop)
        let same = run.text(.prometheus, on: loop)
        let other = run.text(.openMetrics, on: loop).and(run.text(.openMetrics, on: loop))
        let steps = run.steps
        return first.and(same).and(other).map { ($0.0, $0.1, [$1.0, $1.1], steps) }
      }.get()
      #expect(steps == 3)
      #expect(first == ["step_1 1", "step_2 1", "step_3 1"])
      #expect(same == first)
      let next = ["step_4 1", "step_5 1", "step_6 1", "# EOF"]
      #expect(other == [next, next])
    }
  }
}
