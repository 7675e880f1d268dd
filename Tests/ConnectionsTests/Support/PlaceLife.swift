// A place of two seats, and the processes that sit there: who retires, who takes over, and who comes after either has died. All memory is
// shared, as between processes; a process that has died is never run again, and what it had open stays open, as its keeper would have it.
//
//   seat 0: 1 ── offers ──► seat 1: 2        at any store of either the world may be copied: both have died there
//           ✝                       ✝
//           3 (retiring)            4 …

import Glibc
import NIOCore
import Settings
import TestSupport
import Testing

@testable import Connections
@testable import HTTP
@testable import IPC
@testable import Kit

/// The sockets of one world, known by whichever descriptor.
final class PlaceSockets {
  private var clients: [ino_t: SurvivingClient] = [:]

  func add(_ client: SurvivingClient) {
    if let name = Self.name(client.socket.near) { clients[name] = client }
  }

  private static func name(_ descriptor: CInt) -> ino_t? {
    var status = stat()
    return fstat(descriptor, &status) == 0 ? status.st_ino : nil
  }

  func client(_ descriptor: CInt) -> SurvivingClient? { Self.name(descriptor).flatMap { clients[$0] } }

  var accounts: SocketAccounts {
    SocketAccounts(
      written: { [unowned self] in client($0)?.written }, read: { [unowned self] in client($0)?.read },
      cookie: { [unowned self] in client($0)?.cookie })
  }
}

extension PlaceSockets: PassingHost {
  func channel(of socket: CInt) -> (any Channel)? {
    guard let client = client(socket)?.socket, (try? client.enterOtherChannel(on: socket)) != nil else {
      return nil
    }
    return client.channel
  }

  func adopt(_ socket: CInt, _ origin: AdoptedSocket) { Issue.record("no socket of HTTP: \(origin)") }

  func release(_ most: Int, to take: (JournalEntry, CInt) -> Bool) -> Int { 0 }
}

/// Brings all sockets at once.
private final class WholeCourier: SocketCourier {
  private var messages: [Courier.Message]

  init(_ sockets: [Courier.Socket]) { messages = [.batch(sockets, lost: []), .done] }

  func ask() {}

  func receive() -> Courier.Message { messages.isEmpty ? .gone : messages.removeFirst() }

  func taken() {}
}

final class PlaceLife {
  static let seats = [0, 1]

  let gateway: TestGateway
  let clients: [SurvivingClient]
  let sockets = PlaceSockets()
  let writer: EventWriter
  /// Passes when a test says so.
  var nowNs: UInt64
  /// Stores to any ledger before both processes die, in a copy of the world.
  var left = Int.max
  private(set) var legacy: (world: TestGateway, counts: [SocketBytes])?
  /// By seat; nil: nobody sits there.
  private(set) var workers: [TestWorker?] = [nil, nil]
  private var incarnations: [UInt64]
  private var last: UInt64
  /// What the keeper of the seat's last process has: entries, and their sockets' cookies.
  private var kept: [[(entry: UInt32, cookie: UInt64)]] = [[], []]
  private var buried: [TestWorker] = []

  init(
    _ clients: [SurvivingClient], in gateway: TestGateway? = nil, nowNs: UInt64 = MonotonicTime.now(),
    incarnations: [UInt64] = [0, 0]
  ) throws {
    let sizes = LedgerSizes(connections: 100, arenaBytes: 1 << 20, largestEventBytes: 1 << 20)
    self.gateway = try gateway ?? TestGateway(seats: 2, eventRingBytes: 1 << 20, ledger: sizes)
    self.clients = clients
    self.nowNs = nowNs
    self.incarnations = incarnations
    last = incarnations.max() ?? 0
    writer = try self.gateway.streamsWriter()
    for client in clients { sockets.add(client) }
  }

  subscript(seat: Int) -> TestWorker? { workers[seat] }

  // MARK: Births and deaths

  /// The next process of a seat.
  ///
  /// - Parameters:
  ///   - takesOver: from whoever sits at the other seat.
  ///   - brings: what the keeper of the one before brings, of all that it has.
  @discardableResult
  func begin(
    _ seat: Int, takesOver: Bool = false, isRetiring: Bool = false,
    brings: ([Courier.Socket]) -> any SocketCourier = { WholeCourier($0) },
    settings change: (inout Settings) -> Void = { _ in }
  ) throws -> TestWorker {
    let former = incarnations[seat]
    if former == 0 { try gateway.setSeated(true, seat: seat) }
    last += 1
    incarnations[seat] = last
    let birth = TestGateway.Birth(
      incarnation: last, predecessor: takesOver ? incarnations[1 - seat] : nil, isRetiring: isRetiring)
    let time = TimeSource(monotonicNs: { [unowned self] in nowNs })
    let worker = try gateway.worker(0, seat: seat, time: time, sockets: sockets.accounts, birth: birth) {
      $0.maxUnsentBytes = 8_000
      change(&$0)
    }
    workers[seat] = worker
    let brought = brings(courierSockets(seat))
    worker.adoption.holdNs = (.max, .max)
    worker.connections.ledger.onStore = { [unowned self] in stored() }
    worker.wiring.siblingLedger?.onStore = { [unowned self] in stored() }
    let dead = DeadWorker(incarnation: former, cause: .killed, courier: brought)
    worker.adoption.inherit(
      from: former == 0 ? [] : [dead], patienceSeconds: 3600, sibling: worker.wiring.siblingLedger)
    worker.state.catchUp()
    worker.entrance.host = sockets
    let page = worker.status
    worker.handOver.begin(host: sockets) { page.state = .draining }
    worker.adoption.begin()
    page.state = isRetiring ? .draining : .ready
    worker.takeOver?.begin()
    return worker
  }

