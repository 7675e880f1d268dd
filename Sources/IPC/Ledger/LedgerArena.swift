// Which parts of a ledger's arena are taken. It knows numbers only, never touches the memory, and lives on its owner's heap: an heir
// makes its own of the references that it finds.
//
//   arena    chunks of 64 KiB:  free │ blocks of one size class │ first of a run for a larger block │ …
//
// Sizes and offsets are in units of 16 bytes. A size class is a power of two and three steps up to the next: of a block at
// most a fifth isn't used. Which class, and where in a chunk such a block may begin, follows from its length: so what a
// reference says can be checked.

struct LedgerArena {
  static let unitBytes = 16
  static let chunkBytes = 64 << 10
  private static let chunkUnits = chunkBytes / unitBytes
  /// Empty chunks whose memory is kept for the next block.
  private static let mostDirty = 16

  private enum Use {
    case free
    case blocks(SizeClass)
    case run(chunks: Int)
    case inRun
  }

  private struct Chunk {
    var use = Use.free
    /// A bit for each block.
    var taken: [UInt64] = []
    var freeBlocks = 0
    /// Where it stands among those of its class with room; -1: it has none.
    var place = -1
    /// Its memory may be in use though it is free.
    var isDirty = false
  }

  /// As far as they were ever used.
  private var chunks: [Chunk] = []
  private let chunkCount: Int
  private var withRoom = [[Int]](repeating: [], count: SizeClass.count)
  private var dirtyCount = 0
  private(set) var usedUnits = 0

  /// - Parameter bytes: a multiple of `chunkBytes`.
  init(bytes: Int) { chunkCount = bytes / Self.chunkBytes }

  var usedBytes: Int { usedUnits * Self.unitBytes }

  static func units(_ bytes: Int) -> Int { (bytes + unitBytes - 1) / unitBytes }

  // MARK: Taking

  /// Where a block of so many bytes is, in units; nil: there is no room.
  mutating func allocate(_ bytes: Int) -> Int? {
    let units = Self.units(bytes)
    guard let sizeClass = SizeClass(units) else { return allocateRun(Self.chunksNeeded(units)) }
    if withRoom[sizeClass.index].isEmpty {
      guard let chunk = freeChunks(1) else { return nil }
      assign(chunk, sizeClass)
    }
    guard let chunk = withRoom[sizeClass.index].last,
      let word = chunks[chunk].taken.firstIndex(where: { $0 != .max })
    else { return nil }
    let block = word * 64 + (~chunks[chunk].taken[word]).trailingZeroBitCount
    take(block, of: chunk, sizeClass)
    return chunk * Self.chunkUnits + block * sizeClass.units
  }

  /// Takes the block of so many bytes at an offset, as a reference has it; false: there can be none, or it is taken.
  mutating func claim(_ offset: Int, bytes: Int) -> Bool {
    let units = Self.units(bytes)
    let (chunk, within) = offset.quotientAndRemainder(dividingBy: Self.chunkUnits)
    guard units > 0, chunk < chunkCount else { return false }
    grow(to: chunk + 1)
    guard let sizeClass = SizeClass(units) else {
      return within == 0 && claimRun(chunk, Self.chunksNeeded(units))
    }
    let (block, rest) = within.quotientAndRemainder(dividingBy: sizeClass.units)
    guard rest == 0, block < sizeClass.blocksPerChunk else { return false }
    switch chunks[chunk].use {
    case .free: assign(chunk, sizeClass)
    case .blocks(let found) where found == sizeClass: break
    case .blocks, .run, .inRun: return false
    }
    guard chunks[chunk].taken[block / 64] & 1 << UInt64(block % 64) == 0 else { return false }
    take(block, of: chunk, sizeClass)
    return true
  }

  private mutating func take(_ block: Int, of chunk: Int, _ sizeClass: SizeClass) {
    chunks[chunk].taken[block / 64] |= 1 << UInt64(block % 64)
    chunks[chunk].freeBlocks -= 1
    if chunks[chunk].freeBlocks == 0 { removeFromThoseWithRoom(chunk, sizeClass) }
    usedUnits += sizeClass.units
  }

  private mutating func allocateRun(_ count: Int) -> Int? {
    guard let chunk = freeChunks(count) else { return nil }
    return claimRun(chunk, count) ? chunk * Self.chunkUnits : nil
  }

  private mutating func claimRun(_ first: Int, _ count: Int) -> Bool {
    guard count <= chunkCount - first else { return false }
    grow(to: first + count)
    guard chunks[first..<first + count].allSatisfy({ if case .free = $0.use { true } else { false } }) else {
      return false
    }
    for chunk in first..<first + count { use(chunk, chunk == first ? .run(chunks: count) : .inRun) }
    usedUnits += count * Self.chunkUnits
    return true
  }

  /// The first of so many free chunks in a row; nil: there aren't so many.
  private mutating func freeChunks(_ count: Int) -> Int? {
    var inRow = 0
    for chunk in chunks.indices {
      if case .free = chunks[chunk].use { inRow += 1 } else { inRow = 0 }
      if inRow == count { return chunk + 1 - count }
    }
    let first = chunks.count - inRow
    guard count <= chunkCount - first else { return nil }
    grow(to: first + count)
    return first
  }

