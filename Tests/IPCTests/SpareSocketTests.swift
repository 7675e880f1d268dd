// How a process in reserve gets what others inherit.

import CLinux
import Glibc
import Testing

@testable import IPC

@Suite(.serialized) struct SpareSocketTests {
  /// Above every number that other tests of this process have.
  private static let base: CInt = {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return CInt(min(limit.rlim_cur, 1 << 20)) - 4_000
  }()

  private final class Pair {
    let supervisor: CInt
    let spare: CInt

    init() throws {
      var pair: [CInt] = [-1, -1]
      try #require(rig_seqpacket_pair(&pair) == 0)
      (supervisor, spare) = (pair[0], pair[1])
    }
  }

  private func eventfds(_ count: Int) throws -> [CInt] {
    try (0..<count).map { index in
      let descriptor = try EventFD.create().take()
      var number = UInt64(index + 1)
      try #require(write(descriptor, &number, 8) == 8)
      return descriptor
    }
  }

  @Test func `16.8 a spare has its descriptors under the numbers that it is told, however many`() throws {
    let pair = try Pair()
    defer { close(pair.supervisor) }
    let sources = try eventfds(600)
    // In no order, and the last ones where the first ones have been received.
    let targets = sources.indices.map { Self.base + CInt($0 * 7 % 600) }
    try SpareSocket(pair.supervisor).give(sources, as: targets, manifest: targets[17])
    #expect(try SpareSocket(pair.spare).awaitManifest() == targets[17])
    for (index, target) in targets.enumerated() {
      var number: UInt64 = 0
      #expect(read(target, &number, 8) == 8)
      #expect(number == UInt64(index + 1))
      #expect(fcntl(target, F_GETFD) == FD_CLOEXEC)
    }
    // Nothing else is open: neither the socket nor the numbers under which they came.
    #expect(fcntl(pair.spare, F_GETFD) < 0)
    #expect(fcntl(Self.base + 600, F_GETFD) < 0)
    for descriptor in sources + targets { close(descriptor) }
  }

  @Test func `16.8 a number that is in use is not taken from whoever has it`() throws {
    let pair = try Pair()
    defer { close(pair.supervisor) }
    let sources = try eventfds(1)
    let taken = rig_duplicate_from(sources[0], Self.base + 2_000)
    try SpareSocket(pair.supervisor).give(sources, as: [taken], manifest: taken)
    #expect(throws: IPCError.self) { try SpareSocket(pair.spare).awaitManifest() }
    #expect(fcntl(taken, F_GETFD) == FD_CLOEXEC)
    for descriptor in sources + [taken] { close(descriptor) }
  }

  @Test func `16.8 a spare says once that it waits, and ends when nobody needs it any more`() throws {
    let pair = try Pair()
    let supervisor = SpareSocket(pair.supervisor)
    #expect(!supervisor.takeWarm())
    try SpareSocket(pair.spare).sayWarm()
    #expect(supervisor.takeWarm())
    #expect(!supervisor.takeWarm())
    close(pair.supervisor)
    #expect(try SpareSocket(pair.spare).awaitManifest() == nil)
    close(pair.spare)
  }

  @Test func `16.8 what makes no sense ends the spare, and a spare that has ended is noticed`() throws {
    let pair = try Pair()
    var words: [Int32] = [1, 1, 5, 6, 7]
    _ = rig_message_send(pair.supervisor, &words, 20)
    #expect(throws: IPCError.self) { try SpareSocket(pair.spare).awaitManifest() }
    close(pair.spare)
    let sources = try eventfds(1)
    #expect(throws: IPCError.self) {
      try SpareSocket(pair.supervisor).give(sources, as: [Self.base], manifest: Self.base)
    }
    for descriptor in sources + [pair.supervisor] { close(descriptor) }
  }
}
