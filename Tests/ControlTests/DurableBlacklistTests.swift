// The blacklist in STATE_DIR: what is written is read again, what is damaged is refused, and nobody waits for ever.

import Foundation
import Kit
import Links
import TestSupport
import Testing

@testable import Control

@Suite struct DurableBlacklistTests {
  private typealias Entry = BlacklistFile.Entry

  private static func entries(_ numbers: Range<Int>) -> [Entry] {
    numbers.map {
      Entry(session: SessionDigest(low: UInt64($0), high: ~UInt64($0)), until: UInt32(1_000 + $0))
    }
  }

  @Test(
    "14.D21 What is written and what is added is read again; what a try that failed has left is written over")
  func roundTrip() throws {
    let directory = try TestDirectory()
    let file = BlacklistFile(directory: directory.path)
    #expect(try file.read() == nil)
    try file.replace(by: Self.entries(0..<3))
    try file.append(Self.entries(3..<10), behind: 3)
    try file.append(Self.entries(20..<21), behind: 5)
    #expect(try file.read() == Self.entries(0..<5) + Self.entries(20..<21))
    #expect(directory.size == BlacklistFile.bytes(records: 6))
    #expect(throws: StateFile.Failure.self) { try file.append(Self.entries(0..<1), behind: 7) }
  }

  @Test("14.D21 No byte can be another one; an end that was never confirmed may be missing")
  func damage() throws {
    let directory = try TestDirectory()
    let file = BlacklistFile(directory: directory.path)
    try file.replace(by: Self.entries(0..<4))
    let bytes = try Data(contentsOf: directory.blacklist)
    for index in bytes.indices {
      var damaged = bytes
      damaged[index] ^= 0x10
      try damaged.write(to: directory.blacklist)
      #expect(throws: StateFile.Failure.self, "byte \(index)") { try file.read() }
    }
    for missing in 1..<24 {
      try bytes.dropLast(missing).write(to: directory.blacklist)
      #expect(try file.read() == Self.entries(0..<3))
    }
    // Room that was made for a record whose octets never came to the disk, all of them or the last.
    try (bytes + Data(repeating: 0, count: 100)).write(to: directory.blacklist)
    #expect(try file.read() == Self.entries(0..<4))
    try (bytes.dropLast(4) + Data(repeating: 0, count: 4)).write(to: directory.blacklist)
    #expect(try file.read() == Self.entries(0..<3))
    try Data("rig-blacklist 2\n".utf8).write(to: directory.blacklist)
    #expect(throws: StateFile.Failure.self) { try file.read() }
  }

  @Test("14.D21 A file that is mostly of no use is written anew, with what is alive")
  func rewritten() throws {
    let directory = try TestDirectory()
    let keeper = BlacklistKeeper(BlacklistFile(directory: directory.path)) { work, done in done(work()) }
    #expect(try keeper.begin(now: 0).isEmpty)
    let alive = Self.entries(0..<2)
    keeper.living = { alive }
    var answered = 0
    for _ in 0..<2_500 {
      keeper.add(alive[0]) { failure in
        #expect(failure == nil)
        answered += 1
      }
    }
    #expect(answered == 2_500)
    #expect(directory.size <= BlacklistFile.bytes(records: 1_001))
    let next = BlacklistKeeper(BlacklistFile(directory: directory.path)) { work, done in done(work()) }
    #expect(Set(try next.begin(now: 0).map(\.until)) == [1_000, 1_001])
    #expect(try next.begin(now: 1_000) == [alive[1]], "what has expired is forgotten")
  }

  @Test(
    "14.D21 Entries that wait are written as one group; a disk that fails, or an end, is said to all of them")
  func groups() throws {
    let directory = try TestDirectory()
    var pending: [() -> Void] = []
    var fails = false
    let keeper = BlacklistKeeper(BlacklistFile(directory: directory.path)) { work, done in
      pending.append { done(fails ? StateFile.Failure(description: "no") : work()) }
    }
    _ = try keeper.begin(now: 0)
    var answers: [String] = []
    func add(_ number: Int) {
      keeper.add(Self.entries(number..<number + 1)[0]) {
        answers.append("\(number) \($0?.description ?? "ok")")
      }
    }
    for number in 0..<3 { add(number) }
    #expect(pending.count == 1 && answers.isEmpty)
    pending.removeFirst()()
    #expect(answers == ["0 ok"] && pending.count == 1)
    fails = true
    add(3)
    pending.removeFirst()()
    #expect(answers == ["0 ok", "1 no", "2 no", "3 no"] && pending.isEmpty)
    fails = false
    add(4)
    add(5)
    keeper.stop()
    add(6)
    #expect(answers.suffix(2) == ["5 STATE_DIR: this worker ends", "6 STATE_DIR: this worker ends"])
    #expect(try BlacklistFile(directory: directory.path).read() == Self.entries(0..<1))
  }
}

extension TestDirectory {
  fileprivate var blacklist: URL { URL(fileURLWithPath: file("blacklist")) }
  fileprivate var size: Int { ((try? Data(contentsOf: blacklist)) ?? Data()).count }
}
