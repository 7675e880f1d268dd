// A writer looks back over what it has published.

import Testing

@testable import IPC

@Suite struct RingRetainedTests {
  @Test("Records are found one behind the other, over the wrap and as far as they are published")
  func walk() throws {
    let ring = try TestRing()
    let writer = try ring.writer()
    let reader = try ring.reader()
    #expect(try writer.retained(from: writer.oldestRetained) == nil)
    for round in 0..<200 as Range<UInt8> {
      #expect(writer.send(round, count: 100))
      while try reader.next() != nil {}
      reader.commit()
    }
    _ = writer.append([1, 2, 3])
    var position = writer.oldestRetained
    var seen: [UInt8] = []
    while let record = try writer.retained(from: position) {
      seen.append(record.bytes[0])
      position = record.end
    }
    #expect(seen == Array(UInt8(200 - seen.count)..<200))
    #expect(seen.count > 20)
    #expect(position < writer.appendedEnd)
  }
}
