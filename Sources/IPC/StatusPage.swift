// What a worker shows of itself: heartbeat, state, and its counters.
//
// One worker writes, anybody reads, nobody waits. The page belongs to the supervisor and outlives the worker: the
// next generation finds its counters by their names and goes on counting. Layout: StatusLayout. The table of
// numbers: StatusPage+Metrics.
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
  let memory: SharedMemory
  nonisolated(unsafe) let base: UnsafeMutableRawPointer
  /// Entries by series, as far as this process has looked them up or created them.
  let known: Mutex<[String: Int]>

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

  /// Says that the worker's event loop turns.
  public func beat() {
    rig_store_release(base + StatusLayout.heartbeatOffset, Self.monotonicNanoseconds())
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

  /// How many connections the worker has open.
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

  /// How many workers have begun their life on this page.
  public var generation: UInt64 { rig_load_acquire(base + StatusLayout.generationOffset) }

  /// The last worker's process id; 0 before the first.
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

  static func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
