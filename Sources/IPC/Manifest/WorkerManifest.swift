// What the supervisor tells a worker at its birth: who it is, and which descriptors are for what.
//
// JSON in a sealed memfd that the worker inherits; its number is in the environment variable RIG_MANIFEST_FD. JSON,
// because it is read once, must be legible in a debugger, and lets two releases live with each other's additions.

import CLinux
import FoundationEssentials
import Glibc

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
  public var settings: Data
  public var status: CInt
  public var wake: CInt
  /// Listening sockets by name ("inbound", "management").
  public var listeners: [String: CInt]
  /// The rings that the worker holds, in the order of their ids.
  public var rings: [RingGrant]
  /// The status pages of all workers, its own included, and of the supervisor.
  public var peers: [Peer]
  /// The process that the worker must not outlive.
  public var supervisorPid: Int32
  public var release: String
  /// The ledger of the worker's place; nil: its connections end with it.
  public var ledger: CInt?
  /// Where its keeper passes its sockets on, when it has died; nil: it has no keeper.
  public var courier: CInt?
  /// Its dead predecessors that may have left connections: the last one, and those before whose keepers still live.
  public var inheritance: [Inheritance] = []
  /// Its end of the socket pair by which the processes at the two seats of its place hand connections over; both ends stay open for
  /// as long as the supervisor lives. nil: nothing is handed over.
  public var handOver: CInt?
  /// The ledger of the other seat of its place.
  public var siblingLedger: CInt?
  /// The process before it at its seat died while it was retiring: it takes no new clients, and hands over what that one has left.
  public var isRetiring = false
  /// The incarnation of the process at the other seat that this one takes the place's connections over from, while it lives; nil: this
  /// one begins with nobody, or with what dead ones have left.
  public var predecessor: UInt64?
  /// The incarnation of the process at the other seat that is to take over from this one, if it lived before this one did.
  public var successor: UInt64?

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
    ledger = try values.decodeIfPresent(CInt.self, forKey: .ledger)
    courier = try values.decodeIfPresent(CInt.self, forKey: .courier)
    inheritance = try values.decodeIfPresent([Inheritance].self, forKey: .inheritance) ?? []
    handOver = try values.decodeIfPresent(CInt.self, forKey: .handOver)
    siblingLedger = try values.decodeIfPresent(CInt.self, forKey: .siblingLedger)
    isRetiring = try values.decodeIfPresent(Bool.self, forKey: .isRetiring) ?? false
    predecessor = try values.decodeIfPresent(UInt64.self, forKey: .predecessor)
    successor = try values.decodeIfPresent(UInt64.self, forKey: .successor)
  }

  public struct Peer: Codable, Sendable, Equatable {
    public var worker: WorkerIdentity
    public var status: CInt

    public init(worker: WorkerIdentity, status: CInt) {
      self.worker = worker
      self.status = status
    }
  }

  /// What a process of the place has left when it died.
  public struct Inheritance: Codable, Sendable, Equatable {
    /// Its entries in the ledger name it.
    public var incarnation: UInt64
    /// Where its keeper passes its sockets on; nil: it has gone, and they with it.
    public var courier: CInt?
    public var cause: Cause

    /// How it ended. Another release may know others.
    public struct Cause: RawRepresentable, Codable, Sendable, Hashable {
      public let rawValue: String

      public init(rawValue: String) { self.rawValue = rawValue }

      /// SIGKILL from outside: by somebody, or for lack of memory.
      public static let killed = Cause(rawValue: "killed")
      /// Any other signal.
      public static let fault = Cause(rawValue: "fault")
      /// By itself.
      public static let exit = Cause(rawValue: "exit")
      /// By the supervisor: its heartbeat had stopped, or it wasn't ready in time.
      public static let hung = Cause(rawValue: "hung")
      /// By the supervisor: it had written what makes no sense.
      public static let corruptRing = Cause(rawValue: "corrupt_ring")
    }

    public init(incarnation: UInt64, courier: CInt?, cause: Cause) {
      self.incarnation = incarnation
      self.courier = courier
      self.cause = cause
    }

    /// See `WorkerManifest.init(from:)`.
    public init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      incarnation = try values.decode(UInt64.self, forKey: .incarnation)
      courier = try values.decodeIfPresent(CInt.self, forKey: .courier)
      cause = try values.decodeIfPresent(Cause.self, forKey: .cause) ?? .killed
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

  public func peers(of kind: WorkerKind) -> [Peer] {
    peers.filter { $0.worker.kind == kind }.sorted { $0.worker.number < $1.worker.number }
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
    all.formUnion([ledger, courier, handOver, siblingLedger].compactMap(\.self))
    all.formUnion(inheritance.compactMap(\.courier))
    return all.sorted()
  }

  // How a manifest gets from the supervisor to a worker: through a memfd sealed against every change.

  /// The environment variable that holds the descriptor's number.
  public static let environmentName = "RIG_MANIFEST_FD"
  /// More than a gateway with 31 places of connection workers and 64 proxy workers needs: its ring table alone takes 800 KB.
  public static let maximumBytes = 4 << 20

  /// Writes `manifest` into a memfd and seals it. The descriptor is close-on-exec: pass it on by name.
  public static func write(_ manifest: WorkerManifest) throws(IPCError) -> Descriptor {
    let json: Data
    do {
      json = try JSONEncoder().encode(manifest)
    } catch {
      throw .invalid("manifest of \(manifest.worker.name) can't be encoded: \(error)")
    }
    guard json.count <= maximumBytes else { throw .tooLarge(bytes: json.count, limit: maximumBytes) }
    let descriptor = try SharedMemory.unsealed(name: "rig-manifest")
    try writeAll(json, to: descriptor.rawValue)
    try SharedMemory.seal(descriptor.rawValue, SharedMemory.sizeSeals | CInt(RIG_SEAL_WRITE))
    return descriptor
  }

  /// Reads the manifest that this process has inherited, closes its descriptor, removes the environment variable,
  /// and sets close-on-exec on every descriptor that it names. To be called once, before there are other threads.
  public static func inherited() throws(IPCError) -> WorkerManifest {
    guard let text = getenv(environmentName).map({ String(cString: $0) }) else {
      throw .invalid("\(environmentName) is not set: a worker is started by the supervisor only")
    }
    guard let number = CInt(text), number > 2 else {
      throw .invalid("\(environmentName) is \"\(text)\", expected the number of an inherited descriptor")
    }
    unsetenv(environmentName)
    return try inherited(number)
  }

  /// The same for a process that was told the number otherwise.
  public static func inherited(_ number: CInt) throws(IPCError) -> WorkerManifest {
    let manifest = try read(number)
    close(number)
    for descriptor in manifest.descriptors {
      guard descriptor > 2, rig_set_close_on_exec(descriptor) == 0 else {
        throw .invalid("the manifest names descriptor \(descriptor), which this process has not inherited")
      }
    }
    return manifest
  }

  static func read(_ fd: CInt) throws(IPCError) -> WorkerManifest {
    try SharedMemory.requireSeals(of: fd, SharedMemory.sizeSeals | CInt(RIG_SEAL_WRITE))
    let size = try SharedMemory.size(of: fd)
    guard size <= maximumBytes else { throw .tooLarge(bytes: size, limit: maximumBytes) }
    var json = [UInt8](repeating: 0, count: size)
    let read = json.withUnsafeMutableBytes { pread(fd, $0.baseAddress, size, 0) }
    guard read == size else { throw .system(call: "pread", errno: errno) }
    // The format first: a manifest of another one may have nothing else in common with this one.
    let format = try decode(Format.self, json).format
    let known = UInt64(WorkerManifest.format)
    guard format == WorkerManifest.format else {
      throw .unknownLayout(found: UInt64(clamping: format), known: known...known)
    }
    return try decode(WorkerManifest.self, json)
  }

  private struct Format: Decodable {
    var format: Int
  }

  private static func decode<Value: Decodable>(_ type: Value.Type, _ json: [UInt8]) throws(IPCError) -> Value
  {
    do {
      return try JSONDecoder().decode(type, from: Data(json))
    } catch {
      throw .invalid("the manifest can't be decoded: \(error)")
    }
  }

  private static func writeAll(_ data: Data, to fd: CInt) throws(IPCError) {
    let bytes = [UInt8](data)
    var written = 0
    while written < bytes.count {
      let count = bytes.withUnsafeBytes { buffer -> Int in
        guard let base = buffer.baseAddress else { return 0 }
        return Glibc.write(fd, base + written, buffer.count - written)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw .system(call: "write", errno: errno) }
      written += count
    }
  }
}
