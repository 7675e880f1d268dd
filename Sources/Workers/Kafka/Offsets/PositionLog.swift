// Where each partition has been read to, in shared memory: for the successor of a worker that was killed, when the event ring
// holds no record of the partition any more. A ring without readers, written as a log; the last record of a partition counts.
//
//   record (type 1), little endian:  partition, 4 │ length of topic, 2 │ length of trail, 2 │ passed, 8 │ ring end, 8 │ ring epoch, 8
//                                    log end, 8 (−1: unknown) │ topic │ trail (ReadTrail) │ fields of later releases (FieldCoding)
//
// Nothing that counts is overwritten: before a quarter of the ring has been written since all positions were, all are written
// again. They must fit into another quarter; those that don't are said in the log, and are known by their commits only.

import IPC
import Kit

/// What is kept of a partition.
struct KeptPosition: Equatable, Sendable {
  /// What was taken.
  var trail: ReadTrail
  /// All readers of the event ring have passed the records before this offset.
  var passed: Int64
  /// Where in the event ring the last record before `trail.next` ends, and in which of the ring's epochs.
  var ringEnd: UInt64
  var ringEpoch: UInt64
  /// The end that the partition's log was last known to have; nil: unknown.
  var logEnd: Int64?
}

/// The ring with the positions. One thread.
final class PositionLog {
  private static let recordType: UInt16 = 1
  private static let headerBytes = 40
  /// Bytes that the ring needs for a record beside its payload, at most.
  private static let recordOverhead = 24
  /// Of the ring's bytes, for all positions once.
  private static let share = 4

  private let ring: RingWriter
  /// What is in the ring, by partition.
  private(set) var positions: [TopicPartition: KeptPosition] = [:]
  private var bytes: [TopicPartition: Int] = [:]
  private var allBytes = 0
  private var writtenSinceAll = 0

  /// Takes over what a predecessor has written.
  ///
  /// Cost: one pass over the ring.
  ///
  /// - Parameter passOver: called with what is of another release.
  init(_ ring: RingWriter, passOver: (_ kind: String) -> Void = { _ in }) throws(IPCError) {
    self.ring = ring
    var found: [TopicPartition: KeptPosition] = [:]
    try ring.forEachRetained { record in
      guard record.type == Self.recordType else { return passOver("\(record.type)") }
      guard let (name, position) = Self.decode(record.bytes) else { return }
      found[name] = position
    }
    for (name, position) in found.sorted(by: { $0.key < $1.key }) { _ = keep(position, of: name) }
    ring.publish()
  }

  /// Writes the position of a partition, to be seen with `publish`. False: there is no room for so many partitions.
  func keep(_ position: KeptPosition, of name: TopicPartition) -> Bool {
    let record = Self.encode(name, position)
    let size = record.count + Self.recordOverhead
    let total = allBytes - (bytes[name] ?? 0) + size
    guard record.count <= ring.maximumPayload, total <= ring.capacity / Self.share else {
      allBytes -= bytes.removeValue(forKey: name) ?? 0
      positions[name] = nil
      return false
    }
    positions[name] = position
    bytes[name] = size
    allBytes = total
    if writtenSinceAll + size > ring.capacity / Self.share {
      writtenSinceAll = 0
      for (other, position) in positions where other != name { append(Self.encode(other, position)) }
    }
    append(record)
    writtenSinceAll += size
    return true
  }

  /// Makes what was kept outlast this process.
  func publish() { ring.publish() }

  private func append(_ record: [UInt8]) {
    _ = ring.append(type: Self.recordType, length: record.count) { $0.copyBytes(from: record) }
  }

  // MARK: Bytes

  private static func encode(_ name: TopicPartition, _ position: KeptPosition) -> [UInt8] {
    let trail = position.trail.encoded
    let topic = Array(name.topic.utf8)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(headerBytes + topic.count + trail.count)
    func append(_ value: some FixedWidthInteger) {
      withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    append(name.partition)
    append(UInt16(clamping: topic.count))
    append(UInt16(clamping: trail.count))
    append(position.passed)
    append(position.ringEnd)
    append(position.ringEpoch)
    append(position.logEnd ?? -1)
    return bytes + topic + trail
  }

  private static func decode(_ bytes: UnsafeRawBufferPointer) -> (TopicPartition, KeptPosition)? {
    func load<T: FixedWidthInteger>(_ type: T.Type, _ offset: Int) -> T {
      T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }
    guard bytes.count >= headerBytes else { return nil }
    let topicEnd = headerBytes + Int(load(UInt16.self, 4))
    let trailEnd = topicEnd + Int(load(UInt16.self, 6))
    guard trailEnd <= bytes.count,
      FieldReader(UnsafeRawBufferPointer(rebasing: bytes[trailEnd...])).isComplete,
      let trail = ReadTrail(decoding: UnsafeRawBufferPointer(rebasing: bytes[topicEnd..<trailEnd]))
    else { return nil }
    let name = TopicPartition(
      topic: String(decoding: bytes[headerBytes..<topicEnd], as: UTF8.self), partition: load(Int32.self, 0))
    let passed = load(Int64.self, 8)
    let logEnd = load(Int64.self, 32)
    guard name.partition >= 0, passed >= 0, logEnd >= -1 else { return nil }
    return (
      name,
      KeptPosition(
        trail: trail, passed: passed, ringEnd: load(UInt64.self, 16), ringEpoch: load(UInt64.self, 24),
        logEnd: logEnd < 0 ? nil : logEnd)
    )
  }
}
