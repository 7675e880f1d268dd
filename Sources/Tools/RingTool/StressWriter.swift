// The writer of the stress test: appends batches of random size until it is killed, wherever that may be.

import Glibc
import IPC

struct StressWriter {
  /// Records of one publication, at most.
  private static let largestBatch = 40

  private let ring: CInt
  private let wake: [CInt]
  private let records: UInt64
  private var random: SplitMix

  init(_ options: ToolOptions) throws(ToolError) {
    ring = try options.number("--ring")
    wake = try options.numbers("--wake")
    records = try options.number("--records", UInt64.max)
    random = SplitMix(seed: try options.number("--seed"))
  }

  mutating func run() throws {
    let writer = try RingWriter(attaching: ring, wake: wake)
    let parent = ParentWatch()
    var left = records
    while left > 0 {
      try parent.require()
      let batch = min(left, UInt64.random(in: 1...UInt64(Self.largestBatch), using: &random))
      for _ in 0..<batch {
        let record = StressRecord(sequence: writer.nextSequence, maximumPayload: writer.maximumPayload)
        while true {
          let result = writer.append(type: record.type, length: record.length) { record.fill($0) }
          if case .appended = result { break }
          guard result == .full else { throw ToolError.unusable("append answered \(result)") }
          writer.publish()
          try parent.require()
          Waiting.moment()
        }
      }
      writer.publish()
      left -= batch
    }
  }
}
