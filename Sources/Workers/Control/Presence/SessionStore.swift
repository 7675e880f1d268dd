// Everything about sessions and users in the control worker: reads presence, keeps the state log, says joins and leaves, and
// takes the orders of the management port. On the worker's loop.
//
//   presence rings ─► registry ─► transitions ─► state log (for restarts and roles)
//                                           └──► event ring (rig.presence.join, .leave)
//   management port ─► state log ─► every connection worker ─► confirmed
//
// Presence records are committed after their effect: a successor sees those of an unfinished turn again.

import IPC
import Kit
import Links
import Logging
import Settings

final class SessionStore {
  /// Clock and processes, so that a test can have others.
  struct Environment {
    var nowNs: () -> UInt64
    /// Seconds of the boot clock.
    var bootSecond: () -> UInt32
    /// Seats of connection workers that serve, and of those that are dead, by number.
    var workers: () -> (live: [Int], dead: [Int])
  }

  private let rings: RingSet
  let state: StateLog
  private let events: PresenceEvents
  private let confirmations: Confirmations
  private let environment: Environment
  private let log: Logger
  private let usersOnline: Metric?
  private let blacklistEntries: Metric?
  /// This control worker's page generation.
  private let generation: UInt64
  private var hasAskedForReports = false
  /// Users whose last change the state log couldn't take yet: their roles, nil: they have left.
  private var untold: [Name: [String]?] = [:]
  private(set) var registry: PresenceRegistry
  /// nil: the blacklist ends with the gateway.
  private var keeper: BlacklistKeeper?
  /// The predecessor may have told what it hadn't written yet.
  private var isFileBehind = false

  init(
    rings: RingSet, state: StateLog, events: PresenceEvents, confirmations: Confirmations,
    settings: Settings, status: StatusPage, log: Logger, environment: Environment
  ) {
    self.rings = rings
    self.state = state
    self.events = events
    self.confirmations = confirmations
    self.environment = environment
    self.log = log
    generation = status.generation
    usersOnline = status.metric(.gauge, "rig_users_online")
    blacklistEntries = status.metric(.gauge, "rig_blacklist_entries")
    registry = PresenceRegistry(
      slots: (rings.writers.map(\.number).max() ?? -1) + 1, seats: WorkerIdentity.seats.count,
      graceNs: UInt64(max(settings.presenceGraceSeconds, 0)) * Health.nsPerSecond,
      online: state.online)
  }

  private var nowSeconds: UInt32 { environment.bootSecond() }

  // MARK: Turns

  /// Reads presence, up to the bound of a turn. Whether there may be more.
  func serve() -> Bool {
    let now = environment.nowNs()
    let hasMore = rings.read(atMost: RingSet.recordsPerTurn) { ring, record in
      do throws(RecordFault) {
        let said = try PresenceRecord(type: record.type, record.bytes)
        registry.apply(said, slot: rings.writer(ring).number, nowNs: now)
      } catch {
        rings.refuse(ring, record, error, expected: "word about connections")
      }
    }
    settle(now)
    rings.commit()
    return hasMore
  }

  /// Once per second.
  func tick() {
    let now = environment.nowNs()
    let workers = environment.workers()
    for slot in workers.dead { registry.workerGone(slot, nowNs: now) }
    registry.expire(nowNs: now)
    state.dropExpired(now: nowSeconds)
    if isFileBehind {
      isFileBehind = false
      keeper?.goOn()
    }
    askForReports()
    settle(now, live: workers.live)
  }

  /// Asks all connection workers for all their connections, once in this worker's life.
  func askForReports() {
    guard !hasAskedForReports else { return }
    if case .kept = state.say(.reportConnections(generation: generation), now: nowSeconds) {
      hasAskedForReports = true
    }
  }

  private func settle(_ nowNs: UInt64, live: [Int]? = nil) {
    if !registry.isComplete {
      registry.completeIfReported(live: live ?? environment.workers().live, nowNs: nowNs)
    }
    for transition in registry.takeTransitions() {
      switch transition {
      case .joined(let user, let roles):
        untold[user] = .some(roles)
        events.add(.join, user: user, stamp: .now(), nowNs: nowNs)
      case .rolesChanged(let user, let roles):
        untold[user] = .some(roles)
      case .left(let user):
        untold[user] = .some(nil)
        events.add(.leave, user: user, stamp: .now(), nowNs: nowNs)
      }
    }
    tell()
    events.flush()
    usersOnline?.set(Int64(registry.onlineCount))
    blacklistEntries?.set(Int64(state.sessions.count))
  }

  /// Tells the state log what it doesn't know; what it can't take now is tried again in a second.
  private func tell() {
    for (user, roles) in untold {
      let outcome =
        roles.map { state.setOnline(user, roles: $0, now: nowSeconds) }
        ?? state.setOffline(user, now: nowSeconds)
      guard case .kept = outcome else { continue }
      untold[user] = nil
    }
  }

