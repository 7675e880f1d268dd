// The figures of a measurement, for people and for scripts.

/// Records of one size through a ring.
struct Throughput {
  let bytes: Int
  let recordsPerSecond: Double
  let records: UInt64
  /// How often the reader went to sleep: each costs a poll, a drain, and the writer's signal.
  let sleeps: Int

  var systemCallsPerMillionRecords: Double { Double(3 * sleeps) / Double(records) * 1e6 }
}

/// From publication to the sleeping reader's hand.
struct WakeUp {
  let samples: Int
  let medianMicroseconds: Double
  let p99Microseconds: Double

  init(_ nanoseconds: [UInt64]) {
    let sorted = nanoseconds.sorted()
    samples = sorted.count
    medianMicroseconds = Self.quantile(sorted, 0.5)
    p99Microseconds = Self.quantile(sorted, 0.99)
  }

  private static func quantile(_ sorted: [UInt64], _ share: Double) -> Double {
    guard !sorted.isEmpty else { return 0 }
    return Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]) / 1000
  }
}

struct BenchmarkReport {
  let throughput: [Throughput]
  /// The writer sleeps between two records.
  let wakeUp: WakeUp
  let wakeUpByBusyWriter: WakeUp

  var json: String {
    let entries = throughput.map {
      """
      {"bytes":\($0.bytes),"recordsPerSecond":\(Self.rounded($0.recordsPerSecond, 0)),\
      "systemCallsPerMillionRecords":\(Self.rounded($0.systemCallsPerMillionRecords, 2))}
      """
    }
    return """
      {"throughput":[\(entries.joined(separator: ","))],"wakeUp":\(Self.json(wakeUp)),\
      "wakeUpByBusyWriter":\(Self.json(wakeUpByBusyWriter))}
      """
  }

  private static func json(_ wakeUp: WakeUp) -> String {
    """
    {"samples":\(wakeUp.samples),\
    "medianMicroseconds":\(rounded(wakeUp.medianMicroseconds, 1)),\
    "p99Microseconds":\(rounded(wakeUp.p99Microseconds, 1))}
    """
  }

  var table: String {
    let rows = throughput.map {
      """
      \($0.bytes) B: \(Self.rounded($0.recordsPerSecond / 1e6, 2)) M records/s, \
      \(Self.rounded($0.recordsPerSecond * Double($0.bytes) / 1e6, 0)) MB/s, \
      \(Self.rounded($0.systemCallsPerMillionRecords, 2)) system calls per million records
      """
    }
    return
      (rows + [
        "wake-up: " + Self.text(wakeUp),
        "wake-up by a writer that never sleeps: " + Self.text(wakeUpByBusyWriter),
      ]).joined(separator: "\n")
  }

  private static func text(_ wakeUp: WakeUp) -> String {
    """
    median \(rounded(wakeUp.medianMicroseconds, 1)) µs, p99 \(rounded(wakeUp.p99Microseconds, 1)) µs \
    (\(wakeUp.samples) samples)
    """
  }

  private static func rounded(_ value: Double, _ digits: Int) -> String {
    var factor = 1.0
    for _ in 0..<digits { factor *= 10 }
    let scaled = (value * factor).rounded() / factor
    return digits == 0 ? "\(Int(scaled))" : "\(scaled)"
  }
}
