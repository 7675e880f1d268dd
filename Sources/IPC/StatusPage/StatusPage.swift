// What a worker shows of itself: heartbeat, state, and its counters.
//
// One worker writes, anybody reads, nobody waits. The page belongs to the supervisor and outlives the worker: the
// next generation finds its counters by their names and goes on counting. Layout: StatusLayout.
//
// A reader believes nothing: counts and lengths are loaded once and bounded before they are followed, and an entry
// that can't be true is left out.

import CLinux
import Glibc
import Synchronization

/// How far a worker has come.
public enum WorkerState: UInt32, Sendable, CaseIterable {
  /// It is being set up; nothing is served yet.
  case starting = 0
  /// It serves.
  case ready = 1
  /// It accepts nothing new and finishes what it has.
  case draining = 2
  /// It is closing down.
  case stopping = 3
}

/// A worker's page of shared memory; used by the worker to write and by everybody else to read.
public final class StatusPage: Sendable {
  private let memory: SharedMemory
  nonisolated(unsafe) let base: UnsafeMutableRawPointer
  /// Entries by series, as far as this process has looked them up or created them.
  private let known: Mutex<[String: Int]>

  /// A new page: a memfd of 3 MiB and 4 KiB (used as entries are created), sealed against resizing.
  /// `name` shows in /proc and nowhere else.
  public static func create(name: String) throws(IPCError) -> Descriptor {
    let descriptor = try SharedMemory.create(name: name, bytes: StatusLayout.bytes)
    try reset(descriptor.rawValue)
    return descriptor
  }

