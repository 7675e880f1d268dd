// Questions between workers, over real rings: answered once, or given up in time.

import IPC
import Kit
import Links
import TestSupport
import Testing

@testable import Connections

/// What askers were told, in order; nil: nothing in time.
private final class Answers {
  var all: [WorkerAnswer?] = []
  /// The last answer; nil: none in time, or none at all.
  var last: WorkerAnswer? { all.last ?? nil }
  var asker: PeerRequests.Asker { { [self] in all.append($0) } }
}

@Suite("Request exchange")
struct PeerRequestsTests {
  private let answers = Answers()
  private let ok = WorkerAnswer(status: 204, text: "")
  private static let question = WorkerRequest.setSubscriptions(serial: 5, change: Array("[]".utf8))

  private func correlation(_ asked: PeerRequests.Asked) throws -> UInt64 {
    guard case .waiting(let correlation) = asked else { throw TestFailure("\(asked)") }
    return correlation
  }

  @Test("brings a question to the worker it is for, and the answer back, once")
  func roundTrip() throws {
    let gateway = try TestGateway(workers: 3)
    let exchanges = try (0..<3).map { try gateway.exchange($0) }
    let asked = exchanges[0].ask(2, Self.question, deadlineNs: .max, answers.asker)
    let correlation = try correlation(asked)
    #expect(exchanges[0].waitingCount == 1)
    for other in [0, 1] { exchanges[other].serve { _, _, _ in Issue.record("worker \(other) was asked") } }
    var questions: [WorkerRequest] = []
    exchanges[2].serve { from, asking, message in
      #expect(from == 0 && asking == correlation)
      questions.append(message)
      exchanges[2].answer(from, correlation: asking, ok)
      exchanges[2].answer(from, correlation: asking, ok)
    }
    #expect(questions == [Self.question])
    for exchange in exchanges { exchange.serve { _, _, _ in Issue.record("nobody asked anything") } }
    #expect(answers.all == [ok])
    #expect(exchanges[0].waitingCount == 0)
  }

