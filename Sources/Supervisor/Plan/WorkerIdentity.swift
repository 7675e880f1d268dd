// Who a worker process is: its kind and its place in the pool of that kind.

/// A kind of worker; one executable each.
enum WorkerKind: String, Sendable, CaseIterable {
  case connections
  case streams
  case proxies
  case control

  /// Whether there can be several workers of this kind.
  var isPool: Bool { self == .connections || self == .proxies }

  /// The executable's file name.
  var executable: String { "rig-\(rawValue)" }
}

/// One place for a worker process; its processes come and go, the place stays.
struct WorkerIdentity: Hashable, Sendable {
  let kind: WorkerKind
  /// Place within the pool, from 0.
  let slot: Int

  /// Its name in the tree, in logs, and as value of the metric label `worker`: "connections.0", "streams", "control".
  var name: String { kind.isPool ? "\(kind.rawValue).\(slot)" : kind.rawValue }
}
