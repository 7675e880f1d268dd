// What tests do to processes from outside: stop them, let them go on, look at what they hold.

import Foundation

extension RunningProcess {
  func signal(_ signal: CInt) {
    kill(pid, signal)
  }

  /// Stops the process and waits until every thread of it stands.
  func freeze() throws {
    kill(pid, SIGSTOP)
    try eventually("\(name) stands still") { !threadStates.isEmpty && threadStates.allSatisfy { $0 == "T" } }
  }

  func thaw() {
    kill(pid, SIGCONT)
  }

  private var threadStates: [Substring] {
    let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
    return threads.compactMap { thread in
      guard let bytes = ProcFile.contents("/proc/\(pid)/task/\(thread)/stat") else { return nil }
      let text = String(decoding: bytes, as: UTF8.self)
      return text.lastIndex(of: ")").flatMap { text[text.index(after: $0)...].split(separator: " ").first }
    }
  }

  /// What the process's descriptors are: the links of /proc/PID/fd by number.
  var descriptors: [Int: String] {
    let directory = "/proc/\(pid)/fd"
    var links: [Int: String] = [:]
    for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] {
      guard let number = Int(name) else { continue }
      links[number] = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(name)")
    }
    return links
  }

  /// Names of the shared memory that the process holds open, without "rig-".
  var memories: Set<String> {
    let prefix = "/memfd:rig-"
    return Set(
      descriptors.values.filter { $0.hasPrefix(prefix) }.map { link in
        String(link.dropFirst(prefix.count).prefix { $0 != " " })
      })
  }

  /// Whether the process holds the socket that listens on `port`.
  func listens(on port: Int) -> Bool {
    SocketTable.listening(on: port).map(socketInodes.contains) ?? false
  }
}

/// The kernel's table of TCP sockets.
enum SocketTable {
  private static let listenState = "0A"

  /// Inodes of the server's ends of loopback connections to `serverPort`, by the clients' ports.
  static func inodes(serverPort: Int) -> [Int: String] {
    var inodes: [Int: String] = [:]
    for entry in entries where entry.local == serverPort && entry.inode != "0" {
      inodes[entry.remote] = entry.inode
    }
    return inodes
  }

  /// The inode of the socket that listens on `port`.
  static func listening(on port: Int) -> String? {
    entries.first { $0.local == port && $0.state == listenState }?.inode
  }

  /// Whether the kernel will ask the peers of all connected sockets at `local` (by their other ends at `remote`, if given)
  /// whether they live; nil: there are none.
  static func areProbed(local: Int? = nil, remote: Int? = nil) -> Bool? {
    let found = entries.filter {
      $0.state == connectedState && (local ?? $0.local) == $0.local && (remote ?? $0.remote) == $0.remote
    }
    return found.isEmpty ? nil : found.allSatisfy { $0.timer == keepAliveTimer }
  }

  private static let connectedState = "01"
  private static let keepAliveTimer = "02"

  private struct Entry {
    let timer: Substring
    let local: Int
    let remote: Int
    let state: String
    let inode: String
  }

  private static var entries: [Entry] {
    ["/proc/net/tcp", "/proc/net/tcp6"].flatMap { table -> [Entry] in
      let text = String(decoding: ProcFile.contents(table) ?? [], as: UTF8.self)
      return text.split(separator: "\n").dropFirst().compactMap { line -> Entry? in
        let fields = line.split(separator: " ", maxSplits: 10)
        guard fields.count > 9, let local = port(fields[1]), let remote = port(fields[2]) else { return nil }
        return Entry(
          timer: fields[5].prefix(2), local: local, remote: remote, state: String(fields[3]),
          inode: String(fields[9]))
      }
    }
  }

  private static func port(_ address: Substring) -> Int? {
    address.split(separator: ":").last.flatMap { Int($0, radix: 16) }
  }
}
