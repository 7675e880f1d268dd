// Connections per minute over several workers.

import Testing

@testable import Connections

@Suite("Rate window")
struct RateWindowTests {
  @Test("admits as many as the limit in one minute, and refuses the next")
  func limit() {
    var word: UInt64 = 0
    for _ in 0..<5 {
      guard case .admitted(let next) = RateWindow.admit(own: word, others: [], limit: 5, second: 120)
      else {
        Issue.record("refused within the limit")
        return
      }
      word = next
    }
    #expect(
      RateWindow.admit(own: word, others: [], limit: 5, second: 135) == .refused(retryAfterSeconds: 45))
    #expect(
      RateWindow.admit(own: word, others: [], limit: 5, second: 180) == .admitted(word: 3 << 32 | 1))
  }

  @Test("tells how many all workers have admitted in the minute")
  func admitted() {
    let words: [UInt64] = [2 << 32 | 3, 1 << 32 | 9, 2 << 32 | 4, 0]
    #expect(RateWindow.admitted(words, second: 120) == 7)
    #expect(RateWindow.admitted(words, second: 180) == 0)
  }

  @Test("counts what the other workers accepted in the same minute, and not what is older")
  func others() {
    let minute: UInt64 = 2 << 32
    let old: UInt64 = 1 << 32
    #expect(
      RateWindow.admit(own: minute | 1, others: [minute | 3, old | 100], limit: 5, second: 120)
        == .admitted(word: minute | 2))
    #expect(
      RateWindow.admit(own: minute | 1, others: [minute | 4, old | 100], limit: 5, second: 179)
        == .refused(retryAfterSeconds: 1))
  }

  @Test("refuses everything with a limit of 0 or less", arguments: [0, -1])
  func none(limit: Int) {
    #expect(
      RateWindow.admit(own: 0, others: [], limit: limit, second: 120) == .refused(retryAfterSeconds: 60))
  }

  @Test("doesn't overflow into the minute's half of the word")
  func noOverflow() {
    let full: UInt64 = 2 << 32 | 0xFFFF_FFFF
    #expect(
      RateWindow.admit(own: full, others: [full, full], limit: .max, second: 120)
        == .refused(retryAfterSeconds: 60))
  }
}
