// Workers that die at any store they make, one after the other, while events come and clients read at their own pace: each heir goes on
// in a copy of all shared memory as it was at that instant, and with sockets that have taken what they had taken then.
//
//   life 1 ── store, store, … ✝   memory copied here; what life 1 does afterwards nobody sees
//                             └── life 2 ── … ✝ (perhaps while it adopts)
//                                           └── life 3 …   every client: each event once, in order, well framed

import Foundation
import Glibc
import NIOCore
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

/// One client through all lives of its worker.
private final class Client {
  let isWebSocket: Bool
  var socket: TestClient
  /// What its socket had taken in earlier lives.
  var base: UInt64 = 0
  /// All that it got in them.
  var got: [UInt8] = []
  let cookie: UInt64

  init(isWebSocket: Bool, cookie: UInt64) throws {
    self.isWebSocket = isWebSocket
    self.cookie = cookie
    socket = try TestClient()
  }

  /// Bytes written to its socket so far, as the kernel would count.
  var written: UInt64 { base + UInt64(socket.takenBytes) }
}

/// The sockets of one life, as the kernel would know them.
private final class Sockets {
  var clients: [CInt: Client] = [:]

  var accounts: SocketAccounts {
    SocketAccounts(
      written: { [unowned self] in clients[$0]?.written }, read: { _ in 0 },
      cookie: { [unowned self] in clients[$0]?.cookie })
  }
}

extension Sockets: SocketHost {
  func channel(of socket: CInt) -> (any Channel)? { clients[socket]?.socket.channel }

  func adopt(_ socket: CInt, _ origin: AdoptedSocket) { Issue.record("no socket of HTTP: \(origin)") }
}

/// Brings sockets, a few at a time, and not at once.
private final class SlowCourier: SocketCourier {
  private var sockets: [Courier.Socket]
  private var random: SeededRandom
  private var untaken = 0

  init(_ sockets: [Courier.Socket], _ random: inout SeededRandom) {
    self.sockets = sockets.shuffled(using: &random)
    self.random = SeededRandom(seed: random.next())
  }

  func ask() {}

  func receive() -> Courier.Message {
    #expect(untaken == 0, "there is an earlier batch")
    if sockets.isEmpty { return .done }
    if Int.random(in: 0..<3, using: &random) == 0 { return .nothing }
    let batch = Array(sockets.prefix(.random(in: 1...3, using: &random)))
    sockets.removeFirst(batch.count)
    untaken += 1
    return .batch(batch, lost: [])
  }

  func taken() { untaken -= 1 }
}

/// A worker, and the world as it sees it.
private final class Life {
  let gateway: TestGateway
  let worker: TestWorker
  let sockets: Sockets
  let writer: EventWriter
  let clients: [Client]
  private var left: Int
  /// The world at the instant of its death, and what had been written to each client.
  private(set) var legacy: (gateway: TestGateway, written: [UInt64])?

  /// - Parameter stores: that it makes before it dies.
  init(_ gateway: TestGateway, _ clients: [Client], dyingAfter stores: Int) throws {
    self.gateway = gateway
    self.clients = clients
    sockets = Sockets()
    for client in clients { sockets.clients[client.socket.near] = client }
    left = stores
    writer = try gateway.streamsWriter()
    worker = try gateway.worker(sockets: sockets.accounts) { $0.maxUnsentBytes = 8_000 }
    worker.connections.ledger.onStore = { [unowned self] in stored() }
  }

  private func stored() {
    left -= 1
    guard left == 0 else { return }
    do {
      legacy = (try TestGateway(copying: gateway), clients.map(\.written))
    } catch {
      Issue.record("no copy: \(error)")
    }
  }

  /// Goes on with what the life before has left.
  func inherit(_ random: inout SeededRandom) {
    let byCookie = Dictionary(uniqueKeysWithValues: clients.map { ($0.cookie, $0.socket.near) })
    let entries = worker.connections.ledger.inherited()
    let sockets = entries.compactMap { entry in
      entry.cookie.flatMap { byCookie[$0] }.map {
        Courier.Socket(entry: entry.entry.rawValue, descriptor: $0)
      }
    }
    worker.adoption.holdNs = Bool.random(using: &random) ? 0 : .max
    worker.adoption.inherit(
      from: [DeadWorker(incarnation: 1, cause: "killed", courier: SlowCourier(sockets, &random))],
      patienceSeconds: 3600)
    worker.adoption.begin(host: self.sockets)
  }
}

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

  private func open(_ life: Life) throws {
    for client in life.clients {
      if client.isWebSocket {
        try life.worker.openWebSocket(client.socket, [.to("all")])
      } else {
        try life.worker.openSSE(client.socket, [.to("all")])
      }
    }
  }

  /// Events, turns and reading in any order, until the worker has died or enough has happened.
  private func pass(_ life: Life, _ traffic: inout Traffic, _ random: inout SeededRandom) throws {
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

  /// The next life begins where that one has ended.
  private func succeed(_ life: Life, dyingAfter stores: Int, _ random: inout SeededRandom) throws -> Life {
    let legacy = try #require(life.legacy)
    for (client, written) in zip(life.clients, legacy.written) {
      client.socket.read()
      client.got += client.socket.all
      try #require(client.got.count >= Int(written))
      client.got.removeLast(client.got.count - Int(written))
      client.base = written
      client.socket = try TestClient()
    }
    let next = try Life(legacy.gateway, life.clients, dyingAfter: stores)
    next.inherit(&random)
    return next
  }

  private func numbers(of client: Client) -> [Int] {
    let bytes = client.got.dropFirst(6)
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
      try Client(isWebSocket: number % 2 == 1, cookie: UInt64(number) + 1)
    }
    // The last life doesn't die; sometimes an heir dies among its first stores, while it adopts.
    let deaths = (0..<4).map { _ in
      Int.random(in: 1...(Bool.random(using: &random) ? 60 : 900), using: &random)
    }
    var lives = [
      try Life(
        TestGateway(
          eventRingBytes: 1 << 20,
          ledger: LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20)), clients,
        dyingAfter: 60 + deaths[0])
    ]
    try open(lives[0])
    for death in deaths.dropFirst() + [.max] {
      try pass(lives[lives.count - 1], &traffic, &random)
      // It had less to do than that.
      guard lives[lives.count - 1].legacy != nil else { continue }
      lives.append(try succeed(lives[lives.count - 1], dyingAfter: death, &random))
    }
    let last = lives[lives.count - 1]
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
      client.socket.readAll()
      client.got += client.socket.all
      #expect(
        numbers(of: client) == traffic.expected, "WebSocket: \(client.isWebSocket), \(lives.count) lives")
    }
    withExtendedLifetime(lives) {}
  }
}
