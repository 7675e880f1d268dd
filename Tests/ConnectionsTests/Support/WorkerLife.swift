// Lives of one worker, each in the world that the one before has left at the instant of its death: a copy of all shared memory, and
// sockets that have taken what they had taken then. What a worker does after its death nobody sees.

import Glibc
import NIOCore
import Settings
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

/// One client through all lives of its worker.
final class SurvivingClient {
  let isWebSocket: Bool
  var socket: TestClient
  /// What its socket had taken, and given, in earlier lives.
  private var base: UInt64 = 0
  private var readBefore: UInt64 = 0
  /// All that it got in them.
  var got: [UInt8] = []
  let cookie: UInt64
  /// Of its connection.
  var serial: UInt64 = 0
  /// What it has said and no process has read.
  var unsaid: [UInt8] = []

  init(isWebSocket: Bool = false, cookie: UInt64) throws {
    self.isWebSocket = isWebSocket
    self.cookie = cookie
    socket = try TestClient()
  }

  /// Bytes written to its socket and read from it so far, as the kernel would count.
  var written: UInt64 { base + UInt64(socket.takenBytes) }
  var read: UInt64 { readBefore + UInt64(socket.givenBytes) }
}

extension SurvivingClient {
  /// What its socket had taken and given when its worker died: it is in another one's hands from here on.
  func survive(_ counts: SocketBytes) throws {
    socket.read()
    got += socket.all
    try #require(got.count >= Int(counts.written), "the kernel has lost something")
    got.removeLast(got.count - Int(counts.written))
    (base, readBefore) = (counts.written, counts.read)
    socket = try TestClient()
  }

  /// All that it has got, in all lives.
  func everything() -> [UInt8] {
    socket.readAll()
    return got + socket.all
  }
}

/// The sockets of one life, as the kernel would know them.
final class SurvivingSockets {
  var clients: [CInt: SurvivingClient] = [:]

  var accounts: SocketAccounts {
    SocketAccounts(
      written: { [unowned self] in clients[$0]?.written }, read: { [unowned self] in clients[$0]?.read },
      cookie: { [unowned self] in clients[$0]?.cookie })
  }
}

extension SurvivingSockets: SocketHost {
  func channel(of socket: CInt) -> (any Channel)? { clients[socket]?.socket.channel }

  func adopt(_ socket: CInt, _ origin: AdoptedSocket) { Issue.record("no socket of HTTP: \(origin)") }
}

/// Brings sockets, a few at a time, and not at once.
final class SlowCourier: SocketCourier {
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
final class WorkerLife {
  let gateway: TestGateway
  let worker: TestWorker
  let sockets: SurvivingSockets
  let writer: EventWriter
  let clients: [SurvivingClient]
  /// Stores that it makes before it dies.
  var left: Int
  /// The world at the instant of its death, and what had been written to each client and read from it.
  private(set) var legacy: (gateway: TestGateway, counts: [SocketBytes])?

  /// - Parameter stores: that it makes before it dies.
  init(
    _ gateway: TestGateway, _ clients: [SurvivingClient], dyingAfter stores: Int = .max,
    _ change: (inout Settings) -> Void = { _ in }
  ) throws {
    self.gateway = gateway
    self.clients = clients
    sockets = SurvivingSockets()
    for client in clients { sockets.clients[client.socket.near] = client }
    left = stores
    writer = try gateway.streamsWriter()
    worker = try gateway.worker(sockets: sockets.accounts) {
      $0.maxUnsentBytes = 8_000
      change(&$0)
    }
    worker.connections.ledger.onStore = { [unowned self] in stored() }
  }

  private func stored() {
    left -= 1
    if left == 0 { die() }
  }

  func die() {
    do {
      let counts = clients.map { SocketBytes(read: $0.read, written: $0.written) }
      legacy = (try TestGateway(copying: gateway), counts)
    } catch {
      Issue.record("no copy: \(error)")
    }
  }

  /// The next life begins where this one has ended; it goes on with what `inherit` gives it.
  func next(dyingAfter stores: Int = .max, _ change: (inout Settings) -> Void = { _ in }) throws -> WorkerLife
  {
    let legacy = try #require(legacy)
    for (client, counts) in zip(clients, legacy.counts) { try client.survive(counts) }
    return try WorkerLife(legacy.gateway, clients, dyingAfter: stores, change)
  }

  func open(_ client: SurvivingClient, _ subscriptions: [Subscription], identity: ConnectionIdentity? = nil)
    throws
  {
    if client.isWebSocket {
      try worker.openWebSocket(client.socket, subscriptions, identity: identity)
    } else {
      try worker.openSSE(client.socket, subscriptions, identity: identity)
    }
  }

  /// Clients go before their worker does: to be called before a test lets go of the last life.
  func end() {
    for client in clients { client.socket.disconnect() }
  }

  /// Goes on with what the life before has left.
  ///
  /// - Parameter courier: brings the sockets of these entries.
  func inherit(
    _ courier: ([Courier.Socket]) -> any SocketCourier, holds: Bool = true,
    cause: WorkerManifest.Inheritance.Cause = .killed
  ) {
    let byCookie = Dictionary(uniqueKeysWithValues: clients.map { ($0.cookie, $0.socket.near) })
    let entries = worker.connections.ledger.inherited()
    let sockets = entries.compactMap { entry in
      entry.cookie.flatMap { byCookie[$0] }.map {
        Courier.Socket(entry: entry.entry.rawValue, descriptor: $0)
      }
    }
    worker.adoption.holdNs = holds ? (.max, .max) : (0, 0)
    worker.adoption.inherit(
      from: [DeadWorker(incarnation: 1, cause: cause, courier: courier(sockets))], patienceSeconds: 3600)
    worker.state.catchUp()
    worker.entrance.host = self.sockets
    worker.adoption.begin()
  }
}