  @Test("brings large answers in parts")
  func parts() throws {
    let gateway = try TestGateway(workers: 2, requestRingBytes: 1 << 16)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    _ = exchanges[0].ask(1, Self.question, deadlineNs: .max, answers.asker)
    let large = WorkerAnswer(
      status: 200, text: "id", body: (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 7) })
    exchanges[1].serve {
      exchanges[1].answer($0, correlation: $1, large)
      _ = $2
    }
    // More than the ring holds: what found no room goes as soon as there is some.
    for _ in 0..<20 where answers.all.isEmpty {
      exchanges[0].serve { _, _, _ in }
      exchanges[1].serve { _, _, _ in }
    }
    #expect(answers.all == [large])
  }

  @Test("answers 503 as a whole when there is no room for an answer")
  func overflow() throws {
    let gateway = try TestGateway(workers: 2, requestRingBytes: 1 << 16)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    let body = [UInt8](repeating: 7, count: 1 << 20)
    let large = WorkerAnswer(status: 200, text: "id", body: body)
    let count = 2 * PeerRequests.maximumUnsentBytes / body.count
    for _ in 0..<count {
      _ = try correlation(exchanges[0].ask(1, Self.question, deadlineNs: .max, answers.asker))
      exchanges[1].serve {
        exchanges[1].answer($0, correlation: $1, large)
        _ = $2
      }
    }
    for _ in 0..<100_000 where answers.all.count < count {
      exchanges[0].serve { _, _, _ in }
      exchanges[1].serve { _, _, _ in }
    }
    let statuses = answers.all.map { $0?.status }
    #expect(statuses.filter { $0 == 200 }.count > 10 && statuses.contains(503))
    #expect(statuses.allSatisfy { $0 == 200 || $0 == 503 })
    let areWhole = answers.all.allSatisfy { $0?.status == 503 || $0 == large }
    #expect(areWhole && answers.all.count == count)
  }

  @Test("reads a bounded number of records per turn, and says whether there may be more")
  func boundedTurn() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    let bound = RingSet.recordsPerTurn
    for _ in 0..<2 * bound + 1 {
      _ = try correlation(exchanges[0].ask(1, Self.question, deadlineNs: .max, answers.asker))
    }
    var counts: [Int] = []
    var hasMore: [Bool] = []
    for _ in 0..<3 {
      var count = 0
      hasMore.append(exchanges[1].serve { _, _, _ in count += 1 })
      counts.append(count)
    }
    #expect(counts == [bound, bound, 1])
    #expect(hasMore == [true, true, false])
  }

  @Test("gives up an answer above the bound that it was given")
  func answerBound() throws {
    let gateway = try TestGateway(workers: 2)
    let answering = try gateway.exchange(1)
    let asking = try gateway.exchange(0, maximumMessageBytes: 2_000)
    for count in [10, 300_000] {
      _ = asking.ask(1, Self.question, deadlineNs: .max, answers.asker)
      answering.serve { from, correlation, _ in
        let body = [UInt8](repeating: 0, count: count)
        answering.answer(from, correlation: correlation, WorkerAnswer(status: 200, text: "", body: body))
      }
      for _ in 0..<100 {
        asking.serve { _, _, _ in }
        answering.serve { _, _, _ in }
      }
    }
    #expect(answers.all.map { $0?.status } == [200, 502])
  }

  @Test("ends every wait when it is told to, and drops the answers that come later")
  func ended() throws {
    let gateway = try TestGateway(workers: 3)
    let exchanges = try (0..<3).map { try gateway.exchange($0) }
    for target: UInt16 in [1, 2, 1] {
      _ = exchanges[0].ask(target, Self.question, deadlineNs: .max, answers.asker)
    }
    exchanges[0].endAll()
    #expect(answers.all == [nil, nil, nil])
    #expect(exchanges[0].waitingCount == 0)
    for other in [1, 2] {
      exchanges[other].serve { from, asking, _ in exchanges[other].answer(from, correlation: asking, ok) }
    }
    exchanges[0].serve { _, _, _ in }
    exchanges[0].endAll()
    #expect(answers.all.count == 3)
  }

  @Test("says at once what can't be asked")
  func refused() throws {
    let gateway = try TestGateway(workers: 2, requestRingBytes: 4096)
    let exchange = try gateway.exchange(0)
    #expect(exchange.ask(2, Self.question, deadlineNs: .max, answers.asker) == .noSuchWorker)
    #expect(exchange.ask(.max, Self.question, deadlineNs: .max, answers.asker) == .noSuchWorker)
    let limit = PeerRequests.leastMessageBytes
    let large = WorkerRequest.setSubscriptions(serial: 1, change: [UInt8](repeating: 0x20, count: limit))
    #expect(exchange.ask(1, large, deadlineNs: .max, answers.asker) == .tooLarge(limitBytes: limit))
    let half = WorkerRequest.setSubscriptions(serial: 1, change: [UInt8](repeating: 0x20, count: limit / 2))
    var asked = 0
    while case .waiting = exchange.ask(1, half, deadlineNs: .max, answers.asker) { asked += 1 }
    #expect(exchange.ask(1, half, deadlineNs: .max, answers.asker) == .busy)
    #expect(asked > 10 && exchange.waitingCount == asked)
    #expect(answers.all.isEmpty)
  }

  @Test("gives up when the time is over, and drops the answer that comes later")
  func late() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    _ = exchanges[0].ask(1, Self.question, deadlineNs: 100, answers.asker)
    exchanges[0].tick(nowNs: 99)
    #expect(answers.all.isEmpty)
    exchanges[0].tick(nowNs: 100)
    #expect(answers.all == [nil])
    exchanges[1].serve { from, asking, _ in exchanges[1].answer(from, correlation: asking, ok) }
    exchanges[0].serve { _, _, _ in }
    #expect(answers.all == [nil])
  }

  @Test("15.4 A question that comes after its time is left alone; what is told without one isn't")
  func lateQuestion() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    for deadlineNs: UInt64 in [100, 101] {
      _ = exchanges[0].ask(1, Self.question, deadlineNs: deadlineNs, answers.asker)
    }
    exchanges[0].tell(UInt16(WorkerIdentity.connections(1).number), .closeOldest(key: 1, since: 2))
    var questions: [WorkerRequest] = []
    exchanges[1].serve(nowNs: 100) { questions.append($2) }
    #expect(questions == [Self.question, .closeOldest(key: 1, since: 2)])
  }

  @Test("16 asks a worker that was born anew what its predecessor hasn't answered, once, by the same name")
  func restarted() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    let correlation = try correlation(exchanges[0].ask(1, Self.question, deadlineNs: .max, answers.asker))
    exchanges[1].serve { _, _, _ in }
    exchanges[0].tick(nowNs: 0)
    try gateway.page(1).beginGeneration(pid: 2)
    let next = try gateway.exchange(1)
    next.serve { _, _, _ in Issue.record("nobody has asked again yet") }
    for _ in 0..<2 { exchanges[0].tick(nowNs: 0) }
    var asked: [UInt64] = []
    next.serve { from, again, question in
      asked.append(again)
      #expect(from == 0 && question == Self.question)
      next.answer(from, correlation: again, ok)
    }
    exchanges[0].serve { _, _, _ in }
    #expect(asked == [correlation] && answers.all == [ok])
  }

  @Test("16 asks again as soon as the new one says that it is there, and gives up in time if it isn't")
  func began() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    _ = exchanges[0].ask(1, Self.question, deadlineNs: 100, answers.asker)
    exchanges[1].serve { _, _, _ in }
    try gateway.page(1).beginGeneration(pid: 2)
    let next = try gateway.exchange(1)
    next.tellOfBeginning()
    exchanges[0].serve { _, _, _ in Issue.record("that was no question") }
    var asked = 0
    next.serve { _, _, _ in asked += 1 }
    #expect(asked == 1 && answers.all.isEmpty)
    exchanges[0].tick(nowNs: 100)
    #expect(answers.all == [nil])
  }

  @Test("takes a poll back, and its answer finds nobody")
  func cancelled() throws {
    let gateway = try TestGateway(workers: 2)
    let exchanges = try (0..<2).map { try gateway.exchange($0) }
    let asked = exchanges[0].ask(1, .poll(serial: 9, lastEventID: "x"), deadlineNs: .max, answers.asker)
    let correlation = try correlation(asked)
    exchanges[0].cancelPoll(correlation, serial: 9)
    exchanges[0].cancelPoll(correlation, serial: 9)
    var messages: [WorkerRequest] = []
    exchanges[1].serve { from, asking, message in
      messages.append(message)
      exchanges[1].answer(from, correlation: asking, ok)
    }
    #expect(messages == [.poll(serial: 9, lastEventID: "x"), .cancelPoll(serial: 9)])
    exchanges[0].serve { _, _, _ in }
    #expect(answers.all.isEmpty)
  }

  @Test("doesn't follow a record that is none, and reports the ring")
  func garbage() throws {
    let gateway = try TestGateway(workers: 2)
    let exchange = try gateway.exchange(0)
    let writer = try RingWriter(attaching: gateway.requests[1], wake: gateway.wake)
    _ = writer.append(type: Envelope.recordType, length: 40) {
      $0.copyBytes(from: [0, 0, 0, 0] + [UInt8](repeating: 0xFF, count: 36))
    }
    writer.publish()
    exchange.serve { _, _, _ in Issue.record("that was no question") }
    let incidents = exchange.inbox.rings.takeIncidents()
    #expect(incidents.count == 1)
    guard case .corrupt(_, let report, _) = incidents.first else {
      Issue.record("\(incidents)")
      return
    }
    #expect(report == RingReport(ring: 101, epoch: 0))
  }
}

