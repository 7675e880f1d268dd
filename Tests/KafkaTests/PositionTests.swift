import Foundation
import IPC
import Kit
import TestSupport
import Testing

@testable import Kafka

@Suite("14.E24 Read positions in shared memory")
struct PositionLogTests {
  private func ring(_ bytes: Int = 1 << 20) throws -> Descriptor {
    let ring = try Ring.create(name: "positions", capacity: bytes, readers: 1)
    try Ring.setRegistered(ring.rawValue, reader: 0, false)
    return ring
  }

  private func log(_ ring: borrowing Descriptor) throws -> PositionLog {
    try PositionLog(RingWriter(attaching: ring.rawValue, wake: []))
  }

  private func position(_ next: Int64, marks: Int64 = 3) -> KeptPosition {
    var trail = ReadTrail(next: 0)
    for offset in max(0, next - marks)..<next {
      trail.take(ReadTrail.Mark(offset: offset, timestampMs: offset, digest: 7))
    }
    return KeptPosition(
      trail: trail, passed: next / 2, ringEnd: UInt64(next) * 8, ringEpoch: 1,
      logEnd: next.isMultiple(of: 2) ? next + 5 : nil)
  }

  @Test("a successor finds the last position of each partition, and nothing that wasn't published")
  func successor() throws {
    let ring = try ring()
    let a = TopicPartition(topic: "a", partition: 0)
    let b = TopicPartition(topic: "ümlaut", partition: 7)
    do {
      let log = try log(ring)
      #expect(log.positions.isEmpty)
      for next in Int64(1)...50 { #expect(log.keep(position(next), of: a)) }
      #expect(log.keep(position(9), of: b))
      log.publish()
      _ = log.keep(position(99), of: a)
    }
    let found = try log(ring).positions
    #expect(found == [a: position(50), b: position(9)])
  }

  @Test("15.3 what a predecessor of the next release adds is passed over, and its positions are known")
  func nextRelease() throws {
    let ring = try ring()
    let name = TopicPartition(topic: "a", partition: 0)
    do {
      let log = try log(ring)
      #expect(log.keep(position(9), of: name))
      log.publish()
    }
    let writer = try RingWriter(attaching: ring.rawValue, wake: [])
    var known: [UInt8] = []
    try writer.forEachRetained { known = Array($0.bytes) }
    let field: [UInt8] = [0xFE, 0xCA, 3, 0, 0, 0, 1, 2, 3]
    // The newest record counts: one offset further than before.
    known[8] = 5
    for (type, bytes) in [(1, known + field), (2, known)] as [(UInt16, [UInt8])] {
      _ = writer.append(type: type, length: bytes.count) { $0.copyBytes(from: bytes) }
    }
    writer.publish()
    var passedOver: [String] = []
    let found = try PositionLog(RingWriter(attaching: ring.rawValue, wake: [])) { passedOver.append($0) }
    var expected = position(9)
    expected.passed = 5
    #expect(found.positions == [name: expected])
    #expect(passedOver == ["2"])
    let trail = ReadTrail(next: 3).encoded
    #expect((trail + field).withUnsafeBytes { ReadTrail(decoding: $0) } == ReadTrail(next: 3))
    #expect((trail + [0]).withUnsafeBytes { ReadTrail(decoding: $0) } == nil)
  }

  @Test("however much is written, no position is overwritten before it is written again")
  func wrap() throws {
    let ring = try ring(65_536)
    let idle = (0..<10).map { TopicPartition(topic: "idle", partition: $0) }
    let busy = TopicPartition(topic: "busy", partition: 0)
    do {
      let log = try log(ring)
      for name in idle { #expect(log.keep(position(Int64(name.partition) + 5), of: name)) }
      for next in Int64(1)...5_000 {
        #expect(log.keep(position(next), of: busy))
        log.publish()
      }
    }
    let found = try log(ring).positions
    #expect(found[busy] == position(5_000))
    for name in idle { #expect(found[name] == position(Int64(name.partition) + 5)) }
  }

  @Test("more partitions than there is room for are refused, and the others stay")
  func full() throws {
    let ring = try ring(65_536)
    let names = (0..<200).map { TopicPartition(topic: "many", partition: $0) }
    var kept: Set<TopicPartition> = []
    do {
      let log = try log(ring)
      for name in names where log.keep(position(10), of: name) { kept.insert(name) }
      for _ in 0..<20 {
        for name in names { #expect(log.keep(position(11), of: name) == kept.contains(name)) }
      }
      log.publish()
    }
    #expect(kept.count > 20 && kept.count < 200)
    #expect(Set(try log(ring).positions.keys) == kept)
  }
}

@Suite("14.E24 Read positions in STATE_DIR")
struct PositionFileTests {
  private func trail(_ next: Int64) -> ReadTrail {
    var trail = ReadTrail(next: next - 1)
    trail.take(ReadTrail.Mark(offset: next - 1, timestampMs: 5, digest: 6))
    return trail
  }

  @Test("what is written is read again, and anything else is damaged")
  func text() throws {
    let positions = [
      TopicPartition(topic: "a", partition: 0): trail(5),
      TopicPartition(topic: "b.c-d_", partition: 12): trail(7),
      TopicPartition(topic: "a name\twith\nblanks, ü, 100% and %20", partition: 1): trail(8),
      TopicPartition(topic: " ", partition: 0): trail(9), TopicPartition(topic: "", partition: 0): trail(10),
    ]
    let bytes = PositionText.encode(positions)
    #expect(try PositionText.decode(bytes) == positions)
    #expect(try PositionText.decode(PositionText.encode([:])).isEmpty)
    for index in bytes.indices {
      var damaged = bytes
      damaged[index] ^= 1
      #expect(throws: StateDocument.Damage.self) { try PositionText.decode(damaged) }
    }
    for line in [
      "position a 0 AQ\n", "position %ff 0 \(Base64URL.encode(trail(5).encoded))\n", "position a x\n", "\n",
      "other\n", "position a -1 AQ\n",
    ] {
      let whole = StateDocument.encode("rig-positions", version: 1, body: Array(line.utf8))
      if line != "\n" { #expect(throws: StateDocument.Damage.self) { try PositionText.decode(whole) } }
    }
  }

  @Test("the file is there after a writing, and a damaged one is named")
  func file() throws {
    let directory = try TestDirectory()
    let file = PositionFile(directory: directory.path)
    #expect(try file.read().isEmpty)
    let positions = [TopicPartition(topic: "a", partition: 0): trail(5)]
    #expect(file.isReady(MonotonicTime.now()))
    file.write(positions)
    #expect(file.isIdle(within: 60_000))
    #expect(!file.isReady(MonotonicTime.now()))
    #expect(file.isReady(MonotonicTime.now() + 3_600_000_000_000))
    #expect(try file.read() == positions)
    try Data("nonsense".utf8).write(to: URL(fileURLWithPath: directory.file("positions")))
    let failure = #expect(throws: StateFile.Failure.self) { try file.read() }
    #expect(failure?.description.contains("\(directory.path)/positions is damaged") == true)
  }
}
