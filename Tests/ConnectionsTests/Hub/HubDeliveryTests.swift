// From the rings to sockets: who gets what, in which order, and what becomes of clients that don't keep up.

import Glibc
import Kit
import Settings
import Testing

@testable import Connections

@Suite("Delivery")
struct HubDeliveryTests {
  @Test("sends each event to those who asked for it, once and in order, with its cursor")
  func matching() throws {
    let gateway = try TestGateway()
    let worker = try gateway.hub {
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
    #expect(worker.hub.table.count == 0)
    #expect(worker.hub.index.usage == (0, 0, 0, 0))
  }

  @Test("never sends addressed or expired events to anyone by type")
  func held() throws {
    let gateway = try TestGateway()
    let worker = try gateway.hub()
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
      count: 7, reason: "why", before: EventOrigin(topic: "rig", partition: 3, offset: 9), acceptedAtNs: 1,
      stamp: .now())
    guard case .appended = writer.append(gap: gap) else { throw GapRefused() }
    writer.publish()
  }

  private struct GapRefused: Error {}

  @Test("14.E23 tells everybody of records that are gone, whatever they asked for, at their place, once")
  func gap() throws {
    let gateway = try TestGateway()
    let worker = try gateway.hub()
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
    try worker.openSSE(late, [.to("nothing")], lastEventID: Cursor(epoch: TestGateway.epoch, positions: [1]).text)
    worker.run()
    #expect(streamed(late.take()).map(\.name) == ["rig.events_lost"])
    for client in clients + [webSocketClient, late] { client.disconnect() }
  }

  @Test("reads all rings, and goes on over as many turns as it takes")
  func manyTurns() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.hub(0), gateway.hub(1)]
    let clients = try [TestClient(), TestClient()]
    for (worker, client) in zip(workers, clients) { try worker.openSSE(client, [.to("*")]) }
    let writer = try gateway.streamsWriter()
    let count = 3 * Hub.TurnLimit.records
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
    let worker = try gateway.hub { $0.maxUnsentBytes = 64 << 20 }
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
    #expect(connection.outlet.waitingBytes > 0, "the socket must have become full")
    #expect(worker.hub.table.descriptors[Int(connection.index)] == -1)
    #expect(seenQuick == expected.filter { $0 % 3 != 0 }, "others don't wait for it")
    #expect(numbers(slow.take()) == expected)
    #expect(connection.outlet.waitingBytes == 0)
    #expect(worker.hub.table.descriptors[Int(connection.index)] == slow.near, "direct again")
    try writer.publish(1000)
    worker.run()
    #expect(numbers(slow.take()) == [1000])
    slow.disconnect()
    quick.disconnect()
  }

  @Test("closes the connection of a client that doesn't keep up, behind a whole event, with the reason")
  func slowConsumer() throws {
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.hub { $0.maxUnsentBytes = 100_000 }
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("*")])
    for number in 0..<400 {
      try writer.publish(number, padding: 1500)
      worker.run()
    }
    #expect(connection.isClosing)
    #expect(worker.metric("rig_slow_consumers_total") == 1)
    #expect(connection.outlet.waitingBytes < 100_000, "what hadn't been begun is dropped")
    let text = client.take()
    let seen = numbers(text)
    #expect(seen == Array(0..<seen.count) && !seen.isEmpty)
    let last = try #require(streamed(text).last)
    #expect(last.name == "rig.server_closing")
    #expect(last.data.contains(#""reason":"slow consumer""#))
    #expect(client.socket.isOutputClosed)
    #expect(worker.hub.index.usage == (0, 0, 0, 0))
    client.disconnect()
    #expect(worker.hub.table.count == 0)
  }

  @Test(
    "gets everything through sockets that are full at any moment, in order",
    arguments: 1...4 as ClosedRange<UInt64>)
  func random(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let gateway = try TestGateway(eventRingBytes: 4 << 20)
    let worker = try gateway.hub { $0.maxUnsentBytes = 64 << 20 }
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
    let worker = try gateway.hub { $0.heartbeatSeconds = 15 }
    let clients = try [TestClient(), TestClient()]
    let idle = try worker.openSSE(clients[0], [])
    try worker.openSSE(clients[1], [])
    worker.hub.table.lastTraffic[Int(idle.index)] = worker.hub.clock.second &- 15
    worker.hub.tick()
    #expect(clients[0].take() == String(decoding: ServerSentEvents.heartbeat, as: UTF8.self))
    #expect(clients[1].take() == "")
    worker.hub.tick()
    #expect(clients[0].take() == "", "that was traffic")
    for client in clients { client.disconnect() }
  }

  @Test("ends all connections with the reason when the worker drains, and says when the last has gone")
  func drain() throws {
    let gateway = try TestGateway()
    let worker = try gateway.hub()
    let clients = try [TestClient(), TestClient()]
    for client in clients { try worker.openSSE(client, [.to("*")]) }
    var isDrained = false
    worker.hub.drain(.drain) { isDrained = true }
    for client in clients {
      #expect(client.take().contains(#""reason":"drain""#))
      #expect(client.socket.isOutputClosed)
      #expect(!isDrained)
      client.disconnect()
    }
    #expect(isDrained)
  }
}
