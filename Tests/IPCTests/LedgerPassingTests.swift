// An entry goes from a living process's ledger to that of the process beside it. Whoever dies at whichever moment, and whatever the
// other does when: the connection has one owner.

import Testing

@testable import IPC
@testable import RingTool

/// Two ledgers, a connection in the first one's, which is being passed; and the process that claims it.
private struct Passing {
  enum IncumbentDoes: CaseIterable { case takesItBack, dies }

  struct Course {
    var incumbentDoes: IncumbentDoes
    /// At which of the claiming process's moments that is; after its end, if it hasn't so many.
    var atMoment: Int
    /// At which the claiming process dies.
    var deathMoment: Int
    /// Whether its heir looks before the incumbent does what it does.
    var heirIsFirst: Bool
  }

  struct End: Equatable {
    var incumbentHasIt = false
    var heirHasIt = false
    var moments = 0
  }

  /// - Parameter kind: without a socket if it is a session.
  static func run(_ course: Course, _ kind: LedgerKind) throws -> End {
    let first = try Ledger.create(name: "test", LedgerLife.sizes)
    let second = try Ledger.create(name: "test", LedgerLife.sizes)
    let segments = [try Vandal(first.rawValue), try Vandal(second.rawValue)]
    let incumbent = try Ledger(attaching: first.rawValue, incarnation: 1)
    let socket: (descriptor: CInt, cookie: UInt64)? = kind == .session ? nil : (17, 99)
    let entry = try #require(
      incumbent.open(kind, serial: 5, socket: socket, cold: LedgerCold(state: [7])))
    incumbent.markPassing(entry, descriptor: socket.map { $0.descriptor + 1 })

    var end = End()
    var hasActed = false
    func act() throws {
      hasActed = true
      switch course.incumbentDoes {
      case .takesItBack: end.incumbentHasIt = incumbent.takeBack(entry)
      case .dies:
        let next = try Ledger(attaching: first.rawValue, incarnation: 3)
        guard next.inherited(entry) != nil else { return }
        end.incumbentHasIt = next.adopt(entry, descriptor: socket?.descriptor, written: 0, consumed: 0)
      }
    }

    let claiming = try Ledger(attaching: second.rawValue, incarnation: 2)
    let sibling = try SiblingLedger(mapping: first.rawValue)
    var remains: [[UInt8]]?
    func moment() {
      guard remains == nil else { return }
      end.moments += 1
      if end.moments == course.atMoment { try? act() }
      if end.moments == course.deathMoment { remains = segments.map { Array($0.bytes) } }
    }
    claiming.onStore = moment
    sibling.onStore = moment
    moment()
    if let found = sibling.entry(entry.rawValue), found.isPassing {
      moment()
      let cold = sibling.cold(of: entry.rawValue)
      moment()
      let own = try #require(
        claiming.open(kind, serial: found.serial, socket: socket, cold: cold, claims: entry.rawValue))
      end.heirHasIt = sibling.claim(found)
      if end.heirHasIt { claiming.claimed(own) } else { claiming.close(own) }
    }

    guard let remains else {
      if !hasActed { try act() }
      return end
    }
    // What it did after its death, it didn't do.
    for (segment, bytes) in zip(segments, remains) { segment.bytes.copyBytes(from: bytes) }
    if !course.heirIsFirst, !hasActed { try act() }
    let heir = try Ledger(attaching: second.rawValue, incarnation: 4)
    let found = heir.inherited().filter(sibling.hasGivenUp)
    try #require(found.count <= 1 && found.allSatisfy { $0.serial == 5 && heir.cold(of: $0.entry) != nil })
    end.heirHasIt = !found.isEmpty
    if !hasActed { try act() }
    return end
  }
}

@Suite("16.6 An entry that is passed")
struct LedgerPassingTests {
  @Test(
    "has one owner, whoever dies when, and whatever the other does",
    arguments: [LedgerKind.eventStream, .webSocket, .session, .idle])
  func oneOwner(kind: LedgerKind) throws {
    let moments = try Passing.run(
      .init(incumbentDoes: .dies, atMoment: .max, deathMoment: .max, heirIsFirst: false), kind
    ).moments
    // Before and after reading, both stores of opening, the claim, and that it is settled.
    try #require(moments >= 7)
    var ends: Set<Bool> = []
    for does in Passing.IncumbentDoes.allCases {
      for at in Array(1...moments) + [.max] {
        for death in Array(1...moments) + [.max] {
          for heirIsFirst in [false, true] {
            let course = Passing.Course(
              incumbentDoes: does, atMoment: at, deathMoment: death, heirIsFirst: heirIsFirst)
            let end = try Passing.run(course, kind)
            #expect(end.incumbentHasIt != end.heirHasIt, "\(course): \(end)")
            ends.insert(end.heirHasIt)
          }
        }
      }
    }
    #expect(ends == [false, true])
  }

