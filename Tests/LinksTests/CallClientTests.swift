// Calls and exchanges of one worker with two proxy workers, without processes: slots, places and numbers of peers all differ, so that
// none can be taken for another.

import Foundation
import Glibc
import IPC
import Logging
import Settings
import Testing

@testable import Kit
@testable import Links

private final class CallBench {
  static let caller = WorkerIdentity.connections(3)
  static let proxies = [WorkerIdentity.proxies(2), .proxies(5)]
  /// Of the proxy workers in the call ring.
  static let slots = [6, 1]
  /// Of the caller in the answer rings.
  static let answerSlot = 4
  static let timeoutMs = 1_000

  let client: CallClient
  /// What the proxy workers read and write, in their order.
  let calls: [Inbox]
  let answers: [Outbox]
  let pages: [StatusPage]
  let wakes: [CInt]
  let ownPage: StatusPage
  private let descriptors: [CInt]

  /// - Parameter hasStranger: there is an answer ring of a proxy worker that doesn't read the call ring.
  init(hasStranger: Bool = false) throws {
    let call = try Ring.create(name: "calls", capacity: 1 << 16, readers: 8).take()
    let workers = Self.proxies + (hasStranger ? [.proxies(7)] : [])
    let rings = try workers.map {
      try Ring.create(name: "answers.\($0.name)", capacity: 1 << 16, readers: 8).take()
    }
    for slot in 0..<8 {
      try Ring.setRegistered(call, reader: slot, Self.slots.contains(slot))
      for ring in rings { try Ring.setRegistered(ring, reader: slot, slot == Self.answerSlot) }
    }
    let shared = try (workers + [Self.caller]).map { try StatusPage.create(name: $0.name).take() }
    pages = try shared.map { try StatusPage(attaching: $0) }
    ownPage = pages[workers.count]
    let wakes = try Self.proxies.map { _ in try EventFD.create().take() }
    self.wakes = wakes
    for page in pages {
      page.beginGeneration(pid: 1)
      page.state = .ready
    }
    let callGrant = RingGrant(
      id: 1, purpose: .calls, writer: Self.caller,
      readers: Self.proxies.indices.map { .init(Self.proxies[$0], slot: Self.slots[$0], wake: wakes[$0]) },
      fd: call)
    // In another order than the proxy workers in the call ring.
    let answerGrants = workers.indices.reversed().map {
      RingGrant(
        id: 2 + UInt32($0), purpose: .answers, writer: workers[$0],
        readers: [.init(Self.caller, slot: Self.answerSlot)], fd: rings[$0])
    }
    let manifest = WorkerManifest(
      worker: Self.caller, gatewayEpoch: 9, tokenKey: Data(), settings: Data(),
      status: shared[workers.count], wake: -1, listeners: [:], rings: [callGrant] + answerGrants,
      peers: workers.indices.map { .init(worker: workers[$0], status: shared[$0]) },
      supervisorPid: 0, release: "test")
    let context = WorkerContext(
      manifest: manifest, settings: Settings(), status: ownPage,
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: -1)
    let pages = pages
    calls = try Self.proxies.indices.map {
      Inbox(
        try RingSet(grants: [callGrant], worker: Self.proxies[$0], status: pages[$0]), maximumBytes: 1 << 20)
    }
    answers = try rings.map {
      Outbox(
        try RingWriter(attaching: $0, wake: []), maximumMessageBytes: 4 << 20, maximumBytes: 8 << 20
      ) { _ in }
    }
    client = try #require(try CallClient(context, timeoutMs: Self.timeoutMs) { _ in })
    descriptors = [call] + rings + shared + wakes
  }

  deinit {
    for descriptor in descriptors { _ = Descriptor(owning: descriptor) }
  }

  /// Has a service called; the outcome comes into `outcomes`.
  func call(_ outcomes: Outcomes, nowNs: UInt64 = 0) -> UInt64? {
    client.call(ServiceCall(.submissionCheck), nowNs: nowNs) { outcomes.all.append($0) }
  }

  /// What a proxy worker is told: kinds and correlations.
  func said(to proxy: Int) -> [(kind: PayloadKind, correlation: UInt64)] {
    var said: [(kind: PayloadKind, correlation: UInt64)] = []
    calls[proxy].serve { (message) throws(RecordFault) in
      said.append((message.envelope.kind, message.envelope.correlation))
    }
    return said
  }

  func answer(_ proxy: Int, _ message: some LinkPayload, _ correlation: UInt64) throws {
    try answers[proxy].send(message, to: UInt16(Self.answerSlot), correlation)
  }

