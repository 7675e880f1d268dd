// A ledger in which its dying worker has written what it liked, and ledgers that are none: everything ends in a value or an error.
// An access outside the mapping would hit its guard pages.

import CLinux
import Testing

@testable import IPC
@testable import RingTool

@Suite("16.3 A damaged ledger")
struct LedgerDamageTests {
  @Test(
    "crashes nobody, hangs nobody, and is a ledger again",
    arguments: [11, 12, 13, 14, 15, 16] as [UInt64])
  func random(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    var attached = 0
    for number in 0..<25 {
      let remains = try Self.remains(&random)
      for _ in 0..<4 {
        let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
        let segment = try Vandal(descriptor.rawValue)
        segment.bytes.copyBytes(from: remains.bytes)
        for _ in 0..<Int.random(in: 1...12, using: &random) { Self.damage(segment, &random) }
        guard let heir = try? Ledger(attaching: descriptor.rawValue, incarnation: 2) else { continue }
        attached += 1
        try Self.use(heir, &random, "seed \(seed), case \(number)")
        // Whoever comes then finds nothing but what is right.
        let next = try Ledger(attaching: descriptor.rawValue, incarnation: 3)
        let found = next.inherited()
        try #require(found.allSatisfy { !$0.isMalformed && $0.isKept }, "seed \(seed), case \(number)")
        for entry in found { next.drop(entry.entry) }
        try #require(next.usedBytes == 0)
      }
    }
    #expect(attached > 50)
  }

