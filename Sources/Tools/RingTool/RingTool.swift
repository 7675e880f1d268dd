// rig-ringtool: drives rings between real processes, for the stress test and for measurements, and processes that hold sockets.
//
//   rig-ringtool writer --ring FD --wake FD[,FD…] [--records N] --seed N     appends until killed, or N records
//   rig-ringtool reader --ring FD --wake FD --slot N --log FD [--until SEQUENCE] --seed N
//   rig-ringtool bench  [--json] [--seconds N] [--samples N]                 throughput and wake-up latency
//   rig-ringtool supervise --ledger FD --courier FD --listener FD --control FD --incarnation N --patience-ms N     see Holder
//   rig-ringtool heir --courier FD --report FD --incarnation N --spare N      takes one batch with room for so many descriptors
//
// The descriptors are inherited. Exit status: 0 done, 1 a record was not what it had to be (the reason is on stderr),
// 64 wrong arguments, 70 the ring could not be used. It must never outlive the process that started it.

import Glibc
import IPC

@main
enum RingTool {
  static func main() {
    do {
      try run(CommandLine.arguments.dropFirst())
    } catch let error as ToolError {
      exit(error.report())
    } catch {
      exit(ToolError.unusable("\(error)").report())
    }
  }

  private static func run(_ arguments: ArraySlice<String>) throws {
    let command = arguments.first ?? ""
    let options = try ToolOptions(arguments.dropFirst())
    switch command {
    case "writer":
      var writer = try StressWriter(options)
      try writer.run()
    case "reader":
      var reader = try StressReader(options)
      try reader.run()
    case "bench": try Benchmark(options).run()
    case BenchmarkPeer.command: try BenchmarkPeer(options).run()
    case "supervise": try Holder.supervise(Array(arguments.dropFirst()), options)
    case "hold": try Holder.hold(options)
    case "heir": try Holder.inherit(options)
    default:
      throw ToolError.usage(
        "unknown command \"\(command)\", expected writer, reader, bench or supervise")
    }
  }
}

/// Why the tool ends early.
enum ToolError: Error, Equatable {
  case usage(String)
  case wrongRecord(String)
  case unusable(String)

  /// Writes the reason to stderr and returns the exit status.
  func report() -> CInt {
    let (status, reason): (CInt, String) =
      switch self {
      case .usage(let reason): (64, reason)
      case .wrongRecord(let reason): (1, reason)
      case .unusable(let reason): (70, reason)
      }
    var line = "rig-ringtool: \(reason)\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    return status
  }
}

/// `--name value` pairs, and `--name` alone for switches.
struct ToolOptions {
  private var values: [String: String] = [:]

  init(_ arguments: ArraySlice<String>) throws(ToolError) {
    var rest = arguments
    while let name = rest.popFirst() {
      guard name.hasPrefix("--") else { throw .usage("\"\(name)\" found, expected an option") }
      if let value = rest.first, !value.hasPrefix("--") {
        values[name] = value
        rest.removeFirst()
      } else {
        values[name] = ""
      }
    }
  }

  func has(_ name: String) -> Bool { values[name] != nil }

  func number<Number: FixedWidthInteger>(_ name: String, _ fallback: Number? = nil) throws(ToolError)
    -> Number
  {
    guard let text = values[name] else {
      guard let fallback else { throw .usage("option \(name) is missing") }
      return fallback
    }
    guard let number = Number(text) else { throw .usage("option \(name) is \"\(text)\", expected a number") }
    return number
  }

  func numbers(_ name: String) throws(ToolError) -> [CInt] {
    guard let text = values[name] else { throw .usage("option \(name) is missing") }
    var numbers: [CInt] = []
    for part in text.split(separator: ",") {
      guard let number = CInt(part) else { throw .usage("option \(name) is \"\(text)\", expected numbers") }
      numbers.append(number)
    }
    return numbers
  }
}

/// How the tool waits: for an eventfd, or for a moment.
enum Waiting {
  /// Waits for `fd` to become readable.
  ///
  /// - Returns: false if that takes longer than `milliseconds`.
  static func readable(_ fd: CInt, milliseconds: CInt) -> Bool {
    var request = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
    return poll(&request, 1, milliseconds) > 0
  }

  /// Lets other processes run for about a millisecond: a writer whose ring is full has nothing else to wait for.
  static func moment() {
    poll(nil, 0, 1)
  }
}
