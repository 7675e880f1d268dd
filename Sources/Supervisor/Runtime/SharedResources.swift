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

/// A pair of SOCK_SEQPACKET sockets, by which sockets are passed: from the keeper of a worker's sockets to an heir (the courier), or
/// between the processes at the two seats of a place.
struct SocketPair {
  let first: OwnedDescriptor
  let second: OwnedDescriptor

  init() throws(IPCError) {
    var pair: [CInt] = [-1, -1]
    guard rig_seqpacket_pair(&pair) == 0 else { throw .system(call: "socketpair", errno: errno) }
    first = OwnedDescriptor(Descriptor(owning: pair[0]))
    second = OwnedDescriptor(Descriptor(owning: pair[1]))
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

/// What a seat has of its own, whoever sits there.
private struct Seat {
  let worker: WorkerIdentity
  let page: OwnedPage
  let wake: OwnedDescriptor
  /// nil for those whose connections end with them, as what follows.
  let ledger: OwnedDescriptor?
  /// Its end of the socket pair of its place.
  let handOver: OwnedDescriptor?
  /// Whether writers wait for it.
  var isOccupied: Bool
}

final class SharedResources {
  let supervisorPage: OwnedPage
  /// By the seats' places in `GatewayPlan.seats`.
  private var seats: [Seat] = []
  private let ledgerSizes: LedgerSizes
  /// By the rings' places in `GatewayPlan.rings`, as what follows.
  private let rings: [OwnedDescriptor]
  private let plans: [RingPlan]
  /// Known here, whatever is written over the segments.
  private(set) var epochs: [UInt64]

  init(plan: GatewayPlan) throws(IPCError) {
    supervisorPage = try OwnedPage(name: "supervisor")
    ledgerSizes = plan.ledger
    plans = plan.rings
    epochs = Array(repeating: 0, count: plan.rings.count)
    var rings: [OwnedDescriptor] = []
    for ring in plan.rings {
      rings.append(
        OwnedDescriptor(
          try Ring.create(name: "rig-\(ring.name)", capacity: ring.bytes, readers: ring.readerSlots)))
    }
    self.rings = rings
    var pairs: [Int: SocketPair] = [:]
    for worker in plan.seats {
      var ends: (ledger: OwnedDescriptor, handOver: OwnedDescriptor)?
      if plan.keepsConnections(of: worker) {
        let pair: SocketPair
        if let made = pairs[worker.place] { pair = made } else { pair = try SocketPair() }
        pairs[worker.place] = pair
        let ledger = try Ledger.create(name: "rig-ledger-\(worker.seatName)", plan.ledger)
        ends = (OwnedDescriptor(ledger), worker.seat == 0 ? pair.first : pair.second)
      }
      seats.append(
        Seat(
          worker: worker, page: try OwnedPage(name: worker.seatName),
          wake: OwnedDescriptor(try EventFD.create()), ledger: ends?.ledger, handOver: ends?.handOver,
          isOccupied: worker.seat == 0))
    }
    for index in rings.indices { try register(readersOf: index) }
  }

  func page(ofSeat seat: Int) -> OwnedPage { seats[seat].page }

  /// Formats the ring at a place of the plan anew; its writer must be gone.
  func reset(ring index: Int) throws(IPCError) {
    epochs[index] = try Ring.reset(
      rings[index].rawValue, readers: plans[index].readerSlots, knownEpoch: epochs[index])
    try register(readersOf: index)
  }

  /// Formats the seat's ledger anew if what a dead worker left can't be read. True if that was necessary: whatever its keepers still
  /// hold ends.
  func repairLedger(ofSeat seat: Int) throws(IPCError) -> Bool {
    guard let ledger = seats[seat].ledger else { return false }
    return try Ledger.repair(ledger.rawValue, ledgerSizes)
  }

  /// Nothing of what the last process at the seat had is to be taken over by whoever sits there next.
  func emptyLedger(ofSeat seat: Int) throws(IPCError) {
    if let ledger = seats[seat].ledger { try Ledger.empty(ledger.rawValue, ledgerSizes) }
  }

  // MARK: Who sits where

  /// A process is about to be started at the seat. Of an empty one it reads what is published from now on.
  func occupy(seat: Int) {
    guard !seats[seat].isOccupied else { return }
    seats[seat].isOccupied = true
    register(seat)
  }

  /// Nobody comes after the process that has ended at the seat: no writer waits for it any more.
  func vacate(seat: Int) {
    guard seats[seat].isOccupied else { return }
    seats[seat].isOccupied = false
    seats[seat].page.page.vacate()
    register(seat)
  }

  private func register(_ seat: Int) {
    for (ring, plan) in zip(rings, plans) {
      for reader in plan.readers where reader.worker == seats[seat].worker {
        // A ring that can't be read is formatted anew sooner or later, and its readers registered then.
        try? Ring.setRegistered(ring.rawValue, reader: reader.slot, seats[seat].isOccupied)
      }
    }
  }

  /// Nobody sits in the slots that the table gives to no reader, nor at empty seats.
  private func register(readersOf index: Int) throws(IPCError) {
    let occupied = Set(seats.lazy.filter(\.isOccupied).map(\.worker))
    let slots = Set(plans[index].readers.lazy.filter { occupied.contains($0.worker) }.map(\.slot))
    for slot in 0..<plans[index].readerSlots where !slots.contains(slot) {
      try Ring.setRegistered(rings[index].rawValue, reader: slot, false)
    }
  }

  func table(of plan: GatewayPlan, listeners: Listeners) -> DescriptorTable {
    var table = DescriptorTable(supervisorPage: supervisorPage.descriptor.rawValue)
    for seat in seats {
      table.pages[seat.worker] = seat.page.descriptor.rawValue
      table.wakes[seat.worker] = seat.wake.rawValue
      table.ledgers[seat.worker] = seat.ledger?.rawValue
      table.handOvers[seat.worker] = seat.handOver?.rawValue
    }
    for (ring, descriptor) in zip(plans, rings) { table.rings[ring.id] = descriptor.rawValue }
    for entry in listeners.entries { table.listeners[entry.name] = entry.descriptor }
    return table
  }
}

extension RingPlan {
  fileprivate var readerSlots: Int { max(0, readers.map(\.slot).max() ?? 0) + 1 }
}
