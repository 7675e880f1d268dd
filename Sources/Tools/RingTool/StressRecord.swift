// What the stress test writes: records whose length, type and bytes follow from their sequence alone, so that every
// writer process writes the same and every reader knows what must be there.

import IPC

/// A small generator of evenly distributed numbers (SplitMix64), the same in every process.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// The record that belongs to a sequence.
struct StressRecord {
  let type: UInt16
  let length: Int
  private let seed: UInt64

  /// Most are small, some nearly as large as the ring allows, some empty.
  init(sequence: UInt64, maximumPayload: Int) {
    var random = SplitMix(seed: sequence)
    type = UInt16.random(in: 1...UInt16.max, using: &random)
    let limit = Int.random(in: 0..<16, using: &random) == 0 ? maximumPayload : min(maximumPayload, 300)
    length = Int.random(in: 0...limit, using: &random)
    seed = random.next()
  }

  func fill(_ bytes: UnsafeMutableRawBufferPointer) {
    for index in bytes.indices { bytes[index] = byte(index) }
  }

  func matches(_ record: RingRecord) -> Bool {
    guard record.type == type, record.bytes.count == length else { return false }
    return record.bytes.indices.allSatisfy { record.bytes[$0] == byte($0) }
  }

  private func byte(_ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: seed &+ UInt64(index) &* 31)
  }
}