  // MARK: Orders

  enum Result: Equatable {
    /// Every connection worker has carried it out.
    case done
    /// There is no place in the ring now, because a worker lags.
    case busy
    /// There are too many entries.
    case tooMany
    /// It stands, but not every worker has confirmed it.
    case unconfirmed
    /// It stands until the gateway ends: it isn't on the disk, and why.
    case unkept(String)
  }

  /// The session's tokens are refused from now on. `body` is called when every worker does so, and it is in STATE_DIR.
  func blacklist(_ session: SessionDigest, seconds: UInt32, _ body: @escaping (Result) -> Void) {
    let now = nowSeconds
    let (until, overflow) = now.addingReportingOverflow(seconds)
    carryOut(state.blacklist(session, until: overflow ? .max : until, now: now)) { [self] result in
      guard let keeper, result == .done || result == .unconfirmed, let entry = state.sessions[session] else {
        return body(result)
      }
      keeper.add(durable(session, entry)) { failure in
        body(failure.map { Result.unkept($0.description) } ?? result)
      }
    }
    blacklistEntries?.set(Int64(state.sessions.count))
  }

  /// The blacklist is kept in STATE_DIR. When the state log is new it is what the file says; else the file is to say what the log does.
  ///
  /// - Throws: why the file can't be used.
  func keepBlacklist(by keeper: BlacklistKeeper) throws {
    self.keeper = keeper
    keeper.failed = { [log] in log.error("the blacklist can't be kept", metadata: ["reason": "\($0)"]) }
    keeper.living = { [unowned self] in
      let now = nowSeconds
      return state.sessions.compactMap { $1.until > now ? durable($0, $1) : nil }
    }
    // Only the loop may have something written.
    isFileBehind = !state.isNew
    guard state.isNew else { return }
    let unixNow = unixSeconds
    let now = nowSeconds
    for entry in try keeper.begin(now: unixNow) {
      let (until, overflow) = now.addingReportingOverflow(entry.until - unixNow)
      guard case .kept = state.blacklist(entry.session, until: overflow ? .max : until, now: now) else {
        throw UnusableConfiguration(
          description: "STATE_DIR: the blacklist doesn't fit into MAX_BLACKLIST_ENTRIES and STATE_RING_BYTES")
      }
    }
    blacklistEntries?.set(Int64(state.sessions.count))
  }

  private var unixSeconds: UInt32 { UInt32(clamping: Stamp.now().unixMs / 1000) }

  /// In STATE_DIR an entry ends by the wall clock, which goes on when the machine doesn't.
  private func durable(_ session: SessionDigest, _ entry: StateLog.BlacklistEntry) -> BlacklistFile.Entry {
    let now = nowSeconds
    let (until, overflow) = unixSeconds.addingReportingOverflow(entry.until > now ? entry.until - now : 0)
    return BlacklistFile.Entry(session: session, until: overflow ? .max : until)
  }

  func isBlacklisted(_ session: SessionDigest) -> Bool {
    state.blacklisted(session, now: nowSeconds) != nil
  }

  func closeAll(of user: Name, _ body: @escaping (Result) -> Void) {
    carryOut(state.say(.closeUser(user.text), now: nowSeconds), body)
  }

  func close(_ connections: [ConnectionID], _ body: @escaping (Result) -> Void) {
    var last = StateLog.Outcome.kept(end: 0)
    for id in connections {
      last = state.say(.closeConnection(id), now: nowSeconds)
      guard case .kept = last else { break }
    }
    carryOut(last, body)
  }

  /// The definition is the API's from now on; `order` decides between several that match. Not confirmed yet.
  func setAPI(_ id: String, order: UInt64, json: [UInt8]) -> StateLog.Outcome {
    state.setAPI(Name(id), order: order, json: json, now: nowSeconds)
  }

  /// Workers may know definitions of a log that was lost.
  func forgetAPIs() { _ = state.say(.apisForgotten, now: nowSeconds) }

  func removeAPI(_ id: String) -> StateLog.Outcome { state.removeAPI(Name(id), now: nowSeconds) }

  /// Calls `body` when every connection worker has carried out what came of an order, or can't.
  func carryOut(_ outcome: StateLog.Outcome, _ body: @escaping (Result) -> Void) {
    switch outcome {
    case .kept(let end): confirmations.confirm(end: end) { body($0 ? .done : .unconfirmed) }
    case .full: body(.busy)
    case .tooMany: body(.tooMany)
    }
  }

  /// The worker ends: whoever waits is answered.
  func stop() {
    confirmations.giveUp()
    keeper?.stop()
  }
}
