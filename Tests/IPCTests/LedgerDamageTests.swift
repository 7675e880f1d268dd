// A ledger in which its dying worker has written what it liked, and ledgers that are none: everything ends in a value or an error.
// An access outside the mapping would hit its guard pages.

import CLinux
import Testing

@testable import IPC
@testable import RingTool

@Suite("16.1 A damaged ledger")
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
    switch Int.random(in: 0..<6, using: &random) {
    case 0: segment.bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    case 1: segment.bytes[place] = UInt8.random(in: 0...255, using: &random)
    case 2: segment.setWord(place & ~7, harmful.randomElement(using: &random) ?? 0)
    case 3: segment.setWord(place & ~7, segment.word(Int.random(in: within, using: &random) & ~7))
    case 4:
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
      heir.commit(state: [1, 2, 3], to: entry.entry)
      heir.commit(waiting: [4, 5], written: entry.written, to: entry.entry)
      heir.setKind(.ending, of: entry.entry)
      try #require(
        heir.cold(of: entry.entry)
          == LedgerCold(
            written: entry.written, turn: cold?.turn ?? 0, intent: cold?.intent ?? 0,
            consumed: cold?.consumed ?? 0, waiting: [4, 5], state: [1, 2, 3]), "\(what): \(entry)")
    }
    while heir.open(.eventStream, serial: 1, socket: (1, 1), cold: LedgerCold(state: [7])) != nil {}
    // A turn of its own isn't touched by what was there.
    let turn = heir.plan.begin()
    try #require(UInt32(truncatingIfNeeded: turn) != 0)
    try #require((0..<heir.plan.capacity).allSatisfy { heir.plan.slots[$0].turn == 0 })
    heir.plan.end(lengths: [0, 0], spills: 0)
  }
}

@Suite("16.1 A segment that is no ledger")
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
