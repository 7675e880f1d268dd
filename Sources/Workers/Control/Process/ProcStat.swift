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
