// Heirs that have no room for all of the connections that are left to them: whoever fits goes on, the others end, and the gateway stays.

import Foundation
import Glibc
import Testing

@Suite("16.10 Limits at an heir", .serialized)
struct HeirLimitTests {
  private typealias Form = CheckedClients.Form

  @Test("16.10 A ledger that is full: those that found no room end with their worker, the others go on")
  func ledgerFull() throws {
    let settings = ["CONNECTION_WORKERS": "1", "LEDGER_BYTES": "1048576", "MAX_UNSENT_BYTES": "65536"]
    try Gateway.run(settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<4).flatMap { _ in Form.all }, ["a"])
      // What waits for each of them, up to 64 KiB, is in the ledger: more than there is.
      var slow = Form.sse
      slow.receiveBuffer = 4_096
      let first = clients.count
      try clients.open(Array(repeating: slow, count: 40), ["a"])
      for index in first..<clients.count { clients.idle(index) }
      try clients.pump("all of the slow ones wait for their sockets") { clients in
        try clients.publishTogether("a", 4, padding: 8_000)
        return try gateway.metric("rig_connections_behind") == 40
      }
      #expect(try gateway.metric("rig_ledger_bytes") <= 1_048_576)
      try gateway.killConnectionWorkers()
      for index in first..<clients.count { clients.idle(index, false) }
      try clients.publish("a")
      try clients.pumpToEnd()
      let ended = Set(clients.ended.keys)
      #expect(!ended.isEmpty && ended.allSatisfy { $0 >= first }, "\(ended)")
      clients.expectWhole(but: ended)
      // There is room again.
      try clients.open(Form.all, ["a2"])
      try gateway.killConnectionWorkers()
      try clients.publish("a2")
      try clients.publish("a")
      try clients.pumpToEnd()
      #expect(Set(clients.ended.keys) == ended)
    }
  }

  /// So many descriptors for the processes that the supervisor starts from here on.
  private static func limitDescriptors(of gateway: Gateway, to limit: Int) throws {
    let directory = try TestDirectory()
    let prlimit = try ChildProcess(
      Tools.system("prlimit"), ["--pid", "\(gateway.process.pid)", "--nofile=\(limit):\(limit)"],
      environment: [:],
      directory: directory.path)
    try #require(try prlimit.wait() == .exited(0))
  }

  /// Fewer than the clients need, and enough for whoever has none.
  private static func scarce(_ gateway: Gateway) throws -> Int {
    let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
    return max(supervisor.descriptors.count, 100) + 60
  }

  @Test(
    "16.10 Too few descriptors at the heir of a dead one: as many as fit go on, the others are closed and counted"
  )
  func descriptorsAfterDeath() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<50).flatMap { _ in Form.all }, ["a"])
      try Self.limitDescriptors(of: gateway, to: try Self.scarce(gateway))
      try gateway.killConnectionWorkers()
      try clients.publish("a")
      try clients.pumpToEnd()
      let ended = Set(clients.ended.keys)
      #expect(!ended.isEmpty && ended.count < clients.count, "\(ended.count) of \(clients.count)")
      clients.expectWhole(but: ended)
      #expect(try gateway.adopted == clients.count - ended.count)
      #expect(try gateway.metric("rig_adoption_dropped_total") == Double(ended.count))
    }
  }

  @Test(
    "16.10 Too few descriptors at the heir of a living one: as many as fit go on, the others are told, and can come back"
  )
  func descriptorsInSwap() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "DRAIN_TIMEOUT_S": "2"]) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open((0..<50).flatMap { _ in Form.all }, ["a"])
      try Self.limitDescriptors(of: gateway, to: try Self.scarce(gateway))
      try gateway.swap(clients) { try clients.publish("a") }
      try clients.publish("a")
      try clients.pumpToEnd()
      let ended = clients.ended
      #expect(!ended.isEmpty && ended.count < clients.count, "\(ended.count) of \(clients.count)")
      #expect(
        ended.values.allSatisfy { ["close 1012", "close 1001", "last chunk"].contains($0) }, "\(ended)")
      clients.expectWhole(but: Set(ended.keys))
    }
  }
}
