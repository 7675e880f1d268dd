// The state ring as a log: whatever happens, its retained records say exactly what is true.

import Glibc
import IPC
import Kit
import Links
import TestSupport
import Testing

@testable import Control

@Suite struct StateLogTests {
  private static let capacity = 65_536
  private static let maxEntries = 400

  private struct Facts: Equatable {
    var sessions: [SessionDigest: UInt32] = [:]
    var users: [Name: [String]] = [:]
    var apis: [Name: [UInt8]] = [:]
  }

  /// What somebody learns who reads everything that is retained.
  private static func retained(_ fd: CInt, now: UInt32) throws -> Facts {
    var facts = Facts()
    let ring = try RingWriter(attaching: fd, wake: [])
    try ring.forEachRetained { record in
      switch try? StateRecord(type: record.type, record.bytes) {
      case .blacklisted(let session, let until)?:
        if until > now { facts.sessions[session] = max(until, facts.sessions[session] ?? 0) }
      case .online(let user, let roles)?: facts.users[Name(user)] = roles
      case .offline(let user)?: facts.users[Name(user)] = nil
      case .apiDefined(let id, let order, let json)?: facts.apis[Name(id)] = json + [UInt8(order)]
      case .apiRemoved(let id)?: facts.apis[Name(id)] = nil
      default: break
      }
    }
    return facts
  }

  @Test(
    "Whatever is added, extended, expires, comes and goes, the retained records say what is true, for a successor too",
    arguments: [1, 2, 3, 4, 5] as [UInt64])
  func property(_ seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let fd = try Ring.create(name: "state", capacity: Self.capacity, readers: 1).take()
    defer { close(fd) }
    let reader = try RingReader(attaching: fd, slot: 0)
    var now: UInt32 = 1000
    var facts = Facts()
    var log = try StateLog(
      try RingWriter(attaching: fd, wake: [-1]), maxBlacklistEntries: Self.maxEntries, now: now)
    var kept = 0
    var keptUsers = 0
    var keptAPIs = 0
    for step in 0..<20_000 {
      let number = random.next() % 500
      let session = SessionDigest(low: number, high: number &* 7)
      let user = Name("user\(random.next() % 120)")
      let api = Name("api\(random.next() % 12)")
      switch random.next() % 10 {
      case 0...2:
        let until = now + UInt32(random.next() % 300 + 1)
        if case .kept = log.blacklist(session, until: until, now: now) {
          facts.sessions[session] = max(until, facts.sessions[session] ?? 0)
          kept += 1
        }
      case 3, 4:
        let roles = (0..<random.next() % 3).map { "role\($0)" }
        if case .kept = log.setOnline(user, roles: roles, now: now) {
          facts.users[user] = roles
          keptUsers += 1
        }
      case 5:
        if case .kept = log.setOffline(user, now: now) { facts.users[user] = nil }
      case 6: _ = log.say(.closeUser(user.text), now: now)
      case 7:
        let json = [UInt8](repeating: UInt8(random.next() % 256), count: Int(random.next() % 400))
        let order = random.next() % 256
        if case .kept = log.setAPI(api, order: order, json: json, now: now) {
          facts.apis[api] = json + [UInt8(order)]
          keptAPIs += 1
        }
      case 8:
        if case .kept = log.removeAPI(api, now: now) { facts.apis[api] = nil }
      default: now += UInt32(random.next() % 2)
      }
      facts.sessions = facts.sessions.filter { $0.value > now }
      // A reader that follows now and then.
      if step % 50 == 0 {
        while try reader.next() != nil {}
        reader.commit()
      }
      if step % 500 == 0 {
        #expect(try Self.retained(fd, now: now) == facts, "step \(step)")
      }
      if step % 1_700 == 0 {
        // Killed, and another one continues.
        log = try StateLog(
          try RingWriter(attaching: fd, wake: [-1]), maxBlacklistEntries: Self.maxEntries, now: now)
        #expect(log.sessions.filter { $0.value.until > now }.mapValues(\.until) == facts.sessions)
        #expect(Dictionary(uniqueKeysWithValues: log.online.map { ($0.user, $0.roles) }) == facts.users)
        #expect(log.apis.mapValues { $0.json + [UInt8($0.order)] } == facts.apis)
      }
      #expect(log.ring.oldestRetained <= log.clean)
    }
    #expect(kept > 4_000 && keptUsers > 2_500 && keptAPIs > 1_000)
    #expect(log.ring.appendedEnd > UInt64(Self.capacity) * 3, "the ring was written several times over")
    #expect(log.failure == nil)
  }