  /// Formats the page anew, numbers included: for the supervisor, when attaching to it failed as `.corrupt`. No
  /// worker may be writing to it.
  public static func reset(_ fd: CInt) throws(IPCError) {
    let memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: StatusLayout.bytes)
    clearTally(in: memory.base)
    rig_store_release(memory.base + StatusLayout.countOffset, 0)
    memset(memory.base, 0, StatusLayout.entriesOffset)
    rig_store_relaxed(memory.base + StatusLayout.versionOffset, StatusLayout.version)
    rig_store_release(memory.base + StatusLayout.magicOffset, StatusLayout.magic)
  }

  /// Maps and verifies a page; `fd` isn't closed, and not needed any more afterwards.
  public init(attaching fd: CInt) throws(IPCError) {
    let memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: StatusLayout.bytes)
    let magic = rig_load_acquire(memory.base + StatusLayout.magicOffset)
    guard magic == StatusLayout.magic else {
      throw .corrupt("status page magic is \(magic), expected \(StatusLayout.magic)")
    }
    let version = rig_load_relaxed(memory.base + StatusLayout.versionOffset)
    guard StatusLayout.knownVersions.contains(version) else {
      throw .unknownLayout(found: version, known: StatusLayout.knownVersions)
    }
    let count = rig_load_acquire(memory.base + StatusLayout.countOffset)
    guard count <= UInt64(StatusLayout.maximumEntries) else {
      throw .corrupt("status page has \(count) entries, expected at most \(StatusLayout.maximumEntries)")
    }
    self.memory = memory
    base = memory.base
    known = Mutex(Self.entries(in: memory.base, count: Int(count)))
  }

  // MARK: The worker's side

  /// Begins the life of a worker: raises the generation, sets gauges to 0, forgets a corruption report, and beats.
  public func beginGeneration(pid: Int32) {
    resetGauges()
    openConnections = 0
    Self.clearTally(in: base)
    rig_store_relaxed(base + StatusLayout.corruptOffset, 0)
    state = .starting
    rig_store_relaxed(base + StatusLayout.pidOffset, UInt64(UInt32(bitPattern: pid)))
    beat()
    // Whoever sees the new generation sees its heartbeat and state, and not its predecessor's.
    rig_fence_release()
    _ = rig_add_relaxed(base + StatusLayout.generationOffset, 1)
  }

  /// Says that nobody works on this page until somebody begins: counters stay, what is true of a living worker goes, and the
  /// generation rises, so that nobody waits for what the worker was asked. For the supervisor, when the worker has ended.
  public func vacate() {
    rig_store_relaxed(base + StatusLayout.pidOffset, 0)
    resetGauges()
    openConnections = 0
    Self.clearTally(in: base)
    state = .starting
    rig_fence_release()
    _ = rig_add_relaxed(base + StatusLayout.generationOffset, 1)
  }

  /// Says that the worker's event loop turns.
  public func beat() {
    rig_store_release(base + StatusLayout.heartbeatOffset, SharedClock.now())
  }

  /// How far the worker has come; `.starting` if the page says something unknown.
  public var state: WorkerState {
    get {
      let value = rig_load_acquire(base + StatusLayout.stateOffset)
      return WorkerState(rawValue: UInt32(truncatingIfNeeded: value)) ?? .starting
    }
    set { rig_store_release(base + StatusLayout.stateOffset, UInt64(newValue.rawValue)) }
  }

  /// Says that a ring can't be read: its writer is to be restarted. A second report before the supervisor has taken
  /// the first replaces it: report again as long as the ring can't be read.
  public func reportCorrupt(_ report: RingReport) {
    rig_store_release(base + StatusLayout.corruptOffset, report.word)
  }

  /// The minute (in the high 32 bits) and how many connections were accepted in it (in the low 32 bits).
  public var connectionWindow: UInt64 {
    get { rig_load_relaxed(base + StatusLayout.connectionWindowOffset) }
    set { rig_store_relaxed(base + StatusLayout.connectionWindowOffset, newValue) }
  }

  /// As `connectionWindow`, of connections that came back from where they had left off.
  public var returnWindow: UInt64 {
    get { rig_load_relaxed(base + StatusLayout.returnWindowOffset) }
    set { rig_store_relaxed(base + StatusLayout.returnWindowOffset, newValue) }
  }

  public var openConnections: UInt64 {
    get { rig_load_relaxed(base + StatusLayout.openConnectionsOffset) }
    set { rig_store_relaxed(base + StatusLayout.openConnectionsOffset, newValue) }
  }

  /// How many connections were open lately, as the workers' code defines it. Outlives the worker.
  public var openPeak: UInt64 {
    get { rig_load_relaxed(base + StatusLayout.openPeakOffset) }
    set { rig_store_relaxed(base + StatusLayout.openPeakOffset, newValue) }
  }

  // MARK: The readers' side

  /// How many workers have begun their life on this page, or left it vacant.
  public var generation: UInt64 { rig_load_acquire(base + StatusLayout.generationOffset) }

  /// The last worker's process id; 0 before the first, and on a page that is vacant.
  public var pid: Int32 {
    Int32(bitPattern: UInt32(truncatingIfNeeded: rig_load_relaxed(base + StatusLayout.pidOffset)))
  }

  /// When the worker last beat, in nanoseconds of CLOCK_MONOTONIC.
  public var heartbeat: UInt64 { rig_load_acquire(base + StatusLayout.heartbeatOffset) }

  /// The ring that the worker has reported as corrupt, once.
  public func takeCorruptReport() -> RingReport? {
    guard rig_load_acquire(base + StatusLayout.corruptOffset) != 0 else { return nil }
    return RingReport(word: rig_exchange_seq_cst(base + StatusLayout.corruptOffset, 0))
  }

  /// Leaves the memory of a tally alone that was never used: it takes none.
  private static func clearTally(in base: UnsafeMutableRawPointer) {
    guard rig_load_relaxed(base + StatusLayout.tallyUseOffset) != 0 else { return }
    memset(base + StatusLayout.tallyOffset, 0, StatusLayout.tallyBytes)
    rig_store_release(base + StatusLayout.tallyUseOffset, 0)
  }

  // The table of numbers in a status page.
  //
  // A new entry is written behind the last one and becomes visible when the count is stored with release order; from
  // then on only its value changes. A worker that dies before that leaves nothing.

  /// The number called `name` with `labels`, found or created; call it once and keep the result.
  ///
  /// - Returns: nil when the table (4096 entries) is full, or the series' text (`name{a="b"}`, escaped) has more than
  ///   200 bytes or control characters. An entry of the other kind, left by another release, becomes one of this
  ///   kind and begins at 0.
  public func metric(_ kind: MetricKind, _ name: String, labels: [(String, String)] = []) -> Metric? {
    let series = MetricSeries.text(name, labels)
    return known.withLock { known in
      if let index = known[series] {
        let entry = base + StatusLayout.entry(index)
        if Self.kind(of: rig_load_relaxed(entry + StatusLayout.kindOffset)) != kind {
          rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
          rig_store_release(
            entry + StatusLayout.kindOffset, Self.description(kind, keyBytes: series.utf8.count))
        }
        return Metric(word: entry + StatusLayout.valueOffset, memory: memory)
      }
      guard let index = append(kind, series) else { return nil }
      known[series] = index
      return Metric(word: base + StatusLayout.entry(index) + StatusLayout.valueOffset, memory: memory)
    }
  }

  /// Every number on the page, in the order of creation.
  public func metrics() -> [(kind: MetricKind, series: String, value: Int64)] {
    let count = Self.count(in: base)
    var metrics: [(kind: MetricKind, series: String, value: Int64)] = []
    metrics.reserveCapacity(count)
    for index in 0..<count {
      guard let (kind, series) = Self.key(ofEntry: index, in: base) else { continue }
      let value = rig_load_relaxed(base + StatusLayout.entry(index) + StatusLayout.valueOffset)
      metrics.append((kind, series, Int64(bitPattern: value)))
    }
    return metrics
  }

  private func resetGauges() {
    for index in 0..<Self.count(in: base) {
      let entry = base + StatusLayout.entry(index)
      guard Self.kind(of: rig_load_relaxed(entry + StatusLayout.kindOffset)) == .gauge else { continue }
      rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
    }
  }

  /// The entries that can be true, by series. The first of two with the same series counts.
  static func entries(in base: UnsafeMutableRawPointer, count: Int) -> [String: Int] {
    var entries: [String: Int] = [:]
    for index in 0..<count {
      guard let (_, series) = key(ofEntry: index, in: base), entries[series] == nil else { continue }
      entries[series] = index
    }
    return entries
  }

  private func append(_ kind: MetricKind, _ series: String) -> Int? {
    var key = series
    return key.withUTF8 { bytes -> Int? in
      let index = Self.count(in: base)
      guard index < StatusLayout.maximumEntries, Self.isSeries(UnsafeRawBufferPointer(bytes)) else {
        return nil
      }
      let entry = base + StatusLayout.entry(index)
      rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
      rig_store_relaxed(entry + StatusLayout.kindOffset, Self.description(kind, keyBytes: bytes.count))
      UnsafeMutableRawBufferPointer(
        start: entry + StatusLayout.keyOffset, count: StatusLayout.maximumKeyBytes
      ).copyMemory(from: UnsafeRawBufferPointer(bytes))
      rig_store_release(base + StatusLayout.countOffset, UInt64(index + 1))
      return index
    }
  }

  private static func count(in base: UnsafeMutableRawPointer) -> Int {
    let count = rig_load_acquire(base + StatusLayout.countOffset)
    return Int(min(count, UInt64(StatusLayout.maximumEntries)))
  }

  /// An entry's second word.
  private static func description(_ kind: MetricKind, keyBytes: Int) -> UInt64 {
    UInt64(kind.rawValue) | UInt64(keyBytes) << 16
  }

  private static func kind(of description: UInt64) -> MetricKind? {
    MetricKind(rawValue: UInt8(truncatingIfNeeded: description))
  }

  /// Kind and series of an entry below the count; nil if they can't be true.
  private static func key(
    ofEntry index: Int, in base: UnsafeMutableRawPointer
  ) -> (kind: MetricKind, series: String)? {
    let entry = base + StatusLayout.entry(index)
    let description = rig_load_acquire(entry + StatusLayout.kindOffset)
    let length = Int(truncatingIfNeeded: description >> 16)
    guard let kind = kind(of: description), length <= StatusLayout.maximumKeyBytes, length >= 0 else {
      return nil
    }
    // A private copy: what is checked is what is used.
    let copy = [UInt8](UnsafeRawBufferPointer(start: entry + StatusLayout.keyOffset, count: length))
    guard copy.withUnsafeBytes(isSeries), let series = String(validating: copy, as: UTF8.self) else {
      return nil
    }
    return (kind, series)
  }

  /// Whether the bytes may be a key: 1 to 200 of them, no control characters (a line feed would end the line of
  /// /metrics).
  private static func isSeries(_ bytes: UnsafeRawBufferPointer) -> Bool {
    !bytes.isEmpty && bytes.count <= StatusLayout.maximumKeyBytes
      && bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
  }
}

