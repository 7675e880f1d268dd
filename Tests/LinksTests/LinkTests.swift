// Messages between workers over real rings: whole, in order, to whom they are for, whoever dies in the middle.

import IPC
import Kit
import TestSupport
import Testing

@testable import Links

@Suite("Links")
struct LinkTests {
  private static func call(_ count: Int) -> CallMessage {
    .call(ServiceCall(.submissionCheck, body: (0..<count).map { UInt8(truncatingIfNeeded: $0 / 7) }))
  }

  @Test(
    "A message comes whole, in as many records as it takes", arguments: [0, 1, 400, 449, 450, 2000, 30_000])
  func whole(count: Int) throws {
    let bench = try LinkBench(capacity: 4096)
    let (outbox, inbox) = (try bench.outbox(), try bench.inbox())
    let sent = [Self.call(count), .cancel, Self.call(count / 2)]
    for message in sent { try outbox.send(message, to: 0, 9, deadlineNs: 5) }
    var received: [CallMessage] = []
    var envelopes: Set<UInt64> = []
    for _ in 0..<1000 where received.count < sent.count {
      inbox.serve { (message) throws(RecordFault) in
        received.append(try message.decoded())
        envelopes.insert(message.envelope.correlation ^ message.envelope.deadlineNs)
      }
      outbox.flush()
    }
    let isSame = received == sent
    #expect(isSame && envelopes == [9 ^ 5] && !outbox.isBlocked)
  }

  @Test("A message comes to whom it is for, and to nobody else")
  func targets() throws {
    let bench = try LinkBench(capacity: 8192, readers: 2)
    let outbox = try bench.outbox()
    let inboxes = try LinkBench.readers.map { try bench.inbox($0) }
    for (target, body) in [(0, 1), (1, 2), (1, 900), (0, 900), (1, 3)] {
      try outbox.send(Self.call(body), to: UInt16(target), 0)
    }
    #expect(inboxes[0].messages(as: CallMessage.self) == [Self.call(1), Self.call(900)])
    #expect(inboxes[1].messages(as: CallMessage.self) == [Self.call(2), Self.call(900), Self.call(3)])
  }