  @Test("A later time extends an entry, an earlier one changes nothing")
  func extending() throws {
    try withLog { log in
      let session = SessionDigest(low: 1, high: 2)
      guard case .kept(let first) = log.blacklist(session, until: 200, now: 100),
        case .kept(let same) = log.blacklist(session, until: 150, now: 100),
        case .kept(let second) = log.blacklist(session, until: 300, now: 100)
      else {
        Issue.record("not kept")
        return
      }
      #expect(same == first && second > first)
      #expect(log.blacklisted(session, now: 299) == 300)
      #expect(log.blacklisted(session, now: 300) == nil)
    }
  }

  @Test("More entries than allowed are refused until some have expired")
  func bound() throws {
    try withLog { log in
      for number in 0..<UInt64(Self.maxEntries) {
        let outcome = log.blacklist(
          SessionDigest(low: number, high: 0), until: number == 0 ? 150 : 200, now: 100)
        #expect(outcome != .tooMany && outcome != .full)
      }
      let more = SessionDigest(low: 9_999, high: 0)
      #expect(log.blacklist(more, until: 200, now: 149) == .tooMany)
      #expect(log.blacklist(more, until: 200, now: 150) != .tooMany)
    }
  }

  @Test("Users can't take the blacklist's half of the ring")
  func halves() throws {
    try withLog { log in
      var refused = 0
      for number in 0..<2_000 where log.setOnline(Name("user\(number)"), roles: ["a"], now: 1) == .tooMany {
        refused += 1
      }
      #expect(refused > 0)
      #expect(log.blacklist(SessionDigest(low: 1, high: 1), until: 10, now: 1) != .tooMany)
    }
  }

  @Test("A reader that lags makes the log full, and nothing is lost")
  func lagging() throws {
    let fd = try Ring.create(name: "state", capacity: Self.capacity, readers: 1).take()
    defer { close(fd) }
    let log = try StateLog(
      try RingWriter(attaching: fd, wake: [-1]), maxBlacklistEntries: 100_000, now: 1)
    let first = SessionDigest(low: 1, high: 1)
    _ = log.blacklist(first, until: 1_000, now: 1)
    var outcome = StateLog.Outcome.kept(end: 0)
    for _ in 0..<100_000 where outcome != .full { outcome = log.say(.closeUser("alice"), now: 1) }
    #expect(outcome == .full)
    let reader = try RingReader(attaching: fd, slot: 0)
    while try reader.next() != nil {}
    reader.commit()
    #expect(log.say(.closeUser("alice"), now: 1) != .full)
    #expect(try Self.retained(fd, now: 1).sessions == [first: 1_000])
  }

  /// Names that look the same to Swift, and aren't.
  @Test("Users are told apart by their bytes")
  func names() throws {
    try withLog { log in
      _ = log.setOnline(Name("\u{e9}"), roles: [], now: 1)
      #expect(log.online.map(\.user) == [Name("\u{e9}")])
      #expect(log.online.map(\.user) != [Name("e\u{301}")])
    }
  }

  private func withLog(_ body: (StateLog) throws -> Void) throws {
    let fd = try Ring.create(name: "state", capacity: Self.capacity, readers: 1).take()
    defer { close(fd) }
    try Ring.setRegistered(fd, reader: 0, false)
    try body(
      try StateLog(try RingWriter(attaching: fd, wake: [-1]), maxBlacklistEntries: Self.maxEntries, now: 1))
  }
}
