// Calls of a worker that reach the server late, never end, or are none.

import IPC
import Kit
import Links
import Logging
import NIOPosix
import Settings
import TestSupport
import Testing

@testable import Proxies

@Suite("Calls of services")
struct CallServerTests {
  private static let caller = WorkerIdentity.connections(3)
  private static let proxy = WorkerIdentity.proxies(2)
  /// Of the server in the call ring, of the caller in the answer ring.
  private static let (serverSlot, callerSlot) = (5, 3)

  /// What the server has begun: URLs and deadlines.
  private final class Begun {
    var all: [(url: String, deadlineNs: UInt64)] = []
    var corrupt: [RingReport] = []
  }

  @Test("15.4 A call that comes too late isn't begun, one without a deadline has the server's own")
  func deadlines() async throws {
    try await UpstreamBench.run { bench in
      let told = try await bench.onLoop { client in Result { try Self.turn(client) } }.get()
      #expect(told.begun == ["http://check/ 100", "http://check/ 1000000050", "http://check/ 1000000050"])
      #expect(told.outcomes == ["1 busy", "2 busy"])
      #expect(told.isCorrupt)
    }
  }

  private struct Told: Sendable {
    var begun: [String] = []
    var outcomes: [String] = []
    var isCorrupt = false
  }

  /// Turns a server at the time 50 that finds calls with various deadlines.
  private static func turn(_ client: UpstreamClient) throws -> Told {
    let calls = try Ring.create(name: "calls", capacity: 1 << 16, readers: 8)
    let answers = try Ring.create(name: "answers", capacity: 1 << 16, readers: 8)
    let page = try StatusPage.create(name: "page")
    let status = try StatusPage(attaching: page.rawValue)
    let callGrant = RingGrant(
      id: 1, purpose: .calls, writer: caller, readers: [.init(proxy, slot: serverSlot)], fd: calls.rawValue)
    let answerGrant = RingGrant(
      id: 2, purpose: .answers, writer: proxy, readers: [.init(caller, slot: callerSlot)],
      fd: answers.rawValue)
    let outbox = Outbox(
      try RingWriter(attaching: answers.rawValue, wake: []), maximumMessageBytes: 1 << 20,
      maximumBytes: 1 << 20
    ) { _ in }
    let targets = [UInt16(callerSlot)]
    let exchanges = ExchangeServer(
      client: client, outbox: outbox, targets: targets, limit: nil, mostUpgrades: 1
    ) { _ in 0 }
    var settings = Settings()
    settings.subscriptionCheck = .service(url: "http://check/")
    settings.checkTimeoutMs = 1_000
    let begun = Begun()
    let server = CallServer(
      inbox: Inbox(try RingSet(grants: [callGrant], worker: proxy, status: status), maximumBytes: 1 << 20),
      outbox: outbox, targets: targets, exchanges: exchanges, settings: settings,
      metrics: CallMetrics(status, worker: proxy.name),
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
      environment: CallServer.Environment(
        nowNs: { 50 }, enqueue: { _ in }, wakeAgain: {}, reportCorrupt: { begun.corrupt.append($0) },
        begin: { _, url, deadlineNs, _ in
          begun.all.append((url, deadlineNs))
          return nil
        }))
    let sender = Outbox(
      try RingWriter(attaching: calls.rawValue, wake: []), maximumMessageBytes: 1 << 20, maximumBytes: 1 << 20
    ) { _ in }
    let call = CallMessage.call(ServiceCall(.subscriptionCheck, body: [1]))
    let deadlines: [UInt64] = [49, 50, 100, .max, 0]
    for (correlation, deadlineNs) in deadlines.enumerated() {
      try sender.send(call, to: UInt16(serverSlot), UInt64(correlation + 1), deadlineNs: deadlineNs)
    }
    server.turn()
    var told = Told()
    told.begun = begun.all.map { "\($0.url) \($0.deadlineNs)" }
    let inbox = Inbox(
      try RingSet(grants: [answerGrant], worker: caller, status: status), maximumBytes: 1 << 20)
    inbox.serve { (message) throws(RecordFault) in
      if case .outcome(.busy) = try message.decoded(as: CallMessage.self) {
        told.outcomes.append("\(message.envelope.correlation) busy")
      }
    }
    // No worker answers the server.
    try sender.send(CallMessage.outcome(.timedOut), to: UInt16(serverSlot), 9)
    server.turn()
    told.isCorrupt = begun.corrupt == [RingReport(ring: 1, epoch: 0)]
    return told
  }
}