  private func courierSockets(_ seat: Int) -> [Courier.Socket] {
    let byCookie = Dictionary(uniqueKeysWithValues: clients.map { ($0.cookie, $0.socket.near) })
    return kept[seat].compactMap { entry, cookie in
      byCookie[cookie].map { Courier.Socket(entry: entry, descriptor: dup($0)) }
    }
  }

  /// What the keeper of a seat has from now on: all that stands in the ledger.
  private func keep(_ seat: Int) throws {
    let ledger = try SiblingLedger(mapping: gateway.ledgers[seat])
    kept[seat] = (0..<1000).compactMap { number in
      ledger.entry(number)?.cookie.map { (entry: number, cookie: $0) }
    }
  }

  /// The process of a seat has died: nothing that it still had to do happens.
  func die(_ seat: Int) throws {
    guard let worker = workers[seat] else { return }
    for client in clients {
      guard let connection = worker.connection(of: client), !connection.isSuspended else { continue }
      client.socket.socket.abandon()
    }
    worker.connections.ledger.onStore = nil
    worker.wiring.siblingLedger?.onStore = nil
    try keep(seat)
    buried.append(worker)
    workers[seat] = nil
  }

  private func stored() {
    left -= 1
    guard left == 0 else { return }
    do {
      let counts = clients.map { SocketBytes(read: $0.read, written: $0.written) }
      legacy = (try TestGateway(copying: gateway), counts)
    } catch {
      Issue.record("no copy: \(error)")
    }
  }

  /// The world as it was when both died; nobody is born in it yet.
  func next() throws -> PlaceLife {
    let legacy = try #require(legacy)
    for (client, counts) in zip(clients, legacy.counts) { try client.survive(counts) }
    let next = try PlaceLife(clients, in: legacy.world, nowNs: nowNs, incarnations: incarnations)
    for seat in Self.seats { try next.keep(seat) }
    return next
  }

  // MARK: What happens

  func run() {
    for worker in workers { worker?.run() }
  }

  func pass(ms: UInt64) { nowNs += ms * 1_000_000 }

  func open(_ client: SurvivingClient, _ subscriptions: [Subscription], identity: ConnectionIdentity? = nil)
    throws
  {
    let worker = try #require(workers[0])
    let connection =
      client.isWebSocket
      ? try worker.openWebSocket(client.socket, subscriptions, identity: identity)
      : try worker.openSSE(client.socket, subscriptions, identity: identity)
    client.serial = connection.serial
  }

  /// The client says something, or goes on to say what nobody has read; whoever serves it hears it.
  func say(_ bytes: [UInt8], _ client: SurvivingClient) throws {
    client.unsaid += bytes
    for worker in workers {
      guard let connection = worker?.connection(of: client), !connection.isSuspended, !connection.isClosing,
        connection.outlet?.channel === client.socket.channel
      else { continue }
      let all = client.unsaid
      client.unsaid = []
      try client.socket.say(all)
    }
  }

  /// Whether everybody is served at the seat, and nobody elsewhere.
  func areAll(at seat: Int) -> Bool {
    clients.allSatisfy {
      workers[seat]?.connection(of: $0) != nil && workers[1 - seat]?.connection(of: $0) == nil
    }
  }

  /// Lets everything happen that is under way, until it is as wanted.
  func settle(until isDone: () -> Bool) throws {
    for _ in 0..<2_000 {
      run()
      var isAnywhere = false
      for client in clients {
        client.socket.socket.pump()
        try say([], client)
        if client.socket.read() || client.socket.socket.isWaiting { isAnywhere = true }
      }
      if !isAnywhere, isDone() { return }
      pass(ms: 100)
    }
    Issue.record("it doesn't come to an end")
  }

  /// Clients go before their workers do. What the dead had open is closed.
  func end() {
    for client in clients { client.socket.disconnect() }
    let near = Set(clients.map(\.socket.near))
    guard let all = opendir("/proc/self/fd") else { return }
    defer { closedir(all) }
    while let entry = readdir(all) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard let descriptor = CInt(name), !near.contains(descriptor), sockets.client(descriptor) != nil else {
        continue
      }
      close(descriptor)
    }
  }
}

extension TestWorker {
  func connection(of client: SurvivingClient) -> Connection? {
    wiring.connections.table.find(serial: client.serial)
  }
}
