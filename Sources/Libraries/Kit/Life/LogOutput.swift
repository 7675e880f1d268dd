// Log lines of a worker on standard error, which all processes of the gateway share: one line, one write. Who reads them
// may be slow or gone, and a worker must not wait for him: a line that can't be written soon is dropped and counted,
// and after it none waits until one has gone through.
//
//   json   {"time":"…","level":"info","worker":"connections","slot":0,"pid":7,"message":"…","ring":"events.control"}
//   human  2026-11-24T09:00:00.000Z info connections.0: … ring=events.control

import Glibc
import IPC
import Logging
import Synchronization

/// What a field of a log line says.
enum LogValue: Equatable, Sendable {
  case text(String)
  case number(Int64)
  case flag(Bool)

  /// As in JSON.
  func append(to line: inout [UInt8]) {
    switch self {
    case .text(let text): JSONText.appendString(text, to: &line)
    case .number(let number): line.append(contentsOf: String(number).utf8)
    case .flag(let flag): line.append(contentsOf: (flag ? "true" : "false").utf8)
    }
  }
}

/// Writes the lines of one worker. Any thread.
final class LogOutput: Sendable {
  private let output = SharedOutput(STDERR_FILENO)
  private let worker: String
  private let slot: Int
  private let isJSON: Bool
  private let dropped = Mutex(0)

  /// - Parameter format: `auto`, `json` or `human`.
  init(worker: String, slot: Int, format: String) {
    self.worker = worker
    self.slot = slot
    isJSON = format == "json" || (format != "human" && isatty(STDERR_FILENO) != 1)
  }

  func write(_ level: Logger.Level, _ message: String, _ fields: [(String, String)]) {
    dropped.withLock { dropped in
      if dropped > 0 {
        let missing = line(.warning, "log lines were dropped: nobody read them", [("count", "\(dropped)")])
        guard send(missing, patience: 0) else {
          dropped += 1
          return
        }
        dropped = 0
      }
      if !send(line(level, message, fields), patience: SharedOutput.linePatience) { dropped += 1 }
    }
  }

  private func line(_ level: Logger.Level, _ message: String, _ fields: [(String, String)]) -> [UInt8] {
    line(level, message, fields.map { ($0, .text($1)) })
  }

  func line(_ level: Logger.Level, _ message: String, _ fields: [(String, LogValue)]) -> [UInt8] {
    let stamp = Stamp(unixMs: WallClock.milliseconds(), high: 0, low: 0)
    return isJSON
      ? json(stamp.rfc3339, level, message, fields) : human(stamp.rfc3339, level, message, fields)
  }

  func json(
    _ time: String, _ level: Logger.Level, _ message: String, _ fields: [(String, LogValue)]
  ) -> [UInt8] {
    var line = Array(
      #"{"time":"\#(time)","level":"\#(level.rawValue)","worker":"\#(worker)","slot":\#(slot),"pid":\#(getpid()),"#
        .utf8)
    line.append(contentsOf: #""message":"#.utf8)
    JSONText.appendString(message, to: &line)
    for (name, value) in fields {
      line.append(UInt8(ascii: ","))
      JSONText.appendString(name, to: &line)
      line.append(UInt8(ascii: ":"))
      value.append(to: &line)
    }
    line.append(contentsOf: "}\n".utf8)
    return line
  }

  /// Control characters are escaped as in JSON: no value can begin a line of its own.
  func human(
    _ time: String, _ level: Logger.Level, _ message: String, _ fields: [(String, LogValue)]
  ) -> [UInt8] {
    var line = Array("\(time) \(level.rawValue) \(worker).\(slot): ".utf8)
    JSONText.appendString(message, to: &line)
    line.removeLast()
    if let quote = line.firstIndex(of: UInt8(ascii: "\"")) { line.remove(at: quote) }
    for (name, value) in fields {
      line.append(contentsOf: " \(name)=".utf8)
      value.append(to: &line)
    }
    line.append(UInt8(ascii: "\n"))
    return line
  }

  private func send(_ line: [UInt8], patience: Int) -> Bool {
    line.withUnsafeBytes { output.write($0, patience: patience) }
  }
}

/// swift-log's view of the output.
struct WorkerLogHandler: LogHandler {
  let output: LogOutput
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let all = metadata.merging(event.metadata ?? [:]) { _, own in own }
    output.write(
      event.level, event.message.description, all.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") })
  }
}
