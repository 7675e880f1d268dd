// Standard output and standard error without a buffer in between: whoever waits for the address in a pipe gets it
// at once. A reader that has gone away is no reason to end.

import Glibc

enum Output {
  /// To standard output.
  static func say(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// To standard error.
  static func note(_ text: String) { write(text, to: STDERR_FILENO) }

  private static func write(_ text: String, to descriptor: CInt) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    }
  }
}

/// A system call that failed.
struct SystemFailure: Error, CustomStringConvertible {
  let call: String
  let number: CInt

  init(call: String, number: CInt = errno) {
    self.call = call
    self.number = number
  }

  var description: String { "\(call) failed: \(String(cString: strerror(number))) (errno \(number))" }
}

/// Cuts a stream of bytes into lines. A line longer than the bound is dropped whole.
struct LineSplitter {
  private let maximumLength: Int
  private var pending: [UInt8] = []
  private var dropping = false

  /// - Parameter maximumLength: bytes of a line without its end.
  init(maximumLength: Int) {
    self.maximumLength = maximumLength
  }

  /// The lines that `bytes` completes, empty ones left out.
  mutating func add(_ bytes: ArraySlice<UInt8>) -> [String] {
    var lines: [String] = []
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        if !dropping && !pending.isEmpty { lines.append(String(decoding: pending, as: UTF8.self)) }
        pending.removeAll(keepingCapacity: true)
        dropping = false
      } else if pending.count == maximumLength {
        dropping = true
      } else {
        pending.append(byte)
      }
    }
    return lines
  }
}
