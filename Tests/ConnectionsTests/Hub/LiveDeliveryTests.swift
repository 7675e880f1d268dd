// From the rings to sockets: who gets what, in which order, and what becomes of clients that don't keep up.

import Glibc
import Kit
import Settings
import TestSupport
import Testing
import Tokens

@testable import Connections

@Suite("Delivery")
struct LiveDeliveryTests {
  @Test("sends each event to those who asked for it, once and in order, with its cursor")
  func matching() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker {
      $0.extractors = ExtractorTable(byType: ["greeting": ["name": Extractor(eventPointer: ["name"])]])
    }
    let writer = try gateway.streamsWriter()
    let clients = try (0..<4).map { _ in try TestClient() }
    let wanted: [[Subscription]] = [
      [.to("greeting"), .to("*")], [.to("greeting", ["name": .string("Ann")])], [.to("other.*")], [],
    ]
    for (client, subscriptions) in zip(clients, wanted) { try worker.openSSE(client, subscriptions) }
    try writer.publish(1, fields: ["name": .string("Ann")])
    try writer.publish(2, fields: ["name": .string("Bob")])
    try writer.publish(3, type: "other.one")
    try writer.publish(4)
    worker.run()
    let seen = clients.map { streamed($0.take()) }
    #expect(seen.map { $0.map(\.data) } == [[1, 2, 3, 4], [1], [3], []].map { $0.map { #"{"n":\#($0)}"# } })
    #expect(seen[0].map(\.name) == ["greeting", "greeting", "other.one", "greeting"])
    #expect(seen[0].map { $0.id.flatMap { Cursor($0) }?[0] } == [1, 2, 3, 4])
    #expect(worker.metric("rig_deliveries_total") == 6)
    for client in clients { client.disconnect() }
    #expect(worker.connections.table.count == 0)
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
  }

  @Test("never sends addressed or expired events to anyone by type")
  func held() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    try worker.openSSE(client, [.to("*"), .to("greeting"), .to("message")])
    try writer.publish(1, users: ["Ann"])
    try writer.publish(2, expiresAtUnixMs: 1)
    try writer.publish(3, expiresAtUnixMs: .max)
    worker.run()
    #expect(numbers(client.take()) == [3])
    client.disconnect()
  }

  /// A record that says that 7 records are gone.
  private func appendGap(_ writer: EventWriter) throws {
    let gap = PreparedEvent.eventsLost(
      count: 7, reason: "why", before: EventOrigin(source: .kafka, topic: "rig", partition: 3, offset: 9),
      acceptedAtNs: 1,
      stamp: .now())
    guard case .appended = writer.append(gap: gap) else { throw GapRefused() }
    writer.publish()
  }

  private struct GapRefused: Error {}

  @Test("14.E23 tells everybody of records that are gone, whatever they asked for, at their place, once")
  func gap() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let clients = [try TestClient(), try TestClient()]
    try worker.openSSE(clients[0], [.to("*")])
    try worker.openSSE(clients[1], [])
    let webSocketClient = try TestClient()
    try worker.openWebSocket(webSocketClient, [])
    try writer.publish(1)
    try appendGap(writer)
    try writer.publish(2)
    worker.run()
    let seen = streamed(clients[0].take())
    #expect(seen.map(\.name) == ["greeting", "rig.events_lost", "greeting"])
    #expect(seen[1].data.contains(#""data":{"count":7,"reason":"why","topic":"rig","partition":3}}"#))
    #expect(seen.map { $0.id.flatMap { Cursor($0) }?[0] } == [1, 2, 3])
    #expect(streamed(clients[1].take()).map(\.name) == ["rig.events_lost"])
    #expect(webSocketClient.take().contains(#""type":"rig.events_lost""#))
    #expect(worker.metric("rig_events_lost_total") == 3)

    // Who comes back from before it finds it too.
    let late = try TestClient()
    try worker.openSSE(
      late, [.to("nothing")], lastEventID: Cursor(epoch: TestGateway.epoch, positions: [1]).text)
    worker.run()
    #expect(streamed(late.take()).map(\.name) == ["rig.events_lost"])
    for client in clients + [webSocketClient, late] { client.disconnect() }
  }

  @Test("reads all rings, and goes on over as many turns as it takes")
  func manyTurns() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let clients = try [TestClient(), TestClient()]
    for (worker, client) in zip(workers, clients) { try worker.openSSE(client, [.to("*")]) }
    let writer = try gateway.streamsWriter()
    let count = 3 * LiveDelivery.Limit.records
    for number in 0..<count { try writer.publish(number) }
    let client = try TestClient()
    let webSocket = try workers[1].openWebSocket(client, [])
    workers[1].messages.received(
      Array(#"{"specversion":"1.0","type":"x","source":"s","id":"7"}"#.utf8), isText: true, on: webSocket)
    for (worker, client) in zip(workers, clients) {
      worker.run()
      let events = streamed(client.take())
      #expect(events.count == count + 1)
      #expect(events.filter { $0.name == "greeting" }.map(\.data) == (0..<count).map { #"{"n":\#($0)}"# })
      #expect(events.contains { $0.name == "x" })
      client.disconnect()
    }
    client.disconnect()
  }

  @Test("keeps for a client whose socket is full what it has room for, and sends it in order")
  func slowClient() throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 64 << 20 }
    let writer = try gateway.streamsWriter()
    let slow = try TestClient()
    let quick = try TestClient()
    let connection = try worker.openSSE(slow, [.to("*")])
    try worker.openSSE(quick, [.to("greeting")])
    var expected: [Int] = []
    var seenQuick: [Int] = []
    for number in 0..<300 {
      try writer.publish(number, type: number % 3 == 0 ? "other" : "greeting", padding: number % 7 * 500)
      expected.append(number)
      if number % 5 == 0 { worker.run() }
      if number % 5 == 0 { seenQuick += numbers(quick.take()) }
    }
    worker.run()
    seenQuick += numbers(quick.take())
    #expect(connection.waitingBytes > 0, "the socket must have become full")
    #expect(worker.connections.table.descriptors[Int(connection.index)] == -1)
    #expect(seenQuick == expected.filter { $0 % 3 != 0 }, "others don't wait for it")
    #expect(numbers(slow.take()) == expected)
    #expect(connection.waitingBytes == 0)
    #expect(worker.connections.table.descriptors[Int(connection.index)] == slow.near, "direct again")
    try writer.publish(1000)
    worker.run()
    #expect(numbers(slow.take()) == [1000])
    slow.disconnect()
    quick.disconnect()
  }

  @Test(
    "14.26 a client that doesn't keep up gets the rest from the ring, one that takes nothing is closed with the reason"
  )
  func slowConsumer() throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker {
      $0.maxUnsentBytes = 100_000
      $0.slowConsumerSeconds = 0
    }
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("*")])
    for number in 0..<400 {
      try writer.publish(number, padding: 1500)
      worker.run()
    }
    #expect(!connection.isClosing && worker.connections.table.behindCount == 1)
    #expect(connection.waitingBytes < 110_000, "the rest waits in the ring")
    #expect(worker.metric("rig_connections_fell_behind_total") == 1)
    worker.tick()
    #expect(!connection.isClosing)
    client.read(atMost: 6_000)
    worker.tick()
    #expect(!connection.isClosing, "it has taken something")
    worker.tick()
    #expect(connection.isClosing)
    #expect(worker.metric("rig_slow_consumers_total") == 1)
    #expect(connection.waitingBytes < 20_000, "what hadn't been begun is dropped")
    let text = client.take()
    let seen = numbers(text)
    #expect(seen == Array(0..<seen.count) && !seen.isEmpty)
    let last = try #require(streamed(text).last)
    #expect(last.name == "rig.server_closing")
    #expect(last.data.contains(#""reason":"slow consumer""#))
    #expect(client.socket.isOutputClosed)
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
    client.disconnect()
    #expect(worker.connections.table.count == 0 && worker.connections.table.behindCount == 0)
  }

  @Test(
    "14.26 clients that read get everything once and in order, however small what may wait for them is",
    arguments: [
      (1, Transport.sse), (2, .webSocket), (3, .webSocketWithCursor), (4, .sse),
    ] as [(UInt64, Transport)])
  func behind(seed: UInt64, transport: Transport) throws {
    var random = SeededRandom(seed: seed)
    let gateway = try TestGateway(workers: 2, eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 8_000 }
    let writers = try [gateway.streamsWriter(), gateway.ownWriter(1)]
    let client = try TestClient()
    let identity = try #require(ConnectionIdentity([Credential(user: "Ann")]))
    let connection: Connection =
      transport == .sse
      ? try worker.openSSE(client, [.to("all")], identity: identity)
      : try worker.openWebSocket(
        client, [.to("all")],
        lastEventID: transport == .webSocket ? nil : Cursor(epoch: TestGateway.epoch).text,
        identity: identity)
    var expected: [Int] = []
    for number in 0..<600 {
      let isForAnn = number % 5 == 0
      try (writers.randomElement(using: &random) ?? writers[0]).publish(
        number, type: number % 3 == 0 ? "other" : "all",
        users: isForAnn ? ["Ann"] : number % 7 == 0 ? ["Bob"] : [],
        padding: .random(in: 0...3000, using: &random), acceptedAtNs: UInt64(number) + 1)
      if isForAnn || (number % 3 != 0 && number % 7 != 0) { expected.append(number) }
      switch Int.random(in: 0..<6, using: &random) {
      case 0: worker.run()
      case 1: client.read(atMost: .random(in: 1...50_000, using: &random))
      case 2: client.socket.pump()
      default: break
      }
    }
    var bytes: [UInt8] = []
    while true {
      worker.run()
      let more = client.takeBytes()
      if more.isEmpty { break }
      bytes += more
    }
    let seen: [Int]
    if transport == .sse {
      seen = numbers(String(decoding: bytes, as: UTF8.self))
    } else {
      let texts = webSocketTexts(bytes)
      seen = texts.compactMap { $0.firstMatch(of: /"n":(\d+)/).flatMap { Int($0.1) } }
      #expect(texts.allSatisfy { $0.contains("rigcursor") == (transport == .webSocketWithCursor) })
    }
    #expect(seen == expected)
    #expect(worker.metric("rig_connections_fell_behind_total") ?? 0 > 0)
    #expect(connection.replay == nil && worker.connections.table.behindCount == 0)
    client.disconnect()
  }

  @Test("14.26 a client that the ring overtakes is told so and closed")
  func overtaken() throws {
    let gateway = try TestGateway(eventRingBytes: 1 << 16)
    let worker = try gateway.worker { $0.maxUnsentBytes = 8_000 }
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("*")])
    for number in 0..<300 {
      try writer.publish(number, padding: 1000)
      worker.run()
    }
    #expect(!connection.isClosing && worker.connections.table.behindCount == 1)
    var text = client.take()
    worker.run()
    text += client.take()
    #expect(connection.isClosing)
    let events = streamed(text)
    #expect(events.suffix(2).map(\.name) == ["rig.events_lost", "rig.server_closing"])
    let seen = numbers(text)
    #expect(seen == Array(0..<seen.count) && !seen.isEmpty)
    #expect(worker.metric("rig_slow_consumers_total") == 1)
    client.disconnect()
  }

  @Test("14.26 subscriptions that are changed while a client is behind are in force from then on")
  func changedWhileBehind() throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 8_000 }
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("even")])
    for number in 0..<100 {
      try writer.publish(number, type: number % 2 == 0 ? "even" : "odd", padding: 1000)
      worker.run()
    }
    #expect(connection.replay != nil)
    #expect(worker.change(connection, SubscriptionChange([.to("odd")]))?.status == 204)
    try writer.publish(100, type: "even")
    try writer.publish(101, type: "odd")
    var text = ""
    while true {
      worker.run()
      let more = client.take()
      if more.isEmpty { break }
      text += more
    }
    let seen = numbers(text)
    #expect(seen == seen.sorted() && seen.first == 0 && seen.last == 101 && !seen.contains(100))
    #expect(text.contains("rig.subscriptions_set"))
    #expect(connection.replay == nil)
    client.disconnect()
  }

  @Test("14.28 events of several rings come in the order in which they were accepted")
  func acceptedOrder() throws {
    let gateway = try TestGateway(workers: 3, eventRingBytes: 4 << 20)
    let worker = try gateway.worker()
    let writers = try [gateway.streamsWriter(), gateway.ownWriter(1), gateway.ownWriter(2)]
    var random = SeededRandom(seed: 28)
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")])
    var next = 0
    for count in [1, 2, 3, 700, 40] {
      for number in next..<next + count {
        try (writers.randomElement(using: &random) ?? writers[0]).publish(
          number, acceptedAtNs: UInt64(number) + 1)
      }
      worker.run()
      #expect(numbers(client.take()) == Array(next..<next + count))
      next += count
    }
    client.disconnect()
  }

  @Test("14.28 a ring whose writer claims to write in the future keeps nobody waiting")
  func future() throws {
    let gateway = try TestGateway(workers: 2, eventRingBytes: 8 << 20)
    let worker = try gateway.worker()
    let (mad, sound) = (try gateway.streamsWriter(), try gateway.ownWriter(1))
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")])
    for number in 0..<5 { try mad.publish(number, acceptedAtNs: .max) }
    var number = 5
    var seen: [Int] = []
    for _ in 0..<30 {
      // More than a turn reads: something of the sound one waits always.
      for _ in 0..<LiveDelivery.Limit.records * 5 / 4 {
        try sound.publish(number, acceptedAtNs: MonotonicTime.now())
        number += 1
      }
      worker.turn.run()
      seen += numbers(client.take())
    }
    #expect(seen.count < number && Set(seen).isSuperset(of: 0..<5))
    client.disconnect()
  }

  @Test(
    "gets everything through sockets that are full at any moment, in order",
    arguments: 1...4 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.worker { $0.maxUnsentBytes = 64 << 20 }
    let writer = try gateway.streamsWriter()
    let clients = try (0..<6).map { _ in try TestClient() }
    var expected = [[Int]](repeating: [], count: clients.count)
    for (index, client) in clients.enumerated() {
      try worker.openSSE(client, [.to("all"), .to("only.\(index)"), .to(index < 3 ? "half" : "none")])
    }
    var number = 0
    for _ in 0..<250 {
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let type =
          ["all", "half", "only.\(Int.random(in: 0..<6, using: &random))"].randomElement(using: &random) ?? ""
        try writer.publish(number, type: type, padding: .random(in: 0...3000, using: &random))
        for index in clients.indices
        where type == "all" || type == "only.\(index)" || (type == "half" && index < 3) {
          expected[index].append(number)
        }
        number += 1
      }
      worker.run()
      for client in clients where Int.random(in: 0..<4, using: &random) == 0 {
        client.read(atMost: .random(in: 1...100_000, using: &random))
        if Bool.random(using: &random) { client.socket.pump() }
      }
    }
    for (client, expected) in zip(clients, expected) {
      client.readAll()
      #expect(numbers(client.take()) == expected)
      client.disconnect()
    }
  }

  @Test("a heartbeat goes to those who got nothing for as long")
  func heartbeat() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.heartbeatSeconds = 15 }
    let clients = try [TestClient(), TestClient()]
    let idle = try worker.openSSE(clients[0], [])
    try worker.openSSE(clients[1], [])
    worker.connections.table.lastTraffic[Int(idle.index)] = worker.clock.second &- 15
    worker.tick()
    let heartbeat = ServerSentEvents.heartbeat(at: worker.events.own)
    #expect(clients[0].take() == String(decoding: heartbeat, as: UTF8.self))
    #expect(clients[1].take() == "")
    worker.tick()
    #expect(clients[0].take() == "", "that was traffic")
    for client in clients { client.disconnect() }
  }

  @Test(
    "14.E25 a heartbeat during a replay tells what the client has been given, not what the worker has read")
  func heartbeatDuringReplay() throws {
    let gateway = try TestGateway(eventRingBytes: 8 << 20)
    let worker = try gateway.worker { $0.heartbeatSeconds = 15 }
    let writer = try gateway.streamsWriter()
    for number in 1...9000 { try writer.publish(number, type: "other") }
    worker.run()
    let client = try TestClient()
    let beginning = Cursor(epoch: TestGateway.epoch).text
    let connection = try worker.openSSE(client, [.to("greeting")], lastEventID: beginning)
    worker.turn.run()
    let resuming = try #require(connection.state.resuming, "a turn isn't enough for so much")
    worker.connections.table.lastTraffic[Int(connection.index)] = worker.clock.second &- 15
    worker.tick()
    let told = try #require(streamed(client.take()).last?.id.flatMap { Cursor($0) })
    #expect(told == resuming.plan.seen && told[0] > 0 && told[0] < worker.events.own[0])
    worker.run()
    worker.connections.table.lastTraffic[Int(connection.index)] = worker.clock.second &- 15
    worker.tick()
    #expect(streamed(client.take()).last?.id == worker.events.own.text)
    client.disconnect()
  }

  @Test(
    "14.E29 events that come when the gateway's clients have been told to go are left for the next gateway",
    arguments: [true, false])
  func leftEvents(isLast: Bool) throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    try worker.openSSE(client, [.to("*")])
    try writer.publish(1)
    // Published before the stop: delivered before the farewell.
    worker.drain(.shutdown, isLast: isLast) {}
    worker.run()
    let taken = client.take()
    #expect(taken.contains(#"{"n":1}"#) && taken.contains(#""reason":"shutdown""#), "\(taken)")
    let passed = writer.ring.slowestReaderPosition()
    try writer.publish(2)
    worker.run()
    #expect((writer.ring.slowestReaderPosition() == passed) == isLast)
    client.disconnect()
  }

  @Test("14.C13 a heartbeat goes to connections over TLS and HTTP/2 too, but not behind what waits")
  func heartbeatPastNoSocket() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.heartbeatSeconds = 15 }
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("*")], isDirect: false)
    let heartbeat = String(decoding: ServerSentEvents.heartbeat(at: worker.events.own), as: UTF8.self)
    func fallSilent() {
      worker.connections.table.lastTraffic[Int(connection.index)] = worker.clock.second &- 15
      worker.tick()
    }
    fallSilent()
    #expect(client.take() == heartbeat)
    worker.tick()
    #expect(client.take() == "", "that was traffic")
    // Until the socket is full, and some of it waits.
    while !client.socket.isWaiting { connection.send(Array(repeating: UInt8(ascii: "\n"), count: 1000)) }
    let writes = client.socket.writes
    fallSilent()
    #expect(client.socket.writes == writes && !client.take().contains(heartbeat))
    fallSilent()
    #expect(client.take() == heartbeat)
    client.disconnect()
  }

  @Test("ends all connections with the reason when the worker drains, and says when the last has gone")
  func drain() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let clients = try [TestClient(), TestClient()]
    for client in clients { try worker.openSSE(client, [.to("*")]) }
    var isDrained = false
    worker.drain(.drain) { isDrained = true }
    for client in clients {
      #expect(client.take().contains(#""reason":"drain""#))
      #expect(client.socket.isOutputClosed)
      #expect(!isDrained)
      client.disconnect()
    }
    #expect(isDrained)
  }
}
