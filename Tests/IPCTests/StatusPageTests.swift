// What a worker shows of itself, to whom, and what of it outlives the worker.

import Glibc
import Testing

@testable import IPC

/// A status page of the test; closes itself.
final class TestPage {
  let fd: CInt

  init() throws { fd = try StatusPage.create(name: "test").take() }

  deinit { close(fd) }

  /// A page as a process sees it that has just mapped it.
  func attach() throws -> StatusPage { try StatusPage(attaching: fd) }

  /// The same for a worker that begins its life on it.
  func worker(pid: Int32 = 4711) throws -> StatusPage {
    let page = try attach()
    page.beginGeneration(pid: pid)
    return page
  }
}

@Suite("A status page")
struct StatusPageTests {
  @Test("starts with nothing")
  func fresh() throws {
    let page = try TestPage().attach()
    #expect(page.generation == 0 && page.pid == 0 && page.heartbeat == 0)
    #expect(page.state == .starting && page.connectionWindow == 0)
    #expect(page.metrics().isEmpty)
    #expect(page.takeCorruptReport() == nil)
  }

  @Test("shows process, state and connections to everybody at once")
  func process() throws {
    let test = try TestPage()
    let (worker, observer) = (try test.worker(pid: -2), try test.attach())
    #expect(observer.generation == 1 && observer.pid == -2)
    for state in WorkerState.allCases {
      worker.state = state
      #expect(observer.state == state)
    }
    worker.connectionWindow = 29_000_000 << 32 | 17
    #expect(observer.connectionWindow == 29_000_000 << 32 | 17)
  }

  @Test("beats with the time of the monotonic clock")
  func heartbeat() throws {
    let test = try TestPage()
    let before = SharedClock.now()
    let (worker, observer) = (try test.worker(), try test.attach())
    let first = observer.heartbeat
    #expect(first >= before, "a generation begins with a beat")
    worker.beat()
    #expect(observer.heartbeat >= first && observer.heartbeat <= SharedClock.now())
  }

