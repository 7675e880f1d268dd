// Looks at /proc. Every read is bounded, and a process that has gone is no error: workers come and go.

import Glibc

/// /proc of this machine.
struct ProcFS {
  /// A line of /proc/PID/stat has about 300 bytes.
  private static let statBytes = 4096
  /// /proc/PID/limits has 17 lines of 80 bytes.
  private static let limitsBytes = 4096
  /// /proc/stat has a line per processor and a long one of interrupts before the line that is wanted.
  private static let machineStatBytes = 1 << 20
  /// Descriptors that are counted one by one, on kernels that don't tell their number (before Linux 6.2).
  private static let maximumCounted: Int64 = 65_536

  let units: KernelUnits

  init() {
    let boot = Self.text(of: "/proc/stat", limit: Self.machineStatBytes).flatMap(ProcStat.bootTime) ?? 0
    units = KernelUnits(
      ticksPerSecond: Double(max(sysconf(CInt(_SC_CLK_TCK)), 1)),
      pageBytes: Int64(sysconf(CInt(_SC_PAGESIZE))),
      bootTime: Double(boot))
  }

  /// The figures of `pid`; nil: there is no such process, or it isn't a child of `parent` (nil: whoever's child it is).
  /// A process id that its worker has left behind may be a stranger's by now.
  func figures(of pid: Int32, childOf parent: Int32?) -> ProcessFigures? {
    guard pid > 0, let line = Self.text(of: "/proc/\(pid)/stat", limit: Self.statBytes),
      let stat = ProcStat(line), parent == nil || stat.parent == parent
    else { return nil }
    return ProcessFigures(
      stat, units: units, openDescriptors: Self.openDescriptors(of: pid),
      maximumDescriptors: Self.maximumDescriptors(of: pid))
  }

  /// How many descriptors a process may have open: its soft limit; nil: it can't be looked at, or there is none.
  private static func maximumDescriptors(of pid: Int32) -> Int64? {
    guard let text = text(of: "/proc/\(pid)/limits", limit: limitsBytes) else { return nil }
    let name = "Max open files"
    guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) }) else { return nil }
    return line.dropFirst(name.count).split(separator: " ").first.flatMap { Int64($0) }
  }

  /// How many descriptors a process has open; nil: it can't be looked at.
  private static func openDescriptors(of pid: Int32) -> Int64? {
    let path = "/proc/\(pid)/fd"
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    if status.st_size > 0 { return Int64(status.st_size) }
    guard let directory = opendir(path) else { return nil }
    defer { closedir(directory) }
    var entries: Int64 = 0
    while entries < maximumCounted, readdir(directory) != nil { entries += 1 }
    let ownEntries: Int64 = 2  // "." and ".."
    return max(entries - ownEntries, 0)
  }

  /// The beginning of a file; nil: it can't be read.
  private static func text(of path: String, limit: Int) -> String? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: limit)
    var filled = 0
    while filled < limit {
      let count = bytes.withUnsafeMutableBytes {
        read(file, $0.baseAddress.map { $0 + filled }, limit - filled)
      }
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { return nil }
      if count == 0 { break }
      filled += count
    }
    return String(decoding: bytes[..<filled], as: UTF8.self)
  }
}

// Reads the line of /proc/PID/stat (proc_pid_stat(5)) and the boot time of /proc/stat. Pure: text in, numbers out.
//
//   4711 (a name with ) and spaces) S 4700 …      the name is the executable's own choice: fields count from the last ")"
//          2                        3   4
//
// Another process' line: a field that is missing or no number makes the whole line unusable, never a guess.

/// The figures of one process, in the kernel's units.
struct ProcStat: Equatable {
  var parent: Int32
  var userTicks: UInt64
  var systemTicks: UInt64
  var threads: Int64
  /// Ticks from boot to the start of the process.
  var startTicks: UInt64
  var residentPages: Int64

  /// Fields as proc_pid_stat(5) numbers them, from the third.
  private enum Field: Int {
    case parent = 4
    case userTicks = 14
    case systemTicks = 15
    case threads = 20
    case startTicks = 22
    case residentPages = 24
  }

