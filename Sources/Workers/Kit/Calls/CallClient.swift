// Lets proxy workers call services, and waits for what comes of it.
//
//   call ──► calls.<this worker> ──► proxies.j ──► service
//   asker ◄── answers.proxies.j ◄────────┘
//
// Every call ends: by its answer, by its deadline, or because its proxy worker has died, in which case the asker is told that
// the service can't be reached. Calls go to the proxy workers in turn, and to none that doesn't serve.

import IPC

/// Belongs to one event loop.
public final class CallClient {
  /// Called once.
  public typealias Asker = (CallOutcome) -> Void

  /// Calls that wait for their answer at once.
  public static let maximumWaiting = 10_000
  /// How much longer than the service itself its answer may take.
  private static let graceNs: UInt64 = 1_000_000_000
  /// Of calls that wait for room in the ring.
  private static let maximumUnsentBytes = 16 << 20
  /// Of an answer over all its parts.
  static let maximumAnswerBytes = 1 << 20

  /// A proxy worker.
  private struct Peer {
    /// In which it reads this worker's ring: what names it here.
    let slot: UInt16
    let page: StatusPage
    var generation: UInt64
  }

  private struct Pending {
    let asker: Asker
    let target: UInt16
    let deadlineNs: UInt64
    var body: [UInt8] = []
  }

  /// Into this worker's call ring.
  public let outbox: RecordOutbox
  /// Gets every frame of an exchange: from which proxy worker (as `servingPeer` names it), its header, and its bytes, which are valid during the call.
  /// Throws what is wrong with one that no proxy worker would send.
  public var onFrame: ((UInt16, ExchangeFrame.Header, UnsafeRawBufferPointer) throws(RecordFault) -> Void)?
  /// A proxy worker has ended: what it had begun is gone.
  public var onPeerGone: ((UInt16) -> Void)?
  private let rings: RingSet
  /// By ring: who writes it.
  private let writers: [UInt16]
  private var peers: [Peer]
  private let timeoutNs: UInt64
  private var waiting: [UInt64: Pending] = [:]
  private var nextCorrelation: UInt64
  private var nextPeer = 0

  /// nil if the manifest grants no call ring: nothing is configured that calls services.
  ///
  /// - Parameters:
  ///   - timeoutMs: that a service has to answer.
  ///   - later: calls a closure after about a millisecond, on the loop.
  public init?(
    _ context: WorkerContext, timeoutMs: Int, later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let grant = context.manifest.ringWritten(for: .calls), !grant.readers.isEmpty else { return nil }
    outbox = RecordOutbox(
      try context.writer(of: grant), maximumBytes: Self.maximumUnsentBytes, later: later)
    rings = try context.rings(for: .answers)
    writers = try rings.slotsOfWriters(in: grant)
    var peers: [Peer] = []
    for reader in grant.readers {
      let page = try context.page(of: reader.worker)
      peers.append(Peer(slot: UInt16(clamping: reader.slot), page: page, generation: page.generation))
    }
    self.peers = peers
    timeoutNs = UInt64(max(0, timeoutMs)) * 1_000_000
    nextCorrelation = Correlation.first(generation: context.status.generation)
  }

  /// Has the service for `call.purpose` called. The asker may be called at once.
  ///
  /// - Returns: the correlation, for `cancel`.
  @discardableResult
  public func call(_ call: ServiceCall, nowNs: UInt64, _ asker: @escaping Asker) -> UInt64? {
    guard waiting.count < Self.maximumWaiting else {
      asker(.busy("\(Self.maximumWaiting) calls of services are in progress"))
      return nil
    }
    guard let target = servingPeer() else {
      asker(.unreachable("no proxy worker serves now"))
      return nil
    }
    let correlation = nextCorrelation
    nextCorrelation &+= 1
    let deadlineNs = nowNs + timeoutNs
    guard
      let records = CallRecord.records(
        call, target: target, correlation: correlation, deadlineNs: deadlineNs,
        maximumBytes: outbox.maximumPayload)
    else {
      asker(.busy("its credentials don't fit into a record of \(outbox.maximumPayload) bytes"))
      return nil
    }
    guard outbox.send(records) else {
      asker(.busy("the ring to the proxy workers is full"))
      return nil
    }
    waiting[correlation] = Pending(asker: asker, target: target, deadlineNs: deadlineNs + Self.graceNs)
    return correlation
  }

