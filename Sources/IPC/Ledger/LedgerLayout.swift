// How large a ledger's parts are, where they lie, and the mapping of one whose header has been checked.
//
//   header │ entries │ plan │ slots │ touched │ spill │ stalled │ buffers │ intent │ arena          (see CLinux/ledger.h)
//
// Where a part lies follows from the sizes, so whoever attaches computes it anew and believes the header nothing but them.

import CLinux
import Glibc

/// How much a ledger has room for. Memory is taken by what is used.
public struct LedgerSizes: Equatable, Sendable {
  /// Entries, and connections that may take part in a turn: indices are below.
  public var entries: Int
  /// Stretches of a turn that don't touch the ones before.
  public var spills: Int
  /// Buffers of a turn, 1 to 8.
  public var encodings: Int
  /// Bytes in each of them.
  public var bufferBytes: Int
  /// Longest piece that is noted before it is sent.
  public var intentBytes: Int
  /// For everything that is noted of connections but their entries.
  public var arenaBytes: Int

  public init(
    entries: Int, spills: Int, encodings: Int, bufferBytes: Int, intentBytes: Int, arenaBytes: Int
  ) {
    self.entries = entries
    self.spills = spills
    self.encodings = encodings
    self.bufferBytes = bufferBytes
    self.intentBytes = intentBytes
    self.arenaBytes = arenaBytes
  }

  static let mostEntries = 1 << 20
  private static let fewestEntries = 1 << 17
  static let mostEncodings = Int(RIG_LEDGER_ENCODINGS)
  static let arenaUnit = LedgerArena.chunkBytes

  /// For a worker with so many connections.
  ///
  /// - Parameters:
  ///   - connections: open event streams, WebSockets and sessions at most; there is room for as many sockets of other kinds.
  ///   - arenaBytes: rounded down to 64 KiB.
  ///   - largestEventBytes: of one event as it stands in a ring.
  ///   - turnBytes: of events in one turn, when another one may still be taken in.
  public init(connections: Int, arenaBytes: Int, largestEventBytes: Int, turnBytes: Int = 1 << 20) {
    let wanted = max(Self.fewestEntries, min(2 * connections, Self.mostEntries))
    let entries = min(Self.mostEntries, 1 << (Int.bitWidth - (wanted - 1).leadingZeroBitCount))
    // Framing and cursors: 256 records of up to 2 KiB each.
    let framing = 512 << 10
    self.init(
      entries: entries, spills: 4 * entries, encodings: 6,
      bufferBytes: Self.roundedUp(turnBytes + 2 * largestEventBytes + framing, to: 1 << 20),
      intentBytes: 1 << 20, arenaBytes: max(Self.arenaUnit, arenaBytes / Self.arenaUnit * Self.arenaUnit))
  }

  static func roundedUp(_ bytes: Int, to unit: Int) -> Int { (bytes + unit - 1) / unit * unit }

  /// Nothing overflows that is computed of sizes within these bounds.
  var problem: String? {
    func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) -> String? {
      range.contains(value) ? nil : "ledger: \(name) is \(value), expected \(range)"
    }
    return check("entries", entries, 1...Self.mostEntries)
      ?? check("spills", spills, 1...1 << 24)
      ?? check("encodings", encodings, 1...Self.mostEncodings)
      ?? check("buffer bytes", bufferBytes, 1...1 << 30)
      ?? check("intent bytes", intentBytes, 1...1 << 27)
      ?? check("arena bytes", arenaBytes, Self.arenaUnit...1 << 38)
      ?? (arenaBytes % Self.arenaUnit == 0
        ? nil : "ledger: arena bytes are \(arenaBytes), expected a multiple of \(Self.arenaUnit)")
  }
}

/// Where a ledger's parts lie: offsets from its beginning, each a multiple of the page size.
struct LedgerLayout: Equatable {
  let sizes: LedgerSizes
  private(set) var parts: [Range<Int>] = []

  enum Part: Int { case entries, plan, slots, touched, spill, stalled, buffers, intent, arena }

  init(_ sizes: LedgerSizes) throws(IPCError) {
    if let problem = sizes.problem { throw .invalid(problem) }
    self.sizes = sizes
    var offset = Int(RIG_LEDGER_PAGE)
    let bytes = [
      sizes.entries * MemoryLayout<rig_ledger_entry>.stride,
      MemoryLayout<rig_ledger_plan>.stride,
      sizes.entries * MemoryLayout<rig_ledger_slot>.stride,
      sizes.entries * MemoryLayout<rig_ledger_touched>.stride,
      sizes.spills * MemoryLayout<rig_ledger_spill>.stride,
      sizes.entries * MemoryLayout<UInt32>.stride,
      sizes.encodings * bufferStride,
      MemoryLayout<rig_ledger_intent>.stride + sizes.intentBytes,
      sizes.arenaBytes,
    ]
    for part in bytes {
      parts.append(offset..<offset + part)
      offset = LedgerSizes.roundedUp(offset + part, to: Int(RIG_LEDGER_PAGE))
    }
  }

