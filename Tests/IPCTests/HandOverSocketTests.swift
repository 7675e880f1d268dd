// The socket by which two processes hand connections over: what comes out is what was sent, and nothing that makes no sense does.

import CLinux
import Glibc
import Testing

@testable import IPC
@testable import RingTool

private struct Pair {
  let ends: [CInt]

  init() throws {
    var pair: [CInt] = [-1, -1]
    try #require(rig_seqpacket_pair(&pair) == 0)
    ends = pair
  }

  func close() { for end in ends { Glibc.close(end) } }
}

/// One end of two, to be sent; whether nobody has one any more is seen at the other.
private struct Traced {
  let sent: CInt
  private let watched: CInt

  init() throws {
    var ends: [CInt] = [-1, -1]
    // A process that another test starts meanwhile must not keep it.
    try #require(rig_seqpacket_pair(&ends) == 0)
    (watched, sent) = (ends[0], ends[1])
  }

  /// Closes the own one.
  func isGone() -> Bool {
    close(sent)
    defer { close(watched) }
    var end = pollfd(fd: watched, events: 0, revents: 0)
    return poll(&end, 1, 60_000) == 1
  }
}

/// Whether two descriptors are of the same file.
private func areSame(_ one: CInt, _ other: CInt) -> Bool {
  var (first, second) = (stat(), stat())
  return fstat(one, &first) == 0 && fstat(other, &second) == 0
    && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
}

@Suite("16.6 The socket of a hand-over", .serialized)
struct HandOverSocketTests {
  @Test("brings every message as it was, with the sockets to their entries, and wakes the other process")
  func messages() throws {
    let pair = try Pair()
    defer { pair.close() }
    let wake = try EventFD.create()
    let heir = HandOverSocket(pair.ends[0], incarnation: 8, wake: wake.rawValue)
    let incumbent = HandOverSocket(pair.ends[1], incarnation: 7, wake: nil)
    #expect(incumbent.receive() == nil)
    let most = (0..<UInt64(HandOverBatch.mostPositions)).map { $0 << 40 }
    #expect(heir.ask(3, positions: most))
    var woken = pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0)
    #expect(poll(&woken, 1, 0) == 1)
    let asked = try #require(incumbent.receive())
    #expect(asked.from == 8 && asked.message == .ask(number: 3, positions: most))