  @Test("What has no room waits, bounded and in order; what is refused isn't sent in part")
  func bounds() throws {
    let bench = try LinkBench(capacity: 4096)
    let outbox = try bench.outbox(maximumMessageBytes: 2_000, maximumBytes: 6_000)
    let inbox = try bench.inbox()
    var isDrained = false
    outbox.onDrained = { isDrained = true }
    #expect(throws: Outbox.Refusal.tooLarge(limitBytes: 2_000)) {
      try outbox.send(Self.call(2_500), to: 0, 0)
    }
    var sent = 0
    do throws(Outbox.Refusal) {
      while sent < 1000 {
        try outbox.send(Self.call(sent % 2 == 0 ? 1_500 : 10), to: 0, UInt64(sent))
        sent += 1
      }
    } catch {
      #expect(error == .noRoom)
    }
    #expect(outbox.isBlocked && sent < 100 && sent > 4)
    var received: [UInt64] = []
    for _ in 0..<1000 where received.count < sent {
      inbox.serve { (message) throws(RecordFault) in
        _ = try message.decoded(as: CallMessage.self)
        received.append(message.envelope.correlation)
      }
      bench.later()
    }
    #expect(received == (0..<sent).map { UInt64($0) })
    #expect(isDrained && !outbox.isBlocked)
  }

  @Test("A reader hands on a bounded number of records per turn, and says whether there may be more")
  func turns() throws {
    let bench = try LinkBench()
    let (outbox, inbox) = (try bench.outbox(), try bench.inbox())
    let bound = RingSet.recordsPerTurn
    for _ in 0..<2 * bound + 1 { try outbox.send(CallMessage.cancel, to: 0, 0) }
    var counts: [Int] = []
    var hasMore: [Bool] = []
    for _ in 0..<3 {
      var count = 0
      hasMore.append(inbox.serve { (_) throws(RecordFault) in count += 1 })
      counts.append(count)
    }
    #expect(counts == [bound, bound, 1] && hasMore == [true, true, false])
  }

  @Test("A message larger than its reader takes is told as such, and the next one comes")
  func tooLarge() throws {
    let bench = try LinkBench(capacity: 4096)
    let (outbox, inbox) = (try bench.outbox(), try bench.inbox(maximumBytes: 1_000))
    try outbox.send(Self.call(1_500), to: 0, 1)
    try outbox.send(Self.call(900), to: 0, 2)
    var told: [UInt64: Bool] = [:]
    inbox.serve { (message) throws(RecordFault) in
      told[message.envelope.correlation] = message.payload != nil
    }
    #expect(told == [1: false, 2: true])
    // Another release may have another bound: whoever can't do without is told, and nobody is taken for mad.
    try outbox.send(Self.call(1_500), to: 0, 3)
    try outbox.send(Self.call(8), to: 0, 4)
    #expect(inbox.messages(as: CallMessage.self) == [Self.call(8)])
    #expect(inbox.rings.takeIncidents().isEmpty)
    let counted =
      "rig_unknown_records_total{ring=\"\(bench.grant.name)\",kind=\"message.19 of too many bytes\"}"
    #expect(bench.metric(counted) == 1)
  }

  @Test("A stream's bytes come in order, in messages of a bounded size, however full the ring is")
  func stream() throws {
    let bench = try LinkBench(capacity: 256 << 10)
    let (outbox, inbox) = (try bench.outbox(), try bench.inbox())
    let bytes = (0..<700_000).map { UInt8(truncatingIfNeeded: $0 / 11) }
    let envelope = Envelope(.body, target: 0, correlation: 3)
    let isSent = bytes.withUnsafeBytes { outbox.stream($0, envelope) }
    #expect(isSent && outbox.isBlocked)
    var received: [UInt8] = []
    var largest = 0
    for _ in 0..<1000 where received.count < bytes.count {
      inbox.serve { (message) throws(RecordFault) in
        guard message.envelope == envelope, let payload = message.payload else { throw .malformed }
        largest = max(largest, payload.count)
        received.append(contentsOf: payload)
      }
      bench.later()
    }
    // Compared by hand: a difference of so many octets would take minutes to print.
    let isWhole = received == bytes
    #expect(isWhole && largest <= 64 << 10)
  }

  // MARK: Deaths

  @Test(
    "A writer dies over any part of a message: what it had finished came, and its successor is understood")
  func writerDies() throws {
    let records = try Self.records(of: [Self.call(100), Self.call(2_000), Self.call(50)])
    #expect(records.count > 4)
    for death in 0...records.count {
      let bench = try LinkBench(capacity: 8192)
      let inbox = try bench.inbox()
      try Self.append(records[..<death], bench)
      let before = inbox.messages(as: CallMessage.self)
      try bench.outbox().send(Self.call(7), to: 0, 99)
      let after = inbox.messages(as: CallMessage.self)
      let finished = [Self.call(100), Self.call(2_000), Self.call(50)].prefix(before.count)
      #expect(before == Array(finished) && after == [Self.call(7)], "\(death)")
      #expect(inbox.rings.takeIncidents().isEmpty, "\(death)")
    }
  }

  @Test(
    "A reader dies over any part of a message: its successor passes over the rest, and reads what follows")
  func readerDies() throws {
    let sent = [Self.call(100), Self.call(2_000), Self.call(50)]
    let records = try Self.records(of: sent)
    for death in 0...records.count {
      let bench = try LinkBench(capacity: 8192)
      try Self.append(records[..<death], bench)
      let before = try bench.inbox().messages(as: CallMessage.self)
      try Self.append(records[death...], bench)
      let successor = try bench.inbox()
      let after = successor.messages(as: CallMessage.self)
      // At most the message that was in the middle is lost: whoever asked sees the death.
      #expect(before.count + after.count >= sent.count - 1, "\(death)")
      #expect((before + after).allSatisfy { sent.contains($0) } && after.last ?? before.last == sent.last)
      #expect(successor.rings.takeIncidents().isEmpty, "\(death)")
    }
  }

  /// The records in which messages go, as bytes.
  private static func records(of messages: [CallMessage]) throws -> [[UInt8]] {
    let bench = try LinkBench(capacity: 8192)
    let outbox = try bench.outbox()
    let reader = try RingReader(attaching: bench.grant.fd, slot: 0)
    var records: [[UInt8]] = []
    for message in messages { try outbox.send(message, to: 0, 4) }
    while let record = try reader.next() { records.append(Array(record.bytes)) }
    return records
  }

  private static func append(_ records: ArraySlice<[UInt8]>, _ bench: LinkBench) throws {
    let writer = try RingWriter(attaching: bench.grant.fd, wake: bench.grant.wake)
    for record in records {
      _ = writer.append(type: Envelope.recordType, length: record.count) { $0.copyBytes(from: record) }
    }
    writer.publish()
  }

  // MARK: Records of others

  @Test(
    "15.3 What a later release adds is passed over, what it doesn't know is counted, the rest is reported")
  func nextRelease() throws {
    let record = try #require(try Self.records(of: [Self.call(10)]).first)
    func changed(_ position: Int, _ value: UInt8) -> [UInt8] {
      var bytes = record
      bytes[position] = value
      return bytes
    }
    // A longer envelope, an unknown flag, a field behind the others, an unknown kind.
    let longer = [40] + Array(record[1..<32]) + [UInt8](repeating: 7, count: 8) + record[32...]
    let field: [UInt8] = [0xFE, 0xCA, 2, 0, 0, 0, 1, 2]
    let bench = try LinkBench()
    let inbox = try bench.inbox()
    let known = [longer, changed(1, 0xF0), record + field]
    try Self.append(known + [changed(4, 200), changed(5, 9)], bench)
    let writer = try RingWriter(attaching: bench.grant.fd, wake: bench.grant.wake)
    _ = writer.append(type: 99, length: 1) { $0[0] = 1 }
    writer.publish()
    #expect(inbox.messages(as: CallMessage.self) == Array(repeating: Self.call(10), count: known.count))
    #expect(inbox.rings.takeIncidents().isEmpty)
    let name = bench.grant.name
    #expect(bench.metric("rig_unknown_records_total{ring=\"\(name)\",kind=\"message.200\"}") == 1)
    #expect(bench.metric("rig_unknown_records_total{ring=\"\(name)\",kind=\"99\"}") == 1)
  }

  @Test("What no release writes is reported, and read no further")
  func malformed() throws {
    let records = try Self.records(of: [Self.call(2_000)])
    func changed(_ record: [UInt8], _ position: Int, _ value: UInt8) -> [UInt8] {
      var bytes = record
      bytes[position] ^= value
      return bytes
    }
    for bad in [
      [Array(records[0][..<31])], [changed(records[0], 0, 32)],
      [changed(try Self.records(of: [.cancel])[0], 0, 0xFF)],
      // A part is missing, comes twice, or is of another message; the payload isn't whole.
      [records[0], records[2]], [records[0], records[1], records[1]],
      [records[0], changed(records[1], 8, 1)], [Array(try Self.records(of: [Self.call(9)])[0].dropLast())],
    ] {
      let bench = try LinkBench()
      let inbox = try bench.inbox()
      try Self.append(bad[...], bench)
      #expect(inbox.messages(as: CallMessage.self).isEmpty)
      #expect(inbox.rings.takeIncidents().count == 1, "\(bad.map(\.count))")
    }
  }

  @Test("No bytes crash the reader, and none are kept beyond the bound")
  func fuzz() throws {
    var random = SeededRandom(seed: 7)
    let records = try Self.records(of: [Self.call(2_000), .outcome(.busy("x")), .cancel])
    for _ in 0..<300 {
      let bench = try LinkBench()
      let inbox = try bench.inbox(maximumBytes: 1_500)
      var changed: [[UInt8]] = []
      for _ in 0..<20 {
        var record = records[Int.random(in: 0..<records.count, using: &random)]
        for _ in 0..<Int.random(in: 0...3, using: &random) {
          record[Int.random(in: 0..<record.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
        changed.append(record)
      }
      try Self.append(changed[...], bench)
      inbox.serve { (message) throws(RecordFault) in
        #expect(message.payload?.count ?? 0 <= 1_500)
        _ = try message.decoded(as: CallMessage.self)
      }
    }
  }
}
