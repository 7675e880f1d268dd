// A status page in which somebody has written what he liked: its readers go on, with what can be true of it.

import Testing

@testable import IPC
@testable import RingTool

@Suite("A damaged status page")
struct StatusDamageTests {
  @Test(
    "crashes nobody, and shows no text that would break /metrics",
    arguments: [201, 202, 203, 204] as [UInt64])
  func random(seed: UInt64) throws {
    var random = DamageSource(seed: seed)
    for number in 0..<300 {
      let test = try TestPage()
      let worker = try test.worker()
      for index in 0..<20 {
        worker.metric(index % 3 == 0 ? .gauge : .counter, "n", labels: [("i", "\(index)")])?.add(Int64(index))
      }
      let vandal = try Vandal(test.fd)
      for _ in 0..<random.number(1...6) { random.damage(vandal) }
      for page in [worker, try? test.attach(), worker].compactMap(\.self) {
        use(page)
        let metrics = page.metrics()
        let fits = metrics.allSatisfy {
          !$0.series.isEmpty && $0.series.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
        }
        try #require(metrics.count <= StatusLayout.maximumEntries && fits, "seed \(seed), case \(number)")
      }
      try StatusPage.reset(test.fd)
      let successor = try test.worker()
      try #require(successor.metric(.counter, "n")?.value == 0 && successor.metrics().count == 1)
    }
  }

  private func use(_ page: StatusPage) {
    page.metric(.counter, "n", labels: [("i", "3")])?.add()
    page.metric(.gauge, "n", labels: [("i", "4")])?.set(1)
    page.metric(.counter, "n", labels: [("i", "new")])?.add()
    _ = (page.state, page.pid, page.heartbeat, page.generation, page.connectionWindow)
    _ = page.takeCorruptReport()
    page.beginGeneration(pid: 3)
  }
}

/// What the vandal of a status page does next.
struct DamageSource {
  private var random: SplitMix
  private static let harmful: [UInt64] = [
    0, 1, 2, 4095, 4096, 4097, .max, 1 << 63, UInt64(Int64.max), 201 << 16 | 1, 0xFFFF << 16 | 2,
    .max << 16 | 1,
  ]

  init(seed: UInt64) { random = SplitMix(seed: seed) }

  mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }

  mutating func damage(_ vandal: Vandal) {
    // Mostly where something is: the header's words, and the entries in use.
    let place =
      switch number(0...3) {
      case 0: number(0...264)
      case 1, 2: StatusLayout.entriesOffset + number(0...21 * StatusLayout.entryBytes)
      default: number(0...vandal.bytes.count - 1)
      }
    switch number(0...3) {
    case 0: vandal.bytes[place] ^= 1 << UInt8(number(0...7))
    case 1: vandal.bytes[place] = UInt8(number(0...255))
    case 2: vandal.setWord(place & ~7, Self.harmful.randomElement(using: &random) ?? 0)
    default: for offset in place..<min(place + 300, vandal.bytes.count) { vandal.bytes[offset] = 0xFF }
    }
  }
}
