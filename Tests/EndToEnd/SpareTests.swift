// Connection workers' processes in reserve, as an operator sees them: who is next when a worker dies.

import Foundation
import Testing

@Suite("16.8 Spares", .serialized)
struct SpareTests {
  private static let settings = ["CONNECTION_WORKERS": "1", "WARM_SPARES": "1"]

  private func worker(_ gateway: Gateway) throws -> RunningProcess {
    try #require(gateway.workers(.connections).first)
  }

  @Test("16.8 A spare is the next process of a worker that dies, and another one waits then")
  func next() throws {
    try Gateway.run(Self.settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      let first = try worker(gateway)
      let shown = first.arguments
      var last = first
      for _ in 0..<3 {
        let spare = try gateway.awaitSpare()
        #expect(spare.arguments.hasPrefix("rig-connections: spare"))
        try gateway.killAndAwaitReplacement(last)
        last = try worker(gateway)
        #expect(last.pid == spare.pid)
        #expect(last.arguments == shown)
        try clients.publish("a")
        try clients.pumpToEnd()
      }
      clients.expectWhole()
      #expect(try gateway.adopted == 3 * clients.count)
      _ = try gateway.awaitSpare()
      try eventually("it is counted") { try gateway.metric("rig_spares") == 1 }
      #expect(try gateway.metric("rig_worker_restarts_total", ["worker": "connections.0"]) == 3)
      #expect(gateway.keepers.count == 1)
    }
  }

  @Test("16.8 A spare that is killed is replaced, and is no restart")
  func killed() throws {
    try Gateway.run(Self.settings) { gateway in
      let spare = try gateway.awaitSpare()
      spare.signal(SIGKILL)
      try eventually("it has gone") { spare.state == nil }
      #expect(try gateway.awaitSpare() != spare)
      #expect(try gateway.metric("rig_worker_restarts_total") == 0)
    }
  }

  @Test("16.8 A spare that doesn't move when it is needed costs time, and nothing else")
  func stopped() throws {
    try Gateway.run(Self.settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      let spare = try gateway.awaitSpare()
      spare.signal(SIGSTOP)
      try eventually("it stands") { spare.state == "T" }
      let first = try worker(gateway)
      first.signal(SIGKILL)
      try eventually("an ordinary process has taken over", within: 60) {
        gateway.workers(.connections).contains { $0 != first && $0 != spare }
      }
      try gateway.waitUntilReady()
      #expect(spare.state == nil)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
      #expect(try gateway.adopted == clients.count)
      #expect(try gateway.metric("rig_worker_restarts_total") == 1)
      try eventually("one keeper is left") { gateway.keepers.count == 1 }
      #expect(try gateway.metric("rig_keepers") == 1)
    }
  }

  @Test("16.8 Two workers die at once: one has the spare, the other one an ordinary process")
  func two() throws {
    try Gateway.run(["WARM_SPARES": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<4).flatMap { _ in CheckedClients.Form.all }, ["a"])
      let spare = try gateway.awaitSpare()
      try gateway.killConnectionWorkers()
      #expect(gateway.workers(.connections).count { $0.pid == spare.pid } == 1)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
      #expect(try gateway.adopted == clients.count)
    }
  }

  @Test("16.8 A spare of another executable is not used")
  func otherExecutable() throws {
    let installation = try Installation()
    let launcher = ["/bin/sh", "-c", #"shift; exec "$0" "$@""#, installation.path("rig-supervisor")]
    try Gateway.run(Self.settings, launcher: launcher) { gateway in
      let spare = try gateway.awaitSpare()
      let first = try worker(gateway)
      let path = installation.path("rig-connections")
      try FileManager.default.copyItem(atPath: path, toPath: path + ".new")
      let renamed = rename(path + ".new", path)
      #expect(renamed == 0)
      first.signal(SIGKILL)
      let heir = try eventually("it is replaced", within: 60) {
        gateway.workers(.connections).first { $0 != first }
      }
      #expect(heir != spare)
      try gateway.waitUntilReady()
      try eventually("the old one has gone") { spare.state == nil }
      _ = try gateway.awaitSpare()
    }
  }

  @Test("16.8 Descriptors and processes don't grow with deaths")
  func growth() throws {
    try Gateway.run(Self.settings) { gateway in
      func look() throws -> [Int] {
        _ = try gateway.awaitSpare()
        try eventually("one keeper is left") { gateway.keepers.count == 1 }
        let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
        return [
          supervisor.descriptors.count, try worker(gateway).descriptors.count, gateway.process.tree().count,
        ]
      }
      try gateway.killConnectionWorkers()
      let before = try look()
      for _ in 0..<50 { try gateway.killConnectionWorkers() }
      try eventually("as many as before", within: 60) { try look() == before }
    }
  }
}
