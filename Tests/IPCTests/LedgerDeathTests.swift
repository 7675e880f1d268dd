// A worker dies after each of its stores, and between a write to a socket and its note, in traffic of every kind; so does its
// heir. What the kernel has taken and what an heir finds to be due are exactly the bytes of each stream.

import Glibc
import Testing

@testable import IPC
@testable import RingTool

@Suite("16.3 A ledger of a worker that dies")
struct LedgerDeathTests {
  @Test(
    "tells to the byte what each client must still get, whenever that is, through many lives",
    arguments: [(1, 3), (2, 3), (3, 16), (4, 16), (5, 16)] as [(UInt64, Int)])
  func lives(seed: UInt64, arenaChunks: Int) throws {
    var random = SplitMix(seed: seed)
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes(arenaChunks: arenaChunks))
    let segment = try Vandal(descriptor.rawValue)
    var outside = LedgerOutside()
    var moments = 0
    var lossyMoments = 0
    for incarnation in 1...8 as ClosedRange<UInt64> {
      let isLast = incarnation == 8
      let life = try LedgerLife(
        descriptor.rawValue, incarnation: incarnation, after: outside,
        dyingMoment: isLast ? .max : Int.random(in: 1...250, using: &random), seed: random.next())
      try life.takeOver()
      for _ in 0..<(isLast ? 20 : 1000) where life.isAlive { try life.step() }
      if isLast { try life.finish() }
      if let failure = life.failure { throw failure }
      moments += life.moments
      lossyMoments += life.lossyMoments
      guard let remains = life.remains else { continue }
      // What the worker did after its death, it didn't do.
      segment.bytes.copyBytes(from: remains.bytes)
      outside = remains.outside
    }
    #expect(moments > 300)
    // With enough memory everybody is kept, always.
    #expect(arenaChunks < 16 || lossyMoments == 0, "\(lossyMoments) of \(moments)")
  }

  @Test("keeps nobody whose output doesn't fit, and again when it does")
  func full() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let ledger = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let entries = (0..<4).compactMap {
      ledger.open(.eventStream, serial: $0, socket: (CInt($0), $0 + 1), cold: LedgerCold(state: [1]))
    }
    // The states have one chunk of three.
    let large = [UInt8](repeating: 7, count: 60_000)
    #expect(entries.map { ledger.commit(waiting: large, written: 0, to: $0) } == [true, true, false, false])
    #expect(entries.map(ledger.isKept) == [true, true, false, false])
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    #expect(heir.inherited().map(\.isKept) == [true, true, false, false])
    ledger.waitingHasGone(entries[0])
    let again = ledger.commit(waiting: large, written: 0, to: entries[2])
    #expect(again && ledger.isKept(entries[2]))
  }

  @Test("keeps nobody who has more than an entry may have, and again when it is less")
  func bounds() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes(arenaChunks: 16))
    let ledger = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let entry = try #require(ledger.open(.eventStream, socket: (1, 1), cold: LedgerCold(state: [1])))
    func commit(waiting count: Int) -> Bool {
      ledger.commit(waiting: [UInt8](repeating: 7, count: count), written: 0, to: entry)
    }
    #expect(commit(waiting: Ledger.mostWaitingBytes) && ledger.isKept(entry))
    #expect(!commit(waiting: Ledger.mostWaitingBytes + 1) && !ledger.isKept(entry))
    func commit(state count: Int) -> Bool {
      ledger.commit(state: [UInt8](repeating: 7, count: count), to: entry)
    }
    // A commit of the one doesn't say that the other is kept.
    #expect(commit(state: Ledger.mostStateBytes) && !ledger.isKept(entry))
    ledger.waitingHasGone(entry)
    #expect(ledger.isKept(entry))
    #expect(!commit(state: Ledger.mostStateBytes + 1) && !ledger.isKept(entry))
    ledger.waitingHasGone(entry)
    #expect(!ledger.isKept(entry))
    #expect(commit(state: 1) && ledger.isKept(entry))
    let both = [
      LedgerCold(waiting: [UInt8](repeating: 0, count: Ledger.mostWaitingBytes + 1)),
      LedgerCold(state: [UInt8](repeating: 0, count: Ledger.mostStateBytes + 1)),
    ]
    for cold in both {
      #expect(!ledger.commit(cold, to: entry) && !ledger.isKept(entry))
      #expect(ledger.commit(LedgerCold(state: [1]), to: entry) && ledger.isKept(entry))
    }
    ledger.markNotKept(entry)
    #expect(!ledger.isKept(entry))
    #expect(commit(waiting: 0) && ledger.isKept(entry))
    ledger.markStateNotKept(entry)
    #expect(commit(waiting: 0) && !ledger.isKept(entry))
  }

  @Test("takes memory as it is used, and gives it back")
  func memory() throws {
    var sizes = LedgerLife.sizes(arenaChunks: 64)
    (sizes.bufferBytes, sizes.spills) = (8 << 20, 1 << 18)
    let descriptor = try Ledger.create(name: "test", sizes)
    func used() throws -> Int {
      var information = stat()
      try #require(fstat(descriptor.rawValue, &information) == 0)
      return Int(information.st_blocks) * 512
    }
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    // That it is attached to costs nothing but its header.
    try #require(used() <= 8 * 4096)
    let turn = owner.plan.begin()
    for encoding in 0..<2 {
      for offset in stride(from: 0, to: 6 << 20, by: 4096) { owner.plan.buffer(encoding)[offset] = 1 }
    }
    for spill in 0..<sizes.spills { owner.plan.spill[spill] = LedgerSpill(start: 1, end: 2, previous: -1) }
    try #require(used() > 12 << 20)
    owner.plan.end(lengths: [6 << 20, 6 << 20], spills: sizes.spills)
    try #require(used() < 4 << 20)
    let entries = (0..<12).compactMap {
      owner.open(
        .eventStream, serial: $0, socket: (1, 1),
        cold: LedgerCold(state: [UInt8](repeating: 1, count: 100_000)))
    }
    try #require(used() > 4 << 20)
    // An heir gives back all that nobody has noted, and what it closes.
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    _ = heir.settleInterrupted()
    heir.forgetInterrupted()
    #expect(UInt32(truncatingIfNeeded: turn) > 0 && heir.plan.slots[0].turn == 0)
    for entry in entries { heir.drop(entry) }
    try #require(used() < 2 << 20)
  }

  @Test("has room again for all when all have closed, and gives the memory back")
  func reuse() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    var ledger = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    for round in 1...5 as ClosedRange<UInt64> {
      var entries: [LedgerEntry] = []
      while let entry = ledger.open(
        .webSocket, serial: round, socket: (1, 1),
        cold: LedgerCold(state: [UInt8](repeating: 1, count: 100 * Int(round))))
      {
        entries.append(entry)
      }
      #expect(entries.count == LedgerLife.sizes.entries && ledger.openEntries == entries.count)
      #expect(entries.allSatisfy(ledger.isKept))
      // Half of it in the next life.
      for entry in entries[..<6] { ledger.close(entry) }
      ledger = try Ledger(attaching: descriptor.rawValue, incarnation: round + 1)
      #expect(ledger.openEntries == 6)
      #expect(ledger.inherited().map(\.owner) == [UInt32](repeating: UInt32(round), count: 6))
      for entry in entries[6...] { ledger.drop(entry) }
      #expect(ledger.usedBytes == 0 && ledger.openEntries == 0)
    }
  }
}

