// What a gateway with certain settings consists of: workers, rings, and listeners. A value made from the settings alone; nothing
// is opened or started here. The rings: RingTable.

import IPC
import Settings

struct GatewayPlan: Equatable, Sendable {
  /// The places, each at its first seat, in the order in which their workers are started: the tree's children.
  let workers: [WorkerIdentity]
  /// The seats of all places, those of a place one after the other: what has a status page, rings, reader slots, a ledger.
  let seats: [WorkerIdentity]
  /// In the order of their ids.
  let rings: [RingPlan]
  let tree: NodeSpec
  let hasTLS: Bool
  /// Kinds of workers that have files which they read again when they are told to.
  let rereading: Set<WorkerKind>
  /// Whether connections outlive their worker: there are ledgers, couriers and keepers.
  let keepsConnections: Bool
  let ledger: LedgerSizes

  /// - Parameter startTimeout: time a worker has to report that it serves.
  init(settings: Settings, startTimeout: Nanoseconds = Self.startTimeout) {
    keepsConnections = settings.keeperTTLSeconds > 0
    ledger = LedgerSizes(
      connections: settings.maxOpenConnectionsPerWorker, arenaBytes: settings.ledgerBytes,
      largestEventBytes: 2 * settings.maxEventBytes)
    hasTLS = settings.hasTLS
    var rereading: Set<WorkerKind> = settings.hasTLS ? [.connections, .control] : []
    if !settings.proxyCACertFile.isEmpty { rereading.insert(.proxies) }
    self.rereading = rereading
    var workers: [WorkerIdentity] = [.control]
    for place in 0..<settings.proxyWorkers { workers.append(.proxies(place)) }
    if !settings.kafkaBrokers.isEmpty { workers.append(.streams) }
    for place in 0..<settings.connectionWorkers { workers.append(.connections(place)) }
    self.workers = workers
    let seats = workers.flatMap { [$0, $0.sibling].compactMap(\.self) }
    self.seats = seats
    rings = RingRule.all.flatMap { $0.rings(of: seats, settings) }
    tree = Self.tree(
      workers: workers, settings: settings, startTimeout: startTimeout,
      keepsConnections: keepsConnections)
  }

  /// Whether the worker's connections may outlive it: it has a ledger, and a way to hand them over.
  func keepsConnections(of worker: WorkerIdentity) -> Bool { keepsConnections && worker.kind == .connections }

  /// The place in `rings` of the ring with this id; nil: there is none.
  func ring(_ id: UInt32) -> Int? { rings.firstIndex { $0.id == id } }

  /// Descriptors that a worker of this gateway holds for what it shares with the others, at most.
  var mostSharedDescriptors: Int { rings.count + 2 * seats.count + Self.otherSharedDescriptors }

  /// Listening sockets, the manifest, the supervisor's page, two ledgers, the socket for handing over, couriers.
  private static let otherSharedDescriptors = 8 + 4 + mostCouriers
  /// Predecessors of a worker whose keepers are waited for. Of more that die before their connections are taken, the oldest ones give up.
  static let mostCouriers = 8

  /// The names of the listening sockets that a kind of worker accepts from.
  func listeners(of kind: WorkerKind) -> [String] {
    switch kind {
    case .connections: hasTLS ? [Listeners.inbound, Listeners.inboundTLS] : [Listeners.inbound]
    case .control: hasTLS ? [Listeners.management, Listeners.managementTLS] : [Listeners.management]
    default: []
    }
  }

  // The supervision tree of the gateway:
  //
  //   root (one_for_one, intensity 0)
  //   ├── control       one_for_one   control
  //   ├── proxies       one_for_one   proxies.0 … proxies.n-1
  //   ├── streams       one_for_one   streams            only with Kafka
  //   └── connections   one_for_one   connections.0 … connections.n-1
  //
  // Stopped in reverse order: clients are told goodbye at once, and what they wait for is finished with Kafka and services still
  // there; probes and operators see how it goes until the end. The workers of a pool are stopped together: a gateway needs one
  // drain time to end, not one per worker.
  //
  // RESTART_INTENSITY counts per worker: many of a pool that die together, of one event or one operator's mistake, are each
  // replaced, and a place that dies again and again is found as soon in a large pool as in a small one. A connection worker that is
  // killed from outside doesn't count: that costs nobody a connection.
  //
  // The root allows no restart: a node that gave up ends the gateway. Only a fresh start brings fresh shared memory,
  // which a worker that fails again and again may need, and systemd is there to make it.

  /// A worker maps its memory and opens its sockets in well under a second; this is for a machine on its knees.
  static let startTimeout: Nanoseconds = .seconds(30)
  /// Added to the time that a connection worker may drain: it ends by itself, a little after its own deadline.
  private static let drainMarginSeconds = 2
  /// Time the other workers have to end: Kafka's last commits and answers in flight.
  private static let shutdownSeconds = 7

  static func tree(
    workers: [WorkerIdentity], settings: Settings, startTimeout: Nanoseconds, keepsConnections: Bool = false
  ) -> NodeSpec {
    var nodes: [ChildSpec] = []
    for kind in [WorkerKind.control, .proxies, .streams, .connections] {
      let members = workers.filter { $0.kind == kind }
      guard !members.isEmpty else { continue }
      let children = members.map { worker in
        ChildSpec(
          id: worker.name, restart: .permanent,
          shutdown: .timeout(.seconds(shutdownSeconds(of: kind, settings))),
          kind: .worker(startTimeout: startTimeout),
          countsKills: !(keepsConnections && kind == .connections),
          retirement: keepsConnections && kind == .connections ? retirement(settings) : nil)
      }
      let node = NodeSpec(
        strategy: .oneForOne, intensity: settings.restartIntensity * members.count,
        period: .seconds(settings.restartPeriodSeconds), children: children,
        stopsTogether: true, childIntensity: settings.restartIntensity)
      // No time of its own: its workers have theirs.
      nodes.append(
        ChildSpec(id: kind.rawValue, restart: .permanent, shutdown: .infinity, kind: .supervisor(node)))
    }
    return NodeSpec(
      strategy: .oneForOne, intensity: 0, period: .seconds(settings.restartPeriodSeconds), children: nodes)
  }

  /// How long a connection worker that has been replaced lingers for what can't be passed on, and then drains.
  private static func retirement(_ settings: Settings) -> Nanoseconds {
    .seconds(settings.lingerSeconds + settings.drainTimeoutSeconds + drainMarginSeconds)
  }

  private static func shutdownSeconds(of kind: WorkerKind, _ settings: Settings) -> Int {
    kind == .connections ? settings.drainTimeoutSeconds + drainMarginSeconds : shutdownSeconds
  }
}
