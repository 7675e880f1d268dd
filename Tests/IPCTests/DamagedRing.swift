// A ring with a reader and a writer at work, a vandal, and everything that can be done with such a ring.

import CLinux
import Testing

@testable import IPC
@testable import RingTool

final class DamagedRing {
  /// What the ring looks like before the damage.
  enum Shape: CaseIterable, Sendable {
    /// Nothing was ever written.
    case new
    /// Records that nobody has read.
    case unread
    /// Many laps, everything read: all history.
    case history
    /// Many laps, half of what is retained unread, padding at the wrap.
    case wrapped
    /// As `wrapped`, after two resets: positions and sequences have an epoch.
    case epoch
  }

  static let capacity = 8192
  static let readers = 2
  /// More records than a ring of this size can hold: whoever sees more is walking in circles.
  private static let impossibleCount = capacity / 8 + 1

  let ring: TestRing
  let vandal: Vandal
  private let writer: RingWriter
  private let reader: RingReader
  /// What should not have happened.
  private(set) var complaints: [String] = []

  var fd: CInt { ring.fd }

  init(_ shape: Shape, _ random: inout SplitMix) throws {
    ring = try TestRing(capacity: Self.capacity, readers: Self.readers)
    if shape == .epoch {
      try Ring.reset(ring.fd)
      try Ring.reset(ring.fd)
    }
    (writer, reader) = (try ring.writer(), try ring.reader(0))
    vandal = try Vandal(ring.fd)
    let other = try ring.reader(1)
    let laps = shape == .new || shape == .unread ? 0 : 3
    while writer.nextSequence & RingLayout.withinEpoch < UInt64(laps * 60) {
      let length = Int.random(in: 0...500, using: &random)
      guard writer.append([UInt8](repeating: 9, count: length)) != .full else {
        throw IPCError.invalid("the ring is full although everything is committed")
      }
      writer.publish()
      _ = (try reader.next(), try other.next())
      reader.commit()
      other.commit()
    }
    guard shape != .new, shape != .history else { return }
    for _ in 0..<10 { writer.send(8, count: Int.random(in: 0...300, using: &random)) }
    // In the midst of a batch.
    for _ in 0..<3 { _ = try reader.next() }
    writer.append([1, 2, 3])
  }

  func usage() throws -> RingUsage { try ring.usage() }

  // MARK: Damage

  /// Values that a bound, a sum or a shift may stumble over.
  var harmfulValues: [UInt64] {
    let (head, tail) = (vandal.word(RingLayout.headOffset), vandal.word(RingLayout.tailOffset))
    return [
      0, 1, 7, 8, .max, .max - 7, 1 << 63, UInt64(Int64.max), 1 << 54, 1023 << 54, 0xFFFF_FFFF, 1 << 32,
      UInt64(Self.capacity), UInt64(Self.capacity) + 8, head &- 8, head &+ 8, tail &- 8, tail &+ 8,
      tail &+ UInt64(Self.capacity), head &- UInt64(Self.capacity),
    ]
  }

  func damage(_ random: inout SplitMix) throws {
    for _ in 0..<Int.random(in: 1...4, using: &random) { try damageOnce(&random) }
  }