/// What a number means, and what becomes of it when its worker is restarted.
public enum MetricKind: UInt8, Sendable, CaseIterable {
  /// Only grows; the next generation of the worker continues it.
  case counter = 1
  /// The state of the moment; the next generation begins at 0.
  case gauge = 2
}

/// A number in shared memory. Every thread of the worker may use it; no call ever blocks or allocates.
public struct Metric: @unchecked Sendable {
  @usableFromInline let word: UnsafeMutableRawPointer
  /// Keeps the mapping that `word` points into.
  private let memory: SharedMemory

  init(word: UnsafeMutableRawPointer, memory: SharedMemory) {
    self.word = word
    self.memory = memory
  }

  /// Adds `amount`, which may be negative for a gauge.
  @inlinable @inline(__always)
  public func add(_ amount: Int64 = 1) {
    _ = rig_add_relaxed(word, UInt64(bitPattern: amount))
  }

  @inlinable @inline(__always)
  public func set(_ value: Int64) {
    rig_store_relaxed(word, UInt64(bitPattern: value))
  }

  @inlinable
  public var value: Int64 { Int64(bitPattern: rig_load_relaxed(word)) }
}

enum MetricSeries {
  /// `name`, or `name{a="b",c="d"}` with backslash, quotation mark and line feed escaped in the values.
  static func text(_ name: String, _ labels: [(String, String)]) -> String {
    guard !labels.isEmpty else { return name }
    var text = name + "{"
    for (index, label) in labels.enumerated() {
      if index > 0 { text += "," }
      text += label.0 + "=\""
      for character in label.1.unicodeScalars {
        switch character {
        case "\\": text += "\\\\"
        case "\"": text += "\\\""
        case "\n": text += "\\n"
        default: text.unicodeScalars.append(character)
        }
      }
      text += "\""
    }
    return text + "}"
  }
}

