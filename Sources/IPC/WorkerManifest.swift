// What the supervisor tells a worker at its birth: who it is, and which descriptors are for what.
//
// JSON in a sealed memfd that the worker inherits; its number is in the environment variable RIG_MANIFEST_FD. JSON,
// because it is read once, must be legible in a debugger, and lets two releases live with each other's additions.
// Reading and writing it: WorkerManifest+Descriptor.

import FoundationEssentials

/// The start-up message of a worker process. All descriptors in it are the worker's own copies.
public struct WorkerManifest: Codable, Sendable, Equatable {
  /// Version of this message. Additions don't change it: whoever doesn't know them passes over them.
  public static let format = 2

  public var format = WorkerManifest.format
  public var worker: WorkerIdentity
  /// Which of the processes this is, from 1, that have served the place in this life of the gateway; 0: it isn't told.
  public var incarnation: UInt64 = 0
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
  /// The rings that the worker holds, in the order of their ids.
  public var rings: [RingGrant]
  /// The status pages of all workers, its own included, and of the supervisor.
  public var peers: [Peer]
  /// The process that the worker must not outlive.
  public var supervisorPid: Int32
  /// Version of the release that the worker belongs to.
  public var release: String

  public init(
    worker: WorkerIdentity, gatewayEpoch: UInt64, tokenKey: Data, settings: Data, status: CInt, wake: CInt,
    listeners: [String: CInt], rings: [RingGrant], peers: [Peer], supervisorPid: Int32, release: String
  ) {
    self.worker = worker
    self.gatewayEpoch = gatewayEpoch
    self.tokenKey = tokenKey
    self.settings = settings
    self.status = status
    self.wake = wake
    self.listeners = listeners
    self.rings = rings
    self.peers = peers
    self.supervisorPid = supervisorPid
    self.release = release
  }

  /// Keys that another release doesn't write have a default here, as far as a worker can do without them; those that this
  /// release doesn't know are passed over. Whatever is added must have a default.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    format = try values.decode(Int.self, forKey: .format)
    worker = try values.decode(WorkerIdentity.self, forKey: .worker)
    incarnation = try values.decodeIfPresent(UInt64.self, forKey: .incarnation) ?? 0
    gatewayEpoch = try values.decode(UInt64.self, forKey: .gatewayEpoch)
    tokenKey = try values.decode(Data.self, forKey: .tokenKey)
    settings = try values.decodeIfPresent(Data.self, forKey: .settings) ?? Data("{}".utf8)
    status = try values.decode(CInt.self, forKey: .status)
    wake = try values.decode(CInt.self, forKey: .wake)
    listeners = try values.decodeIfPresent([String: CInt].self, forKey: .listeners) ?? [:]
    rings = try values.decodeIfPresent([RingGrant].self, forKey: .rings) ?? []
    peers = try values.decodeIfPresent([Peer].self, forKey: .peers) ?? []
    supervisorPid = try values.decode(Int32.self, forKey: .supervisorPid)
    release = try values.decodeIfPresent(String.self, forKey: .release) ?? ""
  }

  /// A worker's status page.
  public struct Peer: Codable, Sendable, Equatable {
    public var worker: WorkerIdentity
    public var status: CInt

    public init(worker: WorkerIdentity, status: CInt) {
      self.worker = worker
      self.status = status
    }
  }

  /// The rings of a purpose that the worker reads, in the order of their ids.
  public func ringsRead(for purpose: RingPurpose) -> [RingGrant] {
    rings.filter { $0.purpose == purpose && $0.slot(of: worker) != nil }
  }

  /// The ring of a purpose that the worker writes; nil: there is none.
  public func ringWritten(for purpose: RingPurpose) -> RingGrant? {
    rings.first { $0.purpose == purpose && $0.writer == worker }
  }

  /// Those of a kind, by place.
  public func peers(of kind: WorkerKind) -> [Peer] {
    peers.filter { $0.worker.kind == kind }.sorted { $0.worker.place < $1.worker.place }
  }

  /// Every descriptor that the manifest names, without repetition.
  public var descriptors: [CInt] {
    var all: Set<CInt> = [status, wake]
    all.formUnion(listeners.values)
    for ring in rings {
      all.insert(ring.fd)
      all.formUnion(ring.readers.compactMap(\.wake))
    }
    all.formUnion(peers.map(\.status))
    return all.sorted()
  }
}
