// A ring whose writer was killed for corruption is formatted anew under everybody's feet.

import Testing

@testable import IPC

@Suite("A reset")
struct RingResetTests {
  @Test("is told to each reader once, which then goes on at the new start")
  func toldOnce() throws {
    let ring = try TestRing(readers: 2)
    let writer = try ring.writer()
    let readers = try [ring.reader(0), ring.reader(1)]
    for value in 1...5 as ClosedRange<UInt8> { writer.send(value) }
    _ = try readers[0].all()
    readers[0].commit()
    _ = try readers[1].next()
    readers[1].commit()

    try Ring.reset(ring.fd)
    let successor = try ring.writer()
    successor.send(9)
    for reader in readers {
      var unread = 0
      let told = #expect(throws: IPCError.self) { while try reader.next() != nil { unread += 1 } }
      #expect(told == .reset && unread == 0)
      #expect(try reader.all().map { $0.bytes[0] } == [9])
      reader.commit()
    }
    #expect(try ring.usage().usedBytes == 0)
    #expect(try ring.usage().epoch == 1)
  }

  @Test("is told to a reader in the middle of a batch after its next commit")
  func toldAfterCommit() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    for value in 1...5 as ClosedRange<UInt8> { writer.send(value) }
    #expect(try reader.next()?.sequence == 1)
    try Ring.reset(ring.fd)
    #expect(
      try reader.next()?.sequence == 2, "the batch was seen before the reset, and nobody has written since")
    reader.commit()
    #expect(throws: IPCError.reset) { try reader.next() }
    #expect(try reader.next() == nil)
  }

  @Test("raises sequences above everything published before, time and again")
  func sequences() throws {
    let ring = try TestRing()
    var last: UInt64 = 0
    for _ in 0..<5 {
      let writer = try ring.writer()
      #expect(writer.nextSequence > last)
      for value in 1...100 as ClosedRange<UInt8> {
        guard writer.send(value) else { break }
        last = writer.nextSequence - 1
      }
      try Ring.reset(ring.fd)
    }
    let reader = try ring.reader()
    #expect(try reader.next() == nil)
    #expect(reader.lastSequence >= last)
  }

  @Test("that happened between two readers of a slot is told to the second")
  func betweenReaders() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    writer.send(1)
    let reader = try ring.reader()
    _ = try reader.all()
    try Ring.reset(ring.fd)
    // The first reader, still alive, commits once more, and is killed then.
    reader.commit()
    let successor = try ring.reader()
    #expect(!successor.declareAsleep(), "there is something to be told")
    #expect(throws: IPCError.reset) { try successor.next() }
    #expect(try successor.next() == nil)
    #expect(successor.declareAsleep())
  }

  @Test("does not let the writer count what readers committed before")
  func lateCommit() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    for value in 1...20 as ClosedRange<UInt8> { writer.send(value) }
    _ = try reader.all()
    try Ring.reset(ring.fd)
    reader.commit()
    let successor = try ring.writer()
    var count = 0
    while successor.send(1, count: 48) { count += 1 }
    #expect(count == 64, "the reader has not seen the new epoch, so nothing may be overwritten")
    #expect(throws: IPCError.reset) { try reader.all() }
    #expect(try reader.all().count == 64)
  }

  @Test("makes a replay of older records end as lost")
  func replay() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    for value in 1...5 as ClosedRange<UInt8> { writer.send(value) }
    _ = try reader.all()
    try Ring.reset(ring.fd)
    let successor = try ring.writer()
    let first = successor.nextSequence
    successor.send(7)
    #expect(try reader.history(after: 2).1 == .lost(firstAvailable: first))
    #expect(throws: IPCError.reset) { try reader.next() }
    #expect(try reader.all().count == 1)
    #expect(try reader.history(after: 2).1 == .lost(firstAvailable: first))
    #expect(try reader.history(after: first - 1).0.map { $0.bytes[0] } == [7])
  }

  @Test("mends a segment of which only the epoch can be read")
  func mends() throws {
    let ring = try TestRing(readers: 2)
    do {
      let writer = try ring.writer()
      writer.send(1)
    }
    let vandal = try Vandal(ring.fd)
    for offset in 0..<vandal.memory.bytes
    where !(RingLayout.epochOffset..<RingLayout.epochCheckOffset + 8).contains(offset) {
      vandal.bytes[offset] = 0xA5
    }
    #expect(throws: IPCError.self) { try ring.writer() }
    #expect(throws: IPCError.self) { try Ring.reset(ring.fd, readers: 0) }
    try Ring.reset(ring.fd, readers: 2)
    #expect(try ring.usage().readers.map(\.slot) == [0, 1])
    let (writer, reader) = (try ring.writer(), try ring.reader(1))
    writer.send(3)
    #expect(try reader.all().map { $0.bytes[0] } == [3])
  }

  @Test("is refused when the epoch itself is not to be believed")
  func epochCorrupt() throws {
    let ring = try TestRing()
    let vandal = try Vandal(ring.fd)
    vandal.setWord(RingLayout.epochOffset, 7)
    #expect(throws: IPCError.self) { try Ring.reset(ring.fd) }
    #expect(Ring.epoch(of: ring.fd) == nil)
    #expect(try Ring.reset(ring.fd, knownEpoch: 3) == 4)
    #expect(Ring.epoch(of: ring.fd) == 4)
    vandal.setWord(RingLayout.epochOffset, 7)
    vandal.setWord(RingLayout.epochCheckOffset, ~7)
    try Ring.reset(ring.fd)
    #expect(try ring.usage().epoch == 8)
    vandal.setWord(RingLayout.epochOffset, RingLayout.maximumEpoch)
    vandal.setWord(RingLayout.epochCheckOffset, ~RingLayout.maximumEpoch)
    #expect(throws: IPCError.self) { try Ring.reset(ring.fd) }
  }
}
