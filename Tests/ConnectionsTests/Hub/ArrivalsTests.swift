// What is asked of connections that are on their way from a process that has died.

import IPC
import Kit
import Links
import TestSupport
import Testing

@testable import Connections

/// Time that passes when a test says so.
private final class Timers {
  private var pending: [Int: (ms: Int, body: () -> Void)] = [:]
  private var next = 0

  var count: Int { pending.count }

  func after(_ ms: Int, _ body: @escaping () -> Void) -> (() -> Void) {
    next += 1
    let number = next
    pending[number] = (ms, body)
    return { [weak self] in self?.pending[number] = nil }
  }

  func pass(ms: Int) {
    for (number, timer) in pending.sorted(by: { $0.key < $1.key }) where timer.ms <= ms {
      pending[number] = nil
      timer.body()
    }
  }
}

@Suite("16 Requests for connections that have yet to arrive")
struct ArrivalsTests {
  private let timers = Timers()

  private func arrivals(_ serials: UInt64...) -> Arrivals {
    let arrivals = Arrivals(after: timers.after)
    if !serials.isEmpty { arrivals.begin(expecting: serials) }
    return arrivals
  }

  @Test("16 Nobody waits for what isn't expected")
  func unexpected() {
    let arrivals = arrivals(1)
    var told: [Arrivals.Outcome] = []
    let ticket = arrivals.wait(for: 2) { told.append($0) }
    #expect(ticket == nil && told == [.settled] && !arrivals.expects(2) && arrivals.expects(1))
    #expect(self.arrivals().isOpen == false && arrivals.isOpen)
  }

  @Test("16 Whoever waits goes on when it is known what became of the connection, in order")
  func settled() {
    let arrivals = arrivals(1, 2, 3)
    var told: [String] = []
    for (serial, name) in [(1, "a"), (1, "b"), (2, "c"), (3, "d")] as [(UInt64, String)] {
      _ = arrivals.wait(for: serial) { told.append("\(name) \($0)") }
    }
    var ended = 0
    arrivals.ended = { ended += 1 }
    arrivals.lost(1)
    #expect(told == ["a settled", "b settled"])
    arrivals.lost(1)
    #expect(ended == 0)
    arrivals.end()
    #expect(told.sorted() == ["a settled", "b settled", "c settled", "d settled"])
    #expect(timers.count == 0 && ended == 1 && !arrivals.isOpen)
    arrivals.end()
    #expect(ended == 1)
  }

  @Test("16 After its time nobody waits longer, and who has gone isn't called")
  func late() {
    let arrivals = arrivals(1)
    var told: [String] = []
    _ = arrivals.wait(for: 1) { told.append("a \($0)") }
    let gone = arrivals.wait(for: 1) { told.append("b \($0)") }
    if let gone { arrivals.cancel(gone) }
    timers.pass(ms: Arrivals.patienceMs - 1)
    #expect(told == [])
    timers.pass(ms: Arrivals.patienceMs)
    #expect(told == ["a late"])
    arrivals.lost(1)
    #expect(told == ["a late"])
  }

  @Test("16 There is a bound on those who wait: one more is told that it is late")
  func bound() {
    let arrivals = arrivals(1)
    var late = 0
    for _ in 0..<Arrivals.mostWaiting + 1 { _ = arrivals.wait(for: 1) { if $0 == .late { late += 1 } } }
    #expect(late == 1 && timers.count == Arrivals.mostWaiting)
    arrivals.end()
    #expect(late == 1)
  }
}

@Suite("16 Workers whose connections have yet to arrive")
struct ArrivingTests {
  private func identity(_ user: String) throws -> ConnectionIdentity {
    try #require(ConnectionIdentity([Credential(user: user, session: "s-\(user)")]))
  }

  private func say(_ record: StateRecord, in gateway: TestGateway) throws {
    let writer = try gateway.stateWriter()
    let bytes = record.encoded
    _ = writer.append(type: record.type, length: bytes.count) { $0.copyBytes(from: bytes) }
    writer.publish()
  }

  /// A connection as a process before has opened it: in the table once it is entered here.
  private func enter(
    _ serial: UInt64, _ client: TestClient, user: String, in worker: TestWorker
  ) throws -> Connection {
    let entered = worker.connections.table.adopt(serial: serial, second: 1) { index in
      Connection(
        ConnectionState(serial: serial, .eventStream(isChunked: false)), at: index, of: worker.connections,
        on: client.channel, descriptor: client.near)
    }
    let connection = try #require(entered)
    try client.channel.pipeline.syncOperations.addHandler(connection)
    let isIdentified = worker.connections.identify(connection, try identity(user), isPrivileged: false)
    #expect(isIdentified)
    worker.connections.join(connection, nil)
    worker.arrivals.arrived(connection)
    return connection
  }

