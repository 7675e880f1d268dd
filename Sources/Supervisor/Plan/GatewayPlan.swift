// What a gateway with certain settings consists of: workers, rings, and who may do what with which ring. A value made
// from the settings alone; nothing is opened or started here. The tree of the workers: GatewayPlan+Tree.
//
//   ring                    writer           read by               inspected by
//   events.streams          streams          every connections.i   control
//   events.control          control          every connections.i
//   events.connections.i    connections.i    every connections.i   control
//   requests.connections.i  connections.i    every connections.i   control
//   state.control           control          every connections.i
//   presence.connections.i  connections.i    control
//   calls.connections.i     connections.i    every proxies.j       control
//   calls.control           control          every proxies.j
//   answers.proxies.j       proxies.j        every connections.i, control
//   publications.connections.i  connections.i    control, streams if there is Kafka
//   responses.streams       streams          every connections.i   control      only with Kafka
//   responses.control       control          every connections.i
//   positions.streams       streams          nobody                control      only with Kafka
//
// Reader slot i of a ring is the i-th of its readers: connection worker i, its own ring included, or control.

import Settings

/// A ring, and which worker writes it.
struct RingPlan: Equatable, Sendable {
  enum Purpose: Equatable, Sendable {
    case events
    case requests
    /// Blacklist and presence, kept and spread.
    case state
    /// What a connection worker reports of its connections.
    case presence
    /// What a worker has called services for.
    case calls
    /// What came of the calls.
    case answers
    /// Records to be produced, and what came of responses.
    case publications
    /// What came of the records, and responses of services.
    case responses
    /// Where each partition of Kafka has been read to: for the writer's successor.
    case positions
  }

  /// Names the ring in corruption reports; its place in `GatewayPlan.rings`.
  let id: UInt32
  let name: String
  let purpose: Purpose
  let bytes: Int
  let writer: WorkerIdentity
  /// By reader slot.
  let readers: [WorkerIdentity]

  /// Whether the worker writes or reads it.
  func isUsed(by worker: WorkerIdentity) -> Bool { writer == worker || readers.contains(worker) }
}

/// What a worker is to a ring.
enum RingUse: Equatable, Sendable {
  case write
  case read(slot: Int)
  case writeAndRead(slot: Int)
  case inspect
}

struct GatewayPlan: Equatable, Sendable {
  /// In the order in which they are started.
  let workers: [WorkerIdentity]
  /// Event rings in the order of the cursor's positions, then request rings, then the others.
  let rings: [RingPlan]
  let tree: NodeSpec
  /// Whether there are listeners for TLS.
  let hasTLS: Bool

  /// - Parameter startTimeout: time a worker has to report that it serves.
  init(settings: Settings, startTimeout: Nanoseconds = Self.startTimeout) {
    let connections = (0..<settings.connectionWorkers).map { WorkerIdentity(kind: .connections, slot: $0) }
    hasTLS = settings.hasTLS
    let streams = WorkerIdentity(kind: .streams, slot: 0)
    let control = WorkerIdentity(kind: .control, slot: 0)
    let proxies = (0..<settings.proxyWorkers).map { WorkerIdentity(kind: .proxies, slot: $0) }
    workers = [control] + proxies + (settings.kafkaBrokers.isEmpty ? [] : [streams]) + connections

    var rings: [RingPlan] = []
    func add(
      _ purpose: RingPlan.Purpose, _ prefix: String, _ writer: WorkerIdentity, _ bytes: Int,
      readers: [WorkerIdentity] = connections
    ) {
      rings.append(
        RingPlan(
          id: UInt32(rings.count), name: "\(prefix).\(writer.name)", purpose: purpose, bytes: bytes,
          writer: writer, readers: readers))
    }
    // Without Kafka the ring of the streams worker stays empty: a cursor has the same form either way.
    add(.events, "events", streams, settings.streamsRingBytes)
    for writer in [control] + connections { add(.events, "events", writer, settings.eventRingBytes) }
    for writer in connections { add(.requests, "requests", writer, settings.requestRingBytes) }
    add(.state, "state", control, settings.stateRingBytes)
    for writer in connections {
      add(.presence, "presence", writer, settings.presenceRingBytes, readers: [control])
    }
    let callers = connections + [control]
    for writer in callers { add(.calls, "calls", writer, settings.callRingBytes, readers: proxies) }
    for writer in proxies { add(.answers, "answers", writer, settings.callRingBytes, readers: callers) }
    let producers = settings.kafkaBrokers.isEmpty ? [] : [streams]
    for writer in connections {
      add(
        .publications, "publications", writer, settings.responseRingBytes, readers: [control] + producers)
    }
    for writer in producers + [control] { add(.responses, "responses", writer, settings.responseRingBytes) }
    for writer in producers { add(.positions, "positions", writer, settings.positionRingBytes, readers: []) }
    self.rings = rings
    tree = Self.tree(workers: workers, settings: settings, startTimeout: startTimeout)
  }

  /// What `worker` may do with `ring`; nil: it doesn't get it at all.
  static func use(of ring: RingPlan, by worker: WorkerIdentity) -> RingUse? {
    let slot = ring.readers.firstIndex(of: worker)
    if ring.writer == worker { return slot.map { .writeAndRead(slot: $0) } ?? .write }
    if let slot { return .read(slot: slot) }
    return worker.kind == .control ? .inspect : nil
  }

  /// Descriptors that a worker of this gateway holds for what it shares with the others, at most.
  var mostSharedDescriptors: Int { rings.count + 2 * workers.count + Self.otherSharedDescriptors }

  /// Listening sockets, the manifest, the supervisor's page.
  private static let otherSharedDescriptors = 8

  /// The names of the listening sockets that a kind of worker accepts from.
  func listeners(of kind: WorkerKind) -> [String] {
    switch kind {
    case .connections: hasTLS ? [Listeners.inbound, Listeners.inboundTLS] : [Listeners.inbound]
    case .control: hasTLS ? [Listeners.management, Listeners.managementTLS] : [Listeners.management]
    case .streams, .proxies: []
    }
  }
}
