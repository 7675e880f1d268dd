// A segment in which somebody has written what he liked: everything ends in a value or an error, nothing in a crash,
// an endless loop, or a payload that lies elsewhere. An access outside the mapping would hit its guard pages.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A damaged ring")
struct RingDamageTests {
  private static let casesPerSeed = 100
  private static let damagesPerCase = 3

  @Test(
    "crashes nobody, hangs nobody, and yields only what lies inside it",
    arguments: DamagedRing.Shape.allCases, [101, 102, 103, 104, 105] as [UInt64])
  func random(shape: DamagedRing.Shape, seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    for number in 0..<Self.casesPerSeed {
      let ring = try DamagedRing(shape, &random)
      for _ in 0..<Self.damagesPerCase {
        try ring.damage(&random)
        ring.useExisting(&random)
        ring.attachAll(&random)
      }
      try #require(
        ring.complaints.isEmpty, "shape \(shape), seed \(seed), case \(number): \(ring.complaints)")
    }
  }

  @Test(
    "works again for everybody after a reset, unless the epoch is gone",
    arguments: [111, 112, 113] as [UInt64])
  func reset(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    var mended = 0
    for number in 0..<Self.casesPerSeed {
      let ring = try DamagedRing(.history, &random)
      try ring.damage(&random)
      ring.useExisting(&random)
      guard (try? Ring.reset(ring.fd, readers: DamagedRing.readers)) != nil else { continue }
      mended += 1
      let (writer, reader) = (try ring.ring.writer(), try ring.ring.reader(1))
      try #require(writer.send(7), "seed \(seed), case \(number)")
      try #require(reader.all() == [Seen(writer.nextSequence - 1, 1, [UInt8](repeating: 7, count: 16))])
      reader.commit()
      try #require(ring.usage().tailSequence == writer.nextSequence - 1)
    }
    #expect(mended > Self.casesPerSeed / 2)
  }

  @Test(
    "of which every single word is overwritten with what is likely to do harm",
    arguments: DamagedRing.Shape.allCases)
  func everyWord(shape: DamagedRing.Shape) throws {
    var random = SplitMix(seed: 121)
    let original = try DamagedRing(shape, &random)
    // The header's words that have a meaning, both readers' lines, and the first records with their headers.
    let words =
      Array(stride(from: 0, to: 512, by: 8))
      + Array(stride(from: RingLayout.readerTableOffset, to: RingLayout.reader(DamagedRing.readers), by: 8))
      + Array(stride(from: RingLayout.headerBytes, to: RingLayout.headerBytes + 256, by: 8))
    for offset in words {
      for value in original.harmfulValues {
        let before = original.vandal.word(offset)
        original.vandal.setWord(offset, value)
        original.attachAll(&random, writing: false)
        original.vandal.setWord(offset, before)
        try #require(original.complaints.isEmpty, "word \(offset) is \(value): \(original.complaints)")
      }
    }
  }
}
