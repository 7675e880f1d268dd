// Measures a ring between two processes: this one reads, a child writes.
//
// Throughput: the reader sleeps when it finds nothing, as a worker does; the writer turns in a loop when the ring is
// full, because something must always be ready. Wake-up latency: the writer waits until the reader has declared itself
// asleep, rests, and puts the time into one record; once with a writer that sleeps between records, as workers do, and
// once with one that doesn't.

import CLinux
import Glibc
import IPC

struct Benchmark {
  static let ringBytes = 16 << 20
  static let sizes = [64, 256, 4096]
  /// Records between two commits of the reader, at most.
  static let readerBatch = 256

  private let seconds: Double
  private let samples: Int
  private let json: Bool

  init(_ options: ToolOptions) throws(ToolError) {
    let wanted: Int = try options.number("--seconds", 2)
    samples = try options.number("--samples", 20_000)
    guard (1...3600).contains(wanted), (1...10_000_000).contains(samples) else {
      throw .usage("--seconds is \(wanted) and --samples \(samples), expected 1 to 3600 and 1 to 10000000")
    }
    seconds = Double(wanted)
    json = options.has("--json")
  }

  func run() throws {
    var throughput: [Throughput] = []
    for size in Self.sizes { throughput.append(try measureThroughput(size)) }
    let report = BenchmarkReport(
      throughput: throughput, wakeUp: try measureWakeUp(writerSleeps: true),
      wakeUpByBusyWriter: try measureWakeUp(writerSleeps: false))
    print(json ? report.json : report.table)
  }

  private func measureThroughput(_ bytes: Int) throws -> Throughput {
    let link = try BenchmarkLink()
    let child = try link.spawn(["--bytes", "\(bytes)"])
    let reader = try RingReader(attaching: link.ring, slot: 0)
    var sum: UInt64 = 0
    var sleeps = 0

    // Until the child writes at full speed, and every page of the ring has been touched once.
    let warmUp = UInt64(2 * Self.ringBytes / (bytes + 16))
    while reader.lastSequence < warmUp { sleeps += try drain(reader, link.wake, &sum) }

    let firstSequence = reader.lastSequence
    let start = Waiting.nanoseconds()
    let end = start + UInt64(seconds * 1e9)
    sleeps = 0
    var now = start
    while now < end {
      sleeps += try drain(reader, link.wake, &sum)
      now = Waiting.nanoseconds()
    }
    let records = reader.lastSequence - firstSequence
    child.kill()
    _ = child.wait()
    let words = reader.lastSequence * UInt64(bytes / 8)
    guard sum == words &* BenchmarkPeer.word else {
      throw ToolError.wrongRecord("the sum over \(words) words of payload is wrong")
    }
    return Throughput(
      bytes: bytes, recordsPerSecond: Double(records) / (Double(now - start) / 1e9), records: records,
      sleeps: sleeps)
  }

  /// Reads until nothing is left for the moment, at most a few thousand records, then sleeps.
  private func drain(_ reader: RingReader, _ wake: CInt, _ sum: inout UInt64) throws -> Int {
    let recordsBetweenLooksAtTheClock = 64 * Self.readerBatch
    var total = 0
    while total < recordsBetweenLooksAtTheClock {
      var batch = 0
      while batch < Self.readerBatch, let record = try reader.next() {
        sum &+= Self.sum(of: record.bytes)
        batch += 1
      }
      reader.commit()
      total += batch
      if batch < Self.readerBatch {
        guard reader.declareAsleep() else { continue }
        let woken = Waiting.readable(wake, milliseconds: 10_000)
        reader.declareAwake()
        EventFD.drain(wake)
        guard woken else { throw ToolError.wrongRecord("the reader was not woken") }
        return 1
      }
    }
    return 0
  }

  /// Reads every word of a payload, as somebody does who has a use for it.
  private static func sum(of payload: UnsafeRawBufferPointer) -> UInt64 {
    var sum: UInt64 = 0
    for offset in stride(from: 0, to: payload.count & ~7, by: 8) {
      sum &+= payload.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }
    return sum
  }

  private func measureWakeUp(writerSleeps: Bool) throws -> WakeUp {
    let link = try BenchmarkLink()
    let child = try link.spawn(["--samples", "\(samples)"] + (writerSleeps ? ["--sleeps"] : []))
    let reader = try RingReader(attaching: link.ring, slot: 0)
    var latencies: [UInt64] = []
    latencies.reserveCapacity(samples)
    while latencies.count < samples {
      if let record = try reader.next() {
        let now = Waiting.nanoseconds()
        latencies.append(now - record.bytes.load(as: UInt64.self))
        reader.commit()
      } else if reader.declareAsleep() {
        let woken = Waiting.readable(link.wake, milliseconds: 10_000)
        EventFD.drain(link.wake)
        guard woken else { throw ToolError.wrongRecord("the reader was not woken") }
      }
    }
    let status = child.wait()
    guard status == 0 else { throw ToolError.unusable("the writer ended with status \(status)") }
    return WakeUp(latencies)
  }
}

/// A ring and an eventfd that a child inherits.
final class BenchmarkLink {
  let ring: CInt
  let wake: CInt

  init() throws {
    ring = try Ring.create(name: "ringtool", capacity: Benchmark.ringBytes, readers: 1).take()
    wake = try EventFD.create().take()
  }

  deinit {
    close(ring)
    close(wake)
  }

  func spawn(_ arguments: [String]) throws(ToolError) -> ChildProcess {
    try ChildProcess(
      "/proc/self/exe",
      [BenchmarkPeer.command, "--ring", "\(ring)", "--wake", "\(wake)"] + arguments,
      inheriting: [ring, wake])
  }
}
