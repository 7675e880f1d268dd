// Who a worker process is: its kind, its place in the pool of that kind, and its seat there. Processes come and go, the place stays.
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

  /// Whether each of their places has two seats.
  var hasTwoSeats: Bool { self == .connections }
}

/// Where a worker process sits: its place in the pool and, of a connection worker, its seat at that place. A place has two seats, so
/// that the next process can start while the one before it still serves; clients, logs and metrics know places only.
public struct WorkerIdentity: Hashable, Codable, Sendable {
  /// Seats of a place of connection workers.
  public static let seats = 0..<2

  public let kind: WorkerKind
  /// Within the pool, from 0.
  public let place: Int
  /// 0 or 1; 0 for all kinds but connection workers.
  public let seat: Int

  public init(kind: WorkerKind, place: Int = 0) {
    self.init(kind: kind, place: place, seat: 0)
  }

  private init(kind: WorkerKind, place: Int, seat: Int) {
    self.kind = kind
    self.place = place
    self.seat = seat
  }

  /// See `WorkerManifest.init(from:)`.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    kind = try values.decode(WorkerKind.self, forKey: .kind)
    place = try values.decodeIfPresent(Int.self, forKey: .place) ?? 0
    seat = try values.decodeIfPresent(Int.self, forKey: .seat) ?? 0
    guard kind.hasTwoSeats ? Self.seats.contains(seat) : seat == 0 else {
      throw DecodingError.dataCorruptedError(
        forKey: .seat, in: values, debugDescription: "a worker of kind \(kind.rawValue) has no seat \(seat)")
    }
  }

  public static func connections(_ place: Int) -> WorkerIdentity {
    WorkerIdentity(kind: .connections, place: place)
  }

  public static func proxies(_ place: Int) -> WorkerIdentity { WorkerIdentity(kind: .proxies, place: place) }

  public static let streams = WorkerIdentity(kind: .streams)
  public static let control = WorkerIdentity(kind: .control)
  public static let supervisor = WorkerIdentity(kind: .supervisor)

  /// The name of its place in the tree, in logs, and as value of the metric label `worker`: "connections.0", "streams", "control".
  public var name: String { kind.isPool ? "\(kind.rawValue).\(place)" : kind.rawValue }

  /// The name of its seat, for what each of them has of its own: "connections.0" and "connections.0b".
  public var seatName: String { seat == 0 ? name : name + "b" }

  /// Its number among the seats of its kind: rings, reader slots and cursors are numbered by it.
  public var number: Int { kind.hasTwoSeats ? Self.seats.count * place + seat : place }

  /// The seat with this number among those of connection workers.
  public static func connections(number: UInt16) -> WorkerIdentity {
    let (place, seat) = Int(number).quotientAndRemainder(dividingBy: seats.count)
    return WorkerIdentity(kind: .connections, place: place, seat: seat)
  }

  /// The other seat of its place; nil: it has only one.
  public var sibling: WorkerIdentity? {
    kind.hasTwoSeats ? WorkerIdentity(kind: kind, place: place, seat: 1 - seat) : nil
  }
}
