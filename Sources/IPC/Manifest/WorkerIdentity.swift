// Who a worker process is: its kind and its place in the pool of that kind. Processes come and go, the place stays.
//
// Kinds are texts and no closed list: another release may have workers of other kinds, and their rings and pages are in the
// same table.

/// A kind of worker; one executable each.
public struct WorkerKind: RawRepresentable, Hashable, Codable, Sendable {
  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }

  public static let connections = WorkerKind(rawValue: "connections")
  public static let streams = WorkerKind(rawValue: "streams")
  public static let proxies = WorkerKind(rawValue: "proxies")
  public static let control = WorkerKind(rawValue: "control")
  /// No worker, but it has a status page like them.
  public static let supervisor = WorkerKind(rawValue: "supervisor")

  /// Whether there can be several workers of this kind.
  public var isPool: Bool { self == .connections || self == .proxies }
}

/// One place for a worker process.
public struct WorkerIdentity: Hashable, Codable, Sendable {
  public let kind: WorkerKind
  /// Within the pool, from 0.
  public let place: Int

  public init(kind: WorkerKind, place: Int = 0) {
    self.kind = kind
    self.place = place
  }

  /// See `WorkerManifest.init(from:)`.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    kind = try values.decode(WorkerKind.self, forKey: .kind)
    place = try values.decodeIfPresent(Int.self, forKey: .place) ?? 0
  }

  public static func connections(_ place: Int) -> WorkerIdentity {
    WorkerIdentity(kind: .connections, place: place)
  }

  public static func proxies(_ place: Int) -> WorkerIdentity { WorkerIdentity(kind: .proxies, place: place) }

  public static let streams = WorkerIdentity(kind: .streams)
  public static let control = WorkerIdentity(kind: .control)
  public static let supervisor = WorkerIdentity(kind: .supervisor)

  /// Its name in the tree, in logs, and as value of the metric label `worker`: "connections.0", "streams", "control".
  public var name: String { kind.isPool ? "\(kind.rawValue).\(place)" : kind.rawValue }
}
