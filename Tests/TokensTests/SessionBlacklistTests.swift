// Sessions that are ended, in numbers.

import Kit
import Links
import TestSupport
import Testing

@testable import Tokens

@Suite struct SessionBlacklistTests {
  private func session(_ number: UInt64) -> SessionDigest {
    // Many share their place in the table.
    SessionDigest(low: number % 97, high: number)
  }

  @Test("an entry holds until its time, which a later one moves and an earlier one doesn't")
  func times() {
    var list = SessionBlacklist()
    #expect(!list.contains(session(1), now: 10))
    let isNew = list.add(session(1), until: 20, now: 10)
    #expect(isNew)
    #expect(list.contains(session(1), now: 19))
    #expect(!list.contains(session(1), now: 20))
    let isShorter = list.add(session(1), until: 15, now: 10)
    #expect(!isShorter)
    #expect(list.until(session(1), now: 10) == 20)
    list.add(session(1), until: 30, now: 10)
    #expect(list.until(session(1), now: 10) == 30)
    let isOver = list.add(session(2), until: 10, now: 10)
    #expect(!isOver)
    #expect(list.count == 1)
  }

  @Test("says what a dictionary says, whatever is added and expires")
  func agreement() {
    var list = SessionBlacklist()
    var known: [SessionDigest: UInt32] = [:]
    var random = SeededRandom(seed: 1)
    var now: UInt32 = 100
    for step in 0..<50_000 {
      let session = session(UInt64.random(in: 0..<3000, using: &random))
      let until = now + UInt32.random(in: 0..<200, using: &random)
      list.add(session, until: until, now: now)
      if until > now { known[session] = max(until, known[session] ?? 0) }
      if step % 10 == 0 { now += 1 }
      let asked = self.session(UInt64.random(in: 0..<3000, using: &random))
      #expect(list.contains(asked, now: now) == (known[asked].map { $0 > now } ?? false))
    }
  }

  @Test("grows by what is alive: a hundred times as many that have expired take no room")
  func bounded() {
    var list = SessionBlacklist()
    for number in 0..<100_000 as Range<UInt64> {
      let now = UInt32(number / 100) + 1
      list.add(session(number), until: now + 10, now: now)
    }
    #expect(list.bytes <= 20 * 4096)
  }

  @Test("a hash of a session's name is always the same, and another name's is another")
  func digests() throws {
    let hasher = try #require(SessionHasher())
    #expect(hasher.digest("a") == hasher.digest("a"))
    #expect(hasher.digest("a") != hasher.digest("b"))
    #expect(hasher.digest("\u{e9}") != hasher.digest("e\u{301}"), "names are their bytes")
  }
}
