// History: records behind the cursor, as long as the writer has not needed their room.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A replay")
struct RingReplayTests {
  /// A ring of 64 KiB in which `count` records were sent and read; record n has n bytes of n.
  private func filled(_ count: Int, capacity: Int = 65536) throws -> (TestRing, RingWriter, RingReader) {
    let ring = try TestRing(capacity: capacity)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    for n in 1...count {
      try #require(writer.send(UInt8(n % 256), count: n % 100))
      _ = try reader.next()
      reader.commit()
    }
    return (ring, writer, reader)
  }

  private func record(_ n: UInt64) -> Seen {
    Seen(n, 1, [UInt8](repeating: UInt8(n % 256), count: Int(n % 100)))
  }

  @Test("shows the records asked for, in order, and leaves the cursor alone")
  func complete() throws {
    let (_, writer, reader) = try filled(300)
    for (after, through) in [(0, 300), (0, 1), (299, 300), (100, 164), (17, 18), (250, 999)]
      as [(UInt64, UInt64)]
    {
      let (seen, result) = try reader.history(after: after, through: through)
      #expect(result == .complete)
      #expect(seen == ((after + 1)...min(through, 300)).map(record))
    }
    for (after, through) in [(300, 300), (300, 400), (5, 5), (9, 3), (.max, .max)] as [(UInt64, UInt64)] {
      let (seen, result) = try reader.history(after: after, through: through)
      #expect(result == .complete && seen.isEmpty)
    }
    writer.send(9)
    #expect(try reader.all().map(\.sequence) == [301])
  }

  @Test("does not run ahead of what the reader has returned")
  func behindTheReader() throws {
    let (_, writer, reader) = try filled(10)
    writer.send(1)
    #expect(try reader.history(after: 8).0.map(\.sequence) == [9, 10])
  }

  @Test("works for a restarted reader as for its predecessor")
  func afterRestart() throws {
    let (ring, _, _) = try filled(2000)
    let head = try ring.usage().headSequence
    let successor = try ring.reader()
    let (seen, result) = try successor.history(after: head - 1)
    #expect(result == .complete)
    #expect(seen == (head...2000).map(record))
  }

  @Test("finds every retained record, over many laps", arguments: [4096, 65536])
  func everyRecord(capacity: Int) throws {
    let (ring, _, reader) = try filled(20_000, capacity: capacity)
    let head = try ring.usage().headSequence
    #expect(head > 1)
    for sequence in head...20_000 {
      let (seen, result) = try reader.history(after: sequence - 1, through: sequence)
      #expect(result == .complete)
      try #require(seen == [record(sequence)])
    }
  }

  @Test("finds nothing, and no damage, in a ring that is full of what its reader has not read")
  func fullOfUnread() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    for n in 1...10 { try #require(writer.send(UInt8(n))) }
    #expect(try reader.all().count == 10)
    reader.commit()
    while writer.send(0) {}
    try #require(try ring.usage().headSequence == 11)
    let (seen, result) = try reader.history(after: 3)
    #expect(result == .lost(firstAvailable: 11) && seen.isEmpty)
    #expect(try reader.next()?.sequence == 11)
  }

  @Test("doesn't answer with what has been asked for already, which would be asked for again for ever")
  func lostBackwards() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    for n in 1...10 { try #require(writer.send(UInt8(n))) }
    #expect(try reader.all().count == 10)
    reader.commit()
    while writer.send(0) {}
    let head = try Vandal(ring.fd).word(RingLayout.headOffset)
    try forge(ring, at: head, sequence: 2)
    #expect(throws: IPCError.self) { try reader.history(after: 3) }
  }

