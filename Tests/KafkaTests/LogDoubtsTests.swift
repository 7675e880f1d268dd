import Testing

@testable import Kafka

@Suite("14.E23 Signs that a log may have changed")
struct LogDoubtsTests {
  private static let second: UInt64 = 1_000_000_000
  private let start: UInt64 = 1_000_000_000_000

  private func judge(
    _ doubts: inout LogDoubts, answers: Int = 0, lost: Set<Int32> = [], isReading: Bool = true,
    at seconds: Double = 0
  ) -> LogDoubts.Doubt? {
    doubts.judge(
      BrokerSigns.Contents(lost: lost, answers: answers), isReading: isReading,
      start + UInt64(seconds * Double(Self.second)))
  }

  @Test("an answer about topics is one, if anything is read")
  func answer() {
    var doubts = LogDoubts()
    #expect(judge(&doubts) == nil)
    #expect(judge(&doubts, answers: 1, isReading: false) == nil)
    #expect(judge(&doubts, answers: 1) == .everything)
  }

  @Test("a lost broker is one for what it leads; then answers are none for five seconds")
  func lost() {
    var doubts = LogDoubts()
    #expect(judge(&doubts, answers: 3, lost: [2]) == .leads([2]))
    #expect(judge(&doubts, answers: 1, at: 4.9) == nil)
    #expect(judge(&doubts, lost: [2], at: 4.9) == .leads([2]))
    #expect(judge(&doubts, answers: 1, at: 9.8) == nil)
    #expect(judge(&doubts, answers: 1, at: 9.9) == .everything)
  }

  @Test("what was found out of a broker's logs before it was lost is out of date")
  func outOfDate() {
    var doubts = LogDoubts()
    doubts.beginComparing()
    _ = judge(&doubts, lost: [2])
    #expect(doubts.isOutOfDate(2) && !doubts.isOutOfDate(1) && !doubts.isOutOfDate(nil))
    doubts.beginComparing()
    #expect(!doubts.isOutOfDate(2))
  }

  @Test("answers that come all the time are doubted ever more seldom, but once a minute")
  func pauses() {
    var doubts = LogDoubts()
    var times: [Double] = []
    for tenth in 0..<4_000 where judge(&doubts, answers: 1, at: Double(tenth) / 10) != nil {
      times.append(Double(tenth) / 10)
    }
    #expect(times.starts(with: [0, 1, 3, 7, 15, 31, 63, 123, 183]))
    // Behind a pause it begins anew.
    #expect(judge(&doubts, answers: 1, at: 1_000) == .everything)
    #expect(judge(&doubts, answers: 1, at: 1_001) == .everything)
  }
}
