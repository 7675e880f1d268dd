// Writers and readers that die and have successors. A process that was killed leaves the segment as it is at that
// moment; dropping the object does the same.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A restarted process")
struct RingRestartTests {
  @Test("writes over what its predecessor had not published, and goes on with the same sequence")
  func unpublished() throws {
    let ring = try TestRing()
    let reader = try ring.reader()
    do {
      let writer = try ring.writer()
      writer.send(1)
      writer.append([UInt8](repeating: 2, count: 100))
      writer.append([UInt8](repeating: 3, count: 100))
    }
    let successor = try ring.writer()
    #expect(successor.generation == 2)
    #expect(successor.nextSequence == 2)
    successor.send(4)
    #expect(try reader.all().map { [UInt8($0.sequence), $0.bytes[0]] } == [[1, 1], [2, 4]])
  }

  @Test(
    "finds head and sequence as they were, at every moment of a writer's life",
    arguments: [21, 22] as [UInt64])
  func everyMoment(seed: UInt64) throws {
    let ring = try TestRing(capacity: 4096)
    var writer = try ring.writer()
    let reader = try ring.reader()
    var random = SplitMix(seed: seed)
    var published: UInt64 = 0
    var read: UInt64 = 0
    for step in 0..<30_000 {
      switch Int.random(in: 0..<8, using: &random) {
      case 0...3:
        writer.append([UInt8](repeating: UInt8(step % 251), count: Int.random(in: 0...512, using: &random)))
      case 4...5:
        writer.publish()
        published = writer.nextSequence - 1
      case 6:
        for _ in 0..<Int.random(in: 1...8, using: &random) {
          guard let record = try reader.next() else { break }
          read += 1
          try #require(record.sequence == read)
        }
        reader.commit()
      default:
        writer = try ring.writer()
        try #require(writer.nextSequence == published + 1, "seed \(seed), step \(step)")
      }
    }
    #expect(published > 1000)
  }

  @Test("reads exactly the uncommitted records again")
  func readerRepeats() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    for value in 1...10 as ClosedRange<UInt8> { writer.send(value) }
    do {
      let reader = try ring.reader()
      for _ in 0..<4 { _ = try reader.next() }
      reader.commit()
      for _ in 0..<3 { _ = try reader.next() }
    }
    let successor = try ring.reader()
    #expect(successor.lastSequence == 4)
    #expect(try successor.all().map(\.sequence) == Array(5...10))
    successor.commit()
    let third = try ring.reader()
    #expect(third.lastSequence == 10)
    #expect(try third.next() == nil)
    writer.send(11)
    #expect(try third.all().map(\.sequence) == [11])
  }

  @Test("knows its last sequence although nothing before its cursor is retained")
  func cursorAtHead() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    for _ in 0..<5 {
      while writer.send(1, count: 48) {}
      for _ in 0..<40 { _ = try reader.next() }
      reader.commit()
    }
    while writer.send(1, count: 48) {}
    let last = reader.lastSequence
    #expect(try ring.usage().headSequence == last + 1)
    let successor = try ring.reader()
    #expect(successor.lastSequence == last)
    #expect(try successor.next()?.sequence == last + 1)
  }

  @Test("knows its last sequence although the writer overtakes it while it attaches")
  func overtakenWhileAttaching() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    while writer.send(1, count: 48) {}
    _ = try reader.all()
    reader.commit()
    let segment = reader.segment
    let before = try segment.bounds()
    // Now everything up to the cursor is given up; at `before` it was the tail, too.
    while writer.send(2, count: 48) {}
    let cursor = try segment.bounds().head
    try #require(cursor == before.tail)
    let state = try ReaderState(at: cursor, before, segment, RingHistory(of: segment), resetPending: false)
    #expect(state.sequence == reader.lastSequence)
  }

  @Test("sees what its predecessor had published and is retained")
  func retained() throws {
    let ring = try TestRing()
    do {
      let writer = try ring.writer()
      for value in 1...5 as ClosedRange<UInt8> { writer.send(value) }
      writer.append([6])
    }
    var seen: [Seen] = []
    let successor = try ring.writer()
    try successor.forEachRetained { seen.append(Seen($0)) }
    #expect(seen.map(\.sequence) == Array(1...5))
    #expect(seen.map { $0.bytes[0] } == [1, 2, 3, 4, 5])
  }

  @Test("is counted in the segment, for either side")
  func generations() throws {
    let ring = try TestRing(readers: 2)
    for expected in 1...3 as ClosedRange<UInt64> {
      _ = try ring.writer()
      _ = try ring.reader(1)
      let usage = try ring.usage()
      #expect(usage.writerGeneration == expected)
      #expect(usage.readers.map(\.generation) == [0, expected])
    }
  }

  @Test("is refused a slot that does not exist", arguments: [-1, 1, 64, 1 << 40])
  func slots(slot: Int) throws {
    let ring = try TestRing()
    #expect(throws: IPCError.self) { try ring.reader(slot) }
  }
}
