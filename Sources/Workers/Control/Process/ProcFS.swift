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