  /// From one encoding's buffer to the next.
  var bufferStride: Int { LedgerSizes.roundedUp(sizes.bufferBytes, to: Int(RIG_LEDGER_PAGE)) }

  subscript(part: Part) -> Range<Int> { parts[part.rawValue] }

  var bytes: Int { LedgerSizes.roundedUp(parts.last?.upperBound ?? 0, to: Int(RIG_LEDGER_PAGE)) }

  var header: rig_ledger_header {
    func part(_ part: Part) -> rig_ledger_part {
      rig_ledger_part(offset: UInt64(self[part].lowerBound), bytes: UInt64(self[part].count))
    }
    var header = rig_ledger_header()
    header.magic = RIG_LEDGER_MAGIC
    header.version = RIG_LEDGER_VERSION
    header.bytes = UInt64(bytes)
    header.entry_count = UInt64(sizes.entries)
    header.spill_count = UInt64(sizes.spills)
    header.encoding_count = UInt64(sizes.encodings)
    header.buffer_bytes = UInt64(sizes.bufferBytes)
    header.intent_bytes = UInt64(sizes.intentBytes)
    header.entries = part(.entries)
    header.plan = part(.plan)
    header.slots = part(.slots)
    header.touched = part(.touched)
    header.spill = part(.spill)
    header.stalled = part(.stalled)
    header.buffers = part(.buffers)
    header.intent = part(.intent)
    header.arena = part(.arena)
    return header
  }
}

/// A mapped ledger whose header has been checked.
struct LedgerSegment {
  let memory: SharedMemory
  let layout: LedgerLayout

  static func create(name: String, _ layout: LedgerLayout) throws(IPCError) -> Descriptor {
    let descriptor = try SharedMemory.create(name: name, bytes: layout.bytes)
    try format(descriptor.rawValue, layout)
    return descriptor
  }

  /// Empties it. Nobody may be writing to it.
  static func format(_ fd: CInt, _ layout: LedgerLayout) throws(IPCError) {
    let memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: layout.bytes)
    guard rig_give_back(memory.base, memory.bytes) == 0 else {
      throw .system(call: "madvise(MADV_REMOVE)", errno: errno)
    }
    memory.base.storeBytes(of: layout.header, as: rig_ledger_header.self)
  }

  init(mapping fd: CInt) throws(IPCError) {
    memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: Int(RIG_LEDGER_PAGE))
    let header = memory.base.load(as: rig_ledger_header.self)
    guard header.magic == RIG_LEDGER_MAGIC else {
      throw .corrupt("ledger magic is \(header.magic), expected \(RIG_LEDGER_MAGIC)")
    }
    guard header.version == RIG_LEDGER_VERSION else {
      throw .unknownLayout(found: header.version, known: RIG_LEDGER_VERSION...RIG_LEDGER_VERSION)
    }
    let sizes = LedgerSizes(
      entries: Int(clamping: header.entry_count), spills: Int(clamping: header.spill_count),
      encodings: Int(clamping: header.encoding_count), bufferBytes: Int(clamping: header.buffer_bytes),
      intentBytes: Int(clamping: header.intent_bytes), arenaBytes: Int(clamping: header.arena.bytes))
    if let problem = sizes.problem { throw .corrupt(problem) }
    layout = try LedgerLayout(sizes)
    var expected = layout.header
    expected.entries_in_use = header.entries_in_use
    guard layout.bytes == memory.bytes,
      withUnsafeBytes(
        of: expected,
        { expected in
          expected.elementsEqual(UnsafeRawBufferPointer(start: memory.base, count: expected.count))
        })
    else {
      throw .corrupt("the ledger's parts don't lie where its sizes put them in \(memory.bytes) bytes")
    }
  }

  func start(_ part: LedgerLayout.Part) -> UnsafeMutableRawPointer {
    memory.base + layout[part].lowerBound
  }

  /// Entries that were ever used, as far as there can be so many.
  var entriesInUse: Int {
    Int(rig_ledger_in_use(memory.base, UInt64(layout.sizes.entries)))
  }
}

/// Stores to words of the segment: what stands before one in the program is there when it is.
@usableFromInline
struct LedgerWords {
  #if DEBUG
    /// What a test does after every store.
    @usableFromInline
    final class Probe {
      @usableFromInline var afterStore: (() -> Void)?

      init() {}
    }

    @usableFromInline let probe = Probe()
  #endif

  @inlinable @inline(__always)
  func store(_ value: UInt64, _ word: UnsafeMutableRawPointer) {
    rig_store_release(word, value)
    // Nor does anything that follows, as the memory that this store frees, come before it.
    rig_ledger_fence()
    #if DEBUG
      probe.afterStore?()
    #endif
  }

  /// Stores `value` if the word is `expected`. Whether it was.
  func replace(_ expected: UInt64, by value: UInt64, _ word: UnsafeMutableRawPointer) -> Bool {
    let isReplaced = rig_replace_seq_cst(word, expected, value) != 0
    #if DEBUG
      if isReplaced { probe.afterStore?() }
    #endif
    return isReplaced
  }
}