  @Test("16 A change of subscriptions waits for its connection, and is made then")
  func change() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    worker.arrivals.begin(expecting: [5, 6])
    var answers: [UInt16] = []
    worker.changes.make(SubscriptionChange([.to("new")]), serial: 5) { answers.append($0.status) }
    worker.changes.make(SubscriptionChange([.to("new")]), serial: 6) { answers.append($0.status) }
    worker.changes.make(SubscriptionChange([.to("new")]), serial: 7) { answers.append($0.status) }
    worker.run()
    #expect(answers == [410])
    let client = try TestClient()
    let connection = try enter(5, client, user: "ann", in: worker)
    worker.run()
    #expect(answers == [410, 204])
    #expect(worker.subscriptions.index.subscriptions(of: connection.index) == [.to("new")])
    worker.arrivals.end()
    worker.run()
    #expect(answers == [410, 204, 410])
    client.disconnect()
  }

  @Test("16 A connection that was to be closed while it was on its way is closed when it has arrived")
  func closed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    // Carried out by the process before: it isn't meant for who has come since.
    try say(.closeUser("old"), in: gateway)
    worker.run()
    let heir = try gateway.worker()
    heir.arrivals.begin(expecting: [1, 2, 3, 4])
    try say(.closeUser("ann"), in: gateway)
    try say(.closeConnection(ConnectionID(slot: 0, serial: 2)), in: gateway)
    heir.state.catchUp()
    let clients = try (1...4).map { _ in try TestClient() }
    let users = ["ann", "bob", "cid", "old"]
    for (number, user) in users.enumerated() {
      _ = try enter(UInt64(number + 1), clients[number], user: user, in: heir)
    }
    #expect(heir.connections.table.all.map(\.isClosing) == [true, true, false, false])
    heir.arrivals.end()
    for client in clients { client.disconnect() }
  }

  @Test("16 Orders aren't confirmed before they are carried out on all that arrive")
  func unconfirmed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    worker.arrivals.begin(expecting: [1])
    try say(.closeUser("ann"), in: gateway)
    worker.run()
    let ring = try RingInspector(attaching: gateway.state)
    let before = try ring.usage().usedBytes
    worker.arrivals.end()
    worker.run()
    let after = try ring.usage().usedBytes
    #expect(before > 0 && after == 0)
  }

  @Test("16 Nobody is reported to have gone while somebody may still arrive")
  func presence() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let reader = try gateway.presenceReader()
    worker.arrivals.begin(expecting: [1])
    worker.run()
    var said: [PresenceRecord] = []
    func read() throws {
      while let record = try reader.next() {
        said.append(try PresenceRecord(type: record.type, record.bytes))
      }
    }
    try read()
    #expect(said.isEmpty)
    let client = try TestClient()
    _ = try enter(1, client, user: "ann", in: worker)
    worker.run()
    try read()
    #expect(said.isEmpty)
    worker.arrivals.end()
    worker.run()
    try read()
    let opened = said.compactMap { record -> UInt64? in
      if case .opened(let present) = record { present.serial } else { nil }
    }
    #expect(opened == [1] && said.count == 3, "begin, one connection, end")
    client.disconnect()
  }

  @Test("16 A poll at another worker waits for its session, however often it is asked, and is answered once")
  func remotePoll() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let writer = try gateway.streamsWriter()
    workers[1].arrivals.begin(expecting: [9, 10])
    var answers: [WorkerAnswer?] = []
    func ask(_ serial: UInt64) -> UInt64? {
      let asked = workers[0].peers.ask(1, .poll(serial: serial, lastEventID: nil), deadlineNs: .max) {
        answers.append($0)
      }
      if case .waiting(let correlation) = asked { return correlation }
      return nil
    }
    func settle() { for _ in 0..<3 { for worker in workers { worker.run() } } }
    _ = ask(9)
    let cancelled = try #require(ask(9))
    _ = ask(10)
    settle()
    workers[0].peers.cancelPoll(cancelled, serial: 9)
    settle()
    #expect(answers.isEmpty)
    let session = LongPollSession(
      limits: .init(), cursor: workers[1].events.own, nowNs: workers[1].clock.nowNs)
    let entered = workers[1].connections.table.adopt(serial: 9, second: 1) { index in
      Connection(
        polled: ConnectionState(serial: 9, .longPolling(Boxed(session))), at: index,
        of: workers[1].connections, workers[1].polls)
    }
    let connection = try #require(entered)
    workers[1].connections.begin(connection, ConnectRequest([.to("greeting")]), .fromNow)
    workers[1].arrivals.arrived(connection)
    settle()
    #expect(answers.isEmpty && workers[1].peerServer.waitingCount == 1)
    try writer.publish(1)
    settle()
    #expect(answers.map { $0?.status } == [200])
    workers[1].arrivals.end()
    settle()
    #expect(answers.map { $0?.status } == [200, 410], "serial 10 was lost")
    workers[1].connections.closed(connection)
  }
}
