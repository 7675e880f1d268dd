// Workers that die at any store they make, one after the other, while events come and clients read at their own pace: each heir goes on
// in a copy of all shared memory as it was at that instant, and with sockets that have taken what they had taken then.
//
//   life 1 ── store, store, … ✝   memory copied here; what life 1 does afterwards nobody sees
//                             └── life 2 ── … ✝ (perhaps while it adopts)
//                                           └── life 3 …   every client: each event once, in order, well framed

import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

@Suite("16.5 Workers that die one after the other")
struct SuccessionTests {
  private static let clients = 5

  private struct Traffic {
    var published = 0
    var expected: [Int] = []

    mutating func publish(_ writer: EventWriter, _ random: inout SeededRandom) throws {
      published += 1
      let isWanted = published % 3 != 0
      let padding = Int.random(in: 0...9, using: &random) == 0 ? 3000 : 100
      try writer.publish(
        published, type: isWanted ? "all" : "other", padding: .random(in: 0...padding, using: &random))
      if isWanted { expected.append(published) }
    }
  }

  /// Events, turns and reading in any order, until the worker has died or enough has happened.
  private func pass(_ life: WorkerLife, _ traffic: inout Traffic, _ random: inout SeededRandom) throws {
    for _ in 0..<120 where life.legacy == nil {
      let client = life.clients[.random(in: 0..<life.clients.count, using: &random)]
      switch Int.random(in: 0..<8, using: &random) {
      case 0...2: try traffic.publish(life.writer, &random)
      case 3...4: life.worker.run()
      case 5: client.socket.read(atMost: .random(in: 1...20_000, using: &random))
      default: client.socket.socket.pump()
      }
    }
  }

  private func succeed(_ life: WorkerLife, dyingAfter stores: Int, _ random: inout SeededRandom) throws
    -> WorkerLife
  {
    let next = try life.next(dyingAfter: stores)
    let holds = Bool.random(using: &random)
    next.inherit({ SlowCourier($0, &random) }, holds: holds)
    return next
  }

  private func numbers(of client: SurvivingClient) -> [Int] {
    let bytes = client.everything().dropFirst(6)
    guard client.isWebSocket else { return ConnectionsTests.numbers(String(decoding: bytes, as: UTF8.self)) }
    return webSocketTexts(Array(bytes)).compactMap { text in
      text.hasPrefix(#"{"n":"#) ? Int(text.dropFirst(5).prefix { $0.isNumber }) : nil
    }
  }

  @Test(
    "16.5 each client has each event once, in order and well framed, at whichever store workers die",
    arguments: 1...60 as ClosedRange<UInt64>)
  func anyStore(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var traffic = Traffic()
    let clients = try (0..<Self.clients).map { number in
      try SurvivingClient(isWebSocket: number % 2 == 1, cookie: UInt64(number) + 1)
    }
    // The last life doesn't die; sometimes an heir dies among its first stores, while it adopts.
    let deaths = (0..<4).map { _ in
      Int.random(in: 1...(Bool.random(using: &random) ? 60 : 900), using: &random)
    }
    var lives = [
      try WorkerLife(
        TestGateway(
          eventRingBytes: 1 << 20,
          ledger: LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20)), clients,
        dyingAfter: .max)
    ]
    for client in clients { try lives[0].open(client, [.to("all")]) }
    lives[0].left = deaths[0]
    for death in deaths.dropFirst() + [.max] {
      try pass(lives[lives.count - 1], &traffic, &random)
      // It had less to do than that.
      guard lives[lives.count - 1].legacy != nil else { continue }
      lives.append(try succeed(lives[lives.count - 1], dyingAfter: death, &random))
    }
    let last = lives[lives.count - 1]
    defer { last.end() }
    try pass(last, &traffic, &random)
    for _ in 0..<1_000 {
      last.worker.run()
      var isAnywhere = false
      for client in clients {
        client.socket.socket.pump()
        if client.socket.read() || client.socket.socket.isWaiting { isAnywhere = true }
      }
      if !isAnywhere, last.worker.adoption.isOver || lives.count == 1 { break }
    }
    #expect(last.worker.connections.table.count == Self.clients, "after \(lives.count) lives")
    for client in clients {
      #expect(
        numbers(of: client) == traffic.expected, "WebSocket: \(client.isWebSocket), \(lives.count) lives")
    }
    withExtendedLifetime(lives) {}
  }
}
