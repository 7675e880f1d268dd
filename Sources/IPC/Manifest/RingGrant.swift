// A line of the gateway's ring table: what a ring is for, who writes it and who reads it. The supervisor makes the table; a
// worker gets the lines of the rings that it may hold, and finds everything about them there: nothing is to be concluded from
// a ring's name or from its place in a list.
//
//   {"id":65538,"purpose":"events","writer":{"kind":"connections","place":0},"cursorPosition":2,"fd":17,
//    "readers":[{"worker":{"kind":"connections","place":0},"slot":0,"wake":11}, …]}

/// What the records of a ring are about. Another release may know others.
public struct RingPurpose: RawRepresentable, Hashable, Codable, Sendable {
  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }

  public static let events = RingPurpose(rawValue: "events")
  /// What connection workers ask each other.
  public static let requests = RingPurpose(rawValue: "requests")
  /// Blacklist, presence and API definitions, kept and spread.
  public static let state = RingPurpose(rawValue: "state")
  /// What a connection worker reports of its connections.
  public static let presence = RingPurpose(rawValue: "presence")
  /// What a worker has services called for, and the requests that it proxies.
  public static let calls = RingPurpose(rawValue: "calls")
  /// What came of them.
  public static let answers = RingPurpose(rawValue: "answers")
  /// Records to be produced, questions, and what came of responses.
  public static let publications = RingPurpose(rawValue: "publications")
  /// What came of the records, answers to the questions, and responses of services.
  public static let responses = RingPurpose(rawValue: "responses")
  /// Where each partition of Kafka has been read to: for the writer's successor.
  public static let positions = RingPurpose(rawValue: "positions")
}

/// A ring that a worker holds. It writes the ring if it is its writer, reads it if it is among its readers, and else only
/// looks at how full it is.
public struct RingGrant: Codable, Sendable, Equatable {
  public struct Reader: Codable, Sendable, Equatable {
    public var worker: WorkerIdentity
    /// Its reader slot.
    public var slot: Int
    /// Its eventfd, for the ring's writer alone; nil for everybody else.
    public var wake: CInt?

    public init(_ worker: WorkerIdentity, slot: Int, wake: CInt? = nil) {
      self.worker = worker
      self.slot = slot
      self.wake = wake
    }
  }

  /// Names the ring in `StatusPage.reportCorrupt`. The same in every life of the gateway and in every release.
  public var id: UInt32
  public var purpose: RingPurpose
  public var writer: WorkerIdentity
  public var readers: [Reader]
  /// Of an event ring: which of a cursor's positions is of this ring. The same in every release; there may be gaps.
  public var cursorPosition: Int?
  /// The segment.
  public var fd: CInt

  public init(
    id: UInt32, purpose: RingPurpose, writer: WorkerIdentity, readers: [Reader], cursorPosition: Int? = nil,
    fd: CInt
  ) {
    self.id = id
    self.purpose = purpose
    self.writer = writer
    self.readers = readers
    self.cursorPosition = cursorPosition
    self.fd = fd
  }

  /// See `WorkerManifest.init(from:)`.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    id = try values.decode(UInt32.self, forKey: .id)
    purpose = try values.decode(RingPurpose.self, forKey: .purpose)
    writer = try values.decode(WorkerIdentity.self, forKey: .writer)
    readers = try values.decodeIfPresent([Reader].self, forKey: .readers) ?? []
    cursorPosition = try values.decodeIfPresent(Int.self, forKey: .cursorPosition)
    fd = try values.decode(CInt.self, forKey: .fd)
  }

  /// "events.streams", "requests.connections.0", "requests.connections.0b", …: for people.
  public var name: String { Self.name(purpose, writer) }

  public static func name(_ purpose: RingPurpose, _ writer: WorkerIdentity) -> String {
    "\(purpose.rawValue).\(writer.seatName)"
  }

  /// The worker's reader slot; nil: it doesn't read the ring.
  public func slot(of worker: WorkerIdentity) -> Int? { readers.first { $0.worker == worker }?.slot }

  /// Who reads in a slot; nil: nobody.
  public func reader(slot: Int) -> WorkerIdentity? { readers.first { $0.slot == slot }?.worker }

  /// The eventfds that a writer needs, by reader slot, −1 for none.
  public var wake: [CInt] {
    let slots = (readers.map(\.slot).max() ?? -1) + 1
    var wake = [CInt](repeating: -1, count: min(max(slots, 0), Ring.maximumReaders))
    for reader in readers where wake.indices.contains(reader.slot) { wake[reader.slot] = reader.wake ?? -1 }
    return wake
  }
}