  private func damageOnce(_ random: inout SplitMix) throws {
    let place = self.place(&random)
    let value = value(&random)
    switch Int.random(in: 0..<7, using: &random) {
    case 0:
      for _ in 0..<Int.random(in: 1...8, using: &random) {
        vandal.bytes[self.place(&random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      }
    case 1: vandal.bytes[place] = UInt8.random(in: 0...255, using: &random)
    case 2: vandal.setWord(place & ~7, value)
    case 3:
      let byte = [0x00, 0xFF, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random) ?? 0
      for offset in place..<min(vandal.bytes.count, place + Int.random(in: 1...512, using: &random)) {
        vandal.bytes[offset] = byte
      }
    case 4: vandal.setWord(place & ~7, vandal.word(self.place(&random) & ~7))
    case 5: forgeRecord(&random)
    default: forgeBounds(&random)
    }
  }

  /// A byte's offset, mostly one with a meaning.
  private func place(_ random: inout SplitMix) -> Int {
    switch Int.random(in: 0..<4, using: &random) {
    case 0: Int.random(in: 0..<512, using: &random)
    case 1:
      RingLayout.readerTableOffset + Int.random(in: 0..<Self.readers * RingLayout.readerBytes, using: &random)
    case 2: RingLayout.headerBytes + Int.random(in: 0..<Self.capacity, using: &random)
    default: Int.random(in: 0..<vandal.bytes.count, using: &random)
    }
  }

  private func value(_ random: inout SplitMix) -> UInt64 {
    let harmful = harmfulValues.randomElement(using: &random) ?? 0
    return Bool.random(using: &random) ? harmful : random.next()
  }

  /// A header whose check agrees, at a position where a reader may come by.
  private func forgeRecord(_ random: inout SplitMix) {
    let bounds = [
      RingLayout.headOffset, RingLayout.tailOffset, RingLayout.reader(0) + RingLayout.cursorOffset,
    ]
    let position = vandal.word(bounds.randomElement(using: &random) ?? 0) & ~7
    let offset = RingLayout.offset(of: position, capacity: Self.capacity)
    let type =
      Bool.random(using: &random) ? RecordHeader.paddingType : UInt16.random(in: 0...9, using: &random)
    let toEnd = Self.capacity - offset
    let lengths = [
      0, 8, toEnd, toEnd - 16, toEnd + 8, Self.capacity / 8, Self.capacity / 8 + 1, Self.capacity,
    ]
    let length = UInt32(max(0, lengths.randomElement(using: &random) ?? 0))
    let sequence = type == RecordHeader.paddingType ? 0 : value(&random)
    vandal.setWord(
      RingLayout.headerBytes + offset,
      RecordHeader.word(length: length, type: type, sequence: sequence, position: position))
    if toEnd > 8 { vandal.setWord(RingLayout.headerBytes + offset + 8, sequence) }
  }

  /// Head, tail and cursors that agree with each other and with an epoch, and with nothing else.
  private func forgeBounds(_ random: inout SplitMix) {
    let epochs = [vandal.word(RingLayout.epochOffset) & RingLayout.maximumEpoch, RingLayout.maximumEpoch, 1]
    let epoch = epochs.randomElement(using: &random) ?? 0
    let within = Bool.random(using: &random) ? RingLayout.withinEpoch : 4 * UInt64(Self.capacity)
    let tail = RingLayout.base(of: epoch) | UInt64.random(in: 0...within, using: &random) & ~7
    let retained = min(
      tail & RingLayout.withinEpoch, UInt64.random(in: 0...UInt64(Self.capacity), using: &random) & ~7)
    vandal.setWord(RingLayout.epochOffset, epoch)
    vandal.setWord(RingLayout.epochCheckOffset, ~epoch)
    vandal.setWord(RingLayout.tailOffset, tail)
    vandal.setWord(RingLayout.headOffset, tail - retained)
    for slot in 0..<Self.readers {
      let cursor = tail - UInt64.random(in: 0...retained, using: &random) & ~7
      vandal.setWord(RingLayout.reader(slot) + RingLayout.cursorOffset, cursor)
    }
  }

  // MARK: Use

  /// Reads, replays and writes with those who attached before the damage.
  func useExisting(_ random: inout SplitMix) {
    read(reader, &random)
    write(writer)
    read(reader, &random)
  }

  /// Lets successors attach and do the same.
  func attachAll(_ random: inout SplitMix, writing: Bool = true) {
    inspect()
    for slot in 0..<Self.readers {
      guard let reader = try? ring.reader(slot) else { continue }
      read(reader, &random)
    }
    if let writer = try? ring.writer() {
      var count = 0
      try? writer.forEachRetained { record in
        count += 1
        check(record)
      }
      if count > Self.impossibleCount { complaints.append("\(count) records retained") }
      if writing { write(writer) }
    }
    inspect()
  }

  private func inspect() {
    guard let usage = try? ring.usage() else { return }
    let possible = 0...Self.capacity
    if !possible.contains(usage.retainedBytes)
      || !usage.readers.allSatisfy({ possible.contains($0.lagBytes) })
    {
      complaints.append("impossible usage \(usage)")
    }
  }

  private func read(_ reader: RingReader, _ random: inout SplitMix) {
    let data = UnsafeRawPointer(reader.segment.data)
    // A reset is told once, and then there may be something.
    for _ in 0..<3 {
      var count = 0
      while let record = try? reader.next() {
        count += 1
        check(record)
        if let start = record.bytes.baseAddress {
          let offset = start - data
          if offset < RecordHeader.bytes || offset + record.bytes.count > Self.capacity {
            complaints.append("payload of \(record.bytes.count) bytes at \(offset)")
          }
        }
        if count > Self.impossibleCount {
          complaints.append("more records read than there can be")
          break
        }
      }
    }
    let last = reader.lastSequence
    for after in [last &- UInt64.random(in: 0...80, using: &random), 0, value(&random)] {
      var count = 0
      _ = try? reader.replay(after: after, through: .max) { record in
        count += 1
        check(record)
        return count <= Self.impossibleCount
      }
      if count > Self.impossibleCount { complaints.append("more records replayed than there can be") }
    }
    _ = reader.declareAsleep()
    reader.declareAwake()
    if Bool.random(using: &random) { reader.commit() }
  }

  private func write(_ writer: RingWriter) {
    let position = writer.slowestReaderPosition()
    let mark = writer.mark
    for _ in 0..<3 where writer.append([UInt8](repeating: 5, count: 900)) == .full {}
    writer.withdraw(to: mark)
    var count = 0
    while case .appended = writer.append([UInt8](repeating: 6, count: 100)), count < 20 { count += 1 }
    writer.publish()
    if writer.usedBytes < 0 || position > writer.slowestReaderPosition() &+ UInt64(Self.capacity) {
      complaints.append("impossible fill \(writer.usedBytes)")
    }
  }

  private func check(_ record: RingRecord) {
    if record.bytes.count > Self.capacity / RingLayout.payloadShare {
      complaints.append("payload of \(record.bytes.count) bytes")
    }
    // Every byte is touched: one outside the mapping ends the test.
    _ = record.bytes.reduce(0 as UInt64) { $0 &+ UInt64($1) }
  }
}
