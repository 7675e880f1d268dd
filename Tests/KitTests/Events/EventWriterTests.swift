// Events into a real ring: one by one, and batches as a whole or not at all.

import IPC
import TestSupport
import Testing

@testable import Kit

@Suite("Event writer")
struct EventWriterTests {
  private func event(_ number: Int, bytes: Int = 100) -> PreparedEvent {
    let start = #"{"n":\#(number),"x":""#
    let fill = String(repeating: "x", count: max(0, bytes - start.utf8.count - 2))
    return PreparedEvent(type: "t", json: Array((start + fill + "\"}").utf8))
  }

  private func texts(_ events: some Sequence<PreparedEvent>) -> [String] { events.map(\.text) }

  @Test("what is appended is seen after publish, in order")
  func publish() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    let events = (0..<5).map { event($0) }
    #expect(writer.name == "events.test")
    for event in events {
      guard case .appended(let end) = writer.append(event) else {
        Issue.record("no room")
        return
      }
      #expect(end > 0)
    }
    #expect(try reader.events() == [])
    writer.publish()
    #expect(try reader.events() == texts(events))
  }

  @Test("14.E23 the word that events are missing is a record of its own type, with all that an event has")
  func gap() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    let origin = EventOrigin(source: .kafka, topic: "a\"b", partition: 4, offset: 99)
    let gap = PreparedEvent.eventsLost(
      count: nil, reason: "r", before: origin, acceptedAtNs: 5, stamp: Stamp(unixMs: 0, high: 0, low: 0))
    _ = writer.append(gap: gap)
    _ = writer.append(event(1))
    writer.publish()
    let first = try #require(try reader.next())
    #expect(first.type == EventRecord.gapRecordType)
    let record = try #require(EventRecord(ring: first))
    #expect(record.isGap && !record.isAddressed && record.origin == origin && record.acceptedAtNs == 5)
    #expect(
      String(decoding: record.jsonBytes, as: UTF8.self)
        == #"{"specversion":"1.0","type":"rig.events_lost","source":"rig","id":"00000000-0000-4000-8000-000000000000","#
        + #""time":"1970-01-01T00:00:00.000Z","data":{"count":null,"reason":"r","topic":"a\"b","partition":4}}"#
    )
    let second = try #require(try reader.next())
    #expect(EventRecord(ring: second)?.isGap == false)
  }

  @Test("a full ring takes no more until its reader goes on, and nothing is lost")
  func full() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    var taken: [PreparedEvent] = []
    while case .appended = writer.append(event(taken.count)) { taken.append(event(taken.count)) }
    #expect(taken.count > 5)
    #expect(writer.append(event(0)) == .full)
    writer.publish()
    #expect(writer.append(event(0)) == .full)
    #expect(try reader.events() == texts(taken))
    guard case .appended = writer.append(event(7)) else {
      Issue.record("no room though everything is read")
      return
    }
    writer.publish()
    #expect(try reader.events() == texts([event(7)]))
  }

  @Test("an event larger than an eighth of the ring is too large, also in a batch")
  func tooLarge() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    #expect(writer.append(event(1, bytes: 600)) == .tooLarge)
    #expect(writer.appendAll([event(1, bytes: 600)]) == .tooLarge)
    #expect(writer.appendAll([event(1), event(2, bytes: 600), event(3)]) == .tooLarge)
    writer.publish()
    #expect(try reader.events() == [])
  }

  @Test("a batch goes in as a whole")
  func batch() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    let events = (0..<20).map { event($0) }
    guard case .appended(let end) = writer.appendAll(events) else {
      Issue.record("no room")
      return
    }
    guard case .appended(let single) = writer.appendAll([event(99)]) else {
      Issue.record("no room")
      return
    }
    #expect(single > end)
    #expect(writer.appendAll([]) == .appended(end: 0))
    #expect(try reader.events() == [])
    writer.publish()
    #expect(try reader.events() == texts(events + [event(99)]))
  }

  @Test("a batch for whose end there is no room leaves nothing, and goes in later")
  func fullInTheMiddle() throws {
    let ring = try TestRing(capacity: 8192)
    let writer = try ring.writer()
    let reader = try ring.reader()
    var taken: [PreparedEvent] = []
    while writer.ring.capacity - Int(writer.ring.appendedEnd - writer.ring.slowestReaderPosition()) > 1500 {
      taken.append(event(taken.count))
      _ = writer.append(event(taken.count - 1))
    }
    let batch = (100..<115).map { event($0) }
    #expect(writer.appendAll(batch) == .full, "room for some of them")
    let small = event(50)
    taken.append(small)
    guard case .appended = writer.append(small) else {
      Issue.record("the room of the batch wasn't given back")
      return
    }
    writer.publish()
    #expect(writer.appendAll(batch) == .full)
    #expect(try reader.events() == texts(taken), "nothing of the batch")
    guard case .appended = writer.appendAll(batch) else {
      Issue.record("no room though everything is read")
      return
    }
    writer.publish()
    #expect(try reader.events() == texts(batch))
  }

  @Test("a batch of more than half a ring never fits")
  func largeBatch() throws {
    let ring = try TestRing(capacity: 4096)
    let writer = try ring.writer()
    let reader = try ring.reader()
    #expect(writer.appendAll((0..<30).map { event($0) }) == .tooLarge)
    writer.publish()
    #expect(try reader.events() == [])
  }

  @Test("random batches beside a reader arrive once each, whole and in order", arguments: 1...3)
  func random(seed: Int) throws {
    var random = SeededRandom(seed: UInt64(seed))
    let ring = try TestRing(capacity: 8192)
    let writer = try ring.writer()
    let reader = try ring.reader()
    var written: [String] = []
    var seen: [String] = []
    var next = 0
    for _ in 0..<2000 {
      let batch = (0..<Int.random(in: 1...12, using: &random)).map { offset in
        event(next + offset, bytes: .random(in: 20...400, using: &random))
      }
      switch writer.appendAll(batch) {
      case .appended:
        next += batch.count
        written += texts(batch)
      case .full: break
      case .tooLarge: #expect(batch.reduce(0) { $0 + $1.encodedLength } > 4096)
      }
      if Bool.random(using: &random) { writer.publish() }
      if Int.random(in: 0..<3, using: &random) == 0 { seen += try reader.events() }
    }
    writer.publish()
    seen += try reader.events()
    #expect(seen == written)
    #expect(written.count > 1000)
  }
}