  @Test(
    "can't be attached to over a record whose sequence isn't of its epoch",
    arguments: [0, 1 << 54, UInt64.max] as [UInt64])
  func foreignSequence(sequence: UInt64) throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    try #require(writer.send(1))
    #expect(try reader.all().count == 1)
    reader.commit()
    #expect(try ring.reader().lastSequence == 1)
    try forge(ring, at: 0, sequence: sequence)
    #expect(throws: IPCError.self) { try ring.reader() }
  }

  /// Gives the record at `position` another sequence, with a check that agrees.
  private func forge(_ ring: TestRing, at position: UInt64, sequence: UInt64) throws {
    let vandal = try Vandal(ring.fd)
    let place = RingLayout.headerBytes + RingLayout.offset(of: position, capacity: 4096)
    let length = UInt32(truncatingIfNeeded: vandal.word(place))
    vandal.setWord(
      place, RecordHeader.word(length: length, type: 1, sequence: sequence, position: position))
    vandal.setWord(place + 8, sequence)
  }

  @Test("says what is lost and where the rest begins")
  func lost() throws {
    let (ring, _, reader) = try filled(20_000)
    let head = try ring.usage().headSequence
    for after in [0, 1, head - 2] {
      let (seen, result) = try reader.history(after: after)
      #expect(result == .lost(firstAvailable: head) && seen.isEmpty)
    }
    #expect(try reader.history(after: head - 1).1 == .complete)
  }

  @Test("stops when it is told to")
  func stopped() throws {
    let (_, _, reader) = try filled(50)
    var seen: [UInt64] = []
    let result = try reader.replay(after: 10, through: 40) { record in
      seen.append(record.sequence)
      return seen.count < 3
    }
    #expect(result == .stopped && seen == [11, 12, 13])
  }

  @Test("that the writer overtakes ends with what was seen, and says where the rest begins")
  func overtaken() throws {
    let (ring, writer, reader) = try filled(200, capacity: 8192)
    let head = try ring.usage().headSequence
    var seen: [Seen] = []
    let result = try reader.replay(after: head - 1, through: 200) { record in
      seen.append(Seen(record))
      // The room of the records that follow is needed at this very moment.
      if seen.count == 3 { for _ in 0..<20 { writer.send(0xEE, count: 100) } }
      return true
    }
    let newHead = try ring.usage().headSequence
    #expect(newHead > head + 3)
    #expect(result == .lost(firstAvailable: newHead))
    #expect(seen == (head...(head + 2)).map(record))
    let (rest, restResult) = try reader.history(after: newHead - 1, through: 200)
    #expect(restResult == .complete)
    #expect(rest == (newHead...200).map(record))
  }

  @Test("goes on if only the way to its next record was overwritten")
  func overtakenOnTheWay() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    let vandal = try Vandal(ring.fd)
    // Record 8 ends 256 bytes before the end of the data: padding fills them, and record 9 begins the next lap.
    for size in [512, 512, 512, 512, 512, 512, 512, 256, 512] {
      writer.send(1, count: size - RecordHeader.bytes)
      _ = try reader.next()
      reader.commit()
    }
    var seen: [UInt64] = []
    let result = try reader.replay(after: 7, through: 9) { record in
      seen.append(record.sequence)
      // Record 8 and the padding are given up while record 8 is shown.
      while seen.count == 1, vandal.word(RingLayout.headOffset) < 4096 { writer.send(2, count: 8) }
      return true
    }
    try #require(vandal.word(RingLayout.headOffset) == 4096)
    #expect(result == .complete && seen == [8, 9])
  }

  @Test(
    "never shows a record that was overwritten, while the writer goes round", arguments: [31, 32] as [UInt64])
  func random(seed: UInt64) throws {
    let (ring, writer, reader) = try filled(500, capacity: 16384)
    var random = SplitMix(seed: seed)
    var last: UInt64 = 500
    for _ in 0..<2000 {
      for _ in 0..<Int.random(in: 0...30, using: &random) {
        last += 1
        try #require(writer.send(UInt8(last % 256), count: Int(last % 100)))
        _ = try reader.next()
        reader.commit()
      }
      let head = try ring.usage().headSequence
      let after = last - min(last, UInt64.random(in: 0...400, using: &random))
      let through = min(last, after + UInt64.random(in: 1...100, using: &random))
      let (seen, result) = try reader.history(after: after, through: through)
      if after + 1 < head && after < through {
        #expect(result == .lost(firstAvailable: head) && seen.isEmpty, "seed \(seed)")
      } else {
        #expect(result == .complete, "seed \(seed)")
        #expect(seen == (after..<through).map { record($0 + 1) }, "seed \(seed)")
      }
    }
  }
}
