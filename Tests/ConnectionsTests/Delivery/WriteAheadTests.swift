// A worker may die between any two of its instructions: after each store to the ledger, and so before and after each send, what an heir
// finds there and what the kernel has counted are together exactly what the client still misses.

import IPC
import TestSupport
import Testing

@testable import Connections
@testable import Kit

/// One client of a worker that is watched, and what it must have got.
private struct Watched {
  let client: TestClient
  let connection: Connection
  /// Where it begins.
  let after: Cursor
  var pings = 0
  /// Rest of a frame that it is saying.
  var unsaid: [UInt8] = []
  /// Bytes that it had given when each ping was whole.
  var pingEnds: [Int] = []

  /// Ends of its events in what it has got, and of those with a number what that is.
  func pieces() -> [(end: Int, number: Int?, isPong: Bool)] {
    connection.webSocket == nil ? blocks() : frames()
  }

  private func blocks() -> [(end: Int, number: Int?, isPong: Bool)] {
    var pieces: [(end: Int, number: Int?, isPong: Bool)] = []
    var start = 0
    let all = client.all
    for end in all.indices where end > start && all[end] == 10 && all[end - 1] == 10 {
      let text = String(decoding: all[start...end], as: UTF8.self)
      let number = text.split(separator: "\n").first { $0.hasPrefix(#"data: {"n":"#) }
        .flatMap { Int($0.dropFirst(11).prefix { $0.isNumber }) }
      pieces.append((end + 1, number, false))
      start = end + 1
    }
    #expect(start == all.count, "cut within an event")
    return pieces
  }

  private func frames() -> [(end: Int, number: Int?, isPong: Bool)] {
    var pieces: [(end: Int, number: Int?, isPong: Bool)] = []
    // The opening isn't a frame.
    var start = 6
    let all = client.all
    while start + 2 <= all.count {
      var head = 2
      var length = Int(all[start + 1])
      let extra = length == 126 ? 2 : length == 127 ? 8 : 0
      if extra > 0, start + 2 + extra <= all.count {
        length = all[start + 2..<start + 2 + extra].reduce(0) { $0 << 8 | Int($1) }
        head += extra
      }
      guard start + head + length <= all.count else { break }
      let text = String(decoding: all[start + head..<start + head + length], as: UTF8.self)
      let number = text.hasPrefix(#"{"n":"#) ? Int(text.dropFirst(5).prefix { $0.isNumber }) : nil
      pieces.append((start + head + length, number, all[start] == 0x8A))
      start += head + length
    }
    #expect(start == all.count, "cut within a frame")
    return pieces
  }
}

@Suite("16 Write-ahead")
struct WriteAheadTests {
  /// Little of everything, so that every bound is met.
  private static let sizes = LedgerSizes(
    entries: 64, spills: 12, encodings: 6, bufferBytes: 600 << 10, intentBytes: 200, arenaBytes: 1 << 20)

  private final class Scene {
    let gateway: TestGateway
    let worker: TestWorker
    let watch: LedgerWatch
    let writer: EventWriter
    let ledger: CInt
    private var random: SeededRandom
    private(set) var clients: [Watched] = []
    /// Sequences of what everybody must get, by number.
    private(set) var published: [(number: Int, sequence: UInt64)] = []
    /// Before everything.
    let start: Cursor
    private var count = 0

    init(seed: UInt64, _ sizes: LedgerSizes) throws {
      gateway = try TestGateway(eventRingBytes: 4 << 20)
      ledger = try Ledger.create(name: "watched", sizes).take()
      worker = try gateway.worker(ledger: ledger) { $0.maxUnsentBytes = 12_000 }
      watch = LedgerWatch(worker, ledger)
      start = worker.events.own
      writer = try gateway.streamsWriter()
      random = SeededRandom(seed: seed)
    }

    func publish() throws {
      count += 1
      let isForAnn = count % 5 == 0
      let users = isForAnn ? ["Ann"] : count % 7 == 0 ? ["Bob"] : []
      let isWanted = count % 3 != 0
      let isLarge = Int.random(in: 0..<60, using: &random) == 0
      try writer.publish(
        count, type: isWanted ? "all" : "other", users: users,
        padding: isLarge ? 70_000 : .random(in: 0...2_000, using: &random))
      if isForAnn || (isWanted && users.isEmpty) { published.append((count, start[0] + UInt64(count))) }
    }

    func open(asWebSocket: Bool, lastEventID: String? = nil) throws {
      let client = try TestClient()
      watch.add(client)
      let identity = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s")]))
      let after = lastEventID.flatMap { Cursor($0) } ?? worker.events.own
      let connection =
        asWebSocket
        ? try worker.openWebSocket(client, [.to("all")], lastEventID: lastEventID, identity: identity)
        : try worker.openSSE(client, [.to("all")], lastEventID: lastEventID, identity: identity)
      clients.append(Watched(client: client, connection: connection, after: after))
    }

    func step() throws {
      let index = Int.random(in: 0..<clients.count, using: &random)
      let one = clients[index]
      switch Int.random(in: 0..<12, using: &random) {
      case 0...2: for _ in 0..<Int.random(in: 1...4, using: &random) { try publish() }
      case 3...4: worker.run()
      case 5...6: one.client.read(atMost: .random(in: 1...20_000, using: &random))
      case 7: one.client.socket.pump()
      case 8: if one.connection.mayBeat { one.connection.beat(second: 1) }
      case 9:
        _ = worker.change(one.connection, SubscriptionChange([.to("all")]))
      default: try sayMore(index)
      }
    }

    private func sayMore(_ index: Int) throws {
      guard clients[index].connection.webSocket != nil else { return }
      if clients[index].unsaid.isEmpty {
        let pings = clients[index].pings
        clients[index].pings += 1
        clients[index].unsaid =
          ClientFrame(opcode: 9, payload: [UInt8](repeating: UInt8(pings % 256), count: pings % 100)).bytes
        clients[index].pingEnds.append(clients[index].client.givenBytes + clients[index].unsaid.count)
      }
      let count = Int.random(in: 1...clients[index].unsaid.count, using: &random)
      let said = clients[index].unsaid.prefix(count)
      clients[index].unsaid.removeFirst(count)
      try clients[index].client.say(said)
    }

    /// Clients go before their worker does.
    func end() {
      for one in clients { one.client.disconnect() }
      clients = []
    }

    func finish() throws {
      for index in clients.indices where !clients[index].unsaid.isEmpty {
        try clients[index].client.say(clients[index].unsaid)
      }
      var isMoving = true
      while isMoving {
        worker.run()
        isMoving = false
        for one in clients {
          one.client.socket.pump()
          if one.client.read() || one.client.socket.isWaiting { isMoving = true }
        }
      }
    }
  }

  @Test(
    "16 whenever a worker dies, its heir finds what each client still misses, to the byte, and where it stands",
    arguments: 1...8 as ClosedRange<UInt64>)
  func anyMoment(seed: UInt64) throws {
    let scene = try Scene(seed: seed, Self.sizes)
    defer { scene.end() }
    for number in 0..<4 { try scene.open(asWebSocket: number % 2 == 1) }
    for step in 0..<250 {
      try scene.step()
      if step == 100 {
        var id: [UInt8] = []
        Cursor(epoch: TestGateway.epoch, positions: [scene.start[0] + 3]).write(to: &id)
        try scene.open(asWebSocket: seed % 2 == 0, lastEventID: String(decoding: id, as: UTF8.self))
      }
    }
    try scene.finish()
    var found = 0
    for one in scene.clients {
      let findings = scene.watch.findings(one.client)
      found += findings.count
      check(one, findings, scene.published)
      #expect(findings.last?.consumed == one.client.givenBytes || one.connection.webSocket == nil)
      #expect(findings.last?.missing.isEmpty == true, "nothing waits any more")
    }
    #expect(found > 100, "of \(scene.watch.moments) moments")
    #expect(scene.watch.notKept < 3 * scene.watch.moments, "of five at a time most are kept")
  }

  private func check(
    _ one: Watched, _ findings: [LedgerWatch.Finding], _ published: [(number: Int, sequence: UInt64)]
  ) {
    let pieces = one.pieces()
    let expected = published.filter { $0.sequence > one.after[0] }
    #expect(pieces.compactMap(\.number) == expected.map(\.number))
    // By end of a piece: events and pongs up to there.
    var upTo: [Int: (events: Int, pongs: Int)] = [0: (0, 0)]
    if one.connection.webSocket != nil { upTo[6] = (0, 0) }
    var (events, pongs) = (0, 0)
    for piece in pieces {
      if piece.number != nil { events += 1 }
      if piece.isPong { pongs += 1 }
      upTo[piece.end] = (events, pongs)
    }
    for finding in findings {
      let end = finding.written + finding.missing.count
      guard end <= one.client.all.count, one.client.all[finding.written..<end].elementsEqual(finding.missing)
      else {
        Issue.record("behind \(finding.written) bytes the heir would have sent something else")
        return
      }
      guard let had = upTo[end] else {
        Issue.record("what the heir would have sent ends within a piece, at \(end)")
        return
      }
      let due = expected.filter { $0.sequence <= finding.position[0] }.count
      guard had.events == due else {
        Issue.record("at \(finding.position) the client had \(had.events) events, expected \(due)")
        return
      }
      guard finding.consumed == finding.read else { continue }
      let answered = one.pingEnds.filter { $0 <= finding.read }.count
      if had.pongs < answered { Issue.record("\(answered) pings were taken in, and \(had.pongs) answered") }
    }
  }
}

@Suite("16 What is in the ledger")
struct LedgerKeepingTests {
  private func ledger(
    entries: Int = 64, arenaBytes: Int = 1 << 20, bufferBytes: Int = 1 << 20
  ) throws -> CInt {
    try Ledger.create(
      name: "test",
      LedgerSizes(
        entries: entries, spills: 100, encodings: 6, bufferBytes: bufferBytes, intentBytes: 1000,
        arenaBytes: arenaBytes)
    ).take()
  }

  @Test("16 a stream is in the ledger from its greeting until it is told that it ends, over TLS never")
  func fromTheGreetingOn() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker(ledger: try ledger())
    let (plain, encrypted) = (try TestClient(), try TestClient())
    let stream = try worker.openSSE(plain, [.to("all")])
    let other = try worker.openSSE(encrypted, [.to("all")], isDirect: false)
    let entry = worker.connections.table.entries[Int(stream.index)]
    #expect(entry != .none && worker.connections.ledger.isKept(entry))
    #expect(worker.connections.ledger.written(entry) == UInt64(plain.takenBytes))
    #expect(worker.connections.table.entries[Int(other.index)] == .none)
    #expect(worker.connections.ledger.openEntries == 1)
    worker.connections.close(stream, .closedByOperator)
    #expect(worker.connections.ledger.openEntries == 0)
    #expect(plain.take().contains("closed by operator"))
    for client in [plain, encrypted] { client.disconnect() }
  }

  @Test("16 a client that goes by itself is in the ledger no longer")
  func gone() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker(ledger: try ledger())
    let client = try TestClient()
    try worker.openWebSocket(client, [.to("all")])
    #expect(worker.connections.ledger.openEntries == 1)
    client.disconnect()
    #expect(worker.connections.ledger.openEntries == 0 && worker.connections.ledger.usedBytes == 0)
  }

  @Test("16 a stream is kept as long as no more than 64 KiB wait, and again when less do")
  func tooMuchWaits() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker(ledger: try ledger())
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    let stream = try worker.openSSE(client, [.to("all")])
    let (entry, ledger) = (worker.connections.table.entries[Int(stream.index)], worker.connections.ledger)
    let before = ledger.usedBytes
    try writer.publish(1, type: "all", padding: 50_000)
    worker.run()
    #expect(ledger.isKept(entry) && ledger.usedBytes > before + 40_000)
    try writer.publish(2, type: "all", padding: 50_000)
    worker.run()
    #expect(!ledger.isKept(entry))
    while !ledger.isKept(entry) {
      #expect(client.read(atMost: 1000))
      client.socket.pump()
    }
    #expect(stream.waitingBytes > 0, "not only when nothing waits")
    #expect(numbers(client.take()) == [1, 2])
    #expect(ledger.isKept(entry) && ledger.usedBytes == before)
    client.disconnect()
  }

