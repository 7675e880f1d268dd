// A second source, to show what one takes: files that grow, as `tail -F` follows them. Each line is an event. The topic is the path, the
// partition 0, an offset that of the line's last octet: what comes next begins behind it.
//
// A file that is moved away is read to its end, then the one that stands in its place is another log. So it is with one that was cut off.

import Foundation
import Glibc
import IPC
import Kit
import Logging

@testable import Kafka

/// Lines of files, as records.
final class FileTail: RecordSource {
  static let source = EventOrigin.Source(rawValue: 0xF11E)

  private struct File {
    let descriptor: CInt
    var offset: Int64
  }

  private enum InHand {
    case line(Range<Int>, offset: Int64, of: Int)
    case replaced(Int)
  }

  private let state: ReadState
  private var files: [Int: File] = [:]
  private var last = 0
  private let chunk: UnsafeMutableRawBufferPointer
  private var inHand: ArraySlice<InHand> = []

  init(_ state: ReadState, chunkBytes: Int = 1 << 16) {
    self.state = state
    chunk = .allocate(byteCount: chunkBytes, alignment: 8)
  }

  deinit {
    discard()
    chunk.deallocate()
  }

  /// Begins to read; false: there is no such file now.
  func open(_ number: Int, at offset: Int64) -> Bool {
    let descriptor = Glibc.open(state.name(number).topic, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    files[number] = File(descriptor: descriptor, offset: offset)
    return true
  }

  /// One file's lines at a time, in turn.
  func fetch(atMost most: Int) {
    guard inHand.isEmpty else { return }
    let numbers = files.keys.sorted()
    for number in numbers.filter({ $0 > last }) + numbers.filter({ $0 <= last }) where inHand.isEmpty {
      last = number
      read(number, most)
    }
  }

  private func read(_ number: Int, _ most: Int) {
    guard var file = files[number] else { return }
    let count = pread(file.descriptor, chunk.baseAddress, chunk.count, off_t(file.offset))
    var start = 0
    let text = chunk[..<max(0, count)]
    while inHand.count < most, let end = text[start...].firstIndex(of: UInt8(ascii: "\n")) {
      inHand.append(.line(start..<end, offset: file.offset + Int64(end), of: number))
      start = end + 1
    }
    file.offset += Int64(start)
    files[number] = file
    if start == 0, isReplaced(number, file) { inHand.append(.replaced(number)) }
  }

  private func isReplaced(_ number: Int, _ file: File) -> Bool {
    var (own, named) = (stat(), stat())
    guard fstat(file.descriptor, &own) == 0, stat(state.name(number).topic, &named) == 0 else { return false }
    return own.st_ino != named.st_ino || Int64(own.st_size) < file.offset
  }

  var current: SourceItem? {
    switch inHand.first {
    case .line(let range, let offset, let number)?:
      let line = UnsafeRawBufferPointer(rebasing: chunk[range])
      return .record(SourceRecord(partition: number, offset: offset, value: line))
    case .replaced(let number)?:
      return .outOfRange(partition: number, reason: "another file stands in its place")
    case nil: return nil
    }
  }

  func advance() { inHand.removeFirst() }

  func forget(_ partitions: [Int]) {
    inHand.removeAll {
      switch $0 {
      case .line(_, _, let number), .replaced(let number): partitions.contains(number)
      }
    }
    for number in partitions { if let file = files.removeValue(forKey: number) { close(file.descriptor) } }
  }

  func discard() {
    inHand = []
    for file in files.values { close(file.descriptor) }
    files = [:]
  }
}

/// A file as a log, for the comparison with what was read of it.
struct FileLog {
  private let bytes: [UInt8]

  init(_ path: String) { bytes = (try? Data(contentsOf: URL(fileURLWithPath: path))).map(Array.init) ?? [] }

