// Shared memory that doesn't say what it should: the writer is replaced, clients are told what they may have missed, and
// the gateway goes on.

import Glibc
import Testing

@Suite("Corrupt rings", .serialized)
struct FaultCorruptionTests {
  private static let restarts = "rig_worker_restarts_total"
  private static let ringBytes = 65_536
  /// Nothing here is about large rings, and a small one is soon scribbled over.
  private static let small = [
    "EVENT_RING_BYTES": String(ringBytes), "MAX_EVENT_BYTES": "4096", "WATCHDOG_S": "60",
  ]

  @Test(
    "Unread records that were overwritten: the writer is restarted, clients are told of the loss, delivery goes on"
  )
  func unread() throws {
    try Gateway.run(Self.small) { gateway in
      let fleet = try ClientFleet(gateway, count: 20)
      let publisher = HTTPPublisher(gateway)
      for number in 0..<10 { try publisher.publish(NumberedEvents.json(number)) }
      try fleet.pump(throughNumber: 10)

      let readers = gateway.workers(.connections)
      for reader in readers { try reader.freeze() }
      for number in 10..<20 { try publisher.publish(NumberedEvents.json(number)) }
      let control = try #require(gateway.workers(.control).first)
      let ring = try TamperedRing("events.control", heldBy: control)
      try ring.scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      for reader in readers { reader.thaw() }

      try gateway.awaitReplacement(of: control, kind: .control, count: 1)
      try fleet.pump("every client is told of the loss") { $0.lossesTold >= $0.count }
      #expect(try gateway.metric(Self.restarts, ["worker": "control", "reason": "corrupt_ring"]) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
      #expect(try gateway.metric("rig_corrupt_rings_total") >= 1)
      for number in 20..<30 { try publisher.publish(NumberedEvents.json(number)) }
      try fleet.pump(throughNumber: 30)
      for account in fleet.accounts {
        #expect(account.repeated == 0)
        #expect(account.missing <= 10)
      }
      #expect(fleet.reconnected.isEmpty)

      // Cursors count on in the renewed ring.
      let told = fleet.lossesTold
      try gateway.killAndAwaitReplacement(readers[0])
      for number in 30..<40 { try publisher.publish(NumberedEvents.json(number)) }
      try fleet.pump(throughNumber: 40)
      #expect(fleet.accounts.allSatisfy { $0.repeated == 0 && $0.missing <= 10 })
      #expect(fleet.lossesTold == told)
    }
  }

