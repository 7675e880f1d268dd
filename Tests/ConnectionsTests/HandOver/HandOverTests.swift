// Two living processes of a place in one test: the incumbent gives its connections, the heir takes them, and no client notices.
//
//   client ═══ far │ near ── the incumbent's channel          Sockets go over a real socket pair, and have other numbers at
//                  └──────── the heir's channel               their new owner's; what they are is told by their inodes.

import Glibc
import NIOCore
import Settings
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

/// The clients' sockets, by whichever number a process knows them.
private final class SharedSockets: PassingHost {
  private var clients: [UInt64: TestClient] = [:]
  /// HTTP connections between two requests that the incumbent has.
  var idle: [(entry: JournalEntry, socket: CInt)] = []
  /// Those that a process has been given.
  private(set) var adopted: [(socket: CInt, origin: AdoptedSocket)] = []
  /// Numbers that a real channel would own.
  private var owned: [CInt] = []
  var channels: Int { owned.count }

  func add(_ client: TestClient) { clients[Self.inode(client.near)] = client }

  private static func inode(_ descriptor: CInt) -> UInt64 {
    var information = stat()
    return fstat(descriptor, &information) == 0 ? UInt64(information.st_ino) : 0
  }

  private func client(_ socket: CInt) -> TestClient? { clients[Self.inode(socket)] }

  var accounts: SocketAccounts {
    SocketAccounts(
      written: { [unowned self] in client($0).map { UInt64($0.takenBytes) } },
      read: { [unowned self] in client($0).map { UInt64($0.givenBytes) } },
      cookie: { Self.inode($0) })
  }

  func channel(of socket: CInt) -> (any Channel)? {
    guard let client = client(socket) else { return nil }
    owned.append(socket)
    try? client.moveToOtherChannel()
    return client.channel
  }

  func adopt(_ socket: CInt, _ origin: AdoptedSocket) { adopted.append((socket, origin)) }

  func release(_ most: Int, to take: (JournalEntry, CInt) -> Bool) -> Int {
    let offered = idle.prefix(most)
    let left = offered.filter { !take($0.entry, fcntl($0.socket, F_DUPFD_CLOEXEC, 0)) }
    idle.replaceSubrange(0..<offered.count, with: left)
    return offered.count - left.count
  }

  /// What a process would have closed with its channels.
  func closeAll() {
    for socket in adopted.map(\.socket) + owned { close(socket) }
  }
}

private final class Seats {
  private static let sizes = LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20)

  let gateway: TestGateway
  let sockets = SharedSockets()
  let incumbent: TestWorker
  let heir: TestWorker
  let writer: EventWriter
  private(set) var clients: [TestClient] = []
  private(set) var askedCount = 0

  init(_ change: (inout Settings) -> Void = { _ in }) throws {
    gateway = try TestGateway(seats: 2, eventRingBytes: 4 << 20, ledger: Self.sizes)
    writer = try gateway.streamsWriter()
    incumbent = try gateway.worker(
      seat: 0, sockets: sockets.accounts, birth: TestGateway.Birth(incarnation: 1), change)
    try gateway.setSeated(true, seat: 1)
    heir = try gateway.worker(
      seat: 1, sockets: sockets.accounts, birth: TestGateway.Birth(incarnation: 2, predecessor: 1), change)
    (incumbent.wiring.handOver.patienceNs, incumbent.wiring.handOver.vainMs) = (.max, 0)
    for (worker, isHeir) in [(incumbent, false), (heir, true)] {
      worker.wiring.adoption.inherit(from: [], patienceSeconds: 1)
      worker.wiring.state.catchUp()
      worker.wiring.entrance.host = sockets
      worker.wiring.handOver.begin(host: sockets) { [unowned self] in if !isHeir { askedCount += 1 } }
      worker.wiring.adoption.begin()
      worker.run()
    }
  }

  func client() throws -> TestClient {
    let client = try TestClient()
    sockets.add(client)
    clients.append(client)
    return client
  }

  /// The time is up for what is in the air.
  func runOutOfTime() {
    incumbent.wiring.handOver.patienceNs = 0
    incumbent.run()
    incumbent.wiring.handOver.patienceNs = .max
  }

  /// The heir is ready.
  func begin() { heir.wiring.takeOver?.begin() }

  /// Both until nothing more happens.
  func run() {
    var quietRounds = 0
    for _ in 0..<1_000 {
      let before = heir.connections.table.count
      heir.run()
      incumbent.run()
      let isQuiet = incumbent.handOver.isQuiet && heir.connections.table.count == before
      quietRounds = isQuiet ? quietRounds + 1 : 0
      if quietRounds == 3 { return }
    }
    Issue.record("the hand-over doesn't come to rest")
  }

  func end() {
    for client in clients { client.disconnect() }
    for worker in [incumbent, heir] { worker.run() }
    sockets.closeAll()
  }

  func session(_ worker: TestWorker) -> Connection {
    let session = worker.insertSession()
    worker.connections.begin(session, ConnectRequest([.to("all")]), .fromNow)
    session.polls?.enterLedger()
    return session
  }
}