  @Test("16 streams for whose output the ledger has no room are served as before, and not kept")
  func fullArena() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker(ledger: try ledger(arenaBytes: 256 << 10))
    let writer = try gateway.streamsWriter()
    let clients = try (0..<5).map { _ in try TestClient() }
    let streams = try clients.map { try worker.openSSE($0, [.to("all")]) }
    let ledger = worker.connections.ledger
    let entries = streams.map { worker.connections.table.entries[Int($0.index)] }
    #expect(entries.allSatisfy { ledger.isKept($0) })
    try writer.publish(1, type: "all", padding: 50_000)
    worker.run()
    let kept = entries.filter { ledger.isKept($0) }.count
    #expect(kept > 0 && kept < 5)
    for client in clients { #expect(numbers(client.take()) == [1]) }
    #expect(entries.allSatisfy { ledger.isKept($0) })
    for client in clients { client.disconnect() }
  }

  @Test("16 streams for which the ledger has no entry are served as before")
  func noEntries() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker(ledger: try ledger(entries: 8))
    let writer = try gateway.streamsWriter()
    let taken = (0..<7).compactMap { _ in worker.connections.ledger.open(.serving) }
    let clients = try (0..<3).map { _ in try TestClient() }
    let streams = try clients.map { try worker.openSSE($0, [.to("all")]) }
    #expect(taken.count == 7)
    #expect(streams.filter { worker.connections.table.entries[Int($0.index)] != .none }.count == 1)
    try writer.publish(1, type: "all", padding: 20_000)
    worker.run()
    for client in clients { #expect(numbers(client.take()) == [1]) }
    for client in clients { client.disconnect() }
  }

  @Test("16 an event that is larger than any may be is passed over, and everybody is told")
  func tooLarge() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.maxEventBytes = 10_000 }
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    try worker.openSSE(client, [.to("all")])
    for (number, padding) in [(1, 9_000), (2, 30_000), (3, 9_000)] {
      try writer.publish(number, type: "all", padding: padding)
    }
    worker.run()
    let text = client.take()
    #expect(numbers(text) == [1, 3] && text.contains("rig.events_lost"))
    client.disconnect()
  }

  @Test("16 a worker whose ledger can't take the largest event of its rings doesn't begin")
  func smallBuffers() throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let ledger = try ledger(bufferBytes: 512 << 10)
    #expect(throws: IPCError.self) { try gateway.worker(ledger: ledger) }
  }
}
