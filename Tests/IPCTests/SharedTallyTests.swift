// Counts that a worker shows the others.

import Testing

@testable import IPC
@testable import RingTool

@Suite("13.B12: counts that workers show each other")
struct SharedTallyTests {
  @Test("What the worker says is what the others read; a key that is gone counts nothing")
  func readBack() throws {
    let test = try TestPage()
    let own = SharedTally(of: try test.worker())
    let other = SharedTally(of: try test.attach())
    #expect(other.read(7) == (0, 0))
    #expect(own.set(7, count: 3, since: 1_000) && own.set(8, count: 1, since: 5))
    #expect(other.read(7) == (3, 1_000) && other.read(8) == (1, 5) && other.read(9) == (0, 0))
    #expect(own.set(7, count: 0, since: 0))
    #expect(other.read(7) == (0, 0))
    #expect(own.set(0, count: 2, since: .max))
    #expect(other.read(0) == (2, SharedTally.latest))
    #expect(own.set(9, count: .max, since: 1))
    #expect(other.read(9).count == SharedTally.mostCount)
  }

  @Test("Half of the table's entries find room, every one of them, and a table that is full says so")
  func room() throws {
    let test = try TestPage()
    let tally = SharedTally(of: try test.worker())
    let capacity = StatusLayout.tallyBuckets * StatusLayout.tallyBucketEntries
    var random = SplitMix(seed: 5)
    let keys = (0..<capacity).map { _ in UInt64.random(in: .min ... .max, using: &random) }
    #expect(keys.prefix(capacity / 2).allSatisfy { tally.set($0, count: 1, since: 1) })
    let refused = keys.suffix(capacity / 2).count { !tally.set($0, count: 1, since: 1) }
    #expect(refused > 0 && refused < capacity / 8)
    #expect(keys.prefix(capacity / 2).allSatisfy { tally.read($0).count == 1 })
    for key in keys { tally.set(key, count: 0, since: 0) }
    #expect(keys.allSatisfy { tally.read($0).count == 0 })
  }

  @Test("A worker's successor begins with nothing, and so does a page that is formatted anew")
  func successor() throws {
    let test = try TestPage()
    SharedTally(of: try test.worker()).set(7, count: 3, since: 1)
    let successor = try test.attach()
    successor.beginGeneration(pid: 2)
    #expect(SharedTally(of: successor).read(7).count == 0)
    SharedTally(of: successor).set(7, count: 3, since: 1)
    try StatusPage.reset(test.fd)
    #expect(SharedTally(of: try test.attach()).read(7).count == 0)
  }
}
