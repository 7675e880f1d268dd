// The shared memory and eventfds of the gateway: made once, before the first worker, and owned for as long as the
// supervisor lives. Workers come and go on them.

import CLinux
import Glibc
import IPC

final class OwnedDescriptor {
  private let descriptor: Descriptor

  init(_ descriptor: consuming Descriptor) {
    self.descriptor = descriptor
  }

  var rawValue: CInt { descriptor.rawValue }
}

/// The two ends of a courier, by which the keeper of a worker's sockets passes them to an heir.
struct CourierPair {
  let keeperEnd: OwnedDescriptor
  let heirEnd: OwnedDescriptor

  init() throws(IPCError) {
    var pair: [CInt] = [-1, -1]
    guard rig_seqpacket_pair(&pair) == 0 else { throw .system(call: "socketpair", errno: errno) }
    keeperEnd = OwnedDescriptor(Descriptor(owning: pair[0]))
    heirEnd = OwnedDescriptor(Descriptor(owning: pair[1]))
  }
}

/// A status page and this process's mapping of it.
final class OwnedPage {
  let descriptor: OwnedDescriptor
  let page: StatusPage

  init(name: String) throws(IPCError) {
    descriptor = OwnedDescriptor(try StatusPage.create(name: "rig-status-\(name)"))
    page = try StatusPage(attaching: descriptor.rawValue)
  }

  /// Formats the page anew if what a dead worker left on it can't be read. True if that was necessary.
  func repair() throws(IPCError) -> Bool {
    do {
      _ = try StatusPage(attaching: descriptor.rawValue)
      return false
    } catch .corrupt, .unknownLayout {
      try StatusPage.reset(descriptor.rawValue)
      return true
    }
  }
}

final class SharedResources {
  let supervisorPage: OwnedPage
  /// By the workers' places in `GatewayPlan.workers`.
  let pages: [OwnedPage]
  private let wakes: [OwnedDescriptor]
  /// By the workers' places too; nil for those without one.
  private let ledgers: [OwnedDescriptor?]
  private let ledgerSizes: LedgerSizes
  /// By the rings' places in `GatewayPlan.rings`, as what follows.
  private let rings: [OwnedDescriptor]
  private let plans: [RingPlan]
  /// Known here, whatever is written over the segments.
  private(set) var epochs: [UInt64]

  init(plan: GatewayPlan) throws(IPCError) {
    supervisorPage = try OwnedPage(name: "supervisor")
    var pages: [OwnedPage] = []
    var wakes: [OwnedDescriptor] = []
    var ledgers: [OwnedDescriptor?] = []
    for worker in plan.workers {
      pages.append(try OwnedPage(name: worker.name))
      wakes.append(OwnedDescriptor(try EventFD.create()))
      let hasLedger = plan.keepsConnections && worker.kind == .connections
      ledgers.append(
        hasLedger
          ? OwnedDescriptor(try Ledger.create(name: "rig-ledger-\(worker.name)", plan.ledger)) : nil)
    }
    var rings: [OwnedDescriptor] = []
    for ring in plan.rings {
      let descriptor = try Ring.create(
        name: "rig-\(ring.name)", capacity: ring.bytes, readers: ring.readerSlots)
      try Self.vacate(descriptor.rawValue, ring)
      rings.append(OwnedDescriptor(descriptor))
    }
    self.pages = pages
    self.wakes = wakes
    self.ledgers = ledgers
    ledgerSizes = plan.ledger
    self.rings = rings
    plans = plan.rings
    epochs = Array(repeating: 0, count: rings.count)
  }

  /// Formats the ring at a place of the plan anew; its writer must be gone.
  func reset(ring index: Int) throws(IPCError) {
    epochs[index] = try Ring.reset(
      rings[index].rawValue, readers: plans[index].readerSlots, knownEpoch: epochs[index])
    try Self.vacate(rings[index].rawValue, plans[index])
  }

  /// Formats the ledger of the worker with this place anew if what a dead one left can't be read. True if that was necessary: whatever
  /// its keepers still hold ends.
  func repairLedger(ofWorker place: Int) throws(IPCError) -> Bool {
    guard let ledger = ledgers[place] else { return false }
    return try Ledger.repair(ledger.rawValue, ledgerSizes)
  }

  /// Nobody sits in the slots that the table gives to no reader: the writer waits for nobody there.
  private static func vacate(_ ring: CInt, _ plan: RingPlan) throws(IPCError) {
    for slot in 0..<plan.readerSlots where !plan.readers.contains(where: { $0.slot == slot }) {
      try Ring.setRegistered(ring, reader: slot, false)
    }
  }

  func table(of plan: GatewayPlan, listeners: Listeners) -> DescriptorTable {
    var table = DescriptorTable(supervisorPage: supervisorPage.descriptor.rawValue)
    for (index, worker) in plan.workers.enumerated() {
      table.pages[worker] = pages[index].descriptor.rawValue
      table.wakes[worker] = wakes[index].rawValue
      table.ledgers[worker] = ledgers[index]?.rawValue
    }
    for (ring, descriptor) in zip(plans, rings) { table.rings[ring.id] = descriptor.rawValue }
    for entry in listeners.entries { table.listeners[entry.name] = entry.descriptor }
    return table
  }
}

extension RingPlan {
  fileprivate var readerSlots: Int { max(0, readers.map(\.slot).max() ?? 0) + 1 }
}
