// What a worker gets at its birth: its manifest, in which every descriptor already has the number that the worker will
// know it by, and the plan by which the descriptors get those numbers. Made from numbers alone; nothing is opened.
//
// Both sides are one walk over the grants, so that no descriptor is passed on that the manifest doesn't name, and none
// is named that isn't passed on.

import FoundationEssentials
import IPC

/// The supervisor's descriptors by what they are for. Owned elsewhere (SharedResources, Listeners).
struct DescriptorTable: Equatable, Sendable {
  /// Status pages and eventfds by worker.
  var pages: [WorkerIdentity: CInt] = [:]
  var wakes: [WorkerIdentity: CInt] = [:]
  /// The supervisor's own status page.
  var supervisorPage: CInt
  /// By ring id.
  var rings: [CInt] = []
  var listeners: [String: CInt] = [:]

  /// The first number above all of them.
  var base: CInt {
    let all = Array(pages.values) + Array(wakes.values) + rings + Array(listeners.values) + [supervisorPage]
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
  /// Everything the manifest names; the descriptor of the manifest itself is to be granted last.
  let descriptors: DescriptorPlan

  /// - Throws: `.invalid` if the table lacks a descriptor that the plan calls for.
  init(
    of worker: WorkerIdentity, in plan: GatewayPlan, table: DescriptorTable, identity: GatewayIdentity
  ) throws(IPCError) {
    var descriptors = DescriptorPlan(base: table.base)
    func grant(_ number: CInt?, _ what: String) throws(IPCError) -> CInt {
      guard let number else { throw .invalid("there is no descriptor of \(what) for worker \(worker.name)") }
      return descriptors.grant(number)
    }

    let status = try grant(table.pages[worker], "the status page")
    let wake = try grant(table.wakes[worker], "the eventfd")
    var listeners: [String: CInt] = [:]
    for name in plan.listeners(of: worker.kind) {
      listeners[name] = try grant(table.listeners[name], "the listener \(name)")
    }

    var events: [WorkerManifest.RingGrant] = []
    var requests: [WorkerManifest.RingGrant] = []
    var state: WorkerManifest.RingGrant?
    var presence: [WorkerManifest.RingGrant] = []
    var calls: [WorkerManifest.RingGrant] = []
    var answers: [WorkerManifest.RingGrant] = []
    var publications: [WorkerManifest.RingGrant] = []
    var responses: [WorkerManifest.RingGrant] = []
    var positions: WorkerManifest.RingGrant?
    for ring in plan.rings {
      guard let use = GatewayPlan.use(of: ring, by: worker) else { continue }
      func wakes() throws(IPCError) -> [CInt] {
        var numbers: [CInt] = []
        for reader in ring.readers {
          numbers.append(try grant(table.wakes[reader], "the eventfd of \(reader.name)"))
        }
        return numbers
      }
      let index = Int(ring.id)
      let segment = try grant(
        table.rings.indices.contains(index) ? table.rings[index] : nil, "ring \(ring.name)")
      let role: WorkerManifest.Role
      switch use {
      case .write: role = .write(wake: try wakes())
      case .read(let slot): role = .read(slot: slot)
      case .writeAndRead(let slot): role = .writeAndRead(slot: slot, wake: try wakes())
      case .inspect: role = .inspect
      }
      let entry = WorkerManifest.RingGrant(name: ring.name, id: ring.id, fd: segment, role: role)
      switch ring.purpose {
      case .events: events.append(entry)
      case .requests: requests.append(entry)
      case .state: state = entry
      case .presence: presence.append(entry)
      case .calls: calls.append(entry)
      case .answers: answers.append(entry)
      case .publications: publications.append(entry)
      case .responses: responses.append(entry)
      case .positions: positions = entry
      }
    }

    var peers: [WorkerManifest.Peer] = []
    for peer in plan.workers {
      let page = try grant(table.pages[peer], "the status page of \(peer.name)")
      peers.append(WorkerManifest.Peer(worker: peer.kind.rawValue, slot: peer.slot, status: page))
    }
    let own = try grant(table.supervisorPage, "the supervisor's status page")
    peers.append(WorkerManifest.Peer(worker: "supervisor", slot: 0, status: own))

    manifest = WorkerManifest(
      worker: worker.kind.rawValue, slot: worker.slot, gatewayEpoch: identity.epoch,
      tokenKey: identity.tokenKey,
      settings: identity.settings, status: status, wake: wake, listeners: listeners, events: events,
      requests: requests, state: state, presence: presence, calls: calls, answers: answers,
      publications: publications, responses: responses, positions: positions, peers: peers,
      supervisorPid: identity.supervisorPid, release: Release.version)
    self.descriptors = descriptors
  }
}
