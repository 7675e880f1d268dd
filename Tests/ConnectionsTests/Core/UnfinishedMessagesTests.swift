// Messages that aren't whole, and the time that they have.

import Testing

@testable import Connections

@Suite("Unfinished messages")
struct UnfinishedMessagesTests {
  @Test(
    "13.B11: Connections whose messages aren't whole are found when their time is up, once begun is begun")
  func unfinishedMessages() {
    var messages = UnfinishedMessages()
    messages.begun(1, second: 10)
    messages.begun(2, second: 12)
    messages.begun(1, second: 14)
    #expect(messages.overdue(after: 5, second: 14) == [])
    #expect(messages.overdue(after: 5, second: 15) == [1])
    #expect(Set(messages.overdue(after: 5, second: 17)) == [1, 2])
    messages.ended(1)
    messages.ended(3)
    #expect(messages.overdue(after: 5, second: 100) == [2])
  }

  @Test("13.B11: An assembler tells whether something has begun, however it was cut")
  func isUnfinished() {
    let text: [UInt8] = [0x81, 0x83, 0, 0, 0, 0, 0x61, 0x62, 0x63]
    for end in 0...text.count {
      var assembler = WebSocketAssembler(maximumMessageBytes: 10)
      var actions: [WebSocketAction] = []
      _ = text[..<end].withUnsafeBytes { assembler.receive($0, into: &actions) }
      #expect(assembler.isUnfinished == (end > 0 && end < text.count), "\(end)")
      #expect(assembler.keptBytes == (end == text.count ? 0 : max(0, end - 6)))
    }
    // A ping between two fragments ends nothing.
    var assembler = WebSocketAssembler(maximumMessageBytes: 10)
    var actions: [WebSocketAction] = []
    for bytes in [[0x01, 0x81, 0, 0, 0, 0, 0x61], [0x89, 0x80, 0, 0, 0, 0]] as [[UInt8]] {
      _ = bytes.withUnsafeBytes { assembler.receive($0, into: &actions) }
      #expect(assembler.isUnfinished && assembler.keptBytes == 1)
    }
    assembler.stop()
    #expect(!assembler.isUnfinished && assembler.keptBytes == 0 && assembler.isOver)
  }
}
