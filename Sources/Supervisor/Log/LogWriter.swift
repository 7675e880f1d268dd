// The supervisor's log on standard error. Who reads it may be slow or gone, and the supervisor must not wait for him: a
// line that can't be written in a short time is dropped and counted, and the count is logged when there is room again;
// after a dropped line, none waits until one has gone through.
// One thread.

import Glibc
import IPC

final class LogWriter {
  enum Format: Sendable {
    case json
    case human

    /// `auto`: human on a terminal.
    init(setting: String, descriptor: CInt) {
      switch setting {
      case "json": self = .json
      case "human": self = .human
      default: self = isatty(descriptor) == 1 ? .human : .json
      }
    }
  }

  private let output: SharedOutput
  private let format: Format
  private let level: LogLevel
  private let pid = getpid()
  private(set) var dropped = 0

  /// - Parameter descriptor: not owned, open as long as this object lives.
  init(descriptor: CInt = STDERR_FILENO, format: Format, level: LogLevel) {
    output = SharedOutput(descriptor)
    self.format = format
    self.level = level
  }

  func log(_ level: LogLevel, _ message: String, _ fields: [(String, String)] = []) {
    guard level >= self.level else { return }
    if dropped > 0 {
      let missing = LogLine(
        time: Self.now(), level: .warning, message: "log lines were dropped: nobody read them",
        fields: [("count", String(dropped))])
      guard write(missing, patience: 0) else {
        dropped += 1
        return
      }
      dropped = 0
    }
    let line = LogLine(time: Self.now(), level: level, message: message, fields: fields)
    if !write(line, patience: SharedOutput.linePatience) { dropped += 1 }
  }

  private func write(_ line: LogLine, patience: Int) -> Bool {
    var text = format == .json ? line.json(pid: pid) : line.human()
    return text.withUTF8 { output.write(UnsafeRawBufferPointer($0), patience: patience) }
  }

  private static func now() -> timespec {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return time
  }
}

/// One log line as text.
///
///   json   {"time":"2026-11-24T09:00:00.000Z","level":"info","worker":"supervisor","pid":7,"message":"…","port":"4000"}
///   human  2026-11-24T09:00:00.000Z info supervisor: … port=4000
///
/// A value is never able to break out of its place: control characters are escaped in both forms.
struct LogLine {
  let time: timespec
  let level: LogLevel
  let message: String
  let fields: [(String, String)]

  func json(pid: Int32) -> String {
    var line = "{\"time\":\"\(Self.timestamp(time))\",\"level\":\"\(level.name)\",\"worker\":\"supervisor\""
    line += ",\"pid\":\(pid),\"message\":"
    Self.appendJSON(message, to: &line)
    for (name, value) in fields {
      line += ","
      Self.appendJSON(name, to: &line)
      line += ":"
      Self.appendJSON(value, to: &line)
    }
    return line + "}\n"
  }

  func human() -> String {
    var line = "\(Self.timestamp(time)) \(level.name) supervisor: "
    line += Self.withoutControls(message)
    for (name, value) in fields {
      let plain = !value.isEmpty && !value.contains { $0 == " " || $0 == "\"" || $0 == "=" }
      line += " \(name)="
      if plain { line += Self.withoutControls(value) } else { Self.appendJSON(value, to: &line) }
    }
    return line + "\n"
  }

  /// RFC 3339 in UTC with milliseconds.
  static func timestamp(_ time: timespec) -> String {
    var seconds = time.tv_sec
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func padded(_ number: Int, _ width: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let date =
      "\(padded(Int(parts.tm_year) + 1900, 4))-\(padded(Int(parts.tm_mon) + 1, 2))-\(padded(Int(parts.tm_mday), 2))"
    let clock =
      "\(padded(Int(parts.tm_hour), 2)):\(padded(Int(parts.tm_min), 2)):\(padded(Int(parts.tm_sec), 2))"
    return "\(date)T\(clock).\(padded(time.tv_nsec / 1_000_000, 3))Z"
  }

  private static func appendJSON(_ text: String, to line: inout String) {
    line += "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": line += "\\\""
      case "\\": line += "\\\\"
      case "\n": line += "\\n"
      case _ where isControl(scalar): line += escape(scalar)
      default: line.unicodeScalars.append(scalar)
      }
    }
    line += "\""
  }

  private static func withoutControls(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    var plain = ""
    for scalar in text.unicodeScalars {
      if isControl(scalar) { plain += escape(scalar) } else { plain.unicodeScalars.append(scalar) }
    }
    return plain
  }

  private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
    scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0x2028
      || scalar.value == 0x2029
  }

  private static func escape(_ scalar: Unicode.Scalar) -> String {
    let digits = String(scalar.value, radix: 16)
    return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
  }
}

/// Severities, named and ordered as in swift-log and the setting LOG_LEVEL.
enum LogLevel: Int, Comparable, Sendable, CaseIterable {
  case trace, debug, info, notice, warning, error, critical

  var name: String {
    switch self {
    case .trace: "trace"
    case .debug: "debug"
    case .info: "info"
    case .notice: "notice"
    case .warning: "warning"
    case .error: "error"
    case .critical: "critical"
    }
  }

  init?(name: String) {
    guard let level = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = level
  }

  static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}