  @Test("is left alone, and free only when its owner knows that it has been claimed")
  func freed() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    func open() throws -> LedgerEntry {
      try #require(owner.open(.webSocket, serial: 5, socket: (17, 99), cold: LedgerCold(state: [7])))
    }
    let entry = try open()
    owner.markPassing(entry, descriptor: 20)
    let sibling = try SiblingLedger(mapping: descriptor.rawValue)
    let found = try #require(sibling.entry(entry.rawValue))
    #expect(found.isPassing && found.isKept && found.descriptor == 20 && found.cookie == 99)
    #expect(sibling.has(cookie: 99) && !sibling.has(cookie: 98))
    #expect(sibling.cold(of: entry.rawValue) == LedgerCold(state: [7]))
    let (used, open1) = (owner.usedBytes, owner.openEntries)
    #expect(sibling.claim(found) && !sibling.claim(found) && sibling.entry(entry.rawValue) == nil)
    // Neither its number nor its memory is given out again before.
    let next = try open()
    #expect(next != entry && owner.openEntries == open1 + 1 && owner.usedBytes == 2 * used)
    let (isOurs, isOursStill) = (owner.takeBack(entry), owner.takeBack(entry))
    #expect(!isOurs && !isOursStill && owner.usedBytes == used)
    let third = try open()
    #expect(third == entry)
    // The claim was of the entry that it was.
    owner.markPassing(third, descriptor: 21)
    #expect(!sibling.claim(found))
    owner.close(third)
    #expect(sibling.entry(third.rawValue) == nil && owner.openEntries == 1)
    // Closing it is nothing if it has been claimed.
    owner.markPassing(next, descriptor: 22)
    #expect(sibling.claim(try #require(sibling.entry(next.rawValue))))
    owner.close(next)
    #expect(owner.openEntries == 0 && owner.usedBytes == 0)
  }

  @Test("of a process that died is free for its heir when it was claimed before that came to it")
  func claimedFromHeir() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let entries = (0..<3).compactMap {
      owner.open(.eventStream, serial: $0, socket: (CInt($0), $0 + 1), cold: LedgerCold(state: [7]))
    }
    for entry in entries { owner.markPassing(entry, descriptor: 9) }
    let sibling = try SiblingLedger(mapping: descriptor.rawValue)
    let heir = try Ledger(attaching: descriptor.rawValue, incarnation: 2)
    #expect(heir.inherited().map(\.isPassing) == [true, true, true])
    let found = try entries.map { try #require(sibling.entry($0.rawValue)) }
    #expect(sibling.claim(found[0]))
    let isAdopted = entries.map { heir.adopt($0, descriptor: 30, written: 0, consumed: 0) }
    #expect(isAdopted == [false, true, true] && heir.openEntries == 2)
    #expect(!sibling.claim(found[1]) && heir.inherited().isEmpty)
    // What doesn't concern the passing leaves it as it is.
    heir.markPassing(entries[1], descriptor: 31)
    heir.markNotKept(entries[1])
    let marked = try #require(sibling.entry(entries[1].rawValue))
    #expect(marked.isPassing && !marked.isKept)
    let isOurs = heir.takeBack(entries[1])
    #expect(isOurs && sibling.entry(entries[1].rawValue)?.isPassing == false)
  }

  @Test("isn't believed anything that can't be true")
  func damage() throws {
    let descriptor = try Ledger.create(name: "test", LedgerLife.sizes)
    let owner = try Ledger(attaching: descriptor.rawValue, incarnation: 1)
    let entry = try #require(
      owner.open(.webSocket, serial: 5, socket: (17, 99), cold: LedgerCold(state: [7])))
    owner.markPassing(entry, descriptor: 20)
    let segment = try Vandal(descriptor.rawValue)
    let sibling = try SiblingLedger(mapping: descriptor.rawValue)
    #expect(sibling.entry(1) == nil && sibling.entry(.max) == nil && sibling.cold(of: .max) == nil)
    let before = Array(segment.bytes)
    var random = SplitMix(seed: 11)
    for _ in 0..<2_000 {
      segment.bytes.copyBytes(from: before)
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        // Half of it hits the entry or its count.
        let isNear = Bool.random(using: &random)
        let words = isNear ? 256 / 8..<4096 / 8 + 8 : 0..<segment.bytes.count / 8
        let at = Int.random(in: words, using: &random) * 8
        segment.setWord(at, random.next())
      }
      guard let found = sibling.entry(entry.rawValue) else { continue }
      if let cold = sibling.cold(of: entry.rawValue) { #expect(cold.state == [7]) }
      _ = sibling.hasGivenUp(found)
      #expect(sibling.claim(found) == found.isPassing)
    }
  }
}
