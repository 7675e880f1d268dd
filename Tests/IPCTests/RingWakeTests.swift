// Who is woken, when, and how often.

import Testing

@testable import IPC

@Suite("A publication")
struct RingWakeTests {
  @Test("signals a reader that has declared itself asleep, once")
  func signalsSleeper() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    _ = ring.takeSignal()
    #expect(reader.declareAsleep())
    writer.send(1)
    #expect(ring.takeSignal())
    writer.send(2)
    #expect(!ring.takeSignal(), "the flag was taken with the first signal")
    #expect(!reader.declareAsleep(), "two records wait")
    writer.send(3)
    #expect(!ring.takeSignal(), "a reader that was refused its sleep is awake")
    #expect(try reader.all().count == 3)
    #expect(reader.declareAsleep())
    writer.send(4)
    #expect(ring.takeSignal())
  }

  @Test("does not signal a reader that is awake")
  func leavesAwake() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    _ = ring.takeSignal()
    writer.send(1)
    #expect(!ring.takeSignal())
    _ = try reader.all()
    #expect(reader.declareAsleep())
    reader.declareAwake()
    writer.send(2)
    #expect(!ring.takeSignal())
  }

  @Test("does not signal for what is not published")
  func notBeforePublication() throws {
    let ring = try TestRing()
    let (writer, reader) = (try ring.writer(), try ring.reader())
    _ = ring.takeSignal()
    #expect(reader.declareAsleep())
    writer.append([1])
    #expect(!ring.takeSignal())
    writer.publish()
    #expect(ring.takeSignal())
    #expect(try reader.all().count == 1)
    #expect(reader.declareAsleep())
    writer.publish()
    #expect(!ring.takeSignal(), "nothing was appended")
  }

  @Test("signals only the readers that it is meant for")
  func meantFor() throws {
    let ring = try TestRing(readers: 3)
    let writer = try ring.writer()
    let readers = try (0..<3).map { try ring.reader($0) }
    for slot in 0..<3 { _ = ring.takeSignal(slot) }
    for reader in readers { #expect(reader.declareAsleep()) }
    writer.append([1])
    writer.publish(waking: .only(1))
    #expect((0..<3).map(ring.takeSignal) == [false, true, false])
    #expect(!readers[0].declareAsleep(), "the record is there for all the same")
    writer.append([2])
    writer.publish(waking: [])
    #expect((0..<3).map(ring.takeSignal) == [false, false, false])
    writer.append([3])
    writer.publish()
    #expect((0..<3).map(ring.takeSignal) == [false, false, true], "reader 0 was refused its sleep")
  }

  @Test("of a writer that has just attached wakes everybody, since its predecessor may have died before that")
  func attachWakes() throws {
    let ring = try TestRing(readers: 2)
    _ = try ring.writer()
    #expect((0..<2).map(ring.takeSignal) == [true, true])
  }

  @Test("works without descriptors for some or all readers")
  func withoutDescriptors() throws {
    let ring = try TestRing(readers: 2)
    let writer = try RingWriter(attaching: ring.fd, wake: [-1])
    let reader = try ring.reader(1)
    #expect(reader.declareAsleep())
    writer.send(1)
    #expect(try reader.all().count == 1)
    #expect(throws: IPCError.self) {
      try RingWriter(attaching: ring.fd, wake: [CInt](repeating: -1, count: 65))
    }
  }

  @Test("is addressed to no slot that does not exist")
  func slots() {
    #expect(ReaderSet.only(-1).isEmpty && ReaderSet.only(64).isEmpty)
    #expect(ReaderSet.only(63).rawValue == 1 << 63)
    #expect(ReaderSet.all.contains(.only(5)))
  }
}
