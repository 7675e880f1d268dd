// Workers that are killed or held while events come by HTTP: no client misses an event that was accepted, none sees one
// twice, and what can't be taken is refused with the wish to come again.

import Foundation
import Testing

@Suite("Faults under load", .serialized)
struct FaultTests {
  private static let restarts = "rig_worker_restarts_total"
  private static let rate = 200

  @Test(
    "Kill -9 of a connection worker without a keeper: its clients resume without gap or repeat, the others notice nothing"
  )
  func connectionWorkerKilled() throws {
    try Gateway.run(Gateway.turnsUnderLoad.merging(Gateway.withoutKeepers) { $1 }) { gateway in
      let fleet = try ClientFleet(gateway, count: 200)
      try fleet.spread()
      let publisher = HTTPPublisher(gateway)
      let victim = try #require(gateway.workers(.connections).last)
      let itsClients = fleet.members(heldBy: victim)
      try #require(!itsClients.isEmpty && itsClients.count < fleet.count)
      let kill = [100: { victim.signal(SIGKILL) }]
      // Everybody has a cursor to come back with.
      try publisher.publish(NumberedEvents.json(0))
      try fleet.pump(throughNumber: 1)
      try fleet.pump(publishing: 1..<300, perSecond: Self.rate, faults: kill) {
        try publisher.publish(NumberedEvents.json($0))
      }
      try fleet.pump(throughNumber: 300)
      #expect(Set(fleet.reconnected) == itsClients)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.lossesTold == 0)
      #expect(publisher.refusals.isEmpty)
      #expect(publisher.unanswered == 0)
      try gateway.awaitReplacement(of: victim, kind: .connections, count: 2)
      #expect(try gateway.metric(Self.restarts, ["worker": "connections.1", "reason": "signal"]) == 1)
      #expect(try gateway.metric(Self.restarts) == 1)
    }
  }

  @Test("Both connection workers killed one after the other, again and again: still every event once")
  func connectionWorkersKilledInTurn() throws {
    try Gateway.run(Gateway.turnsUnderLoad.merging(["RESTART_INTENSITY": "100"]) { $1 }) { gateway in
      let fleet = try ClientFleet(gateway, count: 50)
      let publisher = HTTPPublisher(gateway)
      try publisher.publish(NumberedEvents.json(0))
      try fleet.pump(throughNumber: 1)
      var faults: [Int: () throws -> Void] = [:]
      for (place, number) in stride(from: 40, to: 400, by: 60).enumerated() {
        faults[number] = {
          let workers = gateway.workers(.connections)
          if !workers.isEmpty { workers[place % workers.count].signal(SIGKILL) }
        }
      }
      try fleet.pump(publishing: 1..<400, perSecond: Self.rate, faults: faults) {
        try publisher.publish(NumberedEvents.json($0))
      }
      try fleet.pump(throughNumber: 400)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.lossesTold == 0)
      #expect(publisher.refusals.isEmpty)
      try gateway.waitUntilReady()
    }
  }

  @Test("Kill -9 of the control worker: streams stay, publishing goes on, and what was accepted arrives")
  func controlKilled() throws {
    try Gateway.run { gateway in
      let fleet = try ClientFleet(gateway, count: 100)
      let publisher = HTTPPublisher(gateway)
      try publisher.publish(NumberedEvents.json(0))
      let requestsInFlight = 20
      for round in 0..<3 {
        let victim = try #require(gateway.workers(.control).first)
        let first = 1 + round * requestsInFlight
        let events = (first..<first + requestsInFlight).map { NumberedEvents.json($0) }
        try publisher.publish(events) { victim.signal(SIGKILL) }
        try fleet.pump(throughNumber: first + requestsInFlight)
        try gateway.awaitReplacement(of: victim, kind: .control, count: 1)
      }
      #expect(fleet.reconnected.isEmpty && fleet.lost.isEmpty)
      #expect(fleet.lossesTold == 0)
      #expect(publisher.refusals.isEmpty)
      // An event that was taken but not answered is published again by its service.
      for account in fleet.accounts {
        #expect(account.missing == 0)
        #expect(account.repeated <= publisher.unanswered)
      }
      #expect(try gateway.metric(Self.restarts, ["worker": "control", "reason": "signal"]) == 3)
    }
  }

  @Test(
    "A connection worker that stands still for less than its watchdog time loses nothing and is left alone")
  func held() throws {
    try Gateway.run(["WATCHDOG_S": "60"]) { gateway in
      let fleet = try ClientFleet(gateway, count: 50)
      try fleet.spread()
      let publisher = HTTPPublisher(gateway)
      let held = try #require(gateway.workers(.connections).first)
      let itsClients = fleet.members(heldBy: held)
      try #require(!itsClients.isEmpty && itsClients.count < fleet.count)
      let faults: [Int: () throws -> Void] = [50: held.freeze, 150: held.thaw]
      try fleet.pump(publishing: 0..<200, perSecond: Self.rate, faults: faults) {
        try publisher.publish(NumberedEvents.json($0))
      }
      try fleet.pump(throughNumber: 200)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.reconnected.isEmpty)
      #expect(publisher.refusals.isEmpty)
      #expect(try gateway.metric(Self.restarts) == 0)
    }
  }

  @Test(
    "A full ring is answered 503 with retry-after; what was accepted arrives once when there is room again")
  func ringFull() throws {
    let tiny = ["EVENT_RING_BYTES": "65536", "MAX_EVENT_BYTES": "4096", "WATCHDOG_S": "3600"]
    try Gateway.run(tiny) { gateway in
      let fleet = try ClientFleet(gateway, count: 20)
      try fleet.spread()
      let publisher = HTTPPublisher(gateway)
      let held = try #require(gateway.workers(.connections).first)
      let itsClients = fleet.members(heldBy: held)
      try #require(!itsClients.isEmpty && itsClients.count < fleet.count)
      try held.freeze()
      var accepted = 0
      var refusal: HTTPAnswer?
      while refusal == nil, accepted < 1_000 {
        let answer = try #require(publisher.attempt(NumberedEvents.json(accepted, padding: 1_000)))
        if answer.status == 202 { accepted += 1 } else { refusal = answer }
      }
      let full = try #require(refusal)
      try expectProblem(full, 503, naming: "full")
      #expect(Int(full["retry-after"] ?? "").map { $0 > 0 } == true)
      #expect(try gateway.metric("rig_ring_full_total", ["ring": "events.control"]) >= 1)
      // The worker that isn't held has served its clients.
      try fleet.pump("the others see all") { fleet in
        fleet.accounts.indices.allSatisfy { itsClients.contains($0) || fleet.accounts[$0].next == accepted }
      }
      held.thaw()
      try fleet.pump(publishing: accepted..<accepted + 100, perSecond: Self.rate) {
        try publisher.publish(NumberedEvents.json($0, padding: 1_000))
      }
      try fleet.pump(throughNumber: accepted + 100)
      #expect(fleet.flaws.isEmpty)
      #expect(fleet.reconnected.isEmpty)
      #expect(fleet.lossesTold == 0)
      #expect(try gateway.metric(Self.restarts) == 0)
    }
  }
}
