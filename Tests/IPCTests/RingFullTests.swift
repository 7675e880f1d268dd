// A full ring pushes back, and loses nothing.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A full ring")
struct RingFullTests {
  /// Appends and publishes records of 64 bytes in all until there is no room; the number that fitted.
  private func fill(_ writer: RingWriter, _ value: UInt8 = 1) -> Int {
    var count = 0
    while writer.send(value, count: 48) { count += 1 }
    return count
  }

  @Test("answers full, takes nothing, and goes on when the reader has committed")
  func pushBack() throws {
    let ring = try TestRing(capacity: 4096)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    #expect(fill(writer) == 64)
    #expect(writer.append([1]) == .full)
    #expect(writer.nextSequence == 65)
    #expect(writer.usedBytes == 4096)

    _ = try reader.next()
    #expect(writer.append([1]) == .full, "read is not yet committed")
    reader.commit()
    #expect(writer.send(2, count: 48))
    #expect(writer.append([1]) == .full)

    let rest = try reader.all()
    #expect(rest.map(\.sequence) == Array(2...65))
    reader.commit()
    #expect(writer.usedBytes == 0)
    #expect(writer.send(3))
  }

  @Test("waits for the slowest of its readers")
  func slowest() throws {
    let ring = try TestRing(capacity: 4096, readers: 3)
    let writer = try ring.writer()
    let readers = try (0..<3).map { try ring.reader($0) }
    #expect(fill(writer) == 64)
    for reader in readers[0...1] {
      _ = try reader.all()
      reader.commit()
    }
    #expect(writer.append([1]) == .full)
    for _ in 0..<10 { _ = try readers[2].next() }
    readers[2].commit()
    #expect(writer.slowestReaderPosition() == 640)
    #expect(fill(writer) == 10)
  }

  @Test("wakes readers that sleep although they have something to read")
  func wakesSleepers() throws {
    let ring = try TestRing(capacity: 4096, readers: 2)
    let writer = try ring.writer()
    let reader = try ring.reader(1)
    _ = ring.takeSignal(1)
    #expect(reader.declareAsleep())
    while case .appended = writer.append([UInt8](repeating: 1, count: 48)) {
      writer.publish(waking: .only(0))
    }
    #expect(ring.takeSignal(1))
    #expect(try reader.all().count == 64)
  }

  @Test("does not wait for readers that are not registered")
  func unregistered() throws {
    let ring = try TestRing(capacity: 4096, readers: 2)
    let (writer, reader) = (try ring.writer(), try ring.reader(0))
    try Ring.setRegistered(ring.fd, reader: 1, false)
    for _ in 0..<10 {
      #expect(fill(writer) > 0)
      _ = try reader.all()
      reader.commit()
    }
    try Ring.setRegistered(ring.fd, reader: 0, false)
    for value in 0..<UInt8(200) { #expect(writer.send(value)) }
    #expect(writer.usedBytes == 0)
    #expect(throws: IPCError.self) { try Ring.setRegistered(ring.fd, reader: 2, true) }
  }

  @Test("lets a slot that is registered again begin at the tail, if it has been overtaken")
  func registeredAgain() throws {
    let ring = try TestRing(capacity: 4096, readers: 1)
    let writer = try ring.writer()
    try Ring.setRegistered(ring.fd, reader: 0, false)
    for value in 0..<UInt8(200) { writer.send(value) }
    #expect(throws: IPCError.self) { try ring.reader() }
    try Ring.setRegistered(ring.fd, reader: 0, true)
    writer.send(42)
    #expect(try ring.reader().all() == [Seen(201, 1, [UInt8](repeating: 42, count: 16))])
  }

  @Test("waits for a slot that is registered again, whatever it has taken for passed meanwhile")
  func registeredAgainInTime() throws {
    let ring = try TestRing(capacity: 4096, readers: 1)
    let writer = try ring.writer()
    func send(_ value: UInt8) -> Bool { writer.send(value, count: 48) }
    do {
      let reader = try ring.reader()
      for value in 0..<32 as Range<UInt8> { try #require(send(value)) }
      #expect(try reader.all().count == 32)
      reader.commit()
    }
    try Ring.setRegistered(ring.fd, reader: 0, false)
    for value in 32..<65 as Range<UInt8> { try #require(send(value)) }
    try #require(try ring.usage().headSequence > 1)
    try Ring.setRegistered(ring.fd, reader: 0, true)
    var unread: [UInt8] = []
    for value in 65..<200 as Range<UInt8> where send(value) { unread.append(value) }
    #expect(unread.count < 70, "nobody has read them")
    #expect(try ring.reader().all().map { $0.bytes[0] } == unread)
  }

  @Test("tells a reader that was overtaken because nobody registered it")
  func overtaken() throws {
    let ring = try TestRing(capacity: 4096, readers: 1)
    let (writer, reader) = (try ring.writer(), try ring.reader())
    try Ring.setRegistered(ring.fd, reader: 0, false)
    for value in 0..<UInt8(200) { writer.send(value) }
    #expect(throws: IPCError.self) { try reader.next() }
  }

  @Test("never gives up its last published record, which carries the sequence on")
  func unpublishedBatch() throws {
    let ring = try TestRing(capacity: 4096, readers: 1)
    try Ring.setRegistered(ring.fd, reader: 0, false)
    var sequence: UInt64 = 1
    for _ in 0..<20 {
      let writer = try ring.writer()
      #expect(writer.nextSequence == sequence)
      writer.send(1, count: 48)
      sequence += 1
      // Unpublished records take all the room there is; then this writer dies.
      while case .appended = writer.append([UInt8](repeating: 2, count: 48)) {}
      #expect(try ring.usage().tailSequence == sequence - 1)
    }
  }

  @Test("delivers to 64 readers that commit at their own pace", arguments: [11, 12] as [UInt64])
  func manyReaders(seed: UInt64) throws {
    let ring = try TestRing(capacity: 16384, readers: Ring.maximumReaders)
    let writer = try ring.writer()
    let readers = try (0..<Ring.maximumReaders).map { try ring.reader($0) }
    var random = SplitMix(seed: seed)
    var seen = [UInt64](repeating: 0, count: readers.count)
    while writer.nextSequence < 20_000 {
      if case .appended = writer.append(
        type: 1, length: 8, { $0.storeBytes(of: writer.nextSequence, as: UInt64.self) })
      {
        if Bool.random(using: &random) { writer.publish() }
        continue
      }
      writer.publish()
      for (slot, reader) in readers.enumerated() {
        for _ in 0..<Int.random(in: 1...700, using: &random) {
          guard let record = try reader.next() else { break }
          seen[slot] += 1
          try #require(record.sequence == seen[slot] && record.bytes.load(as: UInt64.self) == seen[slot])
        }
        reader.commit()
      }
    }
    writer.publish()
    for (slot, reader) in readers.enumerated() {
      #expect(try seen[slot] + UInt64(reader.all().count) == writer.nextSequence - 1)
    }
  }
}