  @Test("is believed of no block in which a single bit has changed")
  func blocks() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let cold = LedgerCold(written: 1, turn: 2, intent: 3, consumed: 4, waiting: [5, 6, 7], state: [8, 9])
    let entry = try #require(owner.open(.eventStream, socket: (3, 3), cold: cold))
    let segment = try Vandal(descriptor.rawValue)
    let arena = try LedgerLayout(LedgerLife.sizes)[.arena].lowerBound
    // The state is in the first block, of 64 bytes; head and output are behind, in one of 80 bytes and of another chunk.
    let places = Array(arena..<arena + 2) + Array(arena + 65536..<arena + 65536 + 64 + 3)
    for place in places {
      let bit = UInt8(1) << UInt8(place % 8)
      segment.bytes[place] ^= bit
      let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
      let found = try #require(heir.inherited(entry))
      #expect(found.isMalformed && !found.isKept && heir.cold(of: entry) == nil, "byte \(place - arena)")
      segment.bytes[place] ^= bit
    }
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    #expect(heir.cold(of: entry) == cold && heir.inherited(entry)?.isKept == true)
  }

  @Test("is believed of no entry whose owner, kind, socket or blocks can't be")
  func entries() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 4)
    let entry = try #require(
      owner.open(.eventStream, serial: 9, socket: (3, 3), cold: LedgerCold(state: [1])))
    let other = try #require(owner.open(.webSocket, serial: 8, socket: (4, 4), cold: LedgerCold(state: [2])))
    let segment = try Vandal(descriptor.rawValue)
    let start = Int(RIG_LEDGER_PAGE)
    let (cold, next) = (Int(RIG_LEDGER_COLD_AT), MemoryLayout<rig_ledger_entry>.stride)
    let stream = LedgerKind.eventStream.rawValue
    let damages: [(offset: Int, value: UInt64, what: String)] = [
      (0, rig_ledger_state(0, 3, stream, 0), "nobody's"),
      (0, rig_ledger_state(6, 3, stream, 0), "of a process to come"),
      (0, rig_ledger_state(4, 3, 0, 0), "of no kind"),
      (0, rig_ledger_state(4, 3, 200, 0), "of an unknown kind"),
      (0, rig_ledger_state(4, UInt32(RIG_LEDGER_NO_DESCRIPTOR), stream, 0), "a cookie without a socket"),
      (Int(RIG_LEDGER_COOKIE_AT), 0, "a socket without a cookie"),
      (cold, .max, "past the arena"), (cold, segment.word(start + cold) + 1, "longer than it is"),
      (cold, segment.word(start + cold) + 1 << 28, "in the middle of a block"),
      (cold, 1 << 28 | 63, "shorter than a head"),
    ]
    for damage in damages {
      let before = segment.word(start + damage.offset)
      segment.setWord(start + damage.offset, damage.value)
      let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 5)
      let found = try #require(heir.inherited(entry), "\(damage.what)")
      #expect(found.isMalformed && !found.isKept, "\(damage.what)")
      #expect(heir.inherited(other)?.isKept == true, "\(damage.what)")
      segment.setWord(start + damage.offset, before)
    }
    // Two that have the same block: one has it at most.
    segment.setWord(start + next + cold, segment.word(start + cold))
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 5)
    #expect(heir.inherited().map(\.isKept) == [true, false])
    // A number that another process says is in use needn't be.
    #expect(heir.inherited(.none) == nil && heir.inherited(LedgerEntry(rawValue: 5)) == nil)
  }

  @Test("keeps no stream if the plan that was being sent can't be true")
  func plan() throws {
    let layout = try LedgerLayout(LedgerLife.sizes)
    let start = layout[.plan].lowerBound
    for (offset, value) in [
      (0, 7), (Int(RIG_LEDGER_TOUCHED_COUNT_AT), 13), (Int(RIG_LEDGER_SENT_COUNT_AT), 2),
      (Int(RIG_LEDGER_STALLED_COUNT_AT), .max), (Int(RIG_LEDGER_SPILL_COUNT_AT), 65),
      (Int(RIG_LEDGER_LENGTHS_AT), 8193), (Int(RIG_LEDGER_POSITION_COUNT_AT), 257),
    ] as [(Int, UInt64)] {
      let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
      let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
      let stream = try #require(owner.open(.eventStream, socket: (3, 3), cold: LedgerCold(state: [1])))
      let idle = try #require(owner.open(.idle, socket: (4, 4)))
      var fanout = TestFanout(owner.plan, UInt32(truncatingIfNeeded: owner.plan.begin()))
      fanout.add(1, stream, fanout.append([1, 2], 0), 0)
      owner.plan.setBase(0, 0)
      owner.plan.markSending(touched: 1, spills: 0, lengths: [2, 0], positions: [5])
      let segment = try Vandal(descriptor.rawValue)
      segment.setWord(start + offset, value)
      let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
      let work = heir.settleInterrupted()
      #expect(!work.isReadable && work.positions == nil && work.lostCount == 1, "word \(offset)")
      heir.forgetInterrupted()
      #expect(heir.inherited(stream)?.isKept == false && heir.inherited(idle)?.isKept == true)
      let next = try Ledger(attaching: descriptor.rawValue, incarnation: 3).settleInterrupted()
      #expect(next.isReadable && next.lostCount == 0)
    }
  }

  /// What a life of some length leaves, mostly in the middle of something.
  private static func remains(_ random: inout SplitMix) throws -> LedgerLife.Remains {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let life = try LedgerLife(
      descriptor.rawValue, incarnation: 1, after: LedgerOutside(),
      dyingMoment: Int.random(in: 30...150, using: &random), seed: random.next())
    while life.isAlive { try life.step() }
    return try #require(life.remains)
  }

  private static func damage(_ segment: Vandal, _ random: inout SplitMix) {
    let layout = try? LedgerLayout(LedgerLife.sizes)
    let parts: [LedgerLayout.Part] = [
      .entries, .entries, .plan, .plan, .slots, .touched, .spill, .stalled, .intent, .arena, .arena,
    ]
    let part = parts.randomElement(using: &random).flatMap { layout?[$0] } ?? 0..<4096
    // Mostly where something is.
    let within = part.lowerBound..<min(part.upperBound, part.lowerBound + 1024)
    let place = Int.random(in: within, using: &random)
    let harmful: [UInt64] = [
      0, 1, 2, 3, 12, 13, 64, .max, .max - 1, 1 << 63, 1 << 32, 1 << 28 - 1, 0xff_ffff, 4096, 65536,
      UInt64(Int64.max), 0x00ff_ffff_ffff_ffff,
    ]
    switch Int.random(in: 0...25, using: &random) {
    case 0...1: segment.bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    case 2: segment.bytes[place] = UInt8.random(in: 0...255, using: &random)
    case 3...6: segment.setWord(place & ~7, harmful.randomElement(using: &random) ?? 0)
    case 7...9: segment.setWord(place & ~7, segment.word(Int.random(in: within, using: &random) & ~7))
    case 10...24:
      let half = segment.bytes.load(
        fromByteOffset: Int.random(in: within, using: &random) & ~3, as: UInt32.self)
      segment.bytes.storeBytes(of: half, toByteOffset: place & ~3, as: UInt32.self)
    default:
      let header = Int.random(in: 0...Int(RIG_LEDGER_IN_USE_AT), using: &random)
      segment.bytes[header] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    }
  }

  /// As an heir does, and then as an owner.
  private static func use(_ heir: Ledger, _ random: inout SplitMix, _ what: String) throws {
    let work = heir.settleInterrupted()
    try #require(work.positions.map { $0.count <= LedgerPlan.mostPositions } ?? true)
    heir.forgetInterrupted()
    for entry in heir.inherited() {
      let cold = heir.cold(of: entry.entry)
      _ = entry.due(cold)
      guard entry.isKept else {
        heir.drop(entry.entry)
        continue
      }
      // Whether it is the right socket says the cookie: there is one wherever there is a descriptor.
      try #require(entry.owner == 1 && entry.kind != nil, "\(what): \(entry)")
      try #require((entry.descriptor == nil) == (entry.cookie == nil), "\(what): \(entry)")
      heir.adopt(entry.entry, descriptor: entry.descriptor, written: entry.written, consumed: 0)
      // What can't be true may stand where there would have been room.
      guard heir.commit(state: [1, 2, 3], to: entry.entry),
        heir.commit(waiting: [4, 5], written: entry.written, to: entry.entry)
      else {
        heir.close(entry.entry)
        continue
      }
      heir.setKind(.ending, of: entry.entry)
      let after = heir.cold(of: entry.entry)
      try #require(after?.waiting == [4, 5] && after?.state == [1, 2, 3], "\(what): \(entry.entry)")
      try #require(after?.written == entry.written && after?.turn == cold?.turn ?? 0)
    }
    while heir.open(.eventStream, serial: 1, socket: (1, 1), cold: LedgerCold(state: [7])) != nil {}
    // A turn of its own isn't touched by what was there.
    let turn = heir.plan.begin()
    try #require(UInt32(truncatingIfNeeded: turn) != 0)
    try #require((0..<heir.plan.capacity).allSatisfy { heir.plan.slots[$0].turn == 0 })
    heir.plan.end(lengths: [0, 0], spills: 0)
  }
}