  @Test("A client that left before the damage and comes back after it is told of the loss")
  func cursorFromBefore() throws {
    try Gateway.run(Self.small) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      let cursor = try #require(client.lastEventID)
      let control = try #require(gateway.workers(.control).first)
      let readers = gateway.workers(.connections)
      for reader in readers { try reader.freeze() }
      try gateway.publish(CloudEvent.json("a"))
      try TamperedRing("events.control", heldBy: control)
        .scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      for reader in readers { reader.thaw() }
      try gateway.awaitReplacement(of: control, kind: .control, count: 1)
      try client.event(named: "rig.events_lost")

      let again = try SSEClient.open(gateway, Subscriptions.to("a"), lastEventID: cursor)
      try again.event(named: "rig.events_lost")
      try gateway.publish(CloudEvent.json("a", id: "2"))
      #expect(try again.event(named: "a").json["id"] == "2")
    }
  }

  @Test(
    "A damaged history, found by the next writer, doesn't keep the gateway from going on",
    arguments: ["data", "header"], [false, true])
  func history(place: String, isSeenByReaders: Bool) throws {
    try Gateway.run(Self.small) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a", "b"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      let control = try #require(gateway.workers(.control).first)
      let ring = try TamperedRing("events.control", heldBy: control)
      if place == "data" {
        try ring.scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      } else {
        try ring.scribble(at: TamperedRing.tailOffset, count: 8)
      }
      if isSeenByReaders {
        // An event of another ring wakes all readers: what they report reaches the supervisor when it looks for it next.
        let answer = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("b"))
        #expect(answer.status == 202)
        try client.event(named: "b")
      }
      // By hand: the readers' reports may have replaced it already.
      kill(control.pid, SIGKILL)
      try gateway.awaitReplacement(of: control, kind: .control, count: 1)
      try gateway.publish(CloudEvent.json("a", id: "2"))
      #expect(try client.events(until: "a").map(\.name) == ["rig.events_lost"])
    }
  }

  @Test(
    "A damaged ring, found by the next reader, doesn't keep the gateway from going on",
    arguments: ["data", "header"])
  func nextReader(place: String) throws {
    try Gateway.run(Self.small) { gateway in
      try gateway.publish(CloudEvent.json("a"))
      let control = try #require(gateway.workers(.control).first)
      let ring = try TamperedRing("events.control", heldBy: control)
      if place == "data" {
        try ring.scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      } else {
        try ring.scribble(at: TamperedRing.tailOffset, count: 8)
      }
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, Subscriptions.to("a"))
      }
      try gateway.publish(CloudEvent.json("a", id: "2"))
      for (_, client) in clients {
        _ = try client.events(until: "a")
      }
    }
  }

  @Test("A connection worker whose ring is damaged is replaced; its clients come back and get what follows")
  func ringOfConnections() throws {
    try Gateway.run(Self.small) { gateway in
      let fleet = try ClientFleet(gateway, count: 20)
      let workers = gateway.workers(.connections)
      // While one stands still the other takes all submissions.
      try workers[1].freeze()
      for number in 0..<10 {
        let answer = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: NumberedEvents.json(number))
        #expect(answer.status == 202)
      }
      try TamperedRing("events.connections.0", heldBy: workers[0])
        .scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      workers[1].thaw()
      try fleet.pump("those that stay are told of the loss") { $0.lossesTold > 0 }
      try gateway.awaitReplacement(of: workers[0], kind: .connections, count: 2)
      let replaced = ["worker": "connections.0", "reason": "corrupt_ring"]
      #expect(try gateway.metric(Self.restarts, replaced) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
      try fleet.pump("everybody is back") { $0.lost.isEmpty }
      for number in 10..<20 { try gateway.publish(NumberedEvents.json(number)) }
      try fleet.pump(throughNumber: 20)
      #expect(fleet.accounts.allSatisfy { $0.repeated == 0 && $0.missing <= 10 }, "\(fleet.flaws)")
    }
  }

  @Test("A damaged state ring: those that run keep what they know, and new orders reach everybody")
  func state() throws {
    let settings = TestToken.settings(["STATE_RING_BYTES": String(Self.ringBytes), "WATCHDOG_S": "60"])
    try Gateway.run(settings) { gateway in
      let client = try SSEClient(gateway, query: "jwt=\(TestToken.of("bob", session: "second"))")
      try client.greet()
      #expect(try gateway.blacklist("first").status == 201)
      let control = try #require(gateway.workers(.control).first)
      try TamperedRing("state.control", heldBy: control)
        .scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      try gateway.killAndAwaitReplacement(control)
      #expect(try gateway.statuses(of: TestToken.of("alice", session: "first")) == [401])
      try eventually("the blacklist is served again") { try gateway.blacklist("second").status == 201 }
      _ = try client.events(until: "rig.session_killed")
      #expect(try gateway.statuses(of: TestToken.of("bob", session: "second")) == [401])
      #expect(try gateway.statuses(of: TestToken.of("carol", session: "third")) == [200])
    }
  }

  @Test("A damaged presence ring: its worker is replaced, and presence is right again")
  func presence() throws {
    let settings = TestToken.settings(["PRESENCE_RING_BYTES": String(Self.ringBytes), "WATCHDOG_S": "60"])
    try Gateway.run(settings) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      // A record that nobody has read yet, or the next one, is nonsense.
      let control = try #require(gateway.workers(.control).first)
      try control.freeze()
      let clients = try (0..<8).map { _ in try SSEClient(gateway, query: "jwt=\(TestToken.of("alice"))") }
      for client in clients { try client.greet() }
      let slot = gateway.workers(.connections).firstIndex(of: worker) ?? 0
      try TamperedRing("presence.connections.\(slot)", heldBy: worker)
        .scribble(at: TamperedRing.dataOffset, count: Self.ringBytes)
      control.thaw()
      try gateway.awaitReplacement(of: worker, kind: .connections, count: 2)
      let bob = try SSEClient(gateway, query: "jwt=\(TestToken.of("bob"))")
      try bob.greet()
      _ = try gateway.listed("/v3/sessions/bob", count: 1)
    }
  }
}
