// Connections that pass from a living process to the one beside it, whatever either has under way and whenever either dies.

import Glibc
import Links
import TestSupport
import Testing
import Tokens

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

@Suite("16.6 Taking over from a living process")
struct TakeOverTests {
  private func clients(_ count: Int) throws -> [SurvivingClient] {
    try (0..<count).map { try SurvivingClient(isWebSocket: $0 % 2 == 1, cookie: UInt64($0) + 1) }
  }

  private func numbers(of client: SurvivingClient) -> [Int] {
    let bytes = client.everything().dropFirst(6)
    guard client.isWebSocket else {
      let text = String(decoding: bytes, as: UTF8.self)
      #expect(!text.contains("rig."), "it was told something of it: \(text.suffix(300))")
      return ConnectionsTests.numbers(text)
    }
    return frames(Array(bytes)).compactMap { frame in
      guard frame.opcode == 1 else { return nil }
      let text = String(decoding: frame.payload, as: UTF8.self)
      return text.hasPrefix(#"{"n":"#) ? Int(text.dropFirst(5).prefix { $0.isNumber }) : nil
    }
  }

  private func pongs(of client: SurvivingClient) -> [[UInt8]] {
    frames(Array(client.everything().dropFirst(6))).filter { $0.opcode == 10 }.map(\.payload)
  }

  private func frames(_ bytes: [UInt8]) -> [(opcode: UInt8, payload: [UInt8])] {
    var frames: [(UInt8, [UInt8])] = []
    var rest = bytes[...]
    while rest.count >= 2 {
      let opcode = rest.removeFirst() & 0xF
      var length = Int(rest.removeFirst())
      let extra = length == 126 ? 2 : length == 127 ? 8 : 0
      if extra > 0 {
        length = rest.prefix(extra).reduce(0) { $0 << 8 | Int($1) }
        rest = rest.dropFirst(extra)
      }
      #expect(rest.count >= length && [1, 8, 9, 10].contains(opcode), "badly framed")
      frames.append((opcode, Array(rest.prefix(length))))
      rest = rest.dropFirst(length)
    }
    #expect(rest.isEmpty, "cut within a frame")
    return frames
  }

  private func adopted(_ worker: TestWorker?, _ cause: String = "swap") -> Int64 {
    worker?.metric(#"rig_adopted_connections_total{cause="\#(cause)"}"#) ?? 0
  }

  private func openEntries(_ worker: TestWorker?) -> Int { worker?.connections.ledger.openEntries ?? -1 }

  /// A process that serves all clients, and one beside it that has taken over nothing yet.
  private func pair(_ clients: [SurvivingClient]) throws -> PlaceLife {
    let place = try PlaceLife(clients)
    try place.begin(0)
    for client in clients { try place.open(client, [.to("all")]) }
    try place.begin(1, takesOver: true)
    return place
  }

  // MARK: Nobody dies

  @Test("16.6 everybody who is at rest passes over, and notices nothing; then the other one may end")
  func all() throws {
    let place = try pair(clients(5))
    defer { place.end() }
    try place.writer.publish(1, type: "all")
    try place.settle { place.areAll(at: 1) }
    try place.writer.publish(2, type: "all")
    place.run()
    for client in place.clients { #expect(numbers(of: client) == [1, 2]) }
    #expect(adopted(place[1]) == 5 && openEntries(place[0]) == 0 && openEntries(place[1]) == 5)
    #expect(place[0]?.connections.table.count == 0 && place[1]?.takeOver?.isOver == false)
    place[0]?.handOver.end()
    place.run()
    #expect(place[1]?.takeOver?.isOver == true)
  }

  @Test("16.6 a worker that isn't ready, or that adopts what a dead one has left, asks for nothing yet")
  func notYet() throws {
    let place = try PlaceLife(clients(2))
    defer { place.end() }
    try place.begin(0)
    for client in place.clients { try place.open(client, [.to("all")]) }
    try place.begin(1, takesOver: true)
    try place.settle { place.areAll(at: 1) }
    // Its heir gets two from the keeper, late, and has none to ask for until then.
    try place.die(1)
    var courier: HeldCourier?
    try place.begin(
      1, takesOver: true,
      brings: {
        let held = HeldCourier($0)
        courier = held
        return held
      })
    for _ in 0..<20 {
      place.run()
      place.pass(ms: 500)
    }
    #expect(place[1]?.takeOver?.delivery == .all && place[1]?.connections.table.count == 0)
    courier?.isHeld = false
    try place.settle { place.areAll(at: 1) }
    #expect(adopted(place[1], "killed") == 2)
  }

  @Test("16.6 who has something under way passes over when it has gone")
  func slow() throws {
    let place = try pair(clients(2))
    defer { place.end() }
    // Neither reads; each has more waiting than its socket takes.
    for number in 1...10 { try place.writer.publish(number, type: "all", padding: 2_000) }
    for _ in 0..<30 {
      place.run()
      place.pass(ms: 200)
    }
    #expect(place[0]?.connections.table.count == 2 && place[1]?.connections.table.count == 0)
    try place.settle { place.areAll(at: 1) }
    for client in place.clients { #expect(numbers(of: client) == Array(1...10)) }
  }

  @Test("16.6 whoever passes over counts once for its user, and nobody is closed for it")
  func limits() throws {
    let place = try PlaceLife(clients(2))
    defer { place.end() }
    try place.begin(0, settings: { $0.maxConnectionsPerUser = 2 })
    for (number, client) in place.clients.enumerated() {
      let identity = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s\(number)")]))
      try place.open(client, [.to("all")], identity: identity)
    }
    try place.begin(1, takesOver: true, settings: { $0.maxConnectionsPerUser = 2 })
    try place.settle { place.areAll(at: 1) }
    #expect(place[1]?.connections.table.all.contains { $0.isClosing } == false)
    let third = try TestClient()
    let identity = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s3")]))
    try place[1]?.openSSE(third, [.to("all")], identity: identity)
    place.run()
    let open = place[1]?.connections.table.all.filter { !$0.isClosing }
    #expect(open?.count == 2, "the oldest gives way to the third")
    third.disconnect()
  }

  // MARK: Orders

  private func say(_ record: StateRecord, in place: PlaceLife) throws {
    let writer = try place.gateway.stateWriter()
    let bytes = record.encoded
    _ = writer.append(type: record.type, length: bytes.count) { $0.copyBytes(from: bytes) }
    writer.publish()
  }

  @Test(
    "16.6 an order that both read while a connection is in the air is carried out on it by whoever has it then",
    arguments: [true, false])
  func orders(isFirstAtHeir: Bool) throws {
    let place = try PlaceLife(clients(3))
    defer { place.end() }
    try place.begin(0)
    let users = ["ann", "bob", "cid"]
    for (client, user) in zip(place.clients, users) {
      let identity = try #require(ConnectionIdentity([Credential(user: user, session: "s-\(user)")]))
      try place.open(client, [.to("all")], identity: identity)
    }
    try say(.closeUser("old"), in: place)
    place.run()
    try place.begin(1, takesOver: true)
    // It asks, and the other one sends a batch.
    place[1]?.run()
    place[0]?.run()
    #expect(place[0]?.handOver.isQuiet == false)
    try say(.closeUser("ann"), in: place)
    try say(.closeConnection(ConnectionID(slot: 0, serial: place.clients[1].serial)), in: place)
    if isFirstAtHeir { place[1]?.run() } else { place[0]?.run() }
    try place.settle {
      place.workers.allSatisfy { $0?.connections.table.all.allSatisfy { !$0.isSuspended } ?? true }
    }
    let told = place.clients.map { client in
      let bytes = client.everything()
      return String(decoding: bytes, as: UTF8.self).contains("closed") || bytes.contains(0x88)
    }
    #expect(told == [true, true, false])
  }

  @Test("16.6 a session that was ended before its connection passed over is told so by whoever takes over")
  func blacklisted() throws {
    let place = try PlaceLife(clients(1))
    defer { place.end() }
    try place.begin(0)
    let ann = try #require(ConnectionIdentity([Credential(user: "Ann", session: "s")]))
    try place.open(place.clients[0], [.to("all")], identity: ann)
    try place.begin(1, takesOver: true)
    place[1]?.run()
    place[0]?.run()
    let digest = try #require(SessionHasher()?.digest("s"))
    try say(.blacklisted(digest, until: .max), in: place)
    place[1]?.run()
    let text = String(decoding: place.clients[0].everything(), as: UTF8.self)
    #expect(text.contains("rig.session_killed"), "\(text.suffix(300))")
    place.run()
    #expect(openEntries(place[0]) == 0 && openEntries(place[1]) == 0)
  }

  // MARK: Requests

  @Test("16.6 a change of subscriptions finds its connection at whichever seat, or in the air")
  func changes() throws {
    let place = try pair(clients(1))
    defer { place.end() }
    let serial = place.clients[0].serial
    var answers: [UInt16] = []
    func change() {
      for worker in place.workers {
        worker?.changes.make(SubscriptionChange([.to("all")]), serial: serial) { answers.append($0.status) }
      }
      place.run()
    }
    change()
    #expect(answers.sorted() == [204, 410])
    place[1]?.run()
    place[0]?.run()
    #expect(place[0]?.handOver.isQuiet == false)
    // Who is asked for it takes it back, and goes on with it.
    change()
    #expect(answers.sorted() == [204, 204, 410, 410])
    try place.settle { place.areAll(at: 1) }
    change()
    #expect(answers.sorted() == [204, 204, 204, 410, 410, 410])
  }

  @Test("16.6 whoever asks for a connection of a place hears 410 only if it is at neither seat")
  func asked() throws {
    let place = try pair(clients(1))
    defer { place.end() }
    var answers: [UInt16?] = []
    func ask(_ seat: Int, _ serial: UInt64) {
      let change = SubscriptionChange([.to("all")])
      _ = place[seat]?.peers.ask(
        0, .setSubscriptions(serial: serial, change: change.encoded), deadlineNs: .max
      ) { answers.append($0?.status) }
      for _ in 0..<3 { place.run() }
    }
    ask(1, place.clients[0].serial)
    #expect(answers == [204])
    try place.settle { place.areAll(at: 1) }
    ask(0, place.clients[0].serial)
    ask(0, place.clients[0].serial + 1)
    #expect(answers == [204, 204, 410])
  }

  @Test("16.6 a poll that waits in a session doesn't keep it, and is to be asked where that goes on")
  func waitingPoll() throws {
    let place = try PlaceLife([])
    let former = try place.begin(0)
    let session = former.insertSession()
    former.connections.begin(session, ConnectRequest([.to("all")]), .fromNow)
    session.polls?.enterLedger()
    let lastEventID = session.polls?.initialEventID
    var answers: [UInt16] = []
    _ = former.polls.poll(session, lastEventID: lastEventID, shown: []) { answers.append($0.status) }
    place.run()
    #expect(answers.isEmpty)
    let heir = try place.begin(1, takesOver: true)
    try place.settle { former.connections.table.count == 0 }
    #expect(answers == [410])
    let entered = try #require(heir.polls.session(serial: session.serial))
    _ = heir.polls.poll(entered, lastEventID: lastEventID, shown: []) { answers.append($0.status) }
    place.run()
    #expect(answers == [410])
    try place.writer.publish(1, type: "all")
    place.run()
    #expect(answers == [410, 200])
  }

  // MARK: Deaths

  @Test(
    "16.6 what was offered by a process that died is its heir's, unless it had been claimed; and passes over then"
  )
  func incumbentDies() throws {
    for hasClaimed in [false, true] {
      let place = try pair(clients(3))
      defer { place.end() }
      place[1]?.run()
      place[0]?.run()
      #expect(place[0]?.handOver.isQuiet == false)
      // Its keeper has all of them when it dies.
      try place.die(0)
      if hasClaimed { place[1]?.run() }
      try place.begin(0, isRetiring: true)
      #expect(place[0]?.connections.ledger.inherited().count == (hasClaimed ? 0 : 3))
      try place.settle { place.areAll(at: 1) }
      let dropped = Recovery.Drop.allCases.map {
        place[0]?.metric(#"rig_adoption_dropped_total{reason="\#($0.rawValue)"}"#) ?? 0
      }
      #expect(dropped.allSatisfy { $0 == 0 } && adopted(place[1]) == 3)
      #expect(adopted(place[0], "killed") == (hasClaimed ? 0 : 3))
      try place.writer.publish(1, type: "all")
      place.run()
      for client in place.clients { #expect(numbers(of: client) == [1]) }
    }
  }

  @Test(
    "16.6 an entry that claims one is its heir's if the other process has let go of it, and nobody's if not",
    arguments: [true, false])
  func heirDiesClaiming(hasClaimed: Bool) throws {
    let place = try pair(clients(1))
    defer { place.end() }
    place[1]?.run()
    place[0]?.run()
    let heir = try #require(place[1])
    let sibling = try #require(heir.wiring.siblingLedger)
    let number = try #require((0..<100).first { sibling.entry($0)?.isPassing == true })
    let offered = try #require(sibling.entry(number))
    let cold = try #require(sibling.cold(of: number))
    let socket = dup(place.clients[0].socket.near)
    let own = heir.connections.ledger.open(
      .eventStream, serial: offered.serial, socket: (socket, try #require(offered.cookie)),
      written: offered.written, consumed: offered.consumed, cold: cold, claims: number)
    #expect(own != nil)
    if hasClaimed {
      let isClaimed = sibling.claim(offered)
      #expect(isClaimed)
    }
    try place.die(1)
    try place.begin(1, takesOver: true)
    #expect(place[1]?.connections.ledger.inherited().count == (hasClaimed ? 1 : 0))
    try place.settle { place.areAll(at: 1) }
    #expect(adopted(place[1], "killed") == (hasClaimed ? 1 : 0) && adopted(place[1]) == (hasClaimed ? 0 : 1))
    try place.writer.publish(1, type: "all")
    place.run()
    #expect(numbers(of: place.clients[0]) == [1])
  }

  // MARK: The whole

  private struct Traffic {
    var random: SeededRandom
    var published = 0
    var expected: [Int] = []
    var pings: [[[UInt8]]]
    let hasPings: Bool

    init(seed: UInt64, clients: Int, hasPings: Bool = true) {
      random = SeededRandom(seed: seed)
      self.hasPings = hasPings
      pings = Array(repeating: [], count: clients)
    }

    mutating func publish(_ writer: EventWriter) throws {
      published += 1
      let isWanted = published % 3 != 0
      let padding = Int.random(in: 0...9, using: &random) == 0 ? 3000 : 100
      try writer.publish(
        published, type: isWanted ? "all" : "other", padding: .random(in: 0...padding, using: &random))
      if isWanted { expected.append(published) }
    }

    /// Something happens that isn't a death.
    mutating func happen(_ place: PlaceLife) throws {
      let index = Int.random(in: 0..<place.clients.count, using: &random)
      let client = place.clients[index]
      switch Int.random(in: 0..<10, using: &random) {
      case 0...1: try publish(place.writer)
      case 2...3: place[0]?.run()
      case 4...5: place[1]?.run()
      case 6: client.socket.read(atMost: .random(in: 1...20_000, using: &random))
      case 7: place.pass(ms: .random(in: 1...700, using: &random))
      case 8: client.socket.socket.pump()
      default:
        guard client.isWebSocket, hasPings else { return }
        let payload = [UInt8](repeating: UInt8(pings[index].count % 256), count: pings[index].count % 50)
        pings[index].append(payload)
        try place.say(ClientFrame(opcode: 9, payload: payload).bytes, client)
      }
    }
  }

  private func check(_ place: PlaceLife, _ traffic: Traffic, _ what: String) {
    for (client, pings) in zip(place.clients, traffic.pings) {
      #expect(numbers(of: client) == traffic.expected, "WebSocket: \(client.isWebSocket), \(what)")
      if client.isWebSocket { #expect(pongs(of: client) == pings, "\(what)") }
    }
  }

  @Test(
    "16.6 each client has what it would have had of one process alone, whatever happens and whoever dies between turns",
    arguments: 1...40 as ClosedRange<UInt64>)
  func betweenTurns(seed: UInt64) throws {
    let place = try pair(clients(6))
    defer { place.end() }
    var traffic = Traffic(seed: seed, clients: 6)
    var deaths = 0
    for _ in 0..<250 {
      try traffic.happen(place)
      guard seed % 4 != 0, Int.random(in: 0..<40, using: &traffic.random) == 0 else { continue }
      deaths += 1
      let seat = Int.random(in: 0...1, using: &traffic.random)
      try place.die(seat)
      for _ in 0..<Int.random(in: 0..<6, using: &traffic.random) { try traffic.happen(place) }
      try place.begin(seat, takesOver: seat == 1, isRetiring: seat == 0)
    }
    try place.settle { place.areAll(at: 1) }
    check(place, traffic, "\(deaths) deaths")
    #expect(openEntries(place[0]) == 0 && openEntries(place[1]) == 6)
  }

  /// A client that polls at whoever serves its session.
  private final class Poller {
    let serial: UInt64
    private let place: PlaceLife
    private var lastEventID: String?
    private var waiting: (end: PollEnd, poll: UInt64)?
    private(set) var seen: [Int] = []

    init(_ place: PlaceLife) throws {
      self.place = place
      let worker = try #require(place[0])
      let session = worker.insertSession()
      serial = session.serial
      worker.connections.begin(session, ConnectRequest([.to("all")]), .fromNow)
      session.polls?.enterLedger()
      lastEventID = session.polls?.initialEventID
    }

    /// Whoever holds the session; nil: nobody does now.
    func holder() -> Int? { PlaceLife.seats.first { place[$0]?.polls.session(serial: serial) != nil } }

    func poll() {
      guard let seat = holder(), let end = place[seat]?.polls.session(serial: serial)?.polls else { return }
      let poll = end.poll(lastEventID: lastEventID) { [unowned self] answer in
        waiting = nil
        lastEventID = answer.lastEventID
        for part in String(decoding: answer.body, as: UTF8.self).split(separator: "{")
        where part.hasPrefix(#""n":"#) {
          if let number = Int(part.dropFirst(4).prefix { $0.isNumber }) { seen.append(number) }
        }
      }
      waiting = (end, poll)
    }

    /// The client has gone for a moment.
    func pause() {
      if let waiting { waiting.end.cancel(poll: waiting.poll) }
      waiting = nil
    }

    func forget() { waiting = nil }
  }

  @Test(
    "16.6 a long-polling session passes over between two polls, and has each event once and in order",
    arguments: 1...20 as ClosedRange<UInt64>)
  func session(seed: UInt64) throws {
    let place = try PlaceLife([])
    try place.begin(0)
    let poller = try Poller(place)
    try place.begin(1, takesOver: true)
    var traffic = Traffic(seed: seed, clients: 0)
    for _ in 0..<200 {
      switch Int.random(in: 0..<9, using: &traffic.random) {
      case 0...1: try traffic.publish(place.writer)
      case 2...3: place[0]?.run()
      case 4...5: place[1]?.run()
      case 6: poller.poll()
      case 7: poller.pause()
      default: place.pass(ms: .random(in: 1...400, using: &traffic.random))
      }
      guard seed % 2 == 0, Int.random(in: 0..<40, using: &traffic.random) == 0 else { continue }
      let seat = Int.random(in: 0...1, using: &traffic.random)
      // A poll that waited there has no answer.
      poller.forget()
      try place.die(seat)
      try place.begin(seat, takesOver: seat == 1, isRetiring: seat == 0)
    }
    poller.pause()
    try place.settle { place[0]?.connections.table.count == 0 && place[1]?.connections.table.count == 1 }
    for _ in 0..<50 {
      poller.poll()
      place.run()
    }
    #expect(poller.seen == traffic.expected && poller.holder() == 1)
  }

  @Test(
    "16.6 each client has everything once if both die at the same store, whichever it is",
    arguments: 1...60 as ClosedRange<UInt64>)
  func atAnyStore(seed: UInt64) throws {
    var place = try pair(clients(4))
    // What was said to those who died in the middle of it is lost.
    var traffic = Traffic(seed: seed, clients: 4, hasPings: false)
    var lives = [place]
    // The first stores of a hand-over, and those that are made while heirs adopt.
    for _ in 0..<3 {
      place.left = .random(in: 1...120, using: &traffic.random)
      for _ in 0..<120 where place.legacy == nil { try traffic.happen(place) }
      guard place.legacy != nil else { continue }
      place = try place.next()
      lives.append(place)
      let order = Bool.random(using: &traffic.random) ? [0, 1] : [1, 0]
      for seat in order { try place.begin(seat, takesOver: seat == 1, isRetiring: seat == 0) }
    }
    place.left = .max
    defer { place.end() }
    try place.settle { place.areAll(at: 1) }
    for client in place.clients {
      #expect(
        numbers(of: client) == traffic.expected, "WebSocket: \(client.isWebSocket), \(lives.count) lives")
    }
    #expect(lives.count > 1, "nobody died")
    withExtendedLifetime(lives) {}
  }
}

/// Brings all sockets when a test says so.
private final class HeldCourier: SocketCourier {
  var isHeld = true
  private var messages: [Courier.Message]

  init(_ sockets: [Courier.Socket]) { messages = [.batch(sockets, lost: []), .done] }

  func ask() {}

  func receive() -> Courier.Message {
    if isHeld { return .nothing }
    return messages.isEmpty ? .gone : messages.removeFirst()
  }

  func taken() {}
}
