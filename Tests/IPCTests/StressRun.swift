// The processes of the stress test, and what they leave behind.

import Glibc

@testable import IPC
@testable import RingTool

/// Why the stress test has failed.
struct StressFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// One writer and several readers, each replaced when it is killed.
final class StressRun {
  let logs: [CInt]
  private(set) var kills = 0
  /// Moments before a kill at which less than a largest record's room was left.
  private(set) var fullMoments = 0

  private let ring: TestRing
  private let inspector: RingInspector
  private let capacity: Int
  private let tool: String
  private var random: SplitMix
  /// The readers by slot, and the writer behind them.
  private var processes: [Participant]

  /// Dropped: kills and reaps its process.
  private final class Participant {
    var child: ChildProcess?
  }

  init(capacity: Int, readers: Int, seed: UInt64) throws {
    self.capacity = capacity
    ring = try TestRing(capacity: capacity, readers: readers)
    inspector = try RingInspector(attaching: ring.fd)
    tool = try Self.findTool()
    random = SplitMix(seed: seed)
    logs = try (0..<readers).map { _ in try SharedMemory.unsealed(name: "stress-log").take() }
    processes = (0...readers).map { _ in Participant() }
  }

  deinit {
    processes = []
    for log in logs { close(log) }
  }

  /// rig-ringtool lies beside the test bundle.
  static func findTool() throws -> String {
    var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let length = readlink("/proc/self/exe", &path, Int(PATH_MAX))
    let bundle = String(decoding: path.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let directory = bundle[..<(bundle.lastIndex(of: "/") ?? bundle.startIndex)]
    let tool = "\(directory)/rig-ringtool"
    guard access(tool, X_OK) == 0 else {
      throw StressFailure("\(tool) isn't there, build everything first: swift build --build-tests")
    }
    return tool
  }

  var everybodyHasRead: Bool {
    logs.allSatisfy { log in ((try? SharedMemory.size(of: log)) ?? 0) > 0 }
  }

  /// How often the writers have come past the end of the ring: positions count bytes.
  var laps: UInt64 {
    let bounds = try? RingSegment(mapping: ring.fd, access: .none).bounds()
    return (bounds?.tail ?? 0) / UInt64(capacity)
  }

  func startAll() throws {
    for index in processes.indices { try start(index) }
  }

  /// Kills the process with this index, wherever it is, and starts its successor.
  func killOne(_ index: Int) throws {
    let largest = RecordHeader.size(payload: capacity / RingLayout.payloadShare)
    if try inspector.usage().usedBytes > capacity - largest { fullMoments += 1 }
    try kill(index)
    try start(index)
  }

  /// Kills everybody, and lets last readers read to the end.
  ///
  /// - Returns: the sequence of the last published record.
  func finish() throws -> UInt64 {
    for index in processes.indices { try kill(index) }
    let last = try inspector.usage().tailSequence
    for slot in logs.indices { try start(slot, ["--until", "\(last)"]) }
    for slot in logs.indices {
      guard let child = processes[slot].child.take() else { continue }
      let status = child.wait()
      guard status == 0 else { throw StressFailure("the last reader \(slot) ended with \(status)") }
    }
    return last
  }

  /// Whether ring, cursors and sequence are as they have to be when everything is read.
  func isConsistent(last: UInt64) throws -> Bool {
    let writer = try ring.writer()
    guard writer.nextSequence == last + 1, writer.usedBytes == 0 else { return false }
    for slot in logs.indices {
      let reader = try ring.reader(slot)
      guard reader.lastSequence == last, try reader.next() == nil else { return false }
    }
    return try inspector.usage().retainedBytes <= capacity
  }

  private func start(_ index: Int, _ more: [String] = []) throws {
    let seed = ["--seed", "\(random.next())", "--ring", "\(ring.fd)"]
    if index < logs.count {
      let arguments = [
        "reader", "--slot", "\(index)", "--log", "\(logs[index])", "--wake", "\(ring.wake[index])",
      ]
      processes[index].child = try ChildProcess(
        tool, arguments + seed + more, inheriting: [ring.fd, logs[index], ring.wake[index]])
    } else {
      let wake = ring.wake.map(String.init).joined(separator: ",")
      processes[index].child = try ChildProcess(
        tool, ["writer", "--wake", wake] + seed + more, inheriting: [ring.fd] + ring.wake)
    }
  }

  private func kill(_ index: Int) throws {
    guard let child = processes[index].child.take() else { return }
    child.kill()
    let status = child.wait()
    kills += 1
    guard status == -SIGKILL else { throw StressFailure("process \(index) ended by itself with \(status)") }
  }
}

/// What the readers of one slot have written, in its order.
struct StressLog {
  let entries: [LogEntry]

  init(_ entries: [LogEntry]) { self.entries = entries }

  /// Reads a log, which consists of whole entries.
  init(reading fd: CInt) throws {
    let size = try SharedMemory.size(of: fd)
    guard size % LogEntry.bytes == 0 else { throw StressFailure("a log ends in the middle of an entry") }
    var words = [UInt64](repeating: 0, count: size / 8)
    let read = words.withUnsafeMutableBytes { pread(fd, $0.baseAddress, size, 0) }
    guard read == size else { throw StressFailure("a log can't be read") }
    entries = stride(from: 0, to: words.count, by: 4).map {
      LogEntry(process: words[$0], first: words[$0 + 1], last: words[$0 + 2], replayed: words[$0 + 3])
    }
  }

  var replayed: UInt64 { entries.reduce(0) { $0 + $1.replayed } }

  /// Records that were seen more than once.
  var repeated: UInt64 {
    zip(entries, entries.dropFirst()).reduce(0) {
      $0 + ($1.1.first <= $1.0.last ? $1.0.last - $1.1.first + 1 : 0)
    }
  }

  /// The first thing that contradicts the promise; nil if every record from 1 to `last` arrived, in order, and only
  /// the last batch of a killed process was seen again by its successor.
  func mistake(last: UInt64) -> String? {
    guard let first = entries.first else { return "nothing was read" }
    guard first.first == 1 else { return "the first record read is \(first.first)" }
    for (before, entry) in zip(entries, entries.dropFirst()) {
      guard entry.first <= entry.last else { return "an empty batch at \(entry.first)" }
      let continues = entry.first == before.last + 1
      let repeats = entry.process != before.process && entry.first == before.first
      guard continues || repeats else {
        return "\(entry.first) to \(entry.last) follows \(before.first) to \(before.last)"
      }
    }
    guard let end = entries.last, end.last == last else {
      return "the last record read is \(entries.last?.last ?? 0), expected \(last)"
    }
    return nil
  }
}