  /// Up to the end of the last whole line.
  var offsets: Range<Int64> { 0..<Int64((bytes.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1) }

  func compare(_ known: KnownPosition) -> LogVerdict {
    var comparison = LogComparison(known.trail, log: offsets, knownEnd: known.logEnd)
    while true {
      switch comparison.step {
      case .read(let offset): comparison.record(mark(from: offset))
      // Lines have no timestamps.
      case .find: comparison.first(nil)
      case .measure: comparison.end(offsets.upperBound)
      case .done(let verdict): return verdict
      }
    }
  }

  private func mark(from offset: Int64) -> ReadTrail.Mark? {
    let end = Int(offset)
    // Where no line ends another file stands, and not one with a line less.
    guard bytes[end] == UInt8(ascii: "\n") else {
      return ReadTrail.Mark(offset: offset, timestampMs: -1, digest: 0)
    }
    let start = (bytes[..<end].lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1
    return bytes.withUnsafeBytes {
      SourceRecord(
        partition: 0, offset: offset, value: UnsafeRawBufferPointer(rebasing: $0[start..<end])
      ).mark
    }
  }
}

/// The worker that reads files into the event ring: what ConsumerLoop is to Kafka.
final class TailWorker {
  let state = ReadState()
  let metrics: StreamMetrics
  private let status: StatusPage
  private let writer: EventWriter
  private let intake: Intake
  private let tail: FileTail
  private let left: RingPositions
  private let positions: PositionKeeper
  private var ends = LogEnds()

  init(_ gateway: TestGateway, _ paths: [String]) throws {
    let context = try gateway.context()
    status = context.status
    writer = try context.eventWriter()
    left = try RingPositions(of: FileTail.source, in: writer.ring)
    positions = try PositionKeeper(context, of: paths, eventRingEpoch: writer.ring.epoch)
    metrics = StreamMetrics(context.status, ring: "events.streams", source: "file")
    intake = Intake(
      from: FileTail.source, writer: writer, parser: EventParser(settings: context.settings), state: state,
      metrics: metrics, ringEnd: left.ringEnd, log: context.log)
    tail = FileTail(state)
    state.learn(paths.map { TopicPartition(topic: $0, partition: 0) })
  }

  var isHeld: Bool { intake.isHeld }

  func value(_ series: String) -> Int64? {
    status.metrics().first { $0.series == series }?.value
  }

  /// Does what there is to do, and what a second would bring.
  func turn() {
    for (number, seen) in state.table.waiting { begin(number, seen) }
    intake.fetch(from: tail)
    _ = intake.turn()
    positions.keepTaken(state, ends, ringEnd: intake.ringEnd)
    for trouble in intake.takeTroubles() {
      if case .outOfRange(let number, _) = trouble { intake.forget([number]) }
    }
    for number in state.table.entries.indices where state.table.isReading(number) {
      ends.note(number, told: FileLog(state.name(number).topic).offsets.upperBound)
    }
    state.ledger.readersPassed(writer.ring.slowestReaderPosition())
    positions.keepPassed(state, ends, ringEnd: intake.ringEnd)
  }

  private func begin(_ number: Int, _ seen: FirstSeen) {
    let name = state.name(number)
    let log = FileLog(name.topic)
    let own = state.trail(number).map { KnownPosition(trail: $0, reason: .own, logEnd: nil) }
    let start: StartPosition
    if let known = own ?? positions.known(name, ring: left.last[name]) {
      start = StartPosition(known, log.compare(known))
    } else {
      start = .unread(seen: seen, edge: seen.edge == .end ? log.offsets.upperBound : 0)
    }
    // Offsets count octets: how many lines they were isn't known.
    let hasLost = start.verdict.map { $0.lost > 0 } ?? false
    guard !hasLost || intake.tell(nil, of: name, before: start.offset),
      tail.open(number, at: start.offset)
    else { return }
    state.update { $0.isAssigned(number) }
    state.begin(number, start, ringEnd: intake.ringEnd)
  }

  /// As a killed process leaves it.
  func vanish() { intake.discard() }
}
