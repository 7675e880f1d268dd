// One number of a status page, and the text by which it is known.

import CLinux

/// What a number means, and what becomes of it when its worker is restarted.
public enum MetricKind: UInt8, Sendable, CaseIterable {
  /// Only grows; the next generation of the worker continues it.
  case counter = 1
  /// The state of the moment; the next generation begins at 0.
  case gauge = 2
}

/// A number in shared memory. Every thread of the worker may use it; no call ever blocks or allocates.
public struct Metric: @unchecked Sendable {
  @usableFromInline let word: UnsafeMutableRawPointer
  /// Keeps the mapping that `word` points into.
  private let memory: SharedMemory

  init(word: UnsafeMutableRawPointer, memory: SharedMemory) {
    self.word = word
    self.memory = memory
  }

  /// Adds `amount`, which may be negative for a gauge.
  @inlinable @inline(__always)
  public func add(_ amount: Int64 = 1) {
    _ = rig_add_relaxed(word, UInt64(bitPattern: amount))
  }

  /// Replaces the value.
  @inlinable @inline(__always)
  public func set(_ value: Int64) {
    rig_store_relaxed(word, UInt64(bitPattern: value))
  }

  /// The value now.
  @inlinable
  public var value: Int64 { Int64(bitPattern: rig_load_relaxed(word)) }
}

/// Texts of Prometheus series.
enum MetricSeries {
  /// `name`, or `name{a="b",c="d"}` with backslash, quotation mark and line feed escaped in the values.
  static func text(_ name: String, _ labels: [(String, String)]) -> String {
    guard !labels.isEmpty else { return name }
    var text = name + "{"
    for (index, label) in labels.enumerated() {
      if index > 0 { text += "," }
      text += label.0 + "=\""
      for character in label.1.unicodeScalars {
        switch character {
        case "\\": text += "\\\\"
        case "\"": text += "\\\""
        case "\n": text += "\\n"
        default: text.unicodeScalars.append(character)
        }
      }
      text += "\""
    }
    return text + "}"
  }
}