// What a worker says about a ring that it can't read: which one, and in which epoch it saw that.
//
//   word of the status page:   0 none | bits 0–31 ring | bit 32 set | bits 33–43 epoch + 1, 0 unknown
//
// The epoch tells a late report from one about what came after the reset: without it, whoever was interrupted between
// reading and reporting would cost the new writer its life.

public struct RingReport: Equatable, Sendable {
  /// The ring's id in the manifest.
  public let ring: UInt32
  /// The ring's epoch when it was found corrupt; nil: not even that could be read.
  public let epoch: UInt64?

  public init(ring: UInt32, epoch: UInt64?) {
    self.ring = ring
    self.epoch = epoch
  }

  private static let flag: UInt64 = 1 << 32
  private static let epochShift: UInt64 = 33

  /// The report in a word; nil for a word that isn't one.
  init?(word: UInt64) {
    guard word & Self.flag != 0 else { return nil }
    let stated = word >> Self.epochShift
    self.init(
      ring: UInt32(truncatingIfNeeded: word),
      epoch: stated > 0 && stated - 1 <= RingLayout.maximumEpoch ? stated - 1 : nil)
  }

  var word: UInt64 {
    let stated = epoch.map { min($0, RingLayout.maximumEpoch) + 1 } ?? 0
    return stated << Self.epochShift | Self.flag | UInt64(ring)
  }
}

/// The clock that all processes share and that never goes back.
public enum SharedClock {
  /// CLOCK_MONOTONIC in nanoseconds.
  public static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