  /// Nobody waits for the answer any more; the asker isn't called.
  public func cancel(_ correlation: UInt64) {
    guard let pending = waiting.removeValue(forKey: correlation) else { return }
    // Without room for it the service is called for nothing, which does no harm.
    _ = outbox.send([CallRecord(target: pending.target, correlation: correlation, message: .cancel)])
  }

  /// The next proxy worker that serves, by its slot in this worker's call ring; nil: none does now.
  public func servingPeer() -> UInt16? {
    for offset in peers.indices {
      let peer = (nextPeer + offset) % peers.count
      guard peers[peer].page.state == .ready else { continue }
      // Whoever is asked from here on is asked of the worker that lives now.
      noteRestart(of: peer)
      nextPeer = (peer + 1) % peers.count
      return peers[peer].slot
    }
    return nil
  }

  /// The proxy worker that everybody finds for this key; while it doesn't serve, the next one does.
  public func servingPeer(for key: String) -> UInt16? {
    let first = Int(Self.hash(key) % UInt64(peers.count))
    for offset in peers.indices {
      let peer = (first + offset) % peers.count
      guard peers[peer].page.state == .ready else { continue }
      noteRestart(of: peer)
      return peers[peer].slot
    }
    return nil
  }

  /// FNV-1a: the same in every process, which Swift's own isn't.
  private static func hash(_ key: String) -> UInt64 {
    key.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// Reads answers, up to the bound of a turn. Returns whether there may be more.
  @discardableResult
  public func serve() -> Bool {
    outbox.flush()
    return rings.serve { ring, record in take(record, of: ring) }
  }

  private func take(_ record: RingRecord, of ring: Int) {
    let isFrame = record.type == ExchangeFrame.answerType
    guard isFrame || record.type == CallRecord.answerType else { return rings.passOver(ring, record) }
    guard CallRecord.target(of: record.bytes) == rings.slot(ring) else { return }
    let peer = writers[ring]
    do throws(RecordFault) {
      if isFrame {
        let header = try ExchangeFrame.Header(record.bytes)
        try onFrame?(peer, header, record.bytes)
        return
      }
      let said = try CallRecord(type: record.type, record.bytes)
      guard case .answer(let outcome, let offset, let hasMore) = said.message else { throw .malformed }
      receive(outcome, offset: offset, hasMore: hasMore, said.correlation, from: peer)
    } catch {
      rings.refuse(ring, record, error, expected: "answer to a call")
    }
  }

  private func receive(
    _ outcome: CallOutcome, offset: UInt64, hasMore: Bool, _ correlation: UInt64, from peer: UInt16
  ) {
    guard var pending = waiting[correlation], pending.target == peer else { return }
    guard case .answered(let status, let part) = outcome else { return end(correlation, outcome) }
    guard offset == UInt64(pending.body.count), part.count <= Self.maximumAnswerBytes - pending.body.count
    else { return end(correlation, .unreachable("the proxy worker's answer has a hole or is too large")) }
    waiting[correlation] = nil  // so that the body is appended in place
    pending.body.append(contentsOf: part)
    guard hasMore else { return pending.asker(.answered(status: status, body: pending.body)) }
    waiting[correlation] = pending
  }

  private func end(_ correlation: UInt64, _ outcome: CallOutcome) {
    waiting.removeValue(forKey: correlation)?.asker(outcome)
  }

  /// Once per second.
  public func tick(nowNs: UInt64) {
    rings.probeSuspended()
    outbox.flush()
    for (correlation, pending) in waiting where pending.deadlineNs <= nowNs { end(correlation, .timedOut) }
    for peer in peers.indices { noteRestart(of: peer) }
  }

  /// What was asked of the predecessor of a new proxy worker gets no answer.
  private func noteRestart(of index: Int) {
    let generation = peers[index].page.generation
    guard generation != peers[index].generation else { return }
    peers[index].generation = generation
    let peer = peers[index].slot
    for (correlation, pending) in waiting where pending.target == peer {
      end(correlation, .unreachable("the proxy worker has ended"))
    }
    onPeerGone?(peer)
  }

  /// The worker ends: everyone who waits is told.
  public func endAll() {
    for correlation in Array(waiting.keys) { end(correlation, .unreachable("this worker is ending")) }
  }

  public func takeIncidents() -> [RingIncident] { rings.takeIncidents() }
  public func declareAsleep() -> Bool { rings.declareAsleep() }
  public func declareAwake() { rings.declareAwake() }
}
