// What the supervisor tells a worker at its birth: who it is, and which descriptors are for what.
//
// JSON in a sealed memfd that the worker inherits; its number is in the environment variable RIG_MANIFEST_FD. JSON,
// because it is read once, must be legible in a debugger, and lets two releases live with each other's additions.
// Reading and writing it: WorkerManifest+Descriptor.

import FoundationEssentials

/// The start-up message of a worker process. All descriptors in it are the worker's own copies.
public struct WorkerManifest: Codable, Sendable, Equatable {
  /// Version of this message.
  public var format = 1
  /// "connections", "streams", "proxies" or "control".
  public var worker: String
  /// Place within the pool, from 0.
  public var slot: Int
  /// Random number of this life of the gateway, below 2^48: cursors of another life are recognised by it.
  public var gatewayEpoch: UInt64
  /// 32 random bytes, the key of connection tokens.
  public var tokenKey: Data
  /// The settings, as the module Settings encodes them.
  public var settings: Data
  /// The worker's status page.
  public var status: CInt
  /// The worker's eventfd.
  public var wake: CInt
  /// Listening sockets by name ("inbound", "management").
  public var listeners: [String: CInt]
  /// Event rings, in the order of the cursor's positions.
  public var events: [RingGrant]
  /// Request rings, by connection worker.
  public var requests: [RingGrant]
  /// The ring in which the control worker keeps and spreads blacklist and presence.
  public var state: RingGrant?
  /// Presence rings: a connection worker's own, or for the control worker those of all, by connection worker.
  public var presence: [RingGrant]
  /// Rings for calls of services: the worker's own, or for a proxy worker those of all that call, connection workers first.
  public var calls: [RingGrant]
  /// Rings for what came of the calls, by proxy worker.
  public var answers: [RingGrant]
  /// Rings for records to be produced, and for what came of responses: a connection worker's own, or for the streams and the
  /// control worker those of all, by connection worker.
  public var publications: [RingGrant]
  /// Rings for what came of the records, and for responses of services: of the streams worker if there is one, and of control.
  public var responses: [RingGrant]
  /// The ring in which the streams worker keeps its read positions; nil: there is no Kafka, or the supervisor knows no such ring.
  public var positions: RingGrant?
  /// The status pages of all workers, its own included, and of "supervisor".
  public var peers: [Peer]
  /// The process that the worker must not outlive.
  public var supervisorPid: Int32
  /// Version of the release that the worker belongs to.
  public var release: String

  public init(
    worker: String, slot: Int, gatewayEpoch: UInt64, tokenKey: Data, settings: Data, status: CInt, wake: CInt,
    listeners: [String: CInt], events: [RingGrant], requests: [RingGrant],
    state: RingGrant? = nil, presence: [RingGrant] = [], calls: [RingGrant] = [],
    answers: [RingGrant] = [], publications: [RingGrant] = [], responses: [RingGrant] = [],
    positions: RingGrant? = nil,
    peers: [Peer],
    supervisorPid: Int32, release: String
  ) {
    self.worker = worker
    self.slot = slot
    self.gatewayEpoch = gatewayEpoch
    self.tokenKey = tokenKey
    self.settings = settings
    self.status = status
    self.wake = wake
    self.listeners = listeners
    self.events = events
    self.requests = requests
    self.state = state
    self.presence = presence
    self.calls = calls
    self.answers = answers
    self.publications = publications
    self.responses = responses
    self.positions = positions
    self.peers = peers
    self.supervisorPid = supervisorPid
    self.release = release
  }

  /// A ring, and what the worker may do with it.
  public struct RingGrant: Codable, Sendable, Equatable {
    /// "events.streams", "requests.connections.0", …
    public var name: String
    /// Names the ring in `StatusPage.reportCorrupt(ring:)`.
    public var id: UInt32
    /// The segment.
    public var fd: CInt
    public var role: Role

    public init(name: String, id: UInt32, fd: CInt, role: Role) {
      self.name = name
      self.id = id
      self.fd = fd
      self.role = role
    }
  }

  /// What a worker is to a ring. `wake` lists the eventfds of the reader slots, −1 for none.
  public enum Role: Codable, Sendable, Equatable {
    case write(wake: [CInt])
    case read(slot: Int)
    case writeAndRead(slot: Int, wake: [CInt])
    case inspect

    /// The eventfds that a writer needs; empty for others.
    public var wake: [CInt] {
      switch self {
      case .write(let wake), .writeAndRead(_, let wake): wake
      case .read, .inspect: []
      }
    }
  }

  /// Another worker's status page.
  public struct Peer: Codable, Sendable, Equatable {
    public var worker: String
    public var slot: Int
    public var status: CInt

    public init(worker: String, slot: Int, status: CInt) {
      self.worker = worker
      self.slot = slot
      self.status = status
    }
  }

  /// Every descriptor that the manifest names, without repetition.
  public var descriptors: [CInt] {
    var all: Set<CInt> = [status, wake]
    all.formUnion(listeners.values)
    let rings = events + requests + presence + calls + answers + publications + responses
    for grant in rings + [state, positions].compactMap({ $0 }) {
      all.insert(grant.fd)
      all.formUnion(grant.role.wake.filter { $0 >= 0 })
    }
    all.formUnion(peers.map(\.status))
    return all.sorted()
  }
}