@Suite("Two workers")
struct TwoWorkersTests {
  private let answers = Answers()

  private func workers() throws -> [TestWorker] {
    let gateway = try TestGateway(workers: 2)
    return try [gateway.worker(0), gateway.worker(1)]
  }

  /// Lets both go on until neither has anything to say.
  private func settle(_ workers: [TestWorker]) {
    for _ in 0..<3 { for worker in workers { worker.run() } }
  }

  @Test("change the subscriptions of each other's connections")
  func subscriptions() throws {
    let workers = try workers()
    let client = try TestClient()
    let connection = try workers[1].openSSE(client, [.to("old")])
    let message = WorkerRequest.setSubscriptions(
      serial: connection.serial, change: SubscriptionChange([.to("new")]).encoded)
    _ = workers[0].peers.ask(1, message, deadlineNs: .max, answers.asker)
    settle(workers)
    #expect(answers.all.map { $0?.status } == [204])
    #expect(streamed(client.take()).map(\.name) == ["rig.subscriptions_set"])
    #expect(workers[1].subscriptions.index.subscriptions(of: connection.index) == [.to("new")])

    let bad = WorkerRequest.setSubscriptions(serial: connection.serial, change: Array("[{}]".utf8))
    _ = workers[0].peers.ask(1, bad, deadlineNs: .max, answers.asker)
    settle(workers)
    #expect(answers.last?.status == 502)
    #expect(client.take() == "")
    #expect(workers[1].subscriptions.index.subscriptions(of: connection.index) == [.to("new")], "as it was")

    client.disconnect()
    _ = workers[0].peers.ask(1, message, deadlineNs: .max, answers.asker)
    settle(workers)
    #expect(answers.last == .gone)
  }