  @Test("continues counters over the generations, and begins gauges at 0")
  func generations() throws {
    let test = try TestPage()
    for generation in 1...3 as ClosedRange<Int64> {
      let worker = try test.worker(pid: Int32(generation))
      #expect(worker.generation == UInt64(generation))
      let counter = try #require(worker.metric(.counter, "rig_events_total", labels: [("type", "a")]))
      let gauge = try #require(worker.metric(.gauge, "rig_connections"))
      #expect(counter.value == (generation - 1) * 5)
      #expect(gauge.value == 0)
      counter.add(5)
      gauge.set(generation)
      gauge.add(-10)
      #expect(gauge.value == generation - 10)
    }
    #expect(
      try test.attach().metrics().map(\.value) == [15, -7], "until the next generation begins, both are kept")
  }

  @Test("forgets state and corruption report of the generation before")
  func forgets() throws {
    let test = try TestPage()
    let worker = try test.worker()
    worker.state = .stopping
    worker.reportCorrupt(RingReport(ring: 3, epoch: 0))
    let successor = try test.worker(pid: 5)
    #expect(successor.state == .starting && successor.pid == 5)
    #expect(successor.takeCorruptReport() == nil)
  }

  @Test(
    "hands a corruption report on once, about ring 0 as about any other", arguments: [0, 1, UInt32.max],
    [nil, 0, 1, 1023] as [UInt64?])
  func corruptReport(ring: UInt32, epoch: UInt64?) throws {
    let test = try TestPage()
    let (worker, supervisor) = (try test.worker(), try test.attach())
    let report = RingReport(ring: ring, epoch: epoch)
    worker.reportCorrupt(RingReport(ring: 77, epoch: 2))
    worker.reportCorrupt(report)
    #expect(supervisor.takeCorruptReport() == report, "the later report counts")
    #expect(supervisor.takeCorruptReport() == nil)
    #expect(worker.takeCorruptReport() == nil)
  }

  @Test("shows a number to all who have mapped it, whoever changes it")
  func shared() throws {
    let test = try TestPage()
    let (first, second) = (try test.worker(), try test.attach())
    let counter = try #require(first.metric(.counter, "a"))
    counter.add(3)
    #expect(second.metrics().map(\.value) == [3])
    // The second page was attached before the number existed, a third is attached afterwards.
    let third = try test.attach()
    try #require(third.metric(.counter, "a")).add(4)
    #expect(counter.value == 7)
    #expect(first.metrics().map(\.series) == ["a"] && second.metrics().map(\.value) == [7])
  }

  @Test("gives the same number for the same name and labels, and another for others")
  func identity() throws {
    let page = try TestPage().worker()
    let labels = [[], [("a", "1")], [("a", "2")], [("a", "1"), ("b", "1")], [("b", "1"), ("a", "1")]]
    for (index, labels) in labels.enumerated() {
      try #require(page.metric(.counter, "n", labels: labels)).set(Int64(index))
    }
    for (index, labels) in labels.enumerated() {
      #expect(page.metric(.counter, "n", labels: labels)?.value == Int64(index))
    }
    #expect(page.metrics().count == labels.count)
  }

  @Test("names series as Prometheus does, with values escaped")
  func series() throws {
    let page = try TestPage().worker()
    _ = page.metric(.counter, "plain")
    _ = page.metric(.gauge, "g", labels: [("path", #"C:\x "y""# + "\n"), ("ü", "€")])
    let metrics = page.metrics()
    #expect(metrics.map(\.series) == ["plain", #"g{path="C:\\x \"y\"\n",ü="€"}"#])
    #expect(metrics.map(\.kind) == [.counter, .gauge])
  }

  @Test("refuses a series that is too long, or would break the line of /metrics")
  func refusedSeries() throws {
    let page = try TestPage().worker()
    #expect(page.metric(.counter, String(repeating: "x", count: 200)) != nil)
    #expect(page.metric(.counter, String(repeating: "x", count: 201)) == nil)
    #expect(page.metric(.counter, String(repeating: "ü", count: 101)) == nil, "bytes count, not characters")
    for text in ["", "a\nb", "a\u{0}b", "a\u{7F}b", "a\rb"] {
      #expect(page.metric(.counter, text) == nil)
    }
    #expect(page.metric(.counter, "x", labels: [("l", "a\u{1}b")]) == nil)
    #expect(page.metrics().count == 1)
  }

  @Test("has room for 4096 numbers, and answers nil for the next")
  func fullTable() throws {
    let test = try TestPage()
    let page = try test.worker()
    for index in 0..<StatusLayout.maximumEntries {
      try #require(page.metric(.counter, "n", labels: [("i", "\(index)")])).set(Int64(index))
    }
    #expect(page.metric(.counter, "one_more") == nil)
    #expect(
      page.metric(.counter, "n", labels: [("i", "4095")])?.value == 4095, "those that exist are still found")
    let successor = try test.worker()
    #expect(successor.metrics().count == 4096 && successor.metrics().last?.value == 4095)
    #expect(successor.metric(.counter, "one_more") == nil)
    #expect(successor.metric(.counter, "n", labels: [("i", "17")])?.value == 17)
  }

  @Test("turns a number of the other kind, left by another release, into one of this kind at 0")
  func otherKind() throws {
    let test = try TestPage()
    try #require(test.worker().metric(.gauge, "n")).set(8)
    let successor = try test.worker()
    let counter = try #require(successor.metric(.counter, "n"))
    #expect(counter.value == 0)
    counter.add(2)
    #expect(try test.worker().metrics().map { "\($0.kind) \($0.series) \($0.value)" } == ["counter n 2"])
  }

  @Test("counts right when many threads count")
  func threads() async throws {
    let page = try TestPage().worker()
    await withTaskGroup(of: Void.self) { group in
      for task in 0..<8 {
        group.addTask {
          for _ in 0..<1000 { page.metric(.counter, "shared")?.add() }
          page.metric(.counter, "own", labels: [("task", "\(task)")])?.add()
        }
      }
    }
    #expect(page.metric(.counter, "shared")?.value == 8000)
    #expect(page.metrics().count == 9)
  }

  @Test("is empty after a reset, and keeps its mappings")
  func reset() throws {
    let test = try TestPage()
    let worker = try test.worker()
    try #require(worker.metric(.counter, "a")).add(3)
    worker.reportCorrupt(RingReport(ring: 1, epoch: 0))
    try Vandal(test.fd).setWord(StatusLayout.magicOffset, 0)
    #expect(throws: IPCError.self) { try test.attach() }
    try StatusPage.reset(test.fd)
    let successor = try test.worker()
    #expect(successor.generation == 1 && successor.metrics().isEmpty)
    #expect(successor.metric(.counter, "a")?.value == 0)
    #expect(worker.metrics().map(\.series) == ["a"])
  }

  @Test("with more entries than it has room for is refused")
  func impossibleCount() throws {
    let test = try TestPage()
    try Vandal(test.fd).setWord(StatusLayout.countOffset, 4097)
    #expect(throws: IPCError.self) { try test.attach() }
  }
}
