// SIGUSR1: connection workers are swapped for fresh processes, and no client notices. Design §5, issue 16.

import Glibc
import Testing

@Suite("16.9 Swaps", .serialized)
struct SwapTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<6).flatMap { _ in Form.all }
  /// The answer to an event of a WebSocket's client.
  private static let accepted = "rig.accepted"

  @Test(
    "16.9 Ten in a row while events flow: nobody is closed or told, and everybody gets every event once, in order"
  )
  func manySwaps() throws {
    try Gateway.run(Gateway.turnsUnderLoad) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["control", "inbound"])
      // Its connection is idle between two events, and passed on then.
      let inbound = HTTPPublisher(inbound: gateway)
      var seen = Set(gateway.workers(.connections).map(\.pid))
      for round in 0..<10 {
        try gateway.swap(clients) {
          for number in 0..<20 {
            try clients.publish("control", padding: number * 100)
            try inbound.publish(clients.next("inbound")[0])
            try clients.look()
          }
        }
        let now = gateway.workers(.connections).map(\.pid)
        #expect(seen.isDisjoint(with: now), "round \(round)")
        seen.formUnion(now)
      }
      try clients.publish("control")
      try inbound.publish(clients.next("inbound")[0])
      try clients.pumpToEnd()
      clients.expectWhole()
      #expect(inbound.unanswered == 0 && inbound.refusals.isEmpty)
      #expect(try gateway.swaps() == 20)
      #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      #expect(try gateway.adopted >= 10 * clients.count)
      try gateway.awaitConnections(clients.count)
      try eventually("each has its keeper, and nobody else has") { gateway.keepers.count == 2 }
    }
  }

  @Test("16.9 Events of Kafka: no offset passes what the clients haven't got")
  func kafka() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, Gateway.turnsUnderLoad)) { gateway in
        try gateway.awaitReading()
        let clients = CheckedClients(gateway)
        try clients.open(Self.forms, ["kafka"])
        for _ in 0..<4 {
          try broker.publish(clients.next("kafka", 50))
          try gateway.swap(clients) { try broker.publish(clients.next("kafka", 50)) }
        }
        try broker.publish(clients.next("kafka"))
        try clients.pumpToEnd()
        clients.expectWhole()
      }
    }
  }

  @Test("16.9 Asked for again and again without waiting: one after the other, none beside another")
  func impatient() throws {
    try Gateway.run { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      for _ in 0..<20 {
        gateway.askForSwap()
        try clients.publish("a")
        try clients.look()
        // Of each place one that serves and one that retires or is to serve.
        #expect(gateway.workers(.connections).count <= 4)
      }
      try clients.pump("all is done") { _ in
        try gateway.swaps() >= 2 && gateway.workers(.connections).count == 2
          && gateway.metric("rig_retiring") == 0
      }
      // What was asked for while one was under way may follow; it ends by itself.
      try gateway.waitUntilReady()
      try gateway.swap(clients)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
      try gateway.awaitConnections(clients.count)
    }
  }

  @Test("16.9 A slow reader whose socket is full goes on to the byte, when it reads again")
  func slowReader() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "16384"]) { gateway in
      let clients = CheckedClients(gateway)
      let quick = Form.all
      try clients.open(quick, ["a"])
      // What is compressed would fit in any socket.
      let slow = try Form.all.filter { !$0.isDeflated }.map { form in
        var form = form
        form.receiveBuffer = 4_096
        return try clients.open([form], ["a"])
      }
      for index in slow { clients.idle(index) }
      for _ in 0..<50 {
        try clients.publishTogether("a", 20, padding: 4_000)
        try clients.look()
      }
      try clients.pump("only their sockets are full", within: 120) { _ in
        try gateway.metric("rig_connections_behind") == Double(slow.count)
      }
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      try clients.pump("the others have gone on") { _ in
        try gateway.swaps() == 1 && gateway.adopted >= quick.count
      }
      try clients.publishTogether("a", 20)
      try clients.pump("they have what comes now") { clients in
        (0..<quick.count).allSatisfy { clients.has("a", 1_020, at: $0) }
      }
      for index in slow { clients.idle(index, false) }
      try clients.pumpToEnd()
      try gateway.awaitSuccessors(of: before, clients)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test(
    "16.9 Half a frame, and half a message, become whole though the process is another one",
    arguments: [1, 3, 7, 40, 2_000])
  func halfAFrame(cut: Int) throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Form.all, ["a"])
      let bytes = Array(clients.next("a", padding: 5_000)[0].utf8)
      let first = WebSocketFrame(WebSocketFrame.Opcode.text, Array(bytes[..<2_000]), isFinal: false).encoded()
      let last = WebSocketFrame(WebSocketFrame.Opcode.continuation, Array(bytes[2_000...])).encoded()
      let message = first + last
      try clients.wire(1).send(Array(message[..<cut]))
      // What was sent before has been read when the same worker has answered this.
      _ = try gateway.inbound("GET", "/_rig/health")
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      try clients.pump("another one serves") { _ in try gateway.swaps() == 1 }
      try clients.wire(1).send(Array(message[cut...]))
      try clients.pumpToEnd()
      try gateway.awaitSuccessors(of: before, clients)
      try clients.wire(2).send(WebSocketFrame.text(clients.next("a")[0]).encoded())
      try clients.pumpToEnd()
      clients.expectWhole(told: [Self.accepted], "cut at \(cut)")
    }
  }

  @Test("16.9 Clients who speak all the while are understood: each event once, each ping answered")
  func speakers() throws {
    try Gateway.run { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let speakers = (0..<clients.count).filter { $0 % 4 != 0 }
      var said = 0
      func speak() throws {
        let index = speakers[said % speakers.count]
        try clients.wire(index).send(WebSocketFrame.text(clients.next("a")[0]).encoded())
        try clients.wire(index).send(WebSocketFrame(WebSocketFrame.Opcode.ping, [UInt8(said)]).encoded())
        said += 1
        try clients.pump("it is answered") { $0.pongs(index).last == [UInt8(said - 1)] }
      }
      for _ in 0..<4 {
        try gateway.swap(clients) { for _ in 0..<12 { try speak() } }
      }
      try speak()
      try clients.pump("everything has come") { clients in
        (0..<clients.count).allSatisfy { clients.has("a", said, at: $0) }
      }
      // Of several senders the order is nobody's.
      for index in 0..<clients.count {
        #expect(clients.received(index, "a").sorted() == Array(0..<said), "client \(index)")
        #expect(clients.ended[index] == nil && clients.told(index).allSatisfy { $0 == Self.accepted })
      }
    }
  }

  @Test("16.9 Presence: nobody leaves and joins again, and tokens, users and ids stay who they are")
  func identity() throws {
    let settings = ["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "0"]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.*", "over"),
        query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "phone"))")
      for _ in ["carol", "alice"] { try watcher.event(named: "rig.presence.join") }
      let ids = try gateway.listed("/v3/sessions", count: 2).map { $0["connection"]?.string }
      for _ in 0..<3 {
        try gateway.swap()
        #expect(try gateway.listed("/v3/sessions", count: 2).map { $0["connection"]?.string } == ids)
        #expect(try gateway.setSubscriptions(Subscriptions.to("a"), of: alice.token).status == 204)
        try alice.event(named: "rig.subscriptions_set")
        try gateway.publish("for alice", to: "alice")
        try alice.event(named: "for alice")
      }
      try gateway.publish(CloudEvent.json("over"))
      #expect(try watcher.events(until: "over").isEmpty)
      alice.wire.endSending()
      #expect(try watcher.event().name == "rig.presence.leave")
    }
  }

  @Test("16.9 Numbers: what is counted goes on being counted, and what is there isn't there twice")
  func numbers() throws {
    try Gateway.run { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      try clients.publishTogether("a", 5)
      try clients.pumpToEnd()
      try gateway.awaitConnections(clients.count)
      let counters = [
        "rig_deliveries_total", "rig_http_requests_total", "rig_http_accepted_total",
        "rig_consumed_events_forwarded_total",
      ]
      var before = try counters.map { try gateway.metric($0) }
      for _ in 0..<3 {
        try gateway.swap(clients)
        let now = try counters.map { try gateway.metric($0) }
        #expect(zip(before, now).allSatisfy { $0 <= $1 }, "\(counters): \(before), then \(now)")
        before = now
        try gateway.awaitConnections(clients.count)
        #expect(try gateway.metric("rig_subscriptions_total") == Double(clients.count))
      }
      let delivered = try gateway.metric("rig_deliveries_total")
      try clients.publishTogether("a", 5)
      try clients.pumpToEnd()
      try eventually("deliveries are counted once") {
        try gateway.metric("rig_deliveries_total") == delivered + Double(5 * clients.count)
      }
      clients.expectWhole()
    }
  }

  @Test("16.9 Descriptors, processes and shared memory don't grow with swaps")
  func growth() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<5).flatMap { _ in Form.all }, ["a"])
      func look() throws -> [Int] {
        try eventually("one keeper is left") { gateway.keepers.count == 1 }
        let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
        let worker = try #require(gateway.workers(.connections).first)
        return [
          supervisor.descriptors.count, supervisor.memories.count, worker.descriptors.count,
          worker.memories.count,
          gateway.process.tree().count,
        ]
      }
      // The seats of a place aren't the same: two swaps lead back to the first.
      for _ in 0..<2 { try gateway.swap(clients) }
      let before = try look()
      for _ in 0..<10 { try gateway.swap(clients) }
      try eventually("as many as before", within: 60) { try look() == before }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }
}