@Suite("16.3 A segment that is no ledger")
struct LedgerFormTests {
  @Test("of another magic, version or size is refused, and says so")
  func header() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let segment = try Vandal(descriptor.rawValue)
    func error(_ offset: Int, _ value: UInt64) -> IPCError? {
      let before = segment.word(offset)
      segment.setWord(offset, value)
      defer { segment.setWord(offset, before) }
      do throws(IPCError) {
        _ = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
        return nil
      } catch {
        return error
      }
    }
    #expect(error(0, 1) == .corrupt("ledger magic is 1, expected \(RIG_LEDGER_MAGIC)"))
    #expect(error(8, 2) == .unknownLayout(found: 2, known: 1...1))
    // Every other word of it: a size that isn't the file's, a part that isn't where it must be.
    for offset in stride(from: 16, to: 26 * 8, by: 8) {
      for value in [0, 1, .max, 1 << 40, segment.word(offset) + 1] {
        guard case .corrupt? = error(offset, value) else {
          Issue.record("word \(offset) may be \(value)")
          continue
        }
      }
    }
    #expect(error(Int(RIG_LEDGER_IN_USE_AT), .max) == nil)
  }

  @Test("can't be made or attached to with numbers out of bounds")
  func numbers() throws {
    let changes: [(inout LedgerSizes) -> Void] = [
      { $0.arenaBytes = 65537 }, { $0.entries = 0 }, { $0.entries = 1 << 21 }, { $0.encodings = 9 },
      { $0.bufferBytes = -1 }, { $0.intentBytes = 0 }, { $0.spills = .max },
    ]
    for (number, change) in changes.enumerated() {
      var sizes = LedgerLife.sizes
      change(&sizes)
      let made = try? Ledger.create(name: "test", sizes).take()
      #expect(made == nil, "change \(number)")
    }
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let fd = descriptor.rawValue
    for incarnation in [0, 1 << 24] as [UInt64] {
      #expect(throws: IPCError.self) { try Ledger(attaching: fd, incarnation: incarnation) }
    }
    let page = try StatusPage.create(name: "test")
    let other = page.rawValue
    #expect(throws: IPCError.self) { try Ledger(attaching: other, incarnation: 1) }
  }

  @Test("has the sizes that a worker needs", arguments: [1, 10_000, 1_000_000])
  func sizes(connections: Int) throws {
    let sizes = LedgerSizes(connections: connections, arenaBytes: 10 << 20, largestEventBytes: 1 << 20)
    #expect(sizes.problem == nil)
    #expect(sizes.entries >= min(2 * connections, 1 << 20) && sizes.spills >= sizes.entries)
    #expect(sizes.bufferBytes >= 2 << 20 && sizes.arenaBytes == 10 << 20)
    let descriptor = try Ledger.create(name: "test", sizes)
    let ledger = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    #expect(ledger.sizes == sizes)
  }
}
