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
    let start = SharedClock.now()
    let end = start + UInt64(seconds * 1e9)
    sleeps = 0
    var now = start
    while now < end {
      sleeps += try drain(reader, link.wake, &sum)
      now = SharedClock.now()
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
        let now = SharedClock.now()
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

/// The writing child of a measurement.
struct BenchmarkPeer {
  static let command = "bench-writer"
  /// Records of one publication: what a worker takes from its source in one turn.
  private static let batch = 64
  /// The wake-up is measured of a reader that has slept this long, not of one that is just going to sleep.
  private static let restNanoseconds: UInt64 = 50_000
  /// What payloads consist of.
  static let word: UInt64 = 0x5A5A_5A5A_5A5A_5A5A
  private static let byte = UInt8(truncatingIfNeeded: word)
  private static let fullTurnsBetweenChecks = 1 << 20

  private let ring: CInt
  private let wake: [CInt]
  private let bytes: Int
  private let samples: Int
  private let sleeps: Bool

  init(_ options: ToolOptions) throws(ToolError) {
    ring = try options.number("--ring")
    wake = try options.numbers("--wake")
    bytes = try options.number("--bytes", 64)
    samples = try options.number("--samples", 0)
    sleeps = options.has("--sleeps")
  }

  func run() throws {
    let writer = try RingWriter(attaching: ring, wake: wake)
    if samples > 0 { try wakeUps(writer) } else { try flood(writer) }
  }

  private func flood(_ writer: RingWriter) throws {
    let parent = ParentWatch()
    let bytes = bytes
    var turns = 0
    while true {
      for _ in 0..<Self.batch {
        let result = writer.append(type: 1, length: bytes) { payload in
          payload.initializeMemory(as: UInt8.self, repeating: Self.byte)
        }
        if result == .full { break }
      }
      writer.publish()
      turns += 1
      if turns % Self.fullTurnsBetweenChecks == 0 { try parent.require() }
    }
  }

  private func wakeUps(_ writer: RingWriter) throws {
    let parent = ParentWatch()
    let inspector = try RingInspector(attaching: ring)
    for _ in 0..<samples {
      while try inspector.usage().readers.first?.isAsleep != true { try parent.require() }
      rest()
      _ = writer.append(type: 1, length: MemoryLayout<UInt64>.size) { payload in
        payload.storeBytes(of: SharedClock.now(), as: UInt64.self)
      }
      writer.publish()
    }
  }

  /// A worker sleeps until its next event, which leaves its core to the reader that it wakes then; a writer that never
  /// sleeps wakes its reader on another core, which on a virtual machine takes an interrupt by the hypervisor.
  private func rest() {
    if sleeps {
      var time = timespec(tv_sec: 0, tv_nsec: Int(Self.restNanoseconds))
      nanosleep(&time, nil)
    } else {
      let rested = SharedClock.now() + Self.restNanoseconds
      while SharedClock.now() < rested {}
    }
  }
}

/// Records of one size through a ring.
struct Throughput {
  let bytes: Int
  let recordsPerSecond: Double
  let records: UInt64
  /// How often the reader went to sleep: each costs a poll, a drain, and the writer's signal.
  let sleeps: Int

  var systemCallsPerMillionRecords: Double { Double(3 * sleeps) / Double(records) * 1e6 }
}

/// From publication to the sleeping reader's hand.
struct WakeUp {
  let samples: Int
  let medianMicroseconds: Double
  let p99Microseconds: Double

  init(_ nanoseconds: [UInt64]) {
    let sorted = nanoseconds.sorted()
    samples = sorted.count
    medianMicroseconds = Self.quantile(sorted, 0.5)
    p99Microseconds = Self.quantile(sorted, 0.99)
  }

  private static func quantile(_ sorted: [UInt64], _ share: Double) -> Double {
    guard !sorted.isEmpty else { return 0 }
    return Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]) / 1000
  }
}

struct BenchmarkReport {
  let throughput: [Throughput]
  /// The writer sleeps between two records.
  let wakeUp: WakeUp
  let wakeUpByBusyWriter: WakeUp

  var json: String {
    let entries = throughput.map {
      """
      {"bytes":\($0.bytes),"recordsPerSecond":\(Self.rounded($0.recordsPerSecond, 0)),\
      "systemCallsPerMillionRecords":\(Self.rounded($0.systemCallsPerMillionRecords, 2))}
      """
    }
    return """
      {"throughput":[\(entries.joined(separator: ","))],"wakeUp":\(Self.json(wakeUp)),\
      "wakeUpByBusyWriter":\(Self.json(wakeUpByBusyWriter))}
      """
  }

  private static func json(_ wakeUp: WakeUp) -> String {
    """
    {"samples":\(wakeUp.samples),\
    "medianMicroseconds":\(rounded(wakeUp.medianMicroseconds, 1)),\
    "p99Microseconds":\(rounded(wakeUp.p99Microseconds, 1))}
    """
  }

  var table: String {
    let rows = throughput.map {
      """
      \($0.bytes) B: \(Self.rounded($0.recordsPerSecond / 1e6, 2)) M records/s, \
      \(Self.rounded($0.recordsPerSecond * Double($0.bytes) / 1e6, 0)) MB/s, \
      \(Self.rounded($0.systemCallsPerMillionRecords, 2)) system calls per million records
      """
    }
    return
      (rows + [
        "wake-up: " + Self.text(wakeUp),
        "wake-up by a writer that never sleeps: " + Self.text(wakeUpByBusyWriter),
      ]).joined(separator: "\n")
  }

  private static func text(_ wakeUp: WakeUp) -> String {
    """
    median \(rounded(wakeUp.medianMicroseconds, 1)) µs, p99 \(rounded(wakeUp.p99Microseconds, 1)) µs \
    (\(wakeUp.samples) samples)
    """
  }

  private static func rounded(_ value: Double, _ digits: Int) -> String {
    var factor = 1.0
    for _ in 0..<digits { factor *= 10 }
    let scaled = (value * factor).rounded() / factor
    return digits == 0 ? "\(Int(scaled))" : "\(scaled)"
  }
}
