// A worker that only holds sockets, for tests of keepers, and the process that they fall to.
//
//   supervise: the nearest subreaper; starts `hold` with the same arguments, and does nothing more
//   hold:      starts its keeper, writes its pid and the keeper's to `--control`, then obeys, one byte each, and answers each with one:
//
//     k  accepts a socket, writes the greeting, and notes it in the ledger       u  accepts one, and leaves it alone
//     t  accepts one and writes the greeting, without noting it                  n  as k, and it isn't to be kept
//     s  closes the socket accepted last and gives its number to a new one, without a word to the ledger
//     c  as t, and the socket takes the place of its courier                     o  makes a connection to its own listener
//     e  answers y if its keeper has ended, else n                               x  ends in order

import CLinux
import Glibc
import IPC

enum Holder {
  /// What it writes to each socket but untouched ones.
  static let greeting = "greeting: "

  static func supervise(_ arguments: [String], _ options: ToolOptions) throws(ToolError) {
    guard rig_become_subreaper() == 0 else { throw .unusable("this process can't become a subreaper") }
    let inherited = [
      "--ledger", "--courier", "--listener", "--control",
    ]
    var descriptors: [CInt] = []
    for name in inherited { descriptors.append(try options.number(name)) }
    let child = try ChildProcess(
      CommandLine.arguments[0], ["hold"] + arguments + ["--supervisor", "\(getpid())"],
      inheriting: descriptors)
    // Only those that it started shall have them.
    for descriptor in descriptors { close(descriptor) }
    let parent = ParentWatch()
    while child.pid > 0 {
      try parent.require()
      // The holder and its keeper, in whatever order they end.
      while waitpid(-1, nil, WNOHANG) > 0 {}
      poll(nil, 0, 10)
    }
  }

  /// Takes one batch while this process may have `--spare` more descriptors, and writes to `--report` how many sockets and how many lost
  /// entries it had.
  static func inherit(_ options: ToolOptions) throws {
    let courier = Courier(try options.number("--courier"), incarnation: try options.number("--incarnation"))
    let report: CInt = try options.number("--report")
    let spare: rlim_t = try options.number("--spare")
    let lowest = dup(report)
    close(lowest)
    var limit = rlimit(rlim_cur: rlim_t(lowest) + spare, rlim_max: rlim_t(lowest) + spare)
    guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
      throw ToolError.unusable("setrlimit: errno \(errno)")
    }
    courier.ask()
    guard Waiting.readable(courier.descriptor, milliseconds: 60_000),
      case .batch(let sockets, let lost) = courier.receive()
    else { throw ToolError.unusable("no batch comes") }
    var counts = [CInt(sockets.count), CInt(lost.count)]
    write(report, &counts, 8)
  }

  static func hold(_ options: ToolOptions) throws {
    _ = rig_set_parent_death_signal(SIGKILL)
    var holding = try Holding(options)
    try holding.obey()
  }
}

private struct Holding {
  private let ledger: Ledger
  private let keeper: Keeper
  private let courier: CInt
  private let listener: CInt
  private let control: CInt
  private var last: CInt = -1

  init(_ options: ToolOptions) throws {
    let incarnation: UInt64 = try options.number("--incarnation")
    let ledgerNumber: CInt = try options.number("--ledger")
    courier = try options.number("--courier")
    listener = try options.number("--listener")
    control = try options.number("--control")
    keeper = try Keeper(
      ledger: ledgerNumber, courier: courier, incarnation: incarnation,
      supervisor: try options.number("--supervisor"), patienceMs: try options.number("--patience-ms"),
      name: "holder")
    ledger = try Ledger(attaching: ledgerNumber, incarnation: incarnation)
    var pids = [getpid(), keeper.pid]
    write(control, &pids, MemoryLayout<pid_t>.size * pids.count)
  }

  mutating func obey() throws {
    var order: UInt8 = 0
    while read(control, &order, 1) == 1 {
      var answer = order
      switch Character(UnicodeScalar(order)) {
      case "k": try note(greeted())
      case "u": _ = try accepted()
      case "t": _ = try greeted()
      case "n": ledger.markNotKept(try note(greeted()))
      case "s": try replace()
      case "c": _ = dup2(try greeted(), courier)
      case "o": try connectOut()
      case "e": answer = UInt8(ascii: keeper.hasEnded ? "y" : "n")
      case "x":
        keeper.dismiss()
        return
      default: throw ToolError.usage("unknown order \(order)")
      }
      write(control, &answer, 1)
    }
  }

  private mutating func accepted() throws -> CInt {
    guard Waiting.readable(listener, milliseconds: -1) else { throw ToolError.unusable("nobody connects") }
    last = rig_accept(listener)
    guard last >= 0 else { throw ToolError.unusable("accept: errno \(errno)") }
    return last
  }

  private mutating func greeted() throws -> CInt {
    let socket = try accepted()
    let greeting = Array(Holder.greeting.utf8)
    guard write(socket, greeting, greeting.count) == greeting.count else {
      throw ToolError.unusable("the greeting can't be written")
    }
    return socket
  }

  @discardableResult
  private func note(_ socket: CInt) throws -> LedgerEntry {
    let written = UInt64(Holder.greeting.utf8.count)
    guard let cookie = SocketCounts.cookie(socket),
      let entry = ledger.open(
        .eventStream, serial: cookie, socket: (socket, cookie), written: written, consumed: 0, cold: nil)
    else { throw ToolError.unusable("the ledger is full") }
    return entry
  }

  private func connectOut() throws {
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let own = rig_stream_socket(AF_INET)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        getsockname(listener, address, &size) | connect(own, address, size)
      }
    }
    guard result == 0 || errno == EINPROGRESS else { throw ToolError.unusable("connect: errno \(errno)") }
    var request = pollfd(fd: own, events: Int16(POLLOUT), revents: 0)
    poll(&request, 1, -1)
  }

  private mutating func replace() throws {
    let number = last
    let stranger = try greeted()
    guard dup2(stranger, number) == number else { throw ToolError.unusable("dup2: errno \(errno)") }
    close(stranger)
  }
}
