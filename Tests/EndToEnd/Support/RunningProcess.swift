// What /proc says about a process.

import Foundation

struct RunningProcess: Equatable {
  let pid: pid_t
  /// The executable's file name; "rig-keeper" for a keeper, "rig-spare" for a spare, which have those of workers.
  let name: String
  /// Clock ticks between the machine's start and the process's: orders processes and tells one pid's users apart.
  let startTicks: UInt64

  /// All living processes whose environment holds `entry`, oldest first.
  static func all(carrying entry: String) -> [RunningProcess] {
    let pids = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap(pid_t.init) ?? []
    return pids.compactMap { pid -> RunningProcess? in
      guard let environment = ProcFile.contents("/proc/\(pid)/environ"),
        environment.split(separator: 0).contains(where: { $0.elementsEqual(entry.utf8) }),
        let name = isKeeper(pid) ? keeperName : isSpare(pid) ? spareName : executableName(pid),
        let fields = statFields(pid),
        fields.first != "Z", let start = UInt64(fields[19])
      else { return nil }
      return RunningProcess(pid: pid, name: name, startTicks: start)
    }.sorted { ($0.startTicks, $0.pid) < ($1.startTicks, $1.pid) }
  }

  static let keeperName = "rig-keeper"

  private static func isKeeper(_ pid: pid_t) -> Bool {
    ProcFile.contents("/proc/\(pid)/comm")?.dropLast().elementsEqual(keeperName.utf8) ?? false
  }

  static let spareName = "rig-spare"

  /// What `ps` shows of it.
  var arguments: String {
    String(decoding: ProcFile.contents("/proc/\(pid)/cmdline") ?? [], as: UTF8.self)
      .split(separator: "\0").joined(separator: " ")
  }

  private static func isSpare(_ pid: pid_t) -> Bool {
    ProcFile.contents("/proc/\(pid)/cmdline")?.starts(with: "rig-connections: spare\0".utf8) ?? false
  }

  static func executableName(_ pid: pid_t) -> String? {
    let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/exe")
    return target.map { URL(fileURLWithPath: $0).lastPathComponent }
  }

  /// The fields of /proc/PID/stat behind the name: state, parent, …
  private static func statFields(_ pid: pid_t) -> [Substring]? {
    guard let bytes = ProcFile.contents("/proc/\(pid)/stat") else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 20 ? fields : nil
  }

  /// `T` while stopped, `Z` for a zombie, nil when gone.
  var state: String? {
    guard let fields = Self.statFields(pid), UInt64(fields[19]) == startTicks else { return nil }
    return fields.first.map(String.init)
  }

  /// Bytes of memory that belong to this process alone.
  var privateBytes: Int? {
    guard let bytes = ProcFile.contents("/proc/\(pid)/smaps_rollup") else { return nil }
    var sum = 0
    for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    where line.hasPrefix("Private_Dirty:") || line.hasPrefix("Private_Clean:") {
      sum += line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    }
    return sum * 1_024
  }

  /// Inode numbers of the process's sockets.
  var socketInodes: Set<String> {
    let directory = "/proc/\(pid)/fd"
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
    return Set(
      names.compactMap { name -> String? in
        guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(name)"),
          target.hasPrefix("socket:[")
        else { return nil }
        return String(target.dropFirst(8).dropLast())
      })
  }

  /// The inode of the gateway's end of the loopback connection between `serverPort` and `clientPort`.
  static func socketInode(serverPort: Int, clientPort: Int) -> String? {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
      guard let bytes = ProcFile.contents(table) else { continue }
      for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n").dropFirst() {
        let fields = line.split(separator: " ")
        guard fields.count > 9, port(fields[1]) == serverPort, port(fields[2]) == clientPort else { continue }
        return String(fields[9])
      }
    }
    return nil
  }

  private static func port(_ address: Substring) -> Int? {
    address.split(separator: ":").last.flatMap { Int($0, radix: 16) }
  }
}

enum ProcFile {
  private static let chunk = 65_536

  /// The whole of a file of /proc. Foundation believes its size, which is 0, and stops after the first page.
  static func contents(_ path: String) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: chunk)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return count == 0 ? bytes : nil }
      bytes += buffer[..<count]
    }
  }
}