@Suite("16.6 Handing over")
struct HandOverTests {
  @Test(
    "16.6 each client has each event once and in order, whenever which process does what",
    arguments: 1...8 as ClosedRange<UInt64>)
  func nothingIsLost(seed: UInt64) throws {
    let seats = try Seats()
    var random = SeededRandom(seed: seed)
    let (streams, webSockets) = (
      try (0..<12).map { _ in try seats.client() }, try (0..<8).map { _ in try seats.client() }
    )
    for client in streams { try seats.incumbent.openSSE(client, [.to("all")]) }
    for client in webSockets { try seats.incumbent.openWebSocket(client, [.to("all")]) }
    let session = seats.session(seats.incumbent)
    let serials = Set(seats.incumbent.connections.table.all.map(\.serial))
    var published = 0
    func publish() throws {
      published += 1
      try seats.writer.publish(published, type: "all", padding: .random(in: 0...600, using: &random))
    }
    for step in 0..<300 {
      switch Int.random(in: 0..<7, using: &random) {
      case 0: try publish()
      case 1: seats.incumbent.run()
      case 2: seats.heir.run()
      case 3: seats.clients.randomElement(using: &random)?.read()
      case 4: seats.clients.randomElement(using: &random)?.socket.pump()
      case 5: seats.runOutOfTime()
      default: if step > 50 { seats.begin() }
      }
    }
    seats.begin()
    for _ in 0..<5 {
      for client in seats.clients { client.readAll() }
      seats.run()
      try publish()
    }
    seats.run()
    let expected = Array(1...published)
    for client in streams { #expect(numbers(client.take()) == expected) }
    for client in webSockets {
      let texts = webSocketTexts(client.takeBytes())
      #expect(texts.compactMap(number(ofText:)) == expected)
    }
    #expect(seats.incumbent.connections.table.count == 0 && seats.incumbent.handOver.isQuiet)
    #expect(seats.incumbent.connections.ledger.openEntries == 0 && seats.askedCount == 1)
    #expect(Set(seats.heir.connections.table.all.map(\.serial)) == serials)
    #expect(seats.heir.connections.ledger.openEntries == serials.count)
    #expect(seats.incumbent.metric("rig_handed_over_connections_total") == Int64(serials.count))
    #expect(!streams.contains { $0.socket.isOutputClosed })
    // Whoever polled at the incumbent polls at the heir.
    var answer: WorkerAnswer?
    let polled = try #require(seats.heir.polls.session(serial: session.serial))
    _ = seats.heir.polls.poll(polled, lastEventID: nil, shown: []) { answer = $0 }
    seats.heir.run()
    let body = String(decoding: answer?.body ?? [], as: UTF8.self)
    #expect(expected.allSatisfy { body.contains(#""n":\#($0)"#) })
    seats.end()
  }

  private func number(ofText text: String) -> Int? {
    text.firstRange(of: #"{"n":"#).flatMap { Int(text[$0.upperBound...].prefix { $0.isNumber }) }
  }

  @Test("16.6 who has something under way goes when it is over, and gets on as before meanwhile")
  func underWay() throws {
    let seats = try Seats { $0.maxUnsentBytes = 1 << 20 }
    let (slow, halfRead) = (try seats.client(), try seats.client())
    let stream = try seats.incumbent.openSSE(slow, [.to("all")])
    let webSocket = try seats.incumbent.openWebSocket(halfRead, [.to("all")])
    let frame = ClientFrame(opcode: 9, payload: Array("hello".utf8)).bytes
    try halfRead.say(frame[..<4])
    for number in 1...20 { try seats.writer.publish(number, type: "all", padding: 3_000) }
    seats.incumbent.run()
    #expect(stream.outlet?.isWaiting == true)
    seats.begin()
    seats.run()
    #expect(seats.heir.connections.table.count == 0 && seats.incumbent.connections.isOpen(stream))
    try halfRead.say(frame[4...])
    halfRead.readAll()
    seats.run()
    #expect(seats.heir.connections.table.find(serial: webSocket.serial) != nil)
    #expect(seats.heir.connections.table.count == 1)
    slow.readAll()
    seats.run()
    #expect(seats.heir.connections.table.count == 2 && seats.incumbent.connections.table.count == 0)
    #expect(numbers(slow.take()) == Array(1...20))
    seats.end()
  }

  @Test(
    "16.6 while a batch is in the air nothing is delivered; what isn't taken in time comes back, and a late heir gets none of it"
  )
  func late() throws {
    let seats = try Seats()
    let clients = try (0..<3).map { _ in try seats.client() }
    for client in clients { try seats.incumbent.openSSE(client, [.to("all")]) }
    seats.begin()
    seats.heir.run()
    seats.incumbent.run()
    #expect(seats.incumbent.handOver.holdsDelivery)
    try seats.writer.publish(1, type: "all")
    seats.incumbent.run()
    #expect(clients.allSatisfy { $0.take() == "" })
    seats.runOutOfTime()
    #expect(!seats.incumbent.handOver.holdsDelivery && seats.sockets.channels == 3)
    #expect(clients.allSatisfy { numbers($0.take()) == [1] })
    // The batch that the heir reads now is of another time.
    seats.heir.run()
    #expect(seats.heir.connections.table.count == 0 && seats.heir.connections.ledger.openEntries == 0)
    try seats.writer.publish(2, type: "all")
    seats.run()
    #expect(seats.heir.connections.table.count == 3)
    #expect(clients.allSatisfy { numbers($0.take()) == [2] })
    seats.end()
  }

  @Test("16.6 whatever must happen to a connection that is in the air takes it back")
  func needed() throws {
    let seats = try Seats()
    let clients = try (0..<3).map { _ in try seats.client() }
    let connections = try clients.map { try seats.incumbent.openSSE($0, [.to("all")]) }
    let session = seats.session(seats.incumbent)
    seats.begin()
    seats.heir.run()
    seats.incumbent.run()
    let areSuspended = (connections + [session]).allSatisfy { $0.isSuspended }
    #expect(areSuspended)
    seats.incumbent.connections.close(connections[0], .closedByOperator)
    var answer: WorkerAnswer?
    seats.incumbent.changes.make(SubscriptionChange([.to("other")]), serial: connections[1].serial) {
      answer = $0
    }
    #expect(answer?.status == 204)
    let polled = try #require(seats.incumbent.polls.session(serial: session.serial))
    #expect(polled === session && !session.isSuspended)
    #expect(clients[0].take().contains("closed by operator"))
    #expect(clients[1].take().contains("rig.subscriptions_set"))
    seats.incumbent.tick()
    #expect(connections[2].isSuspended, "time brings nothing to who is in the air")
    seats.run()
    #expect(seats.incumbent.connections.table.find(serial: connections[0].serial) === connections[0])
    #expect(
      Set(seats.heir.connections.table.all.map(\.serial))
        == Set([connections[1], connections[2], session].map(\.serial)))
    try seats.writer.publish(1, type: "other")
    try seats.writer.publish(2, type: "all")
    seats.run()
    #expect(numbers(clients[1].take()) == [1] && numbers(clients[2].take()) == [2])
    seats.end()
  }

  @Test("16.6 who has been claimed isn't here any more, whatever is asked of it")
  func gone() throws {
    let seats = try Seats()
    let client = try seats.client()
    let connection = try seats.incumbent.openSSE(client, [.to("all")])
    seats.begin()
    seats.heir.run()
    seats.incumbent.run()
    #expect(connection.isSuspended)
    seats.heir.run()
    // It is the heir's, and the incumbent hasn't read that.
    #expect(seats.heir.connections.table.find(serial: connection.serial) != nil)
    var answer: WorkerAnswer?
    seats.incumbent.changes.make(SubscriptionChange([.to("other")]), serial: connection.serial) {
      answer = $0
    }
    #expect(answer?.status == 410 && client.take() == "")
    #expect(seats.incumbent.connections.table.count == 0)
    seats.incumbent.connections.close(connection, .drain)
    seats.run()
    try seats.writer.publish(1, type: "all")
    seats.run()
    #expect(numbers(client.take()) == [1])
    seats.end()
  }

  @Test("16.6 connections between two requests go along, come back, or are closed if nobody wants them")
  func idle() throws {
    let seats = try Seats()
    let ledger = seats.incumbent.connections.ledger
    func open() throws -> (JournalEntry, TestClient) {
      let client = try seats.client()
      let cookie = try #require(seats.sockets.accounts.cookie(client.near))
      let entry = try #require(ledger.open(.idle, socket: (client.near, cookie)))
      seats.sockets.idle.append((entry.rawValue, client.near))
      return (entry.rawValue, client)
    }
    let first = try open()
    seats.begin()
    seats.heir.run()
    seats.incumbent.run()
    #expect(!seats.incumbent.handOver.isQuiet && seats.sockets.idle.isEmpty)
    seats.runOutOfTime()
    let back = try #require(seats.sockets.adopted.first?.origin.noted)
    #expect(back.entry == first.0 && seats.sockets.adopted.count == 1)
    seats.sockets.idle.append((first.0, first.1.near))
    // Another one, of which the heir makes nothing: it says that its socket is another's.
    let strange = try seats.client()
    let strangeEntry = try #require(ledger.open(.idle, socket: (strange.near, 12345)))
    seats.sockets.idle.append((strangeEntry.rawValue, strange.near))
    seats.heir.run()
    seats.run()
    #expect(seats.sockets.adopted.count == 2 && ledger.openEntries == 0)
    #expect(seats.heir.connections.ledger.openEntries == 1)
    seats.end()
  }

  @Test("16.6 an heir of another time isn't heeded, and a worker that ends gives nothing more")
  func strangers() throws {
    let seats = try Seats()
    let client = try seats.client()
    let connection = try seats.incumbent.openSSE(client, [.to("all")])
    seats.incumbent.handOver.heard(1, .ask(number: 1, positions: []))
    seats.incumbent.run()
    #expect(!connection.isSuspended && seats.askedCount == 0)
    seats.begin()
    seats.heir.run()
    seats.incumbent.run()
    #expect(connection.isSuspended && seats.askedCount == 1)
    seats.incumbent.handOver.end()
    #expect(!connection.isSuspended && seats.incumbent.handOver.isQuiet)
    seats.run()
    #expect(seats.heir.connections.table.count == 0 && seats.incumbent.connections.isOpen(connection))
    try seats.writer.publish(1, type: "all")
    seats.incumbent.run()
    #expect(numbers(client.take()) == [1])
    seats.end()
  }
}