  /// Nil: not a line of /proc/PID/stat.
  init?(_ line: String) {
    guard let nameEnd = line.utf8.lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let firstField = 3
    let fields = line[line.utf8.index(after: nameEnd)...].split(whereSeparator: { $0 == " " || $0 == "\n" })
    func number<Value: FixedWidthInteger>(_ field: Field) -> Value? {
      let index = field.rawValue - firstField
      return fields.indices.contains(index) ? Value(fields[index]) : nil
    }
    guard let parent: Int32 = number(.parent), let userTicks: UInt64 = number(.userTicks),
      let systemTicks: UInt64 = number(.systemTicks), let threads: Int64 = number(.threads),
      let startTicks: UInt64 = number(.startTicks), let residentPages: Int64 = number(.residentPages)
    else { return nil }
    self.parent = parent
    self.userTicks = userTicks
    self.systemTicks = systemTicks
    self.threads = threads
    self.startTicks = startTicks
    self.residentPages = residentPages
  }

  /// Seconds since 1970 at which the machine was started, from the text of /proc/stat.
  static func bootTime(in text: String) -> UInt64? {
    let key = "btime "
    for line in text.split(separator: "\n") where line.hasPrefix(key) {
      return UInt64(line.dropFirst(key.count))
    }
    return nil
  }
}

/// The kernel's units on this machine.
struct KernelUnits: Equatable {
  var ticksPerSecond: Double
  var pageBytes: Int64
  /// Seconds since 1970.
  var bootTime: Double
}

/// The figures of one process.
struct ProcessFigures: Equatable {
  var cpuSeconds: Double
  var residentBytes: Int64
  var threads: Int64
  /// Seconds since 1970.
  var startTime: Double
  /// Nil: it can't be looked at.
  var openDescriptors: Int64?
  /// Nil: it can't be looked at, or there is no limit.
  var maximumDescriptors: Int64?

  init(_ stat: ProcStat, units: KernelUnits, openDescriptors: Int64?, maximumDescriptors: Int64? = nil) {
    cpuSeconds = Double(stat.userTicks &+ stat.systemTicks) / units.ticksPerSecond
    residentBytes = stat.residentPages &* units.pageBytes
    threads = stat.threads
    startTime = units.bootTime + Double(stat.startTicks) / units.ticksPerSecond
    self.openDescriptors = openDescriptors
    self.maximumDescriptors = maximumDescriptors
  }

  /// The figures of both processes as if they were one, as old as the younger one.
  func adding(_ other: ProcessFigures) -> ProcessFigures {
    var sum = self
    sum.cpuSeconds += other.cpuSeconds
    sum.residentBytes &+= other.residentBytes
    sum.threads &+= other.threads
    sum.startTime = max(startTime, other.startTime)
    sum.openDescriptors = Self.sum(openDescriptors, other.openDescriptors)
    sum.maximumDescriptors = Self.sum(maximumDescriptors, other.maximumDescriptors)
    return sum
  }

  private static func sum(_ a: Int64?, _ b: Int64?) -> Int64? {
    guard let a, let b else { return nil }
    return a.addingReportingOverflow(b).overflow ? .max : a + b
  }

  /// Puts the figures of the process called `worker` into a scrape.
  func put(into families: inout FamilyCollector, worker: String) {
    let labels = [(name: "worker", value: worker)]
    families.set(.counter, "rig_process_cpu_seconds_total", labels, .real(cpuSeconds))
    families.set(.gauge, "rig_process_resident_memory_bytes", labels, .integer(residentBytes))
    families.set(.gauge, "rig_process_threads", labels, .integer(threads))
    families.set(.gauge, "rig_process_start_time_seconds", labels, .real(startTime))
    if let openDescriptors {
      families.set(.gauge, "rig_process_open_fds", labels, .integer(openDescriptors))
    }
    if let maximumDescriptors {
      families.set(.gauge, "rig_process_max_fds", labels, .integer(maximumDescriptors))
    }
  }
}
