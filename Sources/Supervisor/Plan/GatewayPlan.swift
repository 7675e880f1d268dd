// What a gateway with certain settings consists of: workers, rings, and listeners. A value made from the settings alone; nothing
// is opened or started here. The tree of the workers: GatewayPlan+Tree. The rings: RingTable.

import IPC
import Settings

struct GatewayPlan: Equatable, Sendable {
  /// In the order in which they are started.
  let workers: [WorkerIdentity]
  /// In the order of their ids.
  let rings: [RingPlan]
  let tree: NodeSpec
  /// Whether there are listeners for TLS.
  let hasTLS: Bool
  /// Kinds of workers that have files which they read again when they are told to.
  let rereading: Set<WorkerKind>

  /// - Parameter startTimeout: time a worker has to report that it serves.
  init(settings: Settings, startTimeout: Nanoseconds = Self.startTimeout) {
    hasTLS = settings.hasTLS
    var rereading: Set<WorkerKind> = settings.hasTLS ? [.connections, .control] : []
    if !settings.proxyCACertFile.isEmpty { rereading.insert(.proxies) }
    self.rereading = rereading
    var workers: [WorkerIdentity] = [.control]
    for place in 0..<settings.proxyWorkers { workers.append(.proxies(place)) }
    if !settings.kafkaBrokers.isEmpty { workers.append(.streams) }
    for place in 0..<settings.connectionWorkers { workers.append(.connections(place)) }
    self.workers = workers
    rings = RingRule.all.flatMap { [workers] in $0.rings(of: workers, settings) }
    tree = Self.tree(workers: workers, settings: settings, startTimeout: startTimeout)
  }

  /// The place in `rings` of the ring with this id; nil: there is none.
  func ring(_ id: UInt32) -> Int? { rings.firstIndex { $0.id == id } }

  /// Descriptors that a worker of this gateway holds for what it shares with the others, at most.
  var mostSharedDescriptors: Int { rings.count + 2 * workers.count + Self.otherSharedDescriptors }

  /// Listening sockets, the manifest, the supervisor's page.
  private static let otherSharedDescriptors = 8

  /// The names of the listening sockets that a kind of worker accepts from.
  func listeners(of kind: WorkerKind) -> [String] {
    switch kind {
    case .connections: hasTLS ? [Listeners.inbound, Listeners.inboundTLS] : [Listeners.inbound]
    case .control: hasTLS ? [Listeners.management, Listeners.managementTLS] : [Listeners.management]
    default: []
    }
  }
}
