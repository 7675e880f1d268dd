// A batch that goes into the ring as a whole or not at all.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A withdrawal")
struct RingMarkTests {
  @Test("takes back what was appended since the mark, and nothing before it")
  func takesBack() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    writer.append([1])
    let mark = writer.mark
    writer.append([2])
    writer.append([3])
    writer.withdraw(to: mark)
    #expect(writer.nextSequence == 2)
    #expect(writer.append([4]) == .appended(sequence: 2, end: 48))
    writer.publish()
    #expect(try reader.all() == [Seen(1, 1, [1]), Seen(2, 1, [4])])
  }

  @Test("leaves nothing to publish if nothing else was appended")
  func nothingToPublish() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    writer.send(1)
    let mark = writer.mark
    writer.append([2])
    writer.withdraw(to: mark)
    writer.withdraw(to: mark)
    writer.publish()
    #expect(try reader.all().count == 1)
    #expect(reader.declareAsleep())
    #expect(try ring.usage().tailSequence == 1)
  }

  @Test("is as if the batch had never been, with the wrap in the midst of it", arguments: [8, 16, 24, 504])
  func wrap(rest: Int) throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    // Eight records that leave `rest` bytes before the end of the data.
    for size in [512, 512, 512, 512, 512, 512, 504, 520 - rest] {
      writer.send(1, count: size - RecordHeader.bytes)
    }
    #expect(try reader.all().count == 8)
    reader.commit()

    let mark = writer.mark
    for _ in 0..<3 {
      #expect(writer.append([UInt8](repeating: 2, count: 512)) == .appended(sequence: 9, end: 4096 + 528))
      #expect(writer.append([3]) == .appended(sequence: 10, end: 4096 + 528 + 24))
      writer.withdraw(to: mark)
      #expect(writer.nextSequence == 9)
      #expect(try reader.next() == nil)
    }
    writer.append([UInt8](repeating: 4, count: 500))
    writer.publish()
    #expect(try reader.all() == [Seen(9, 1, [UInt8](repeating: 4, count: 500))])
  }

  @Test("after the ring was full in the midst of a batch lets the batch in later, without a gap")
  func full() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    for _ in 0..<60 { #expect(writer.send(1, count: 48)) }
    func appendBatch() -> Bool {
      let mark = writer.mark
      for _ in 0..<10 where writer.append([UInt8](repeating: 2, count: 48)) == .full {
        writer.withdraw(to: mark)
        return false
      }
      writer.publish()
      return true
    }
    #expect(!appendBatch())
    #expect(writer.nextSequence == 61 && writer.usedBytes == 60 * 64)
    #expect(try reader.all().count == 60)
    #expect(!appendBatch(), "nothing is committed yet")
    reader.commit()
    #expect(appendBatch())
    #expect(try reader.all().map(\.sequence) == Array(61...70))
  }

  @Test("keeps the last published record, from which a successor learns the sequence")
  func successor() throws {
    let ring = try TestRing(capacity: 4096, readers: 1)
    try Ring.setRegistered(ring.fd, reader: 0, false)
    var published: UInt64 = 0
    for _ in 0..<20 {
      let writer = try ring.writer()
      #expect(writer.nextSequence == published + 1)
      writer.send(1, count: 48)
      published += 1
      let mark = writer.mark
      while case .appended = writer.append([UInt8](repeating: 2, count: 48)) {}
      writer.withdraw(to: mark)
      writer.send(3, count: 100)
      published += 1
    }
    #expect(try ring.usage().tailSequence == published)
  }

  @Test("at any moment leaves what a reader sees in order and complete", arguments: [61, 62, 63] as [UInt64])
  func random(seed: UInt64) throws {
    let ring = try TestRing(capacity: 4096)
    var writer = try ring.writer()
    let reader = try ring.reader()
    var random = SplitMix(seed: seed)
    var expected: [Seen] = []
    var pending: [Seen] = []
    var withdrawn = 0
    for step in 0..<20_000 {
      let mark = writer.mark
      let before = pending
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        let bytes = [UInt8](repeating: UInt8(step % 251), count: Int.random(in: 0...512, using: &random))
        guard case .appended(let sequence, _) = writer.append(bytes) else { break }
        pending.append(Seen(sequence, 1, bytes))
      }
      if Bool.random(using: &random) {
        writer.withdraw(to: mark)
        pending = before
        withdrawn += 1
      }
      if Bool.random(using: &random) {
        writer.publish()
        expected += pending
        pending = []
      }
      if Int.random(in: 0..<4, using: &random) == 0 {
        try #require(try reader.all() == expected, "seed \(seed), step \(step)")
        reader.commit()
        expected = []
      }
      if Int.random(in: 0..<50, using: &random) == 0 {
        pending = []
        writer = try ring.writer()
      }
    }
    #expect(withdrawn > 1000 && reader.lastSequence > 1000)
  }
}
