// What becomes of the bytes for a client that reads slowly, or not at all.

import Testing

@testable import Connections

@Suite("Outbox")
struct OutboxTests {
  @Test("hands out chunks in order, one at a time")
  func order() {
    var outbox = Outbox<String>(maximumBytes: 100)
    #expect(outbox.offer("a", bytes: 10) == .sendNow)
    #expect(outbox.offer("b", bytes: 10) == .waits)
    #expect(outbox.offer("c", bytes: 10) == .waits)
    #expect(outbox.unsentBytes == 30)
    #expect(outbox.sent() == "b")
    #expect(outbox.unsentBytes == 20)
    #expect(outbox.sent() == "c")
    #expect(outbox.sent() == nil)
    #expect(outbox.isDrained)
    #expect(outbox.offer("d", bytes: 10) == .sendNow)
  }

  @Test("is bounded in bytes, whatever the number of chunks")
  func bound() {
    var outbox = Outbox<Int>(maximumBytes: 100)
    #expect(outbox.offer(0, bytes: 60) == .sendNow)
    #expect(outbox.offer(1, bytes: 40) == .waits)
    #expect(outbox.offer(2, bytes: 1) == .tooSlow)
    #expect(outbox.unsentBytes == 100)
    #expect(outbox.sent() == 1)
    #expect(outbox.offer(2, bytes: 60) == .waits)
  }

  @Test("takes one chunk of any size")
  func large() {
    var outbox = Outbox<Int>(maximumBytes: 100)
    #expect(outbox.offer(0, bytes: 1000) == .sendNow)
    #expect(outbox.offer(1, bytes: 1) == .tooSlow)
  }

  @Test("ends with the farewell right behind what is in flight, and drops the rest")
  func endsBehindFlight() {
    var outbox = Outbox<String>(maximumBytes: 100)
    _ = outbox.offer("in flight", bytes: 10)
    _ = outbox.offer("dropped", bytes: 90)
    #expect(outbox.offer("refused", bytes: 1) == .tooSlow)
    #expect(outbox.end(farewell: "farewell", bytes: 5) == false)
    #expect(outbox.offer("late", bytes: 1) == .ended)
    #expect(outbox.unsentBytes == 15)
    #expect(outbox.sent() == "farewell")
    #expect(!outbox.isDrained)
    #expect(outbox.sent() == nil)
    #expect(outbox.isDrained)
  }

  @Test("ends at once when nothing is in flight, and only once")
  func endsAtOnce() {
    var outbox = Outbox<String>(maximumBytes: 100)
    #expect(outbox.end(farewell: "farewell", bytes: 5) == true)
    #expect(outbox.end(farewell: "again", bytes: 5) == false)
    #expect(outbox.sent() == nil)
    #expect(outbox.isDrained)
    #expect(outbox.offer("late", bytes: 1) == .ended)
  }
}