  private mutating func assign(_ chunk: Int, _ sizeClass: SizeClass) {
    use(chunk, .blocks(sizeClass))
    let blocks = sizeClass.blocksPerChunk
    chunks[chunk].freeBlocks = blocks
    chunks[chunk].taken = Array(repeating: 0, count: (blocks + 63) / 64)
    // Those that aren't there are taken.
    if blocks % 64 > 0 { chunks[chunk].taken[blocks / 64] = .max << UInt64(blocks % 64) }
    addToThoseWithRoom(chunk, sizeClass)
  }

  private mutating func use(_ chunk: Int, _ use: Use) {
    chunks[chunk].use = use
    if chunks[chunk].isDirty {
      chunks[chunk].isDirty = false
      dirtyCount -= 1
    }
  }

  private mutating func grow(to count: Int) {
    while chunks.count < count { chunks.append(Chunk()) }
  }

  private static func chunksNeeded(_ units: Int) -> Int { (units + chunkUnits - 1) / chunkUnits }

  // MARK: Giving back

  /// Frees a block that `allocate` gave or `claim` took. What of the arena's memory should be given back to the kernel, in bytes.
  mutating func free(_ offset: Int, bytes: Int) -> Range<Int>? {
    let units = Self.units(bytes)
    let (chunk, within) = offset.quotientAndRemainder(dividingBy: Self.chunkUnits)
    guard chunks.indices.contains(chunk) else { return nil }
    switch chunks[chunk].use {
    case .free, .inRun: return nil
    case .run(let count):
      guard within == 0 else { return nil }
      usedUnits -= count * Self.chunkUnits
      return release(chunk..<chunk + count)
    case .blocks(let sizeClass):
      guard sizeClass == SizeClass(units) else { return nil }
      return free(within / sizeClass.units, of: chunk, sizeClass)
    }
  }

  private mutating func free(_ block: Int, of chunk: Int, _ sizeClass: SizeClass) -> Range<Int>? {
    let bit = 1 << UInt64(block % 64) as UInt64
    guard block < sizeClass.blocksPerChunk, chunks[chunk].taken[block / 64] & bit != 0 else { return nil }
    chunks[chunk].taken[block / 64] &= ~bit
    usedUnits -= sizeClass.units
    if chunks[chunk].freeBlocks == 0 { addToThoseWithRoom(chunk, sizeClass) }
    chunks[chunk].freeBlocks += 1
    guard chunks[chunk].freeBlocks == sizeClass.blocksPerChunk else { return nil }
    removeFromThoseWithRoom(chunk, sizeClass)
    return release(chunk..<chunk + 1)
  }

  private mutating func release(_ freed: Range<Int>) -> Range<Int>? {
    let isDirty = dirtyCount + freed.count <= Self.mostDirty
    for chunk in freed { chunks[chunk] = Chunk(isDirty: isDirty) }
    if isDirty { dirtyCount += freed.count }
    return isDirty ? nil : Self.bytes(freed)
  }

  private static func bytes(_ chunks: Range<Int>) -> Range<Int> {
    chunks.lowerBound * chunkBytes..<chunks.upperBound * chunkBytes
  }

  /// What nobody has claimed, in bytes: a former owner may have used it.
  var unclaimed: [Range<Int>] {
    var ranges: [Range<Int>] = []
    var start: Int?
    for chunk in chunks.indices {
      if case .free = chunks[chunk].use {
        start = start ?? chunk
      } else if let first = start {
        ranges.append(Self.bytes(first..<chunk))
        start = nil
      }
    }
    return ranges + [Self.bytes((start ?? chunks.count)..<chunkCount)]
  }

  private mutating func addToThoseWithRoom(_ chunk: Int, _ sizeClass: SizeClass) {
    chunks[chunk].place = withRoom[sizeClass.index].count
    withRoom[sizeClass.index].append(chunk)
  }

  private mutating func removeFromThoseWithRoom(_ chunk: Int, _ sizeClass: SizeClass) {
    let place = chunks[chunk].place
    guard place >= 0, let last = withRoom[sizeClass.index].popLast() else { return }
    if last != chunk {
      withRoom[sizeClass.index][place] = last
      chunks[last].place = place
    }
    chunks[chunk].place = -1
  }

  /// How blocks that aren't larger than half a chunk are rounded up.
  struct SizeClass: Equatable {
    static let count = 37
    private static let smallest = 4
    private static let largest = 2048

    let index: Int

    /// nil: so many units are more than the largest class has.
    init?(_ units: Int) {
      guard units <= Self.largest else { return nil }
      guard units > Self.smallest else {
        index = 0
        return
      }
      let power = Int.bitWidth - 1 - (units - 1).leadingZeroBitCount
      let step = 1 << (power - 2)
      index = (power - 2) * 4 + (units - 1 << power + step - 1) / step
    }

    var units: Int {
      guard index > 0 else { return Self.smallest }
      let power = (index - 1) / 4 + 2
      return 1 << power + ((index - 1) % 4 + 1) << (power - 2)
    }

    var blocksPerChunk: Int { LedgerArena.chunkUnits / units }
  }
}
