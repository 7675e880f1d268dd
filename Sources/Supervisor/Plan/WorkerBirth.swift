// What a worker gets at its birth: its manifest, in which every descriptor already has the number that the worker will
// know it by, and the plan by which the descriptors get those numbers. Made from numbers alone; nothing is opened.
//
// Both sides are one walk over the grants, so that no descriptor is passed on that the manifest doesn't name, and none
// is named that isn't passed on.

import FoundationEssentials
import IPC

/// The supervisor's descriptors by what they are for. Owned elsewhere (SharedResources, Listeners).
struct DescriptorTable: Equatable, Sendable {
  /// Status pages and eventfds by seat.
  var pages: [WorkerIdentity: CInt] = [:]
  var wakes: [WorkerIdentity: CInt] = [:]
  var supervisorPage: CInt
  /// By id.
  var rings: [UInt32: CInt] = [:]
  var ledgers: [WorkerIdentity: CInt] = [:]
  /// The seats' ends of the socket pairs of their places.
  var handOvers: [WorkerIdentity: CInt] = [:]
  var listeners: [String: CInt] = [:]

  /// The first number above all of them.
  var base: CInt {
    var all = [supervisorPage]
    for numbers in [
      Array(pages.values), Array(wakes.values), Array(rings.values), Array(ledgers.values),
      Array(handOvers.values), Array(listeners.values),
    ] {
      all += numbers
    }
    return (all.max() ?? 2) + 1
  }
}

/// What is the same for all workers of one life of the gateway.
struct GatewayIdentity: Sendable {
  /// Random, below 2^48: a cursor has six bytes for it.
  let epoch: UInt64
  let tokenKey: Data
  /// As the module Settings encodes them; holds secrets.
  let settings: Data
  let supervisorPid: Int32

  static let epochBits: UInt64 = 48
  static let tokenKeyBytes = 32
}

struct WorkerBirth {
  let manifest: WorkerManifest
  /// Everything the manifest names, but for what is opened for each process: couriers, and the manifest itself.
  let descriptors: DescriptorPlan

  /// - Throws: `.invalid` if the table lacks a descriptor that the plan calls for.
  init(
    of worker: WorkerIdentity, in plan: GatewayPlan, table: DescriptorTable, identity: GatewayIdentity
  ) throws(IPCError) {
    var descriptors = DescriptorPlan(base: table.base)
    func grant(_ number: CInt?, _ what: String) throws(IPCError) -> CInt {
      guard let number else {
        throw .invalid("there is no descriptor of \(what) for worker \(worker.seatName)")
      }
      return descriptors.grant(number)
    }

    let status = try grant(table.pages[worker], "the status page")
    let wake = try grant(table.wakes[worker], "the eventfd")
    var listeners: [String: CInt] = [:]
    for name in plan.listeners(of: worker.kind) {
      listeners[name] = try grant(table.listeners[name], "the listener \(name)")
    }

    var rings: [RingGrant] = []
    for ring in plan.rings where ring.isHeld(by: worker) {
      var readers: [RingGrant.Reader] = []
      for reader in ring.readers {
        let eventfd =
          try ring.writer == worker
          ? grant(table.wakes[reader.worker], "the eventfd of \(reader.worker.seatName)") : nil
        readers.append(RingGrant.Reader(reader.worker, slot: reader.slot, wake: eventfd))
      }
      rings.append(
        RingGrant(
          id: ring.id, purpose: ring.purpose, writer: ring.writer, readers: readers,
          cursorPosition: ring.cursorPosition, fd: try grant(table.rings[ring.id], "ring \(ring.name)")))
    }

    var peers: [WorkerManifest.Peer] = []
    for peer in plan.seats {
      let page = try grant(table.pages[peer], "the status page of \(peer.seatName)")
      peers.append(WorkerManifest.Peer(worker: peer, status: page))
    }
    let own = try grant(table.supervisorPage, "the supervisor's status page")
    peers.append(WorkerManifest.Peer(worker: .supervisor, status: own))

    var manifest = WorkerManifest(
      worker: worker, gatewayEpoch: identity.epoch, tokenKey: identity.tokenKey,
      settings: identity.settings, status: status, wake: wake, listeners: listeners, rings: rings,
      peers: peers,
      supervisorPid: identity.supervisorPid, release: Release.version)
    if plan.keepsConnections(of: worker), let sibling = worker.sibling {
      manifest.ledger = try grant(table.ledgers[worker], "the ledger")
      manifest.siblingLedger = try grant(table.ledgers[sibling], "the ledger of \(sibling.seatName)")
      manifest.handOver = try grant(table.handOvers[worker], "the socket for handing over")
    }
    self.manifest = manifest
    self.descriptors = descriptors
  }
}

// Which descriptors a child gets, under which numbers. Everything else is close-on-exec and stays behind.
//
// The child's numbers begin above every descriptor of the supervisor that is handed out, so that no dup2 overwrites
// the source of a later one:
//
//   supervisor  3 … base-1      what is handed out
//   child       base …          in the order of the grants, but for what is opened for one process (see `grantFresh`)

/// Numbers of the supervisor (`sources`) and, at the same places, those that the child knows them by (`targets`).
struct DescriptorPlan: Equatable, Sendable {
  let base: CInt
  private(set) var sources: [CInt] = []
  private(set) var targets: [CInt] = []

  /// - Parameter base: above every descriptor that will be granted.
  init(base: CInt) {
    self.base = base
  }

  /// The child's number for the supervisor's descriptor `source`; the same again for a repeated grant.
  mutating func grant(_ source: CInt) -> CInt {
    if let index = sources.firstIndex(of: source) { return targets[index] }
    let target = base + CInt(targets.count)
    sources.append(source)
    targets.append(target)
    return target
  }

  /// The same for descriptors that are opened for one process, and may have any numbers, even those of targets: they are copied
  /// before anything can overwrite them. To be called after all grants. Returns the child's numbers.
  mutating func grantFresh(_ fresh: [CInt]) -> [CInt] {
    // Above every other number: none is overwritten, and dup2 onto itself would leave it close-on-exec.
    let first = ((targets + sources + fresh).max() ?? base) + 1
    let numbers = fresh.indices.map { first + CInt($0) }
    sources.insert(contentsOf: fresh, at: 0)
    targets.insert(contentsOf: numbers, at: 0)
    return numbers
  }
}
