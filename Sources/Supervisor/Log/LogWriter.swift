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
