// Keepers as an operator sees them: one for each connection worker, gone when they have nothing to keep.

import Glibc
import Testing

@Suite("16.5 Keepers", .serialized)
struct KeeperTests {
  @Test("16.5 Each connection worker has one, and after deaths and adoptions each has one again")
  func one() throws {
    try Gateway.run { gateway in
      #expect(gateway.keepers.count == 2)
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      for _ in 0..<6 {
        let before = Set(gateway.keepers.map(\.pid))
        try gateway.killConnectionWorkers()
        try eventually("the keepers of the dead have ended") {
          let now = Set(gateway.keepers.map(\.pid))
          return now.count == 2 && now.isDisjoint(with: before)
        }
      }
      #expect(try gateway.metric("rig_keepers") == 2)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test("16.5 Descriptors and memory don't grow with deaths")
  func growth() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<5).flatMap { _ in CheckedClients.Form.all }, ["a"])
      func descriptors() throws -> [Int] {
        try eventually("one keeper is left") { gateway.keepers.count == 1 }
        let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
        let worker = try #require(gateway.workers(.connections).first)
        return [supervisor.descriptors.count, worker.descriptors.count]
      }
      try gateway.killConnectionWorkers()
      let before = try descriptors()
      for _ in 0..<10 { try gateway.killConnectionWorkers() }
      try eventually("as many descriptors as before") { try descriptors() == before }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test("16.5 They end with the supervisor, and so do the connections")
  func supervisorKilled() throws {
    let settings = Gateway.stopping(at: "batchReceived#2")
    try Gateway.run(settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      let worker = try #require(gateway.workers(.connections).first)
      try gateway.slay(worker, heirStops: true)
      gateway.process.signal(SIGKILL)
      #expect(try gateway.process.wait() == .signalled(Int(SIGKILL)))
      try eventually("nobody is left") { gateway.process.tree().isEmpty }
      try clients.pump("all connections have ended") { $0.ended.count == $0.count }
    }
  }

  @Test("16.5 A keeper that dies alone costs nobody anything until its worker dies")
  func keeperKilled() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      try #require(gateway.keepers.first).signal(SIGKILL)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
      try eventually("it is counted") { try gateway.metric("rig_keeper_losses_total") == 1 }
      try gateway.killConnectionWorkers()
      try clients.pump("they end with their worker") { $0.ended.count == $0.count }
      // From here on there is one again.
      let after = CheckedClients(gateway)
      try after.open(CheckedClients.Form.all, ["b"])
      try gateway.killConnectionWorkers()
      try after.publish("b")
      try after.pumpToEnd()
      after.expectWhole()
    }
  }

  @Test("16.5 With KEEPER_TTL_S=0 there are none, and connections end with their worker")
  func none() throws {
    try Gateway.run(["KEEPER_TTL_S": "0"]) { gateway in
      #expect(gateway.keepers.isEmpty)
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      try gateway.killConnectionWorkers()
      try clients.pump("they have ended") { $0.ended.count == $0.count }
    }
  }

  @Test(
    "16.5 Faults count for RESTART_INTENSITY, though their connections go on until then")
  func intensity() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "2", "SWIFT_BACKTRACE": "enable=no"]) {
      gateway in
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      for _ in 0..<4 { try gateway.killConnectionWorkers(SIGKILL) }
      for _ in 0..<2 { try gateway.killConnectionWorkers(SIGABRT) }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
      try #require(gateway.workers(.connections).first).signal(SIGABRT)
      #expect(try gateway.process.wait() == .exited(75))
    }
  }
}
