// Who is online, through openings, closings, reports and crashes, on a clock of the test.

import Glibc
import IPC
import Kit
import Links
import Testing

@testable import Control

@Suite struct PresenceRegistryTests {
  private static let grace: UInt64 = 5_000
  private static let alice = Name("alice")

  /// Two workers that have reported nothing yet to report.
  private static func complete(
    online: [(user: Name, roles: [String])] = []
  ) -> PresenceRegistry {
    var registry = PresenceRegistry(slots: 2, graceNs: grace, online: online)
    for slot in 0..<2 {
      registry.apply(.begin(generation: 1), slot: slot, nowNs: 0)
      registry.apply(.end, slot: slot, nowNs: 0)
    }
    registry.completeIfReported(live: [0, 1], nowNs: 0)
    return registry
  }

  @Test("Joined with the first connection, left when the last has been closed for the grace time")
  func joinAndLeave() {
    var registry = Self.complete()
    registry.apply(.opened(.of(1, ["alice"], roles: ["b", "a"])), slot: 0, nowNs: 10)
    registry.apply(.opened(.of(1, ["alice"], roles: ["a"])), slot: 1, nowNs: 20)
    #expect(registry.takeTransitions() == [.joined(Self.alice, roles: ["a", "b"])])
    registry.apply(.closed(serial: 1), slot: 0, nowNs: 30)
    #expect(registry.takeTransitions() == [.rolesChanged(Self.alice, roles: ["a"])])
    registry.apply(.closed(serial: 1), slot: 1, nowNs: 40)
    registry.expire(nowNs: 39 + Self.grace)
    #expect(registry.takeTransitions() == [])
    registry.expire(nowNs: 40 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Self.alice)])
    #expect(registry.onlineCount == 0)
  }

  @Test("Who comes back within the grace time has neither left nor joined")
  func flapping() {
    var registry = Self.complete()
    for round in 0..<3 as Range<UInt64> {
      registry.apply(.opened(.of(round, ["alice"])), slot: 0, nowNs: round * 4_000)
      registry.apply(.closed(serial: round), slot: 0, nowNs: round * 4_000 + 1)
      registry.expire(nowNs: round * 4_000 + 2)
    }
    #expect(registry.takeTransitions() == [.joined(Self.alice, roles: [])])
    registry.expire(nowNs: 8_000 + Self.grace)
    #expect(registry.takeTransitions() == [])
    registry.expire(nowNs: 8_001 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Self.alice)])
  }

  @Test(
    "A killed worker's users leave after the grace time, unless they have come back elsewhere or are named again"
  )
  func crash() {
    var registry = Self.complete()
    for (serial, user) in ["alice", "bob", "carol"].enumerated() {
      registry.apply(.opened(.of(UInt64(serial), [user])), slot: 0, nowNs: 0)
    }
    _ = registry.takeTransitions()
    registry.apply(.opened(.of(1, ["bob"])), slot: 1, nowNs: 50)
    registry.apply(.begin(generation: 2), slot: 0, nowNs: 100)
    registry.apply(.opened(.of(2, ["carol"])), slot: 0, nowNs: 100)
    registry.apply(.end, slot: 0, nowNs: 100)
    registry.expire(nowNs: 100 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Self.alice)])
    #expect(registry.online(role: "").map(\.user) == ["bob", "carol"])
  }

  @Test("A worker that is dead and doesn't come back takes its connections with it")
  func gone() {
    var registry = Self.complete()
    registry.apply(.opened(.of(1, ["alice"])), slot: 1, nowNs: 0)
    registry.workerGone(1, nowNs: 10)
    registry.workerGone(1, nowNs: 20)
    registry.expire(nowNs: 10 + Self.grace)
    #expect(registry.takeTransitions() == [.joined(Self.alice, roles: []), .left(Self.alice)])
  }

  @Test(
    "A restarted control worker repeats no joins; who is missing leaves after the grace time that then begins"
  )
  func restart() {
    var registry = PresenceRegistry(
      slots: 2, graceNs: Self.grace, online: [(Self.alice, ["a", "b"]), (Name("bob"), [])])
    // The end of a report that the former control worker had the beginning of.
    registry.apply(.end, slot: 1, nowNs: 0)
    registry.apply(.begin(generation: 7), slot: 0, nowNs: 10)
    registry.apply(.opened(.of(1, ["alice"], roles: ["a"])), slot: 0, nowNs: 10)
    registry.apply(.end, slot: 0, nowNs: 10)
    registry.completeIfReported(live: [0, 1], nowNs: 20)
    registry.expire(nowNs: 10 * Self.grace)
    #expect(!registry.isComplete)
    #expect(registry.takeTransitions() == [])
    registry.apply(.begin(generation: 3), slot: 1, nowNs: 60_000)
    registry.apply(.opened(.of(9, ["alice"], roles: ["b"])), slot: 1, nowNs: 60_000)
    registry.apply(.end, slot: 1, nowNs: 60_000)
    registry.completeIfReported(live: [0, 1], nowNs: 60_000)
    #expect(registry.isComplete)
    registry.expire(nowNs: 60_000 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Name("bob"))])
  }

  /// Two seats at each of two places, of which the first of each has reported.
  private static func seated() -> PresenceRegistry {
    var registry = PresenceRegistry(slots: 4, seats: 2, graceNs: grace)
    for slot in [0, 2] {
      registry.apply(.begin(generation: 1), slot: slot, nowNs: 0)
      registry.apply(.end, slot: slot, nowNs: 0)
    }
    registry.completeIfReported(live: [0, 2], nowNs: 0)
    return registry
  }

  @Test(
    "16.5 A connection that goes to the other seat of its place stays the same one, whoever is heard first",
    arguments: [[2, 3], [3, 2]])
  func handedOver(_ order: [Int]) {
    var registry = Self.seated()
    for slot in order { registry.apply(.opened(.of(7, ["alice"], roles: ["a"])), slot: slot, nowNs: 0) }
    let id = ConnectionID(slot: 1, serial: 7)
    #expect(registry.connections(of: Self.alice).map(\.id) == [id])
    // It names what it still has, and ends.
    registry.apply(.begin(generation: 2), slot: 2, nowNs: 10)
    registry.apply(.end, slot: 2, nowNs: 10)
    registry.workerGone(2, nowNs: 20)
    registry.expire(nowNs: 20 + Self.grace)
    #expect(registry.connections(of: Self.alice).map(\.id) == [id])
    #expect(registry.takeTransitions() == [.joined(Self.alice, roles: ["a"])])
    registry.workerGone(3, nowNs: 30_000)
    registry.expire(nowNs: 30_000 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Self.alice)])
    #expect(registry.onlineCount == 0)
  }

  @Test(
    "16.5 Who has handed a connection over says that it is closed, the other one that it is open: nobody leaves or joins",
    arguments: [false, true])
  func closedByTheFormerOne(first: Bool) {
    var registry = Self.seated()
    registry.apply(.opened(.of(7, ["alice"])), slot: 0, nowNs: 0)
    // One with the same number at another place is another one.
    registry.apply(.opened(.of(7, ["bob"])), slot: 2, nowNs: 0)
    if first { registry.apply(.closed(serial: 7), slot: 0, nowNs: 10) }
    registry.apply(.opened(.of(7, ["alice"])), slot: 1, nowNs: 11)
    if !first { registry.apply(.closed(serial: 7), slot: 0, nowNs: 12) }
    registry.expire(nowNs: 20 + Self.grace)
    #expect(registry.connections(of: Self.alice).count == 1)
    let joins = [PresenceTransition.joined(Self.alice, roles: []), .joined(Name("bob"), roles: [])]
    #expect(registry.takeTransitions() == joins)
    registry.apply(.closed(serial: 7), slot: 1, nowNs: 30_000)
    #expect(registry.connections(of: Self.alice).isEmpty)
    #expect(registry.connections(of: Name("bob")).count == 1)
    registry.expire(nowNs: 30_000 + Self.grace)
    #expect(registry.takeTransitions() == [.left(Self.alice)])
  }

  @Test("16.5 Who retires has to report too, and an empty seat hasn't")
  func reportsOfBothSeats() {
    var registry = PresenceRegistry(slots: 4, seats: 2, graceNs: Self.grace)
    registry.apply(.begin(generation: 1), slot: 1, nowNs: 0)
    registry.apply(.end, slot: 1, nowNs: 0)
    registry.completeIfReported(live: [0, 1], nowNs: 0)
    #expect(!registry.isComplete)
    registry.completeIfReported(live: [1], nowNs: 0)
    #expect(registry.isComplete)
  }

  @Test("A connection that is opened again has changed: its former users are without it")
  func changed() {
    var registry = Self.complete()
    registry.apply(.opened(.of(1, ["alice"])), slot: 0, nowNs: 0)
    registry.apply(.opened(.of(1, ["bob", "bob"])), slot: 0, nowNs: 0)
    #expect(registry.online(role: "").map(\.user) == ["bob"])
    #expect(registry.connections(of: Self.alice).isEmpty)
    registry.apply(.closed(serial: 1), slot: 0, nowNs: 0)
    #expect(registry.online(role: "").isEmpty)
  }

  @Test("Names that only look the same are two users")
  func bytes() {
    var registry = Self.complete()
    registry.apply(.opened(.of(1, ["\u{e9}"])), slot: 0, nowNs: 0)
    registry.apply(.opened(.of(2, ["e\u{301}"])), slot: 0, nowNs: 0)
    #expect(registry.online(role: "").map(\.connections) == [1, 1])
  }

  @Test("A role selects users")
  func selection() {
    var registry = Self.complete()
    registry.apply(.opened(.of(1, ["alice"], sessions: ["s"], roles: ["agent"])), slot: 0, nowNs: 0)
    registry.apply(.opened(.of(2, ["bob"], sessions: ["t"])), slot: 1, nowNs: 0)
    #expect(registry.online(role: "agent").map(\.user) == ["alice"])
  }

  @Test("14.D20 A session is known to end with the last of its tokens, unless one never ends")
  func sessionEnd() {
    var registry = Self.complete()
    func open(_ serial: UInt64, _ session: String, until: UInt32) {
      var connection = PresentConnection.of(serial, ["bob"], sessions: ["x", session])
      connection.validUntil = until
      registry.apply(.opened(connection), slot: Int(serial % 2), nowNs: 0)
    }
    open(1, "s", until: 7)
    open(2, "s", until: 9)
    #expect(registry.end(ofSession: "s") == 9)
    #expect(registry.end(ofSession: "t") == nil)
    open(3, "s", until: 0)
    #expect(registry.end(ofSession: "s") == nil)
  }

  @Test(
    "A worker whose process is gone, or whose heart has stopped, is dead",
    arguments: [
      (WorkerSighting(state: .ready, pid: 7, heartbeatNs: 90), true, true),
      (WorkerSighting(state: .ready, pid: 7, heartbeatNs: 90), false, false),
      (WorkerSighting(state: .ready, pid: 7, heartbeatNs: 50), true, false),
      (WorkerSighting(state: .ready, pid: 0, heartbeatNs: 90), true, false), (nil, true, false),
    ] as [(WorkerSighting?, Bool, Bool)])
  func alive(_ sighting: WorkerSighting?, _ exists: Bool, _ isAlive: Bool) {
    #expect(
      WorkerWatch.isAlive(sighting, nowNs: 100, watchdogNs: 50, exists: { _ in exists }) == isAlive)
  }

  @Test("16 A worker that has died counts as dead when nobody has taken its place for a while, not before")
  func succession() throws {
    let memory = try StatusPage.create(name: "connections.3")
    let page = try StatusPage(attaching: memory.rawValue)
    page.beginGeneration(pid: getpid())
    page.state = .ready
    let watched = WatchedPage(WorkerManifest.Peer(worker: .connections(3), status: memory.rawValue))
    let watch = WorkerWatch(pages: [watched], watchdogSeconds: 10)
    let now = page.heartbeat
    let died = now + 10 * Health.nsPerSecond
    func look(_ ns: UInt64) -> [[Int]] {
      let (live, dead) = watch.look(nowNs: ns)
      return [live, dead]
    }
    #expect(look(now) == [[6], []])
    #expect(look(died) == [[], []])
    #expect(look(died + WorkerWatch.successionNs - 1) == [[], []])
    #expect(look(died + WorkerWatch.successionNs) == [[], [6]])
    #expect(look(now) == [[6], []], "another process beats")
    #expect(look(died + WorkerWatch.successionNs) == [[], []], "it has died just now")
  }
}
