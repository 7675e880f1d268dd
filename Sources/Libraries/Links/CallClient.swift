// Lets proxy workers call services, and waits for what comes of it.
//
//   call ──► calls.<this worker> ──► proxies.j ──► service
//   asker ◄── answers.proxies.j ◄────────┘
//
// Every call ends: by its answer, by its deadline, or because its proxy worker has died, in which case the asker is told that
// the service can't be reached. Calls go to the proxy workers in turn, and to none that doesn't serve. Exchanges (ExchangeMessage) go
// by the same rings: they are `exchanges`', and their proxy workers are named here.

import IPC
import Kit

/// What is told of exchanges.
public protocol ExchangeParty: AnyObject {
  /// A message from a proxy worker.
  func received(_ message: LinkMessage, from peer: Int) throws(RecordFault)
  /// A proxy worker has ended: what it had begun is gone.
  func peerGone(_ peer: Int)
}

/// Belongs to one event loop.
public final class CallClient {
  /// Called once.
  public typealias Asker = (CallOutcome) -> Void

  /// Calls that wait for their answer at once.
  public static let maximumWaiting = 10_000
  /// How much longer than the service itself its answer may take.
  private static let graceNs: UInt64 = 1_000_000_000
  /// Of what waits for room in the ring.
  private static let maximumUnsentBytes = 16 << 20
  /// Of an outcome with its body, and of what is said in an exchange.
  public static let maximumAnswerBytes = 1 << 20

  public let inbox: Inbox
  /// Into this worker's call ring.
  public let outbox: Outbox
  /// nil: nobody here has exchanges.
  public weak var exchanges: (any ExchangeParty)?
  /// By ring: the proxy worker that writes it.
  private let writers: [Int]
  /// By proxy worker: its slot in this worker's ring.
  private let slots: [UInt16]
  private var peers: Peers
  private var asking: Asking<Asker>
  private let timeoutNs: UInt64

  /// nil if the manifest grants no call ring: nothing is configured that calls services.
  ///
  /// - Parameters:
  ///   - timeoutMs: that a service has to answer.
  ///   - later: calls a closure after about a millisecond, on the loop.
  public init?(
    _ context: WorkerContext, timeoutMs: Int, later: @escaping (@escaping () -> Void) -> Void
  ) throws(IPCError) {
    guard let grant = context.manifest.ringWritten(for: .calls), !grant.readers.isEmpty else { return nil }
    outbox = Outbox(
      try context.writer(of: grant),
      maximumMessageBytes: CallMessage.maximumBytes(
        eventBytes: context.settings.maxEventBytes, headBytes: context.settings.maxRequestHeadBytes),
      maximumBytes: Self.maximumUnsentBytes, later: later)
    let rings = try context.rings(for: .answers)
    inbox = Inbox(rings, maximumBytes: Self.maximumAnswerBytes)
    let workers = grant.readers.map(\.worker)
    writers = rings.writers.map { workers.firstIndex(of: $0) ?? workers.count }
    slots = grant.readers.map { UInt16(clamping: $0.slot) }
    var pages: [StatusPage] = []
    for worker in workers { pages.append(try context.page(of: worker)) }
    peers = Peers(pages)
    asking = Asking(generation: context.status.generation, mostWaiting: Self.maximumWaiting)
    timeoutNs = UInt64(max(0, timeoutMs)) * 1_000_000
  }

  // MARK: Calls

  /// Has the service for `call.purpose` called. The asker may be called at once.
  ///
  /// - Returns: the correlation, for `cancel`.
  @discardableResult
  public func call(_ call: ServiceCall, nowNs: UInt64, _ asker: @escaping Asker) -> UInt64? {
    guard !asking.isFull else {
      asker(.busy("\(Self.maximumWaiting) calls of services are in progress"))
      return nil
    }
    guard let peer = servingPeer() else {
      asker(.unreachable("no proxy worker serves now"))
      return nil
    }
    let correlation = asking.nextCorrelation()
    let deadlineNs = nowNs + timeoutNs
    do throws(Outbox.Refusal) {
      try outbox.send(CallMessage.call(call), to: slots[peer], correlation, deadlineNs: deadlineNs)
    } catch {
      switch error {
      case .noRoom: asker(.busy("the ring to the proxy workers is full"))
      case .tooLarge(let limit): asker(.busy("it has more than \(limit) bytes"))
      }
      return nil
    }
    asking.begin(asker, of: peer, correlation, deadlineNs: deadlineNs + Self.graceNs)
    return correlation
  }

  /// Nobody waits for the answer any more; the asker isn't called.
  public func cancel(_ correlation: UInt64) {
    guard let (_, peer) = asking.cancel(correlation) else { return }
    // Without room for it the service is called for nothing, which does no harm.
    try? outbox.send(CallMessage.cancel, to: slots[peer], correlation)
  }

  public func endAll() {
    for asker in asking.endAll() { asker(.unreachable("this worker is ending")) }
  }

  // MARK: Proxy workers

  /// The next proxy worker that serves; nil: none does now.
  public func servingPeer() -> Int? { noted(peers.next()) }

  /// The proxy worker that everybody finds for this key; while it doesn't serve, the next one does.
  public func servingPeer(for key: String) -> Int? { noted(peers.first(for: key)) }

  /// Its slot in this worker's ring.
  public func slot(of peer: Int) -> UInt16 { slots[peer] }

  /// Whoever is asked from here on is asked of the worker that lives now.
  private func noted(_ peer: Int?) -> Int? {
    if let peer { noteRestart(of: peer) }
    return peer
  }

  /// What was asked of the predecessor of a new proxy worker gets no answer.
  private func noteRestart(of peer: Int) {
    guard peers.hasRestarted(peer) else { return }
    for asker in asking.abandon(peer) { asker(.unreachable("the proxy worker has ended")) }
    exchanges?.peerGone(peer)
  }

  // MARK: Answers

  /// Reads answers, up to the bound of a turn. Returns whether there may be more.
  @discardableResult
  public func serve() -> Bool {
    outbox.flush()
    return inbox.serve { (message) throws(RecordFault) in try take(message) }
  }

  private func take(_ message: LinkMessage) throws(RecordFault) {
    let peer = writers[message.ring]
    guard message.envelope.kind == .callOutcome else {
      guard let exchanges else { throw message.envelope.unknownKind }
      return try exchanges.received(message, from: peer)
    }
    guard message.payload != nil else {
      asking.take(message.envelope.correlation, of: peer)?(.unreachable("the service's answer is too large"))
      return
    }
    guard case .outcome(let outcome) = try message.decoded(as: CallMessage.self) else { throw .malformed }
    asking.take(message.envelope.correlation, of: peer)?(outcome)
  }

  /// Once per second.
  public func tick(nowNs: UInt64) {
    outbox.flush()
    for asker in asking.expire(nowNs: nowNs) { asker(.timedOut) }
    for peer in 0..<peers.count { noteRestart(of: peer) }
  }
}