@Suite("16.3 A ledger's heir")
struct LedgerHeirTests {
  @Test("finds each entry as it was left, and makes it its own by one store")
  func adoption() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let cold = LedgerCold(
      written: 100, turn: 3, intent: 4, consumed: 50, waiting: [1, 2, 3], state: [9, 8])
    let entry = try #require(
      owner.open(.webSocket, serial: 5, socket: (17, 99), written: 100, consumed: 50, cold: cold))
    let session = try #require(owner.open(.session, serial: 6, cold: LedgerCold(state: [1])))
    let untouched = try #require(owner.open(.idle, socket: (18, 100), written: 7, consumed: 8))
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    let found = heir.inherited()
    #expect(found.map(\.entry) == [entry, session, untouched])
    #expect(found.map(\.kind) == [.webSocket, .session, .idle])
    #expect(found.map(\.descriptor) == [17, nil, 18] && found.map(\.cookie) == [99, nil, 100])
    #expect(found.map(\.serial) == [5, 6, 0] && found.map(\.consumed) == [50, 0, 8])
    #expect(found.allSatisfy { $0.isKept && $0.owner == 1 })
    #expect(heir.cold(of: entry) == cold && heir.cold(of: untouched) == nil)
    let (base, bytes) = found[0].due(cold)
    #expect(base == 100 && bytes == [1, 2, 3])
    let none = found[2].due(nil)
    #expect(none.base == 7 && none.bytes.isEmpty)
    var owners: [UInt32] = []
    heir.onStore = {
      let next = try? Ledger(attaching: descriptor.rawValue, incarnation: 3)
      owners.append(next?.inherited(entry)?.owner ?? 0)
    }
    heir.adopt(entry, descriptor: 30, written: 102, consumed: 51)
    heir.onStore = nil
    #expect(owners == [1, 1, 2])
    #expect(heir.inherited().map(\.entry) == [session, untouched])
    let next = try #require(try Ledger(attaching: descriptor.rawValue, incarnation: 3).inherited(entry))
    #expect(next.descriptor == 30 && next.written == 102 && next.consumed == 51 && next.kind == .webSocket)
    let stillDue = next.due(cold)
    #expect(stillDue.base == 100 && stillDue.bytes == [1, 2, 3])
  }

  @Test("is told what the worker was working on")
  func suspects() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    owner.plan.suspect(serial: 7)
    owner.plan.suspect(ring: 0, sequence: 12)
    var heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    let suspect = heir.settleInterrupted().suspect
    #expect(suspect == LedgerSuspect(serial: 7, record: .init(ring: 0, sequence: 12)))
    heir.forgetInterrupted()
    heir = try Ledger(attaching: descriptor.rawValue, incarnation: 3)
    #expect(heir.settleInterrupted().suspect == LedgerSuspect(serial: nil, record: nil))
  }

  @Test("16.8 knows how many died of which record, the last few of them, whatever becomes of the plan")
  func deaths() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    func record(_ number: UInt64) -> LedgerSuspect.Record { .init(ring: .max, sequence: number) }
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    #expect(owner.plan.deaths.isEmpty)
    for _ in 0..<2 { owner.plan.countDeath(of: record(1)) }
    for number in 2..<20 { owner.plan.countDeath(of: record(UInt64(number))) }
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    _ = heir.settleInterrupted()
    heir.forgetInterrupted()
    let deaths = heir.plan.deaths
    #expect(deaths.count == 8)
    #expect(deaths.filter { $0.count == 2 }.map(\.record) == [record(1)])
    #expect(deaths.contains { $0.record == record(19) && $0.count == 1 })
    withExtendedLifetime((owner, heir)) {}
  }

  @Test("changes nothing by attaching")
  func attaching() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let life = try LedgerLife(
      descriptor.rawValue, incarnation: 1, after: LedgerOutside(), dyingMoment: 150, seed: 5)
    while life.isAlive { try life.step() }
    let segment = try Vandal(descriptor.rawValue)
    let before = Array(segment.bytes)
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    for found in heir.inherited() { _ = heir.cold(of: found.entry) }
    #expect(before.elementsEqual(segment.bytes))
  }
}
