// Takes calls from the other workers, has them made, and answers.
//
//   calls.* ring ─► gate of the service ─► client ─► outcome ─► answers.<this worker> ring
//
// Calls are read and committed at once: a call of a proxy worker that dies is given up by its caller, who sees the death, and
// isn't made again by the next one.

import IPC
import Kit
import Links
import Logging
import NIOCore
import Settings

/// Belongs to the worker's loop.
final class CallServer {
  /// Clock and loop, so that a test can have others.
  struct Environment {
    var nowNs: () -> UInt64
    /// Calls the closure on the loop, behind what it is doing now.
    var enqueue: (@escaping () -> Void) -> Void
    /// Lets the loop call `scheduleTurn` after it has looked at its sockets.
    var wakeAgain: () -> Void
    /// A ring is corrupt.
    var reportCorrupt: (RingReport) -> Void
    /// Makes a call of a URL until a deadline; what comes back cancels it.
    var begin: (ServiceCall, String, UInt64, @escaping (CallOutcome) -> Void) -> (() -> Void)?
  }

  private struct Caller: Hashable {
    let ring: Int
    let correlation: UInt64
  }

  /// What is called for a purpose: each service has a gate of its own.
  private struct Service: Hashable {
    let purpose: CallPurpose
    let index: UInt16

    init(_ purpose: CallPurpose, _ index: UInt16 = 0) {
      self.purpose = purpose
      self.index = index
    }

    init(_ call: ServiceCall) { self.init(call.purpose, call.index) }
  }

  private struct Call {
    let caller: Caller
    let call: ServiceCall
    let deadlineNs: UInt64
  }

  private let timeoutNs: UInt64
  private let inbox: Inbox
  private let outbox: Outbox
  /// By ring: its writer's slot in the answer ring.
  private let targets: [UInt16]
  private let exchanges: ExchangeServer
  private let environment: Environment
  private let urls: [Service: String]
  private let metrics: CallMetrics
  private let log: Logger
  private var gates: [Service: ServiceGate<Call>] = [:]
  /// Calls that have begun, and what cancels them.
  private var begun: [Caller: (service: Service, cancel: () -> Void)] = [:]
  private var isTurnScheduled = false

  /// - Parameters:
  ///   - inbox: of the call rings.
  ///   - outbox: into the answer ring.
  ///   - targets: by call ring, in which slot of the answer ring its writer reads.
  init(
    inbox: Inbox, outbox: Outbox, targets: [UInt16], exchanges: ExchangeServer, settings: Settings,
    metrics: CallMetrics, log: Logger,
    environment: Environment
  ) {
    self.targets = targets
    timeoutNs = UInt64(settings.checkTimeoutMs) * 1_000_000
    self.inbox = inbox
    self.outbox = outbox
    self.exchanges = exchanges
    self.environment = environment
    self.metrics = metrics
    self.log = log
    var urls: [Service: String] = [:]
    urls[Service(.subscriptionCheck)] = settings.subscriptionCheck.url
    urls[Service(.submissionCheck)] = settings.submissionCheck.url
    for (index, set) in settings.jwtKeySets.enumerated() {
      urls[Service(.keySet, UInt16(clamping: index))] = set.url
    }
    self.urls = urls
    let limits = ServiceGate<Call>.Limits(
      concurrent: settings.checkMaxConcurrent, waiting: settings.checkMaxWaiting,
      failures: settings.circuitFailures, openNs: UInt64(settings.circuitOpenSeconds) * 1_000_000_000)
    for service in urls.keys { gates[service] = ServiceGate(limits) }
  }

  // MARK: Turns

  func scheduleTurn() {
    guard !isTurnScheduled else { return }
    isTurnScheduled = true
    environment.enqueue { [unowned self] in turn() }
  }

  func turn() {
    isTurnScheduled = false
    inbox.rings.declareAwake()
    let hasMore = inbox.serve { (message) throws(RecordFault) in try take(message) }
    outbox.flush()
    inbox.rings.takeIncidents().report(to: log, environment.reportCorrupt)
    if hasMore || !inbox.rings.declareAsleep() { environment.wakeAgain() }
  }

  /// One second has passed.
  func tick() {
    inbox.rings.probeSuspended()
    let now = environment.nowNs()
    for service in urls.keys {
      for call in gates[service]?.remove(where: { $0.deadlineNs <= now }) ?? [] {
        finish(call, .busy(Self.isLate))
      }
    }
    for purpose in Set(urls.keys.map(\.purpose)) { observe(purpose) }
    scheduleTurn()
  }

  private func take(_ message: LinkMessage) throws(RecordFault) {
    let caller = Caller(ring: message.ring, correlation: message.envelope.correlation)
    switch message.envelope.kind {
    case .call, .cancelCall, .callOutcome:
      switch try message.decoded(as: CallMessage.self) {
      case .call(let call):
        let deadlineNs = message.envelope.deadlineNs
        admit(Call(caller: caller, call: call, deadlineNs: deadlineNs == 0 ? .max : deadlineNs))
      case .cancel: cancel(caller)
      case .outcome: throw .malformed
      }
    default: try exchanges.receive(message)
    }
  }

  // MARK: Calls