    let files = try (0..<2).map { _ in try EventFD.create().take() }
    defer { for file in files { close(file) } }
    var batch = HandOverBatch(number: 3, positions: most, orders: 12, entries: [])
    batch.entries = [.init(5), .init(6, descriptor: files[0]), .init(7), .init(8, descriptor: files[1])]
    #expect(incumbent.send(batch, to: 8))
    let given = try #require(heir.receive())
    guard case .batch(let received) = given.message else { throw HandOverFailure.expectedBatch }
    #expect(given.from == 7 && received.number == 3 && received.orders == 12 && received.positions == most)
    #expect(received.entries.map(\.number) == [6, 8, 5, 7] && received.lost.isEmpty)
    let sockets = received.entries.compactMap(\.descriptor)
    #expect(sockets.count == 2 && zip(sockets, files).allSatisfy(areSame))
    for socket in sockets {
      #expect(fcntl(socket, F_GETFD) & FD_CLOEXEC != 0)
      close(socket)
    }
    #expect(heir.taken(3, from: 7) && incumbent.receive().map { $0.message == .taken(number: 3) } == true)
    #expect(incumbent.over(to: 8) && heir.receive().map { $0.message == .over } == true)
    #expect(heir.droppedCount == 0 && incumbent.droppedCount == 0)
  }

  @Test("takes a batch of as many as there may be, and no larger one")
  func largest() throws {
    let pair = try Pair()
    defer { pair.close() }
    let heir = HandOverSocket(pair.ends[0], incarnation: 8, wake: nil)
    let incumbent = HandOverSocket(pair.ends[1], incarnation: 7, wake: nil)
    let most = UInt32(HandOverBatch.mostEntries)
    let positions = [UInt64](repeating: .max, count: HandOverBatch.mostPositions)
    func batch(_ count: UInt32) -> HandOverBatch {
      HandOverBatch(
        number: 1, positions: positions, orders: 0,
        entries: (0..<count).map { .init($0, descriptor: pair.ends[0]) })
    }
    #expect(!incumbent.send(batch(most + 1), to: 8))
    #expect(incumbent.send(batch(most), to: 8))
    guard case .batch(let received)? = heir.receive()?.message else { throw HandOverFailure.expectedBatch }
    #expect(received.entries.map(\.number) == Array(0..<most))
    for case let socket? in received.entries.map(\.descriptor) { close(socket) }
    // Whoever doesn't read is told nothing more.
    var sent = 0
    while sent < 10_000, heir.ask(UInt64(sent), positions: positions) { sent += 1 }
    #expect(sent > 0 && sent < 10_000)
  }

  @Test("drops what is for another process, and closes what comes with it")
  func strangers() throws {
    let pair = try Pair()
    defer { pair.close() }
    let incumbent = HandOverSocket(pair.ends[1], incarnation: 7, wake: nil)
    let next = HandOverSocket(pair.ends[0], incarnation: 9, wake: nil)
    let file = try Traced()
    let batch = HandOverBatch(
      number: 1, positions: [], orders: 0, entries: [.init(1, descriptor: file.sent)])
    #expect(incumbent.send(batch, to: 8) && incumbent.over(to: 8) && incumbent.over(to: 9))
    #expect(next.receive().map { $0.message == .over } == true)
    #expect(next.droppedCount == 2)
    #expect(file.isGone())
  }

  @Test("drops whatever makes no sense, and closes what comes with it")
  func garbage() throws {
    let pair = try Pair()
    defer { pair.close() }
    let end = HandOverSocket(pair.ends[0], incarnation: 8, wake: nil)
    let file = try Traced()
    var random = SplitMix(seed: 5)
    // A batch, a byte of which is another, or that is cut or goes on.
    let other = HandOverSocket(pair.ends[1], incarnation: 7, wake: nil)
    let batch = HandOverBatch(
      number: 1, positions: [1, 2], orders: 0, entries: [.init(1, descriptor: file.sent), .init(2)])
    #expect(other.send(batch, to: 8))
    var well = [UInt8](repeating: 0, count: 4096)
    let length = recv(pair.ends[0], &well, well.count, 0)
    try #require(length > 0)
    well.removeLast(well.count - length)
    var understood = 0
    for _ in 0..<3_000 {
      var bytes = well
      switch Int.random(in: 0..<4, using: &random) {
      case 0: bytes[Int.random(in: bytes.indices, using: &random)] = .random(in: 0...255, using: &random)
      case 1: bytes.removeLast(Int.random(in: 1...bytes.count - 1, using: &random))
      case 2: bytes += [UInt8](repeating: 0, count: .random(in: 1...5_000, using: &random))
      default:
        bytes = (0..<Int.random(in: 1...80, using: &random)).map { _ in .random(in: 0...255, using: &random) }
      }
      let files = [CInt](repeating: file.sent, count: .random(in: 0...3, using: &random))
      try #require(rig_message_send_with(pair.ends[1], bytes, bytes.count, files, CInt(files.count)) > 0)
      guard case (let from, let message)? = end.receive() else { continue }
      understood += 1
      #expect(from != 8)
      guard case .batch(let batch) = message else { continue }
      #expect(batch.entries.count + batch.lost.count == 2)
      for case let socket? in batch.entries.map(\.descriptor) { close(socket) }
    }
    #expect(end.droppedCount + understood == 3_000 && end.droppedCount > 1_500)
    // Empty ones too.
    #expect(send(pair.ends[1], well, 0, 0) == 0 && end.receive() == nil)
    #expect(file.isGone())
  }
}

private enum HandOverFailure: Error { case expectedBatch }
