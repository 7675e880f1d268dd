// What a writer appends is what a reader gets.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A ring")
struct RingTests {
  @Test("gives its first record the sequence 1")
  func firstSequence() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    #expect(writer.nextSequence == 1)
    let first = writer.append([7])
    #expect(first == .appended(sequence: 1, end: 24))
    #expect(writer.nextSequence == 2)
  }

  @Test("delivers type, bytes and sequence in order")
  func delivery() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    writer.append([1, 2, 3], type: 1)
    writer.append([], type: 0xFFFF)
    writer.append([9], type: 2)
    writer.publish()
    #expect(try reader.all() == [Seen(1, 1, [1, 2, 3]), Seen(2, 0xFFFF, []), Seen(3, 2, [9])])
    #expect(reader.lastSequence == 3)
  }

  @Test("keeps a record invisible until it is published")
  func publication() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    writer.append([1])
    #expect(try reader.next() == nil)
    writer.publish()
    #expect(try reader.next().map(Seen.init) == Seen(1, 1, [1]))
    #expect(try reader.next() == nil)
  }

  @Test("takes records up to an eighth of its capacity and refuses others", arguments: [4096, 65536])
  func recordLimits(capacity: Int) throws {
    let ring = try TestRing(capacity: capacity)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    #expect(writer.maximumPayload == capacity / 8)
    let largest = [UInt8](repeating: 3, count: writer.maximumPayload)
    writer.append(largest)
    #expect(writer.append(largest + [0]) == .tooLarge)
    #expect(
      writer.append(type: 1, length: -1) { _ in Issue.record("called for a negative length") } == .tooLarge)
    #expect(writer.append([1], type: 0) == .tooLarge, "type 0 is the ring's own")
    #expect(writer.nextSequence == 2)
    writer.publish()
    #expect(try reader.all() == [Seen(1, 1, largest)])
  }

  @Test("delivers every record over many laps, whatever their sizes", arguments: [1, 2, 3] as [UInt64])
  func laps(seed: UInt64) throws {
    let ring = try TestRing(capacity: 8192)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    var random = SplitMix(seed: seed)
    var expected: [Seen] = []
    var sent = 0
    while sent < 20_000 {
      let bytes = (0..<Int.random(in: 0...Int.random(in: 0...1024, using: &random), using: &random)).map {
        _ in
        UInt8.random(in: 0...255, using: &random)
      }
      let type = UInt16.random(in: 1...9, using: &random)
      if case .appended(let sequence, let end) = writer.append(bytes, type: type) {
        sent += 1
        #expect(sequence == UInt64(sent) && end % 8 == 0)
        expected.append(Seen(sequence, type, bytes))
      } else {
        writer.publish()
        try #require(try reader.all() == expected, "seed \(seed)")
        expected = []
        reader.commit()
      }
      if Int.random(in: 0..<20, using: &random) == 0 { writer.publish() }
    }
    let laps = try ring.usage().tailSequence
    #expect(laps > 100)
  }

  @Test("fills the rest of a lap with padding, even if only one word is left", arguments: [8, 16, 24, 504])
  func padding(rest: Int) throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    // Four records of 512 bytes and four that leave `rest` bytes before the end.
    var end: UInt64 = 0
    for size in [512, 512, 512, 512, 512, 512, 504, 520 - rest] {
      let result = writer.append([UInt8](repeating: 1, count: size - RecordHeader.bytes))
      guard case .appended(_, let position) = result else { throw IPCError.invalid("\(result)") }
      end = position
    }
    try #require(end == UInt64(4096 - rest))
    writer.publish()
    #expect(try reader.all().count == 8)
    reader.commit()

    let split = [UInt8](repeating: 2, count: 512)
    #expect(writer.append(split) == .appended(sequence: 9, end: 4096 + 528))
    writer.publish()
    let record = try #require(try reader.next())
    #expect(Seen(record) == Seen(9, 1, split))
    #expect(record.bytes.baseAddress == UnsafeRawPointer(reader.segment.data + 16))
    #expect(try reader.next() == nil)
  }

  @Test("wraps without padding when a record ends exactly at the end")
  func exactWrap() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    for value in 0..<UInt8(24) {
      writer.append([UInt8](repeating: value, count: 512 - RecordHeader.bytes))
      writer.publish()
      let record = try #require(try reader.next())
      #expect(record.end == UInt64(value + 1) * 512)
      #expect(record.bytes.first == value)
      reader.commit()
    }
  }

  @Test(
    "is refused with a capacity or a number of readers that it can't have",
    arguments: [(0, 1), (4095, 1), (6000, 1), (-4096, 1), (1 << 33, 1), (4096, 0), (4096, 65), (4096, -1)])
  func arguments(capacity: Int, readers: Int) {
    do {
      _ = try Ring.create(name: "test", capacity: capacity, readers: readers)
      Issue.record("a ring of \(capacity) bytes with \(readers) readers was made")
    } catch {
      guard case .invalid = error else {
        Issue.record("unexpected \(error)")
        return
      }
    }
  }

  @Test("tells an inspector its fill")
  func usage() throws {
    let ring = try TestRing(capacity: 4096, readers: 2)
    let empty = try ring.usage()
    #expect(empty.records == 0)
    #expect(empty.tailSequence == 0 && empty.headSequence == 1 && empty.usedBytes == 0)

    let writer = try ring.writer()
    let (first, second) = (try ring.reader(0), try ring.reader(1))
    for value in 0..<UInt8(4) { writer.send(value, count: 16) }
    #expect(try first.all().count == 4)
    first.commit()
    _ = try second.next()
    second.commit()
    _ = second.declareAsleep()

    let usage = try ring.usage()
    #expect(usage.capacity == 4096 && usage.retainedBytes == 128 && usage.usedBytes == 96)
    #expect(usage.records == 4)
    #expect(usage.tailSequence == 4 && usage.headSequence == 1)
    #expect(usage.readers.map(\.lagBytes) == [0, 96])
    #expect(usage.readers.map(\.generation) == [1, 1] && usage.writerGeneration == 1)
    #expect(writer.usedBytes == 96)
    #expect(writer.slowestReaderPosition() == 32)
  }
}
