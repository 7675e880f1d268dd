// Input that kills every worker that touches it: what it costs, and whom.

import Testing

@Suite("16.8 Poison", .serialized)
struct PoisonTests {
  private static let settings = ["RIG_TEST_FAULT_ON": "poison", "RESTART_INTENSITY": "20"]
  private static let forms = (0..<4).flatMap { _ in CheckedClients.Form.all }

  private func poison(_ type: String) -> String { CloudEvent.json(type, data: #""poison""#) }

  @Test("16.8 An event that every worker dies of costs each place two processes, and clients are told")
  func event() throws {
    try Gateway.run(Self.settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      try clients.publishTogether("a", 3)
      try clients.publish(clients.next("a") + [poison("b")] + clients.next("a"))
      try eventually("both places have passed over it", within: 60) {
        try gateway.metric("rig_poison_records_total") == 2
      }
      try gateway.waitUntilReady()
      try clients.publishTogether("a", 3)
      try clients.pumpToEnd()
      clients.expectWhole(told: ["rig.events_lost"])
      for index in 0..<clients.count {
        #expect(clients.told(index) == ["rig.events_lost"], "client \(index)")
      }
      #expect(try gateway.metric("rig_worker_restarts_total", ["reason": "signal"]) == 4)
      let logged = gateway.logged("a record that processes have died of is passed over")
      #expect(logged.count == 2)
      #expect(
        logged.allSatisfy { $0["ring"]?.string == "events.control" && $0["writer"]?.string == "control" })
      #expect(gateway.workers(.connections).count == 2)
    }
  }

  @Test("16.8 Whoever comes back from before such an event is told too, and kills nobody")
  func replayed() throws {
    try Gateway.run(Self.settings.merging(["CONNECTION_WORKERS": "1"]) { $1 }) { gateway in
      let first = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a", id: "0"))
      try first.event(named: "a")
      let cursor = try #require(first.lastEventID)
      try gateway.publish(poison("a"))
      try eventually("it has been passed over", within: 60) {
        try gateway.metric("rig_poison_records_total") == 1
      }
      try gateway.waitUntilReady()
      try gateway.publish(CloudEvent.json("a", id: "2"))
      let restarts = try gateway.metric("rig_worker_restarts_total")
      let second = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: cursor)
      try second.event(named: "rig.events_lost")
      #expect(try second.event(named: "a").json["id"] == "2")
      #expect(try gateway.metric("rig_worker_restarts_total") == restarts)
    }
  }

  @Test(
    "16.8 Subscriptions that every worker dies of end the connection that they are for; all others go on",
    arguments: [false, true])
  func subscription(isElsewhere: Bool) throws {
    try Gateway.run(Self.settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let victim = 0
      let holder = try gateway.worker(holding: clients.wire(victim).localPort)
      // The request comes in at the victim's worker, or at the other one.
      let request = try eventually("a connection to the right worker") { () -> HTTPConnection? in
        let http = try HTTPConnection(wire: gateway.wire())
        let isThere = try gateway.worker(holding: http.wire.localPort) == holder
        return isThere != isElsewhere ? http : nil
      }
      let path = "/_rig/v1/connection/sse/\(try clients.token(victim))/subscriptions"
      _ = try? request.send(
        "PUT", path, headers: [("content-type", "application/json")],
        body: #"{"subscriptions":[{"eventType":"poison"}]}"#)
      try clients.pump("its connection has ended") { $0.ended[victim] != nil }
      try gateway.waitUntilReady()
      try clients.publishTogether("a", 3)
      try clients.pumpToEnd()
      clients.expectWhole(but: [victim])
      #expect(try gateway.metric("rig_adoption_dropped_total", ["reason": "suspect"]) == 1)
      #expect(try gateway.metric("rig_worker_restarts_total") == 1)
    }
  }
}