  /// Reads the answers; what a proxy worker sent that doesn't fit goes on meanwhile.
  func serve() {
    for _ in 0..<500 {
      for outbox in answers { outbox.flush() }
      client.serve()
    }
  }

  func isWoken(_ proxy: Int) -> Bool {
    var entry = pollfd(fd: wakes[proxy], events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }
}

private final class Outcomes {
  var all: [CallOutcome] = []
}

/// Writes down what is told of exchanges.
private final class Party: ExchangeParty {
  var said: [(peer: Int, kind: PayloadKind)] = []
  var gone: [Int] = []

  func received(_ message: LinkMessage, from peer: Int) throws(RecordFault) {
    said.append((peer, message.envelope.kind))
    if message.envelope.kind != .body { _ = try message.decoded(as: ServiceSideMessage.self) }
  }

  func peerGone(_ peer: Int) { gone.append(peer) }
}

@Suite("Call client")
struct CallClientTests {
  private let outcomes = Outcomes()

  @Test("15.4 A call goes to one proxy worker, in turn, and only its answer is one, once")
  func turns() throws {
    let bench = try CallBench()
    let first = try #require(bench.call(outcomes))
    let second = try #require(bench.call(outcomes))
    #expect(bench.said(to: 0).map(\.correlation) == [first])
    #expect(bench.said(to: 1).map(\.correlation) == [second])
    try bench.answer(1, CallMessage.outcome(.timedOut), first)
    bench.serve()
    #expect(outcomes.all.isEmpty)
    for _ in 0..<2 { try bench.answer(1, CallMessage.outcome(.answered(status: 204, body: [])), second) }
    try bench.answer(0, CallMessage.outcome(.answered(status: 200, body: [1])), first)
    bench.serve()
    let all = outcomes.all
    #expect(all.count == 2 && all.contains(.answered(status: 204, body: [])))
    #expect(all.contains(.answered(status: 200, body: [1])))
    bench.client.endAll()
    #expect(outcomes.all.count == 2)
  }

