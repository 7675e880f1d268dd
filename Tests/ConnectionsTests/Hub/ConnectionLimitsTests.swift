// How many connections a user and an address may have, over two workers.

import Foundation
import Glibc
import IPC
import Settings
import Testing

@testable import Connections

@Suite("13.B12: limits of connections, by workers")
struct ConnectionLimitsTests {
  /// Two workers' limits on pages of their own.
  private final class Node {
    let pages: [StatusPage]
    let workers: [ConnectionLimits]

    init(user: Int = 0, address: Int = 0, closes: String = "oldest") throws {
      var settings = Settings()
      settings.maxConnectionsPerUser = user
      settings.maxConnectionsPerAddress = address
      settings.connectionLimitCloses = closes
      let pages = try (0..<2).map { slot in
        let descriptor = try StatusPage.create(name: "limits.\(slot)").take()
        defer { close(descriptor) }
        let page = try StatusPage(attaching: descriptor)
        page.beginGeneration(pid: 1)
        page.state = .ready
        return page
      }
      self.pages = pages
      workers = try (0..<2).map { slot in
        try #require(
          ConnectionLimits(settings, slot: slot, pages: pages, secret: Data(repeating: 7, count: 32)))
      }
    }
  }

  @Test("Without limits there is nothing that counts")
  func none() {
    #expect(ConnectionLimits(Settings(), slot: 0, pages: [], secret: Data()) == nil)
  }

  @Test("One more than allowed has the oldest closed, by whichever worker holds it")
  func oldest() throws {
    let node = try Node(user: 2)
    let (first, second) = (node.workers[0], node.workers[1])
    #expect(first.joined(1, "alice", sinceNs: 1_000_000).isEmpty)
    #expect(second.joined(1, "alice", sinceNs: 2_000_000).isEmpty)
    #expect(second.joined(2, "bob", sinceNs: 2_000_000).isEmpty)
    guard case .theirs(worker: 0, let key, let since) = second.joined(3, "alice", sinceNs: 3_000_000).first
    else {
      Issue.record("the first worker holds the oldest")
      return
    }
    let oldest = first.oldest(of: key, before: since, from: 1)
    #expect(since == 3 && oldest?.connection == 1 && oldest?.subject == .user)
    #expect(
      first.oldest(of: key, before: 1, from: 1)?.connection == 1, "of two as old that of the lower slot")
    #expect(first.oldest(of: key, before: 0, from: 1) == nil, "it is younger than the one that was opened")
    first.closed(1)
    #expect(first.oldest(of: key, before: since, from: 1) == nil, "there are no more than allowed")
    #expect(second.oldest(of: key, before: .max, from: 0) == nil)
    #expect(second.joined(4, "alice", sinceNs: 4_000_000) == [.ours(1, .user)])
    second.closed(1)
    #expect(second.joined(4, "alice", sinceNs: 5_000_000).isEmpty, "it is counted once")
    #expect(second.refusal(users: ["alice"], address: "") == nil)
  }

  @Test(
    "Who is opened is never the one to go, though by the clock of another worker it may be as old or older")
  func sameInstant() throws {
    let node = try Node(user: 1)
    let (first, second) = (node.workers[0], node.workers[1])
    #expect(first.joined(1, "alice", sinceNs: 5_000_000).isEmpty)
    guard case .theirs(worker: 0, _, _) = second.joined(1, "alice", sinceNs: 5_000_000).first else {
      Issue.record("the other worker's is the one to go")
      return
    }
    second.closed(1)
    guard case .theirs(worker: 0, _, _) = second.joined(2, "alice", sinceNs: 1_000_000).first else {
      Issue.record("so it is if the clock here is behind")
      return
    }
  }

  @Test("What workers have opened in the same instant, too many, is mended by the next one that opens")
  func burst() throws {
    let node = try Node(user: 3)
    let (first, second) = (node.workers[0], node.workers[1])
    // None of the orders to close one is carried out: as if each had come when there was none left to close.
    for connection in 1...4 as ClosedRange<ConnectionIndex> {
      _ = first.joined(connection, "alice", sinceNs: UInt64(connection) * 1_000_000)
      _ = second.joined(connection, "alice", sinceNs: UInt64(connection) * 1_000_000)
    }
    let excess = first.joined(9, "alice", sinceNs: 9_000_000)
    #expect(excess.count == 6)
    for case .ours(let connection, .user) in excess {
      #expect(connection != 9)
      first.closed(connection)
    }
    for case .theirs(worker: 1, let key, let since) in excess {
      second.closed(try #require(second.oldest(of: key, before: since, from: 0)).connection)
    }
    #expect(first.joined(10, "alice", sinceNs: 10_000_000).count == 1, "three were left")
  }

  @Test(
    "Of two that two workers open for one user at once one stays",
    arguments: [(5, 5), (5, 6), (6, 5)] as [(UInt64, UInt64)])
  func bothAtOnce(times: (UInt64, UInt64)) throws {
    let node = try Node(user: 1)
    let (first, second) = (node.workers[0], node.workers[1])
    _ = first.joined(1, "alice", sinceNs: times.0 * 1_000_000)
    let toFirst = second.joined(1, "alice", sinceNs: times.1 * 1_000_000)
    // As if the first had seen the second's as well: it had shown its own by then.
    guard case .theirs(worker: 0, let key, let since) = toFirst.first else {
      Issue.record("\(toFirst)")
      return
    }
    let ofFirst = first.oldest(of: key, before: since, from: 1)
    let ofSecond = second.oldest(of: key, before: times.0, from: 0)
    #expect((ofFirst == nil) != (ofSecond == nil), "each would close the other's, or neither")
  }

  @Test("However many the others say that they have, one that opens has a few closed at most")
  func bounded() throws {
    let node = try Node(user: 1)
    let (first, second) = (node.workers[0], node.workers[1])
    _ = second.joined(1, "alice", sinceNs: 1_000_000)
    guard case .theirs(worker: 1, let key, _) = first.joined(1, "alice", sinceNs: 2_000_000).first else {
      Issue.record("the key isn't known")
      return
    }
    // A worker gone mad.
    SharedTally(of: node.pages[1]).set(key, count: SharedTally.mostCount, since: 1)
    for connection in 2...20 as ClosedRange<ConnectionIndex> {
      let excess = first.joined(connection, "alice", sinceNs: 3_000_000)
      #expect(excess.count == ConnectionLimits.mostClosedPerOpening)
    }
  }

  @Test("The newest is refused by name, on every worker, until there is room again")
  func newest() throws {
    let node = try Node(user: 2, address: 3, closes: "newest")
    let (first, second) = (node.workers[0], node.workers[1])
    for (worker, connection) in [(first, 1), (second, 1)] as [(ConnectionLimits, ConnectionIndex)] {
      #expect(worker.refusal(users: ["alice"], address: "192.0.2.1") == nil)
      #expect(worker.opened(connection, from: "192.0.2.1", sinceNs: 1).isEmpty)
      #expect(worker.joined(connection, "alice", sinceNs: 1).isEmpty)
      #expect(worker.surplus(connection) == nil)
    }
    for worker in node.workers {
      #expect(worker.refusal(users: ["bob", "alice"], address: "192.0.2.9")?.subject == .user)
      #expect(worker.refusal(users: ["bob"], address: "192.0.2.1") == nil)
      #expect(worker.newUsers(1, among: ["alice", "bob"]) == ["bob"])
    }
    let refusal = try #require(first.refusal(users: ["alice"]))
    #expect(refusal.detail == "2 connections of this user are open, the limit MAX_CONNECTIONS_PER_USER")
    #expect(second.opened(2, from: "192.0.2.1", sinceNs: 1).isEmpty && second.surplus(2) == nil)
    #expect(first.refusal(users: [], address: "::ffff:192.0.2.1")?.subject == .address)
    #expect(first.opened(2, from: "192.0.2.1", sinceNs: 1).isEmpty && first.surplus(2) == .address)
    first.closed(2)
    second.closed(1)
    #expect(first.refusal(users: ["alice"], address: "192.0.2.1") == nil)
  }

  @Test("A worker's connections count no more when its successor is born")
  func successor() throws {
    let node = try Node(address: 1, closes: "newest")
    #expect(node.workers[1].opened(1, from: "2001:db8::1", sinceNs: 1).isEmpty)
    #expect(node.workers[0].refusal(users: [], address: "2001:db8::2") != nil, "it is the same /64")
    node.pages[1].beginGeneration(pid: 2)
    #expect(node.workers[0].refusal(users: [], address: "2001:db8::2") == nil)
  }
}
