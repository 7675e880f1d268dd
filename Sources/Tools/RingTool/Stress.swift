// A reader of the stress test. Its effect is an entry in its log, written before the batch is committed.
//
//   log:  | process id | first sequence | last sequence | replayed records |    4 × 8 bytes per batch
//
// 32 bytes divide a page: a kill can't leave half an entry. Now and then it reads again what lies behind it, and
// finds the same, or is told that it is gone.

import Glibc
import IPC

/// One batch that took effect.
struct LogEntry: Equatable {
  static let bytes = 32

  var process: UInt64
  var first: UInt64
  var last: UInt64
  var replayed: UInt64
}

struct StressReader {
  private static let largestBatch = 60
  private static let replayEvery: UInt64 = 8
  /// One batch in so many rests between its log entry and its commit, so that a kill hits that gap, too.
  private static let restEvery: UInt64 = 16
  /// No record for so long means that the test has gone wrong.
  private static let patienceMilliseconds: CInt = 20_000

  private let ring: CInt
  private let wake: CInt
  private let slot: Int
  private let log: CInt
  private let until: UInt64
  private var random: SplitMix

  init(_ options: ToolOptions) throws(ToolError) {
    ring = try options.number("--ring")
    wake = try options.number("--wake")
    slot = try options.number("--slot")
    log = try options.number("--log")
    until = try options.number("--until", UInt64.max)
    random = SplitMix(seed: try options.number("--seed"))
  }

  mutating func run() throws {
    let reader = try RingReader(attaching: ring, slot: slot)
    let parent = ParentWatch()
    while reader.lastSequence < until {
      try parent.require()
      let first = reader.lastSequence + 1
      try readBatch(reader, first)
      if reader.lastSequence >= first {
        let replayed = try replayed(reader)
        try append(
          LogEntry(
            process: UInt64(getpid()), first: first, last: reader.lastSequence, replayed: replayed))
        if UInt64.random(in: 0..<Self.restEvery, using: &random) == 0 { Waiting.moment() }
        reader.commit()
      } else if reader.declareAsleep() {
        let woken = Waiting.readable(wake, milliseconds: Self.patienceMilliseconds)
        reader.declareAwake()
        EventFD.drain(wake)
        guard woken else { throw ToolError.wrongRecord("reader \(slot) was not woken after \(first - 1)") }
      }
    }
  }

  private mutating func readBatch(_ reader: RingReader, _ first: UInt64) throws {
    var expected = first
    for _ in 0..<Int.random(in: 1...Self.largestBatch, using: &random) {
      guard let record = try reader.next() else { return }
      guard record.sequence == expected else {
        throw ToolError.wrongRecord("reader \(slot) found sequence \(record.sequence), expected \(expected)")
      }
      try verify(record, reader)
      expected += 1
    }
  }

  /// Reads a random stretch behind the cursor again.
  ///
  /// - Returns: the number of records seen.
  private mutating func replayed(_ reader: RingReader) throws -> UInt64 {
    let last = reader.lastSequence
    guard UInt64.random(in: 0..<Self.replayEvery, using: &random) == 0 else { return 0 }
    let after = last - min(last, UInt64.random(in: 0...400, using: &random))
    var expected = after + 1
    var failure: ToolError?
    let result = try reader.replay(after: after, through: last) { record in
      do {
        guard record.sequence == expected else {
          throw ToolError.wrongRecord("replay found sequence \(record.sequence), expected \(expected)")
        }
        try verify(record, reader)
      } catch {
        failure = error as? ToolError ?? .unusable("\(error)")
        return false
      }
      expected += 1
      return true
    }
    if let failure { throw failure }
    switch result {
    case .complete:
      guard expected == last + 1 else {
        throw ToolError.wrongRecord("replay ended before \(expected), expected to reach \(last)")
      }
    case .lost(let available):
      guard available > expected else {
        throw ToolError.wrongRecord("replay lost \(expected), and offers \(available)")
      }
    case .stopped:
      throw ToolError.wrongRecord("replay stopped by itself")
    }
    return expected - after - 1
  }

  private func verify(_ record: RingRecord, _ reader: RingReader) throws(ToolError) {
    guard StressRecord(sequence: record.sequence, maximumPayload: reader.maximumPayload).matches(record)
    else {
      throw .wrongRecord("record \(record.sequence) in slot \(slot) has other bytes than its writer wrote")
    }
  }

  private func append(_ entry: LogEntry) throws(ToolError) {
    let written = withUnsafeBytes(of: entry) { write(log, $0.baseAddress, LogEntry.bytes) }
    guard written == LogEntry.bytes else { throw .unusable("the log took \(written) bytes of an entry") }
  }
}

/// The writer of the stress test: appends batches of random size until it is killed, wherever that may be.
struct StressWriter {
  /// Records of one publication, at most.
  private static let largestBatch = 40

  private let ring: CInt
  private let wake: [CInt]
  private let records: UInt64
  private var random: SplitMix

  init(_ options: ToolOptions) throws(ToolError) {
    ring = try options.number("--ring")
    wake = try options.numbers("--wake")
    records = try options.number("--records", UInt64.max)
    random = SplitMix(seed: try options.number("--seed"))
  }

  mutating func run() throws {
    let writer = try RingWriter(attaching: ring, wake: wake)
    let parent = ParentWatch()
    var left = records
    while left > 0 {
      try parent.require()
      let batch = min(left, UInt64.random(in: 1...UInt64(Self.largestBatch), using: &random))
      for _ in 0..<batch {
        let record = StressRecord(sequence: writer.nextSequence, maximumPayload: writer.maximumPayload)
        while true {
          let result = writer.append(type: record.type, length: record.length) { record.fill($0) }
          if case .appended = result { break }
          guard result == .full else { throw ToolError.unusable("append answered \(result)") }
          writer.publish()
          try parent.require()
          Waiting.moment()
        }
      }
      writer.publish()
      left -= batch
    }
  }
}

/// A small generator of evenly distributed numbers (SplitMix64), the same in every process.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// The record that belongs to a sequence.
struct StressRecord {
  let type: UInt16
  let length: Int
  private let seed: UInt64

  /// Most are small, some nearly as large as the ring allows, some empty.
  init(sequence: UInt64, maximumPayload: Int) {
    var random = SplitMix(seed: sequence)
    type = UInt16.random(in: 1...UInt16.max, using: &random)
    let limit = Int.random(in: 0..<16, using: &random) == 0 ? maximumPayload : min(maximumPayload, 300)
    length = Int.random(in: 0...limit, using: &random)
    seed = random.next()
  }

  func fill(_ bytes: UnsafeMutableRawBufferPointer) {
    for index in bytes.indices { bytes[index] = byte(index) }
  }

  func matches(_ record: RingRecord) -> Bool {
    guard record.type == type, record.bytes.count == length else { return false }
    return record.bytes.indices.allSatisfy { record.bytes[$0] == byte($0) }
  }

  private func byte(_ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: seed &+ UInt64(index) &* 31)
  }
}