  @Test("15.4 Of the proxy workers that sleep only the one that is asked is woken, awake ones never")
  func wakes() throws {
    let bench = try CallBench()
    for inbox in bench.calls { #expect(inbox.rings.declareAsleep()) }
    for wake in bench.wakes { EventFD.drain(wake) }
    _ = try #require(bench.call(outcomes))
    #expect(bench.isWoken(0) && !bench.isWoken(1))
    // There is something to be passed over: nobody goes to sleep over it.
    #expect(!bench.calls[1].rings.declareAsleep())
    for inbox in bench.calls { inbox.rings.declareAwake() }
    EventFD.drain(bench.wakes[0])
    _ = try #require(bench.call(outcomes))
    #expect(!bench.isWoken(0) && !bench.isWoken(1))
    let bytes = [UInt8](repeating: 7, count: 4_000)
    for inbox in bench.calls {
      inbox.serve { (_) throws(RecordFault) in }
      #expect(inbox.rings.declareAsleep())
    }
    let envelope = Envelope(.body, target: bench.client.slot(of: 1), correlation: 1)
    #expect(bytes.withUnsafeBytes { bench.client.outbox.stream($0, envelope) })
    #expect(!bench.isWoken(0) && bench.isWoken(1))
  }

  @Test("15.4 What was asked of a proxy worker that has died is over, what was asked of others isn't")
  func restarted() throws {
    let (bench, party) = (try CallBench(), Party())
    bench.client.exchanges = party
    let first = try #require(bench.call(outcomes))
    let second = try #require(bench.call(outcomes))
    bench.pages[1].beginGeneration(pid: 2)
    bench.client.tick(nowNs: 0)
    #expect(outcomes.all == [.unreachable("the proxy worker has ended")] && party.gone == [1])
    // It isn't ready yet: the other one is asked.
    _ = bench.call(outcomes)
    #expect(bench.said(to: 0).count == 2)
    // Noticed by the next call as well, which isn't over with those before it.
    bench.pages[0].beginGeneration(pid: 3)
    for page in bench.pages { page.state = .ready }
    bench.client.cancel(first)
    for _ in 0..<2 { _ = bench.call(outcomes) }
    #expect(outcomes.all.count == 2 && party.gone == [1, 0])
    // What its predecessor has said yet is too late.
    try bench.answer(1, CallMessage.outcome(.timedOut), second)
    bench.serve()
    #expect(outcomes.all.count == 2)
    for page in bench.pages { page.state = .draining }
    #expect(bench.call(outcomes) == nil)
    #expect(outcomes.all.last == .unreachable("no proxy worker serves now"))
    for _ in 0..<2 {
      bench.client.endAll()
      #expect(outcomes.all.count == 5)
    }
  }

  @Test(
    "15.4 Without an answer a call ends by its deadline; one that is cancelled is taken back, and not told")
  func deadlines() throws {
    let bench = try CallBench()
    let first = try #require(bench.call(outcomes, nowNs: 5))
    let second = try #require(bench.call(outcomes, nowNs: 5))
    bench.client.cancel(second)
    bench.client.cancel(second)
    #expect(bench.said(to: 0).map(\.kind) == [.call])
    #expect(bench.said(to: 1).map(\.kind) == [.call, .cancelCall])
    // The service's time, and one second more for the way.
    let endNs = 5 + UInt64(CallBench.timeoutMs) * 1_000_000 + 1_000_000_000
    bench.client.tick(nowNs: endNs - 1)
    #expect(outcomes.all.isEmpty)
    bench.client.tick(nowNs: endNs)
    #expect(outcomes.all == [.timedOut])
    for (proxy, correlation) in [(0, first), (1, second)] {
      try bench.answer(proxy, CallMessage.outcome(.busy("")), correlation)
    }
    bench.serve()
    #expect(outcomes.all == [.timedOut])
  }

  @Test("15.4 What is said in exchanges comes with the proxy worker's number; without any it is only counted")
  func exchanges() throws {
    let (bench, party) = (try CallBench(), Party())
    try bench.answer(0, ServiceSideMessage.admitted, 1)
    bench.serve()
    let counted = bench.ownPage.metrics().filter {
      $0.series.hasPrefix("rig_unknown_records_total") && $0.series.contains("proxies.2")
    }
    #expect(counted.map(\.value) == [1])
    bench.client.exchanges = party
    try bench.answer(1, ServiceSideMessage.limited(seconds: 1), 1)
    bench.serve()
    try bench.answer(0, ServiceSideMessage.end(trailers: []), 1)
    bench.serve()
    #expect(party.said.map(\.peer) == [1, 0] && party.said.map(\.kind) == [.limited, .end])
    #expect(bench.client.inbox.rings.takeIncidents().isEmpty)
  }

  @Test("15.4 An answer that is too large is none, a mad proxy worker is reported, and the other one heard")
  func mad() throws {
    let bench = try CallBench(hasStranger: true)
    let first = try #require(bench.call(outcomes))
    let second = try #require(bench.call(outcomes))
    let third = try #require(bench.call(outcomes))
    let large = CallOutcome.answered(status: 200, body: [UInt8](repeating: 1, count: 2 << 20))
    try bench.answer(0, CallMessage.outcome(large), first)
    bench.serve()
    #expect(outcomes.all == [.unreachable("the service's answer is too large")])
    #expect(bench.client.inbox.rings.takeIncidents().isEmpty)
    // No peer at all, and one that answers with a call.
    try bench.answer(2, CallMessage.outcome(.timedOut), second)
    try bench.answer(2, ServiceSideMessage.credit(.max), second)
    try bench.answer(0, CallMessage.outcome(.answered(status: 99, body: [])), third)
    try bench.answer(1, CallMessage.outcome(.busy("b")), second)
    bench.serve()
    #expect(outcomes.all.count == 2 && outcomes.all.last == .busy("b"))
    #expect(bench.client.inbox.rings.takeIncidents().count == 1)
  }

  @Test("15.4 A worker waits only if there is nothing in any ring, and is awake in all of them otherwise")
  func asleep() throws {
    let benches = [try CallBench(), try CallBench()]
    let rings = benches.map { $0.client.inbox.rings }
    let loop = LoopRings(rings)
    #expect(loop.declareAsleep())
    loop.declareAwake()
    for (bench, other) in [(0, 1), (1, 0)] {
      try benches[bench].answer(1, CallMessage.cancel, 1)
      #expect(!loop.declareAsleep(), "\(bench)")
      benches[bench].client.inbox.serve { (_) throws(RecordFault) in throw .malformed }
      #expect(loop.takeIncidents().count == 1 && loop.takeIncidents().isEmpty)
      // What can't be read keeps nobody awake.
      #expect(loop.declareAsleep(), "\(other)")
      loop.declareAwake()
      loop.probeSuspended()
    }
  }
}
