// The arena's book-keeping: blocks never overlap, all of it can be used again, and an heir makes the same of what is in use.

import Testing

@testable import IPC
@testable import RingTool

@Suite("16.3 A ledger's arena")
struct LedgerArenaTests {
  private static let chunks = 12

  private struct Block {
    let offset: Int
    let bytes: Int

    var units: Range<Int> { offset..<offset + LedgerArena.units(bytes) }
  }

  @Test(
    "gives out blocks that don't overlap, and an heir claims just these", arguments: [1, 2, 3] as [UInt64])
  func blocks(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    var arena = LedgerArena(bytes: Self.chunks * LedgerArena.chunkBytes)
    var blocks: [Block] = []
    for _ in 0..<3000 {
      let sizes = [1...200, 1...200, 200...5000, 5000...40_000, 40_000...200_000]
      if Int.random(in: 0..<100, using: &random) < 55 {
        let bytes = Int.random(in: sizes.randomElement(using: &random) ?? 1...1, using: &random)
        guard let offset = arena.allocate(bytes) else { continue }
        let block = Block(offset: offset, bytes: bytes)
        try #require(block.units.upperBound <= Self.chunks * LedgerArena.chunkBytes / LedgerArena.unitBytes)
        try #require(!blocks.contains { $0.units.overlaps(block.units) })
        blocks.append(block)
      } else if let index = blocks.indices.randomElement(using: &random) {
        let block = blocks.remove(at: index)
        _ = arena.free(block.offset, bytes: block.bytes)
      }
    }
    var heirs = LedgerArena(bytes: Self.chunks * LedgerArena.chunkBytes)
    for block in blocks.shuffled(using: &random) {
      let isFree = heirs.claim(block.offset, bytes: block.bytes)
      let isFreeStill = heirs.claim(block.offset, bytes: block.bytes)
      try #require(isFree && !isFreeStill)
    }
    #expect(heirs.usedUnits == arena.usedUnits)
    for block in blocks { _ = heirs.free(block.offset, bytes: block.bytes) }
    #expect(heirs.usedUnits == 0)
    // All of it, in one block.
    let all = heirs.allocate(Self.chunks * LedgerArena.chunkBytes)
    let more = heirs.allocate(1)
    #expect(all == 0 && more == nil)
  }

  @Test("refuses what can't be a block of its own")
  func claims() {
    var arena = LedgerArena(bytes: 2 * LedgerArena.chunkBytes)
    let claims: [(offset: Int, bytes: Int, isGranted: Bool, what: String)] = [
      (0, 64, true, "a block"), (2, 64, false, "in the middle of one"),
      (8, 200, false, "of another size in that chunk"), (4096, 70_000, false, "past the end"),
      (4100, 40_000, false, "a run in the middle of a chunk"), (8192, 64, false, "past the last chunk"),
      (4096, 0, false, "nothing"), (4096, 65_536, true, "a run"), (4096, 64, false, "in a run"),
    ]
    for claim in claims {
      let isGranted = arena.claim(claim.offset, bytes: claim.bytes)
      #expect(isGranted == claim.isGranted, "\(claim.what)")
    }
  }

  @Test("gives out again what was given back", arguments: [64, 100, 1000, 30_000, 60_000, 100_000])
  func reuse(bytes: Int) {
    var arena = LedgerArena(bytes: Self.chunks * LedgerArena.chunkBytes)
    var blocks: [Int] = []
    while let offset = arena.allocate(bytes) { blocks.append(offset) }
    for _ in 0..<3 {
      var freed: Set<Int> = []
      for number in stride(from: 0, to: blocks.count, by: 2) {
        _ = arena.free(blocks[number], bytes: bytes)
        freed.insert(blocks[number])
      }
      var again: Set<Int> = []
      while let offset = arena.allocate(bytes) { again.insert(offset) }
      #expect(again == freed)
    }
  }

  @Test("wastes at most a fifth of a block, and gives back the memory of what is empty")
  func thrift() {
    for units in 4...2048 {
      let size = LedgerArena.SizeClass(units)?.units ?? 0
      #expect(size >= units && size * 4 <= units * 5 + 4, "\(units) in \(size)")
    }
    #expect(LedgerArena.SizeClass(2049) == nil)
    var arena = LedgerArena(bytes: 64 * LedgerArena.chunkBytes)
    let blocks = (0..<64).compactMap { _ in arena.allocate(60_000) }
    let more = arena.allocate(60_000)
    #expect(blocks.count == 64 && more == nil)
    let returned = blocks.compactMap { arena.free($0, bytes: 60_000) }
    // Some are kept for the next ones.
    #expect(returned.count == 64 - 16 && returned.allSatisfy { $0.count == LedgerArena.chunkBytes })
    #expect(arena.usedBytes == 0)
  }
}
