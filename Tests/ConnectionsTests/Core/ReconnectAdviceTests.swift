// When clients come back, and how many may without counting for the rate.

import Testing

@testable import Connections

@Suite("13.B12: coming back")
struct ReconnectAdviceTests {
  @Test("Who loses a worker comes back within a spread that grows with the worker and stays within the drain")
  func ending() {
    #expect(ReconnectAdvice.endingMs(connections: 0, drainSeconds: 30) == 1_000...3_000)
    #expect(ReconnectAdvice.endingMs(connections: 1_000, drainSeconds: 30) == 1_000...3_000)
    #expect(ReconnectAdvice.endingMs(connections: 10_000, drainSeconds: 30) == 1_000...11_000)
    #expect(ReconnectAdvice.endingMs(connections: 10_000, drainSeconds: 5) == 1_000...6_000)
    #expect(ReconnectAdvice.endingMs(connections: 1_000_000, drainSeconds: 3_600) == 1_000...31_000)
    #expect(ReconnectAdvice.endingMs(connections: 10_000, drainSeconds: 1) == 1_000...3_000)
  }

  @Test("A given source of random numbers gives the same advice again, spread over all of its range")
  func random() {
    func draws() -> [Int] {
      var seed: UInt64 = 1
      var source = RandomSource {
        seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return seed
      }
      return (0..<1_000).map { _ in Int.random(in: ReconnectAdvice.usualMs, using: &source) }
    }
    let drawn = draws()
    #expect(drawn == draws())
    #expect(drawn.allSatisfy(ReconnectAdvice.usualMs.contains) && Set(drawn).count > 500)
    #expect(drawn.contains { $0 < 1_200 } && drawn.contains { $0 > 2_800 })
  }
}

@Suite("13.B12: connections that were open lately")
struct RecentPeakTests {
  private func peak(_ words: [UInt64], at seconds: Int64) -> Int {
    RecentPeak.peak(of: words, second: seconds)
  }

  @Test("The most of this period and of the one before counts, and no longer")
  func periods() {
    var word = RecentPeak.noting(7, in: 0, second: 1_000 * 300)
    word = RecentPeak.noting(3, in: word, second: 1_000 * 300 + 299)
    #expect(peak([word], at: 1_000 * 300 + 299) == 7)
    #expect(peak([word], at: 1_001 * 300 + 299) == 7, "nobody has noted anything since")
    #expect(peak([word], at: 1_002 * 300) == 0)
    word = RecentPeak.noting(2, in: word, second: 1_001 * 300)
    #expect(peak([word], at: 1_001 * 300) == 7)
    word = RecentPeak.noting(1, in: word, second: 1_002 * 300)
    #expect(peak([word], at: 1_002 * 300) == 2)
    word = RecentPeak.noting(0, in: word, second: 1_005 * 300)
    #expect(peak([word], at: 1_005 * 300) == 0)
  }

  @Test("What any worker has noted counts; odd words and times that go back give nothing false")
  func words() {
    let words = [
      0, RecentPeak.noting(5, in: 0, second: 600), RecentPeak.noting(9, in: .max, second: 600),
    ]
    #expect(peak(words, at: 600) == 9)
    #expect(peak([], at: 600) == 0 && peak([.max], at: 600) == 0)
    #expect(peak([RecentPeak.noting(5, in: 0, second: 600)], at: 0) == 0)
    #expect(peak([RecentPeak.noting(-1, in: 0, second: 600)], at: 600) == 0)
    #expect(peak([RecentPeak.noting(.max, in: 0, second: 600)], at: 600) == 1 << 20 - 1)
    #expect(peak([RecentPeak.noting(4, in: 0, second: 1_000_000_000_000)], at: 1_000_000_000_000) == 4)
  }
}
