// A worker that holds sockets, its keeper, and the supervisor that the keeper falls to: real processes (Holder), of which the test
// plays the clients and the heir.

import CLinux
import Glibc
import TestSupport

@testable import IPC
@testable import RingTool

final class KeeperBench {
  /// Of the worker; the test is the next ones.
  static let incarnation: UInt64 = 7
  static let sizes = LedgerSizes(
    entries: 1024, spills: 16, encodings: 1, bufferBytes: 4096, intentBytes: 4096,
    arenaBytes: 65_536)

  /// A client's end of a connection.
  final class Client {
    let descriptor: CInt
    /// By which the other end is recognised.
    let port: UInt16

    fileprivate init(to server: UInt16) throws {
      let socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      descriptor = socket
      var address = localAddress(port: server)
      let size = socklen_t(MemoryLayout<sockaddr_in>.size)
      let result = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(socket, $0, size) }
      }
      guard result == 0 else { throw TestFailure("connect: errno \(errno)") }
      port = portOf(descriptor, getsockname)
    }

    deinit { close(descriptor) }

    func send(_ text: String) { Glibc.send(descriptor, text, text.utf8.count, CInt(MSG_NOSIGNAL)) }

    /// What is there now.
    func received() -> String {
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = recv(descriptor, &bytes, bytes.count, CInt(MSG_DONTWAIT))
      return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }

    /// Whether the other side has closed; what it sent before is passed over.
    var hasEnded: Bool {
      while true {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &bytes, bytes.count, CInt(MSG_DONTWAIT))
        if count <= 0 { return count == 0 || errno != EAGAIN }
      }
    }
  }

  /// A socket that has come to the heir.
  struct Heirloom {
    let entry: UInt32?
    let descriptor: CInt
    let port: UInt16
  }

  let worker: pid_t
  let keeper: pid_t
  let listener: LocalListener
  let heirEnd: CInt
  private let ledgerDescriptor: CInt
  let ledger: SharedMemory
  private let control: CInt
  private var supervisor: ChildProcess?

  init(patienceMs: Int = 600_000) throws {
    ledgerDescriptor = try Ledger.create(name: "test", Self.sizes).take()
    ledger = try SharedMemory(mapping: ledgerDescriptor, writable: true, minimumBytes: 4096)
    listener = try LocalListener()
    var (courier, orders): ([CInt], [CInt]) = ([-1, -1], [-1, -1])
    guard rig_seqpacket_pair(&courier) == 0, rig_seqpacket_pair(&orders) == 0 else {
      throw TestFailure("socketpair: errno \(errno)")
    }
    heirEnd = courier[1]
    control = orders[1]
    supervisor = try ChildProcess(
      try StressRun.findTool(),
      [
        "supervise", "--ledger", "\(ledgerDescriptor)", "--courier", "\(courier[0])", "--listener",
        "\(listener.descriptor)", "--control", "\(orders[0])", "--incarnation", "\(Self.incarnation)",
        "--patience-ms", "\(patienceMs)",
      ], inheriting: [ledgerDescriptor, courier[0], listener.descriptor, orders[0]])
    close(courier[0])
    close(orders[0])
    var pids: [pid_t] = [0, 0]
    guard recv(control, &pids, 8, 0) == 8 else { throw TestFailure("the holder doesn't begin") }
    (worker, keeper) = (pids[0], pids[1])
  }

  deinit {
    supervisor = nil
    for descriptor in [ledgerDescriptor, heirEnd, control] { close(descriptor) }
  }

  /// Has the worker do something (see Holder), and returns its answer.
  @discardableResult
  func order(_ order: Character) throws -> Character {
    var byte = order.asciiValue ?? 0
    guard send(control, &byte, 1, CInt(MSG_NOSIGNAL)) == 1, recv(control, &byte, 1, 0) == 1 else {
      throw TestFailure("the holder doesn't answer to \(order)")
    }
    return Character(UnicodeScalar(byte))
  }

  /// A client whose connection the worker has treated so.
  func connect(_ treatment: Character) throws -> Client {
    let client = try Client(to: listener.port)
    try order(treatment)
    return client
  }

  func killWorker() throws {
    kill(worker, SIGKILL)
    try waitUntil("the worker has ended") { !Self.lives(worker) }
  }

  /// Ends the worker in order.
  func endWorker() throws {
    var byte = UInt8(ascii: "x")
    send(control, &byte, 1, CInt(MSG_NOSIGNAL))
    try waitUntil("the worker has ended") { !Self.lives(worker) }
  }

  func killSupervisor() { supervisor = nil }

  // MARK: The heir

  func heir(_ incarnation: UInt64 = KeeperBench.incarnation + 1) -> Courier {
    Courier(heirEnd, incarnation: incarnation)
  }

  /// The next message that isn't `nothing`.
  func message(_ courier: Courier) throws -> Courier.Message {
    while true {
      let message = courier.receive()
      guard message == .nothing else { return message }
      var entry = pollfd(fd: courier.descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 60_000) > 0 else { throw TestFailure("no message comes") }
    }
  }

  /// Takes everything that comes until there is no more, as an heir does.
  func takeAll(_ incarnation: UInt64 = KeeperBench.incarnation + 1) throws -> [Heirloom] {
    let courier = heir(incarnation)
    courier.ask()
    var all: [Heirloom] = []
    while case .batch(let sockets, let lost) = try message(courier) {
      guard lost.isEmpty else { throw TestFailure("sockets are lost: \(lost)") }
      let heirlooms = sockets.map(Self.heirloom)
      for heirloom in heirlooms { adopt(heirloom, incarnation) }
      all += heirlooms
      courier.taken()
    }
    return all
  }

  /// What an heir gets in its first batch that may have only so many descriptors; it ends without having taken it.
  func poorHeir(spare: Int) throws -> (received: Int, lost: Int) {
    var report: [CInt] = [-1, -1]
    guard rig_seqpacket_pair(&report) == 0 else { throw TestFailure("socketpair: errno \(errno)") }
    defer { for descriptor in report { close(descriptor) } }
    let child = try ChildProcess(
      try StressRun.findTool(),
      [
        "heir", "--courier", "\(heirEnd)", "--report", "\(report[0])", "--spare", "\(spare)",
        "--incarnation", "\(Self.incarnation + 1)",
      ], inheriting: [heirEnd, report[0]])
    let status = child.wait()
    var counts: [CInt] = [0, 0]
    guard status == 0, recv(report[1], &counts, 8, CInt(MSG_DONTWAIT)) == 8 else {
      throw TestFailure("the heir ended with \(status)")
    }
    return (Int(counts[0]), Int(counts[1]))
  }

  static func heirloom(_ socket: Courier.Socket) -> Heirloom {
    Heirloom(
      entry: socket.entry, descriptor: socket.descriptor, port: portOf(socket.descriptor, getpeername))
  }

  func adopt(_ heirloom: Heirloom, _ incarnation: UInt64 = KeeperBench.incarnation + 1) {
    guard let entry = heirloom.entry else { return }
    rig_store_release(
      state(entry), rig_ledger_state(UInt32(incarnation), UInt32(bitPattern: heirloom.descriptor), 1, 0))
  }

  func state(_ entry: UInt32) -> UnsafeMutableRawPointer {
    ledger.base + Int(RIG_LEDGER_PAGE) + Int(entry) * MemoryLayout<rig_ledger_entry>.stride
  }

  func cookie(_ entry: UInt32) -> UInt64 { rig_load_relaxed(state(entry) + Int(RIG_LEDGER_COOKIE_AT)) }

  // MARK: Processes

  /// Whether the process runs; one that has ended and isn't waited for doesn't.
  static func lives(_ pid: pid_t) -> Bool {
    guard let status = text("/proc/\(pid)/stat"), let end = status.lastIndex(of: ")") else { return false }
    return !status[end...].hasPrefix(") Z")
  }

  static func text(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }
}

private func portOf(
  _ socket: CInt,
  _ name: (CInt, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> CInt
) -> UInt16 {
  var address = sockaddr_in()
  var size = socklen_t(MemoryLayout<sockaddr_in>.size)
  _ = withUnsafeMutablePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name(socket, $0, &size) }
  }
  return UInt16(bigEndian: address.sin_port)
}

/// Looks until `condition` is true.
func waitUntil(_ what: String, _ condition: () throws -> Bool) throws {
  let deadline = SharedClock.now() + 60_000_000_000
  while try !condition() {
    guard SharedClock.now() < deadline else { throw TestFailure("not in time: \(what)") }
    poll(nil, 0, 5)
  }
}