  @Test("answer each other's polls, at once or when something comes")
  func polls() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let writer = try gateway.streamsWriter()
    let worker = workers[1]
    let session = workers[1].insertSession()
    worker.connections.begin(session, ConnectRequest([.to("greeting")]), .fromNow)
    func poll(_ lastEventID: String?) {
      let message = WorkerRequest.poll(serial: session.serial, lastEventID: lastEventID)
      _ = workers[0].peers.ask(1, message, deadlineNs: .max, answers.asker)
      settle(workers)
    }
    poll(session.polls?.initialEventID)
    #expect(answers.all.isEmpty, "it waits")
    #expect(worker.peerServer.waitingCount == 1)
    try writer.publish(1)
    try writer.publish(2, type: "other")
    settle(workers)
    let first = try #require(answers.last)
    #expect(first.status == 200)
    #expect(String(decoding: first.body, as: UTF8.self).hasSuffix(#""events":[{"n":1}]}"#))
    #expect(worker.peerServer.waitingCount == 0)
    try writer.publish(3)
    settle(workers)
    poll(first.text)
    let second = try #require(answers.last)
    #expect(answers.all.count == 2)
    #expect(String(decoding: second.body, as: UTF8.self).hasSuffix(#""events":[{"n":3}]}"#))
    worker.connections.closed(session)
    poll(second.text)
    #expect(answers.last == .gone)
  }

  @Test("forget a poll whose client has gone; its events wait for the next")
  func cancelledPoll() throws {
    let gateway = try TestGateway(workers: 2)
    let workers = try [gateway.worker(0), gateway.worker(1)]
    let writer = try gateway.streamsWriter()
    let worker = workers[1]
    let session = workers[1].insertSession()
    worker.connections.begin(session, ConnectRequest([.to("greeting")]), .fromNow)
    let message = WorkerRequest.poll(serial: session.serial, lastEventID: session.polls?.initialEventID)
    guard
      case .waiting(let correlation) = workers[0].peers.ask(
        1, message, deadlineNs: .max, answers.asker)
    else {
      throw TestFailure("not asked")
    }
    settle(workers)
    workers[0].peers.cancelPoll(correlation, serial: session.serial)
    settle(workers)
    #expect(worker.peerServer.waitingCount == 0)
    try writer.publish(1)
    settle(workers)
    #expect(answers.all.isEmpty)
    _ = workers[0].peers.ask(1, message, deadlineNs: .max, answers.asker)
    settle(workers)
    #expect(answers.all.count == 1)
    let body = try #require(answers.last).body
    #expect(String(decoding: body, as: UTF8.self).contains(#"{"n":1}"#))
    worker.connections.closed(session)
  }
}
