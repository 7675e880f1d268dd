// Long-polling sessions that go on by what stands in the ledger, wherever their worker died.

import IPC
import Kit
import TestSupport
import Testing

@testable import Connections

@Suite("16 Long-polling sessions in the ledger")
struct SessionLedgerTests {
  private let ledger: CInt
  private let gateway: TestGateway

  init() throws {
    ledger = try Ledger.create(
      name: "test", LedgerSizes(connections: 100, arenaBytes: 1 << 22, largestEventBytes: 1 << 20)
    ).take()
    gateway = try TestGateway(eventRingBytes: 4 << 20)
  }

  /// A session as its client opens it.
  private func open(_ worker: TestWorker, _ user: String? = nil) throws -> Connection {
    let session = worker.insertSession()
    let identity = user.flatMap { ConnectionIdentity([Credential(user: $0, session: "s")]) }
    worker.connections.begin(session, ConnectRequest([.to("all")], identity: identity), .fromNow)
    session.polls?.enterLedger()
    return session
  }

  /// What a worker of the place that comes next makes of the only session.
  private func goOn(in worker: TestWorker) throws -> Connection {
    let heir = worker.connections.ledger
    let inherited = heir.inherited()
    #expect(inherited.count == 1)
    let found = try #require(inherited.first)
    #expect(found.kind == .session && found.isKept && found.cookie == nil && found.descriptor == nil)
    let cold = try #require(heir.cold(of: found.entry))
    var state = try ConnectionState(
      decoding: cold.state,
      ConnectionState.Surroundings(maximumMessageBytes: 1 << 20, inflater: MessageInflater()))
    #expect(state.serial == found.serial)
    let resuming = try #require(state.resuming)
    state.resuming = nil
    let entered = worker.connections.table.adopt(serial: state.serial, second: 1) { index in
      Connection(polled: state, at: index, of: worker.connections, worker.polls)
    }
    let connection = try #require(entered)
    #expect(worker.connections.table.deadlines[Int(connection.index)] != 0, "its time passes")
    // One for which nothing was buffered since it was noted is where its worker was, which is where this one is.
    heir.adopt(found.entry, descriptor: nil, written: 0, consumed: found.consumed)
    worker.connections.goOn(
      connection, as: found.entry, from: found.consumed == 0 ? nil : resuming, makesRoom: true)
    return connection
  }

  @Test(
    "16 A session has each event once and in order, wherever its workers die, also if its client doesn't poll for long",
    arguments: 1...8 as ClosedRange<UInt64>)
  func traffic(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let writer = try gateway.streamsWriter()
    var worker = try gateway.worker(ledger: ledger)
    var session = try open(worker, "ann")
    let serial = session.serial
    var (published, expected, seen, deaths) = (0, [Int](), [Int](), 0)
    // What the client has; what it got last and hasn't acknowledged is given again.
    var lastEventID = session.polls?.initialEventID
    var isLastLost = false
    func poll() {
      _ = session.polls?.poll(lastEventID: lastEventID) { answer in
        // Now and then an answer doesn't arrive.
        if isLastLost { return }
        lastEventID = answer.lastEventID
        let body = String(decoding: answer.body, as: UTF8.self)
        for part in body.split(separator: "{") where part.hasPrefix(#""n":"#) {
          if let number = Int(part.dropFirst(4).prefix { $0.isNumber }) { seen.append(number) }
        }
      }
    }
    for _ in 0..<400 {
      switch Int.random(in: 0...7, using: &random) {
      case 0...2:
        published += 1
        let isForAnn = published % 5 == 0
        try writer.publish(
          published, type: published % 3 == 0 ? "other" : "all", users: isForAnn ? ["ann"] : [],
          padding: .random(in: 0...300, using: &random))
        if isForAnn || published % 3 != 0 { expected.append(published) }
      case 3: worker.run()
      case 4: poll()
      case 5:
        isLastLost = true
        poll()
        worker.run()
        isLastLost = false
        poll()
      case 6:
        // What the rings don't have is numbered as well.
        session.say(worker.connections.lost("test"))
      default:
        deaths += 1
        worker = try gateway.worker(ledger: ledger)
        session = try goOn(in: worker)
      }
    }
    for _ in 0..<50 {
      worker.run()
      poll()
    }
    #expect(seen == expected)
    #expect(deaths > 20 && session.serial == serial)
    worker.connections.closed(session)
    #expect(worker.connections.ledger.openEntries == 0)
  }

  @Test("16 Nothing is noted for an event; what is buffered for a client that doesn't poll is, now and then")
  func cost() throws {
    let writer = try gateway.streamsWriter()
    let worker = try gateway.worker(ledger: ledger)
    let session = try open(worker)
    let entry = worker.connections.table.entries[Int(session.index)]
    func noted() throws -> String {
      let cold = try #require(worker.connections.ledger.cold(of: entry))
      return String(decoding: cold.state, as: UTF8.self)
    }
    for number in 0..<100 {
      try writer.publish(number, type: "all")
      worker.run()
    }
    for _ in 1..<PollEnd.mostSecondsAhead { session.polls?.deadlinePassed() }
    let before = try noted()
    session.polls?.deadlinePassed()
    let after = try noted()
    #expect(!before.contains(#"{"n":0}"#) && after.contains(#"{"n":0}"#) && after.contains(#"{"n":99}"#))
    worker.connections.closed(session)
  }

  @Test("16 A poll that is asked again by the next worker waits no longer than it would have")
  func deadline() throws {
    var session = LongPollSession(
      limits: LongPollSession.Limits(waitNs: 100), cursor: Cursor(epoch: 1, positions: [0]), nowNs: 0)
    let own = Cursor(epoch: 1, positions: [0])
    let first = session.poll(id: 1, lastEventID: nil, nowNs: 10, own: own, stamp: .now())
    let again = session.poll(id: 2, lastEventID: nil, isAskedAgain: true, nowNs: 90, own: own, stamp: .now())
    #expect(first.isEmpty && again.isEmpty)
    #expect(session.tick(nowNs: 109, own: own) == .nothing)
    guard case .answer(let answer) = session.tick(nowNs: 110, own: own) else {
      Issue.record("it waits")
      return
    }
    #expect(answer.poll == 2)
    // One that comes anew waits for all of its time, and takes the place of the other.
    _ = session.poll(id: 3, lastEventID: nil, nowNs: 200, own: own, stamp: .now())
    let other = session.poll(id: 4, lastEventID: nil, nowNs: 290, own: own, stamp: .now())
    #expect(other.map(\.poll) == [3])
    #expect(session.tick(nowNs: 389, own: own) == .nothing)
  }

  @Test("16 Who wasn't told that a session has ended is told by the next worker")
  func farewell() throws {
    let worker = try gateway.worker(ledger: ledger)
    let session = try open(worker)
    worker.connections.close(session, .closedByOperator)
    let entry = worker.connections.table.entries[Int(session.index)]
    let cold = try #require(worker.connections.ledger.cold(of: entry))
    let state = try ConnectionState(
      decoding: cold.state,
      ConnectionState.Surroundings(maximumMessageBytes: 1 << 20, inflater: MessageInflater()))
    #expect(state.transport.session?.value.owesFarewell == true)
    worker.connections.closed(session)
    #expect(worker.connections.ledger.openEntries == 0)
  }
}
