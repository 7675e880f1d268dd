// Kill -9 of a connection worker, and no client notices: design §5, issue 16.

import Glibc
import Testing

@Suite("16.1 Connections outlive their worker", .serialized)
struct OutliveTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<6).flatMap { _ in Form.all }

  @Test(
    "16.1 Event streams and WebSockets, with cursors and compressed, go on through many kills, and nobody is told"
  )
  func manyKills() throws {
    try Gateway.run(Gateway.turnsUnderLoad) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["control", "inbound"])
      let inbound = HTTPPublisher(inbound: gateway)
      // More than RESTART_INTENSITY: kills from outside don't count.
      for round in 0..<8 {
        for number in 0..<10 {
          try clients.publish("control", padding: number * 100)
          try inbound.publish(clients.next("inbound")[0])
        }
        if round % 2 == 0 { try clients.look() }
        let workers = gateway.workers(.connections)
        let victim = try #require(workers.isEmpty ? nil : workers[round / 2 % workers.count])
        victim.signal(SIGKILL)
        for _ in 0..<5 { try clients.publish("control") }
        try gateway.awaitReplacement(of: victim, kind: .connections, count: 2)
      }
      try clients.publish("control")
      try inbound.publish(clients.next("inbound")[0])
      try clients.pumpToEnd()
      clients.expectWhole()
      #expect(inbound.unanswered == 0 && inbound.refusals.isEmpty)
      try gateway.awaitConnections(clients.count)
    }
  }

  @Test(
    "16.1 Two workers at once, as when memory runs out, and by a fault of their own",
    arguments: [SIGKILL, SIGSEGV, SIGBUS])
  func twoAtOnce(signal: CInt) throws {
    // Swift's own handler of faults prints where it was, and goes on if nothing was wrong there.
    try Gateway.run(["RESTART_INTENSITY": "10", "SWIFT_BACKTRACE": "enable=no"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      for _ in 0..<2 {
        try clients.publishTogether("a", 20)
        // A worker that dies by a fault of its own may have died of the connection that it was busy with.
        if signal != SIGKILL { try clients.pumpToEnd() }
        try gateway.killConnectionWorkers(signal)
        try clients.publishTogether("a", 20)
      }
      try clients.pumpToEnd()
      clients.expectWhole("signal \(signal)")
      #expect(try gateway.adopted == 2 * clients.count)
    }
  }

  @Test("16.1 Events of Kafka: no offset passes what the clients haven't got")
  func kafka() throws {
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address, Gateway.turnsUnderLoad)) { gateway in
        try gateway.awaitReading()
        let clients = CheckedClients(gateway)
        try clients.open(Self.forms, ["kafka"])
        for _ in 0..<4 {
          try broker.publish(clients.next("kafka", 50))
          try gateway.killConnectionWorkers()
        }
        try broker.publish(clients.next("kafka"))
        try clients.pumpToEnd()
        clients.expectWhole()
      }
    }
  }

  @Test(
    "16.1 A slow reader whose socket is full at the death goes on to the byte, when it reads again")
  func slowReader() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "MAX_UNSENT_BYTES": "16384"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
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
      // The others have read everything, and are behind no more.
      try clients.pump("only their sockets are full", within: 180) { _ in
        try gateway.metric("rig_connections_behind") == Double(slow.count)
      }
      try gateway.killConnectionWorkers()
      try clients.publishTogether("a", 20)
      for index in slow { clients.idle(index, false) }
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test("16.1 A number that was closed and given to a stranger isn't mistaken for the connection that had it")
  func descriptorNumbers() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Form.all, ["a"])
      for round in 0..<5 {
        // Numbers come free and are taken again, by clients who want something else and by requests.
        let leaving = try (0..<8).map { _ in try clients.open([.sse], ["left"]) }
        for index in leaving { clients.wire(index).endSending() }
        for index in leaving.prefix(4) { clients.breakOff(index) }
        try clients.open([.sse, .webSocket], ["row \(round)"])
        let request = try HTTPConnection(port: gateway.inboundPort)
        try request.wire.send("GET /_rig/health HTTP/1.1\r\nhost: localhost\r\n")
        try gateway.killConnectionWorkers()
        try clients.publishTogether("row \(round)", 3)
        try clients.publish("a")
      }
      try clients.pump("everybody has its own") { clients in
        (0..<5).allSatisfy { round in
          (0..<clients.count).allSatisfy { clients.has("row \(round)", 3, at: $0) }
        }
      }
      try clients.pumpToEnd()
      clients.expectWhole(but: clients.following("left"))
    }
  }

  @Test("16.1 Presence: nobody leaves and joins again, and a connection keeps its token")
  func identity() throws {
    let settings = ["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "0"]
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.*", "over"),
        query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "phone"))")
      for _ in ["carol", "alice"] { try watcher.event(named: "rig.presence.join") }
      try gateway.killConnectionWorkers()
      #expect(try gateway.listed("/v3/sessions", count: 2).count == 2)
      #expect(try gateway.setSubscriptions(Subscriptions.to("a"), of: alice.token).status == 204)
      try alice.event(named: "rig.subscriptions_set")
      try gateway.publish("for alice", to: "alice")
      try alice.event(named: "for alice")
      try gateway.publish(CloudEvent.json("over"))
      #expect(try watcher.events(until: "over").isEmpty)
    }
  }
}