  private func admit(_ call: Call) {
    let now = environment.nowNs()
    // It has waited in the ring, such as for the successor of a worker that has died.
    guard call.deadlineNs > now else { return finish(call, .busy(Self.isLate)) }
    guard let admission = gates[Service(call.call)]?.admit(call, nowNs: now) else {
      return finish(call, .unreachable("no address is configured"))
    }
    switch admission {
    case .begin: begin(call)
    case .waits: break
    case .full: finish(call, .busy("too many calls wait for the service"))
    case .open: finish(call, .unreachable(Self.isLeftAlone))
    }
  }

  private func begin(_ call: Call) {
    let service = Service(call.call)
    guard let url = urls[service] else { return }
    let latest = environment.nowNs() + timeoutNs
    begun[call.caller] = (service, {})
    let cancel = environment.begin(call.call, url, min(call.deadlineNs, latest)) {
      [unowned self] outcome in
      // Nobody wants to know any more how a cancelled call ended.
      guard begun.removeValue(forKey: call.caller) != nil else { return }
      settle(call, outcome)
    }
    if let cancel, begun[call.caller] != nil { begun[call.caller] = (service, cancel) }
  }

  private func settle(_ call: Call, _ outcome: CallOutcome) {
    let service = Service(call.call)
    let wasOpen = gates[service]?.isOpen ?? false
    gates[service]?.ended(isFailure: outcome.isFailure, nowNs: environment.nowNs())
    let isOpen = gates[service]?.isOpen ?? false
    if isOpen != wasOpen {
      log.log(
        level: isOpen ? .error : .notice,
        isOpen ? "a service fails again and again and is left alone" : "a service answers again",
        metadata: [
          "purpose": "\(service.purpose.label)", "index": "\(service.index)", "outcome": "\(outcome)",
        ])
    }
    finish(call, outcome)
    guard isOpen else { return beginWaiting(service) }
    for call in gates[service]?.remove(where: { _ in true }) ?? [] {
      finish(call, .unreachable(Self.isLeftAlone))
    }
  }

  private static let isLate = "it has waited for its turn until its time was over"
  private static let isLeftAlone = "it has failed again and again and is left alone for a moment"

  private func beginWaiting(_ service: Service) {
    let now = environment.nowNs()
    while let call = gates[service]?.next() {
      guard call.deadlineNs > now else {
        gates[service]?.abandoned(nowNs: now)
        finish(call, .busy(Self.isLate))
        continue
      }
      begin(call)
    }
  }

  private func cancel(_ caller: Caller) {
    if let stop = begun.removeValue(forKey: caller) {
      gates[stop.service]?.abandoned(nowNs: environment.nowNs())
      stop.cancel()
      return beginWaiting(stop.service)
    }
    for service in urls.keys { _ = gates[service]?.remove(where: { $0.caller == caller }) }
  }

  private func finish(_ call: Call, _ outcome: CallOutcome) {
    metrics.ended(call.call.purpose, outcome)
    observe(call.call.purpose)
    // Without room for it the caller hears of its deadline.
    try? outbox.send(CallMessage.outcome(outcome), to: targets[call.caller.ring], call.caller.correlation)
  }

  private func observe(_ purpose: CallPurpose) {
    let own = gates.filter { $0.key.purpose == purpose }.values
    guard !own.isEmpty else { return }
    metrics.observe(
      purpose, inProgress: own.reduce(0) { $0 + $1.inProgress }, waiting: own.reduce(0) { $0 + $1.waiting },
      isOpen: own.contains { $0.isOpen })
  }
}

extension CallOutcome {
  /// The service isn't there, or doesn't answer.
  var isFailure: Bool {
    switch self {
    case .answered, .busy: false
    case .timedOut, .unreachable: true
    }
  }
}

/// What a proxy worker counts of the calls that it makes for other workers, in its status page.
final class CallMetrics {
  private let status: StatusPage
  private let worker: String
  private var ended: [String: Metric] = [:]
  private var gauges: [CallPurpose: (inProgress: Metric?, waiting: Metric?, isOpen: Metric?)] = [:]

  /// - Parameter worker: value of the label `worker`.
  init(_ status: StatusPage, worker: String) {
    self.status = status
    self.worker = worker
  }

  func ended(_ purpose: CallPurpose, _ outcome: CallOutcome) {
    let label = Self.label(outcome)
    let key = purpose.label + label
    if ended[key] == nil {
      ended[key] = status.metric(
        .counter, "rig_calls_total",
        labels: [("outcome", label), ("purpose", purpose.label), ("worker", worker)])
    }
    ended[key]?.add()
  }

  private static func label(_ outcome: CallOutcome) -> String {
    switch outcome {
    case .answered(let status, _): "\(status / 100)xx"
    case .timedOut: "timeout"
    case .unreachable: "unreachable"
    case .busy: "busy"
    }
  }

  /// The state of the moment.
  func observe(_ purpose: CallPurpose, inProgress: Int, waiting: Int, isOpen: Bool) {
    let labels = [("purpose", purpose.label), ("worker", worker)]
    let gauge =
      gauges[purpose]
      ?? (
        status.metric(.gauge, "rig_calls_in_progress", labels: labels),
        status.metric(.gauge, "rig_calls_waiting", labels: labels),
        status.metric(.gauge, "rig_circuit_open", labels: labels)
      )
    gauges[purpose] = gauge
    gauge.inProgress?.set(Int64(inProgress))
    gauge.waiting?.set(Int64(waiting))
    gauge.isOpen?.set(isOpen ? 1 : 0)
  }
}
