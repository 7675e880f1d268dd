// Descriptors and seals: what is inherited can't be pulled from under anybody's feet.

import CLinux
import Glibc
import Testing

@testable import IPC

@Suite("A segment")
struct SealTests {
  @Test("can be neither shrunk nor grown nor unsealed")
  func seals() throws {
    for fd in [
      try Ring.create(name: "test", capacity: 4096, readers: 1).take(),
      try StatusPage.create(name: "test").take(),
    ] {
      defer { close(fd) }
      let seals = rig_get_seals(fd)
      #expect(seals & SharedMemory.sizeSeals == SharedMemory.sizeSeals)
      let size = off_t(try SharedMemory.size(of: fd))
      for other in [0, 4096, size - 1, size + 1, size * 2] {
        #expect(ftruncate(fd, other) == -1 && errno == EPERM)
      }
      #expect(rig_add_seals(fd, CInt(RIG_SEAL_WRITE)) == -1)
    }
  }

  @Test("is closed on exec unless it is passed on by name")
  func closeOnExec() throws {
    for fd in [
      try Ring.create(name: "test", capacity: 4096, readers: 1).take(),
      try StatusPage.create(name: "test").take(),
      try EventFD.create().take(),
    ] {
      defer { close(fd) }
      #expect(fcntl(fd, F_GETFD) & FD_CLOEXEC != 0)
    }
  }

  @Test("that is not sealed is refused, since it could be shrunk under the reader")
  func unsealed() throws {
    let unsealed = try SharedMemory.unsealed(name: "test")
    #expect(ftruncate(unsealed.rawValue, 1 << 20) == 0)
    let fd = unsealed.rawValue
    #expect(throws: IPCError.self) { try RingReader(attaching: fd, slot: 0) }
    #expect(throws: IPCError.self) { try StatusPage(attaching: fd) }
  }

  @Test("that is too short, or no memory at all, is refused")
  func wrongDescriptor() throws {
    let short = try SharedMemory.create(name: "test", bytes: 4096).take()
    let event = try EventFD.create().take()
    defer {
      close(short)
      close(event)
    }
    for fd in [short, event, -1] {
      #expect(throws: IPCError.self) { try RingReader(attaching: fd, slot: 0) }
      #expect(throws: IPCError.self) { try RingWriter(attaching: fd, wake: []) }
      #expect(throws: IPCError.self) { try RingInspector(attaching: fd) }
      #expect(throws: IPCError.self) { try Ring.reset(fd) }
      #expect(throws: IPCError.self) { try StatusPage(attaching: fd) }
    }
  }

  @Test("of another layout version is refused by its number")
  func layoutVersion() throws {
    let ring = try TestRing()
    try Vandal(ring.fd).setWord(RingLayout.versionOffset, 2)
    #expect(throws: IPCError.unknownLayout(found: 2, known: 1...1)) { try ring.reader() }
    let page = try StatusPage.create(name: "test").take()
    defer { close(page) }
    try Vandal(page).setWord(StatusLayout.versionOffset, 99)
    #expect(throws: IPCError.unknownLayout(found: 99, known: 2...2)) { try StatusPage(attaching: page) }
  }

  @Test("outlives the descriptor by which it was mapped")
  func descriptorNotNeeded() throws {
    let fd = try Ring.create(name: "test", capacity: 4096, readers: 1).take()
    let writer = try RingWriter(attaching: fd, wake: [])
    let reader = try RingReader(attaching: fd, slot: 0)
    close(fd)
    writer.send(5)
    #expect(try reader.all().count == 1)
  }
}

@Suite("A descriptor")
struct DescriptorTests {
  @Test("is closed when its owner goes")
  func closes() throws {
    var ends: [CInt] = [-1, -1]
    try #require(pipe(&ends) == 0)
    defer { close(ends[0]) }
    var request = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
    do {
      let writingEnd = Descriptor(owning: ends[1])
      #expect(writingEnd.rawValue == ends[1])
      #expect(poll(&request, 1, 0) == 0)
    }
    #expect(poll(&request, 1, 0) == 1 && request.revents & Int16(POLLHUP) != 0)
  }

  @Test("is left open when it is taken")
  func take() throws {
    let number = try EventFD.create().take()
    #expect(fcntl(number, F_GETFD) >= 0)
    #expect(close(number) == 0)
  }
}

@Suite("An error")
struct IPCErrorTests {
  @Test("says what was found and what was expected")
  func texts() {
    #expect("\(IPCError.system(call: "mmap", errno: ENOMEM))".contains("Cannot allocate memory"))
    #expect(
      "\(IPCError.unknownLayout(found: 3, known: 1...2))" == "layout version 3 is unknown, expected 1 to 2")
    #expect("\(IPCError.tooLarge(bytes: 9, limit: 8))".contains("9"))
    #expect("\(IPCError.corrupt("x"))".contains("x") && "\(IPCError.invalid("y"))" == "y")
    #expect(!"\(IPCError.reset)".isEmpty)
  }
}
