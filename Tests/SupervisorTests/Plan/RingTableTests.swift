// The ring table: what a gateway has, and numbers that never change.

import IPC
import Settings
import Testing

@testable import Supervisor

@Suite struct RingTableTests {
  private static func plan(
    workers: Int, proxies: Int = 1, kafka: Bool = true, _ change: (inout Settings) -> Void = { _ in }
  ) -> GatewayPlan {
    var settings = Settings()
    settings.connectionWorkers = workers
    settings.proxyWorkers = proxies
    settings.kafkaBrokers = kafka ? ["localhost:9092"] : []
    change(&settings)
    return GatewayPlan(settings: settings)
  }

  /// "0x10000 events.streams > connections.0@0 connections.0b@1"
  private static func line(_ ring: RingPlan) -> String {
    let readers = ring.readers.map { " \($0.worker.seatName)@\($0.slot)" }.joined()
    return "0x\(String(ring.id, radix: 16)) \(ring.name) >\(readers)"
  }

  /// Clients, rings and workers of other releases know these numbers: lines may be added, and none changed. (They were changed once,
  /// before the first release that lets another one's processes live beside its own: 16.5 gave each place its second seat.)
  @Test("15.2 ids and slots are those of every release")
  func frozen() {
    let all = " connections.0@0 connections.0b@1 connections.1@2 connections.1b@3"
    #expect(
      Self.plan(workers: 2).rings.map(Self.line) == [
        "0x10000 events.streams >\(all)",
        "0x10001 events.control >\(all)",
        "0x10002 events.connections.0 >\(all)",
        "0x10003 events.connections.0b >\(all)",
        "0x10004 events.connections.1 >\(all)",
        "0x10005 events.connections.1b >\(all)",
        "0x20000 requests.connections.0 >\(all)",
        "0x20001 requests.connections.0b >\(all)",
        "0x20002 requests.connections.1 >\(all)",
        "0x20003 requests.connections.1b >\(all)",
        "0x30000 state.control >\(all)",
        "0x40000 presence.connections.0 > control@0",
        "0x40001 presence.connections.0b > control@0",
        "0x40002 presence.connections.1 > control@0",
        "0x40003 presence.connections.1b > control@0",
        "0x50000 calls.control > proxies.0@0",
        "0x50001 calls.connections.0 > proxies.0@0",
        "0x50002 calls.connections.0b > proxies.0@0",
        "0x50003 calls.connections.1 > proxies.0@0",
        "0x50004 calls.connections.1b > proxies.0@0",
        "0x60000 answers.proxies.0 > control@0 connections.0@1 connections.0b@2 connections.1@3 connections.1b@4",
        "0x70000 publications.connections.0 > control@0 streams@1",
        "0x70001 publications.connections.0b > control@0 streams@1",
        "0x70002 publications.connections.1 > control@0 streams@1",
        "0x70003 publications.connections.1b > control@0 streams@1",
        "0x80000 responses.streams >\(all)",
        "0x80001 responses.control >\(all)",
        "0x90000 positions.streams >",
      ])
    #expect(Self.plan(workers: 2).rings.compactMap(\.cursorPosition) == Array(0...5))
  }

  @Test(
    "15.2 a ring's id, its place in a cursor and its readers' slots are the same in every gateway that has it"
  )
  func permanent() {
    var ids: [String: UInt32] = [:]
    var positions: [String: Int?] = [:]
    var slots: [String: Int] = [:]
    for plan in [
      Self.plan(workers: 1, kafka: false), Self.plan(workers: 3), Self.plan(workers: 2, proxies: 4),
      Self.plan(workers: 31, proxies: 64), Self.plan(workers: 31, proxies: 64, kafka: false),
    ] {
      for ring in plan.rings {
        #expect(ids.updateValue(ring.id, forKey: ring.name) ?? ring.id == ring.id, "\(ring.name)")
        #expect(
          positions.updateValue(ring.cursorPosition, forKey: ring.name) ?? ring.cursorPosition
            == ring.cursorPosition, "\(ring.name)")
        for reader in ring.readers {
          let key = "\(ring.name) > \(reader.worker.seatName)"
          #expect(slots.updateValue(reader.slot, forKey: key) ?? reader.slot == reader.slot, "\(key)")
          #expect((0..<Ring.maximumReaders).contains(reader.slot), "\(key)")
        }
        #expect(Set(ring.readers.map(\.slot)).count == ring.readers.count, "\(ring.name)")
        #expect((ring.cursorPosition != nil) == (ring.purpose == .events), "\(ring.name)")
      }
      #expect(Set(plan.rings.map(\.id)).count == plan.rings.count)
      #expect(plan.rings.map(\.id) == plan.rings.map(\.id).sorted())
      let order = plan.rings.compactMap(\.cursorPosition)
      #expect(Set(order).count == order.count)
    }
  }

  @Test("records go to the streams worker if there is one; responses come from it and from control")
  func responses() {
    func rings(kafka: Bool) -> [String] {
      Self.plan(workers: 1, kafka: kafka).rings.filter { [.publications, .responses].contains($0.purpose) }
        .map(Self.line)
    }
    #expect(
      rings(kafka: true) == [
        "0x70000 publications.connections.0 > control@0 streams@1",
        "0x70001 publications.connections.0b > control@0 streams@1",
        "0x80000 responses.streams > connections.0@0 connections.0b@1",
        "0x80001 responses.control > connections.0@0 connections.0b@1",
      ])
    #expect(
      rings(kafka: false) == [
        "0x70000 publications.connections.0 > control@0", "0x70001 publications.connections.0b > control@0",
        "0x80001 responses.control > connections.0@0 connections.0b@1",
      ])
  }

  @Test("what calls services begins before those for whom it calls, and holds their rings alone")
  func proxies() {
    let plan = Self.plan(workers: 2, proxies: 2, kafka: false)
    let held = plan.rings.filter { $0.isHeld(by: .proxies(1)) }.map(\.name)
    #expect(
      held == [
        "calls.control", "calls.connections.0", "calls.connections.0b", "calls.connections.1",
        "calls.connections.1b", "answers.proxies.1",
      ])
    #expect(plan.rings.allSatisfy { $0.isHeld(by: .control) }, "it shows how full they are")
    #expect(!plan.rings.contains { $0.purpose == .requests && $0.isUsed(by: .control) })
  }

  @Test("sizes are those of the settings")
  func sizes() {
    let plan = Self.plan(workers: 1) { settings in
      settings.eventRingBytes = 1
      settings.streamsRingBytes = 2
      settings.requestRingBytes = 3
      settings.stateRingBytes = 4
      settings.presenceRingBytes = 5
      settings.callRingBytes = 6
      settings.responseRingBytes = 7
      settings.positionRingBytes = 8
    }
    #expect(plan.rings.map(\.bytes) == [2, 1, 1, 1, 3, 3, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8])
  }
}
