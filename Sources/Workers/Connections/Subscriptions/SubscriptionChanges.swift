// Requests that replace a connection's subscriptions, and show fresh tokens for it.
//
//   text ─► parsed, judged by the route ─► made, in shares of turns ─► judged again ─► in force, all at once
//
// A connection makes one change at a time.

import Kit
import Settings

/// What a request changes about a connection: the subscriptions in force from now on, and what its tokens say. Complete and
/// checked; the worker that holds the connection may be another one.
struct SubscriptionChange: Equatable {
  var subscriptions: [Subscription]
  var credentials: [Credential] = []

  /// For the other worker.
  var encoded: [UInt8] {
    var fields = FieldWriter()
    fields.append(Subscription.list(subscriptions))
    Credential.encode(credentials, into: &fields)
    return fields.bytes
  }

  init(_ subscriptions: [Subscription], _ credentials: [Credential] = []) {
    self.subscriptions = subscriptions
    self.credentials = credentials
  }

  /// nil if `bytes` isn't what `encoded` makes.
  init?(_ bytes: [UInt8], _ parser: SubscriptionParser) {
    var json: [UInt8]?
    var credentials: [Credential]?
    bytes.withUnsafeBytes { bytes in
      var fields = FieldReader(bytes)
      json = fields.data()
      credentials = Credential.decodeList(&fields)
      if !fields.isComplete { credentials = nil }
    }
    guard let json, let credentials,
      let parsed = try? parser.parse(json, isOurOwn: true)
    else { return nil }
    self.init(parsed.subscriptions, credentials)
  }
}

/// Belongs to the worker's loop.
final class SubscriptionChanges {
  /// A change of one connection's subscriptions that is being made.
  private final class Pending {
    let connection: Connection
    let change: SubscriptionChange
    /// Nothing is made before the first share.
    var hold: SubscriptionHold?
    /// The same for what filters the connection's history, while it has one.
    var filter: SubscriptionDraft?

    init(_ connection: Connection, _ change: SubscriptionChange) {
      self.connection = connection
      self.change = change
    }
  }

  private let connections: OpenConnections
  private let subscriptions: Subscriptions
  private let identities: Identities
  private let access: Access
  private let arrivals: Arrivals
  private let work: TurnWork
  private let metrics: WorkerMetrics
  private let mostPerMinute: Int
  private let maySwitchUser: Bool

  init(
    of connections: OpenConnections, _ subscriptions: Subscriptions, _ identities: Identities,
    _ access: Access, _ arrivals: Arrivals, in work: TurnWork, _ metrics: WorkerMetrics, _ settings: Settings
  ) {
    self.arrivals = arrivals
    self.connections = connections
    self.subscriptions = subscriptions
    self.identities = identities
    self.access = access
    self.work = work
    self.metrics = metrics
    mostPerMinute = settings.maxSubscriptionChangesPerMinute
    maySwitchUser = settings.maySwitchUser
  }

  // MARK: Asking for one

  /// Replaces the subscriptions of connection `serial`, and tells it; what the tokens of the request say is added to what
  /// is known of it. `done` is called once: at once if there is little to do and the connection is here.
  func make(_ change: SubscriptionChange, serial: UInt64, _ done: @escaping (WorkerAnswer) -> Void) {
    guard !arrivals.expects(serial) else {
      _ = arrivals.wait(for: serial) { [unowned self] outcome in
        switch outcome {
        case .settled: make(change, serial: serial, done)
        case .late: done(.notYetHere)
        }
      }
      return
    }
    guard let connection = connections.find(serial: serial), !connection.isClosing else {
      return done(.gone)
    }
    make(change, of: connection, done)
  }

  /// The same, asked for by another worker.
  func make(encoded: [UInt8], serial: UInt64, _ done: @escaping (WorkerAnswer) -> Void) {
    guard let change = SubscriptionChange(encoded, subscriptions.parser) else {
      return done(
        WorkerAnswer(status: 502, text: "the worker that received the request asked for nonsense"))
    }
    make(change, serial: serial, done)
  }

  func make(_ change: SubscriptionChange, of connection: Connection, _ done: @escaping (WorkerAnswer) -> Void)
  {
    if let refusal = refuse(connection) { return done(refusal) }
    let pending = Pending(connection, change)
    connection.isChanging = true
    let isTaken = work.start { [unowned self] units in
      guard let answer = goOn(with: pending, &units) else { return false }
      connection.isChanging = false
      done(answer)
      return true
    }
    guard !isTaken else { return }
    connection.isChanging = false
    metrics.refused(SubscriptionLimit.waiting)
    done(.tooMuchWaits)
  }

  /// The answer to a change that comes too early.
  private func refuse(_ connection: Connection) -> WorkerAnswer? {
    guard !connection.isChanging else {
      metrics.refused(SubscriptionLimit.rate)
      return WorkerAnswer(
        status: 429, text: "an earlier change of the connection's subscriptions is still being made")
    }
    guard connection.state.changes.admit(nowNs: connections.clock.nowNs, perMinute: mostPerMinute) else {
      metrics.refused(SubscriptionLimit.rate)
      return WorkerAnswer(
        status: 429, text: "more than \(mostPerMinute) changes of the connection's subscriptions in a minute")
    }
    return nil
  }

  // MARK: Making it

  /// One share of a change. The answer when it is done.
  private func goOn(with pending: Pending, _ units: inout Int) -> WorkerAnswer? {
    let connection = pending.connection
    guard !connection.isClosing else { return .gone }
    // Should the worker die of it, this connection dies with it, and nobody asks its heir for the same again.
    connections.ledger.plan.suspect(serial: connection.serial)
    defer { connections.ledger.plan.noConnection() }
    do throws(SubscriptionError) {
      let hold: SubscriptionHold
      if let begun = pending.hold { hold = begun } else { hold = try begin(pending, &units) }
      guard units > 0 else { return nil }
      guard try subscriptions.advance(hold, &units), try advanceFilter(pending, &units) else { return nil }
      return takeEffect(pending, hold)
    } catch {
      if let limit = error.limit { metrics.refused(limit) }
      return WorkerAnswer(status: UInt16(clamping: error.status), text: error.detail)
    }
  }

  private func begin(_ pending: Pending, _ units: inout Int) throws(SubscriptionError) -> SubscriptionHold {
    let content = SubscriptionContent.encode(pending.change.subscriptions)
    content.withUnsafeBytes { TestFault.touches($0) }
    units -= TurnWork.units(forBytes: content.count)
    let hold = try subscriptions.begin(content)
    pending.hold = hold
    pending.filter = try pending.connection.replay?.begin(content)
    return hold
  }

  private func advanceFilter(_ pending: Pending, _ units: inout Int) throws(SubscriptionError) -> Bool {
    guard var filter = pending.filter, let replay = pending.connection.replay, !replay.isCatchingUp else {
      return true
    }
    defer { pending.filter = filter }
    var budget = max(1, units / TurnWork.unitsPerCondition)
    let before = budget
    defer { units -= (before - budget) * TurnWork.unitsPerCondition }
    return try replay.advance(&filter, &budget)
  }

  private func takeEffect(_ pending: Pending, _ hold: SubscriptionHold) -> WorkerAnswer {
    var answer = WorkerAnswer.gone
    pending.connection.step { answer = takeEffectAtOnce(pending, hold) }
    return answer
  }

  private func takeEffectAtOnce(_ pending: Pending, _ hold: SubscriptionHold) -> WorkerAnswer {
    let (connection, change) = (pending.connection, pending.change)
    if let refusal = adopt(change.credentials, by: connection) { return refusal }
    if let replay = connection.replay, !replay.isCatchingUp, let filter = pending.filter {
      replay.set(filter, hold)
    } else {
      subscriptions.enforce(hold, for: connection.index)
    }
    connection.state.subscriptions = hold.content
    StopPoint.changeApplied.reached()
    connection.say(OwnEvents.subscriptionsSet(change.subscriptions, stamp: .now()))
    connections.reportChange(of: connection)
    return WorkerAnswer(status: 204, text: "")
  }

  // MARK: Fresh tokens

  /// Fresh tokens were shown for the connection. The answer if it can't be: then nothing has changed.
  private func adopt(_ credentials: [Credential], by connection: Connection) -> WorkerAnswer? {
    guard !credentials.isEmpty else { return nil }
    guard !connection.isClosing else { return .gone }
    // The worker that verified the tokens may have done so before the session, or the token, ended.
    do throws(RefusedRequest) {
      try access.requireValid(credentials)
    } catch {
      return WorkerAnswer(error)
    }
    guard maySwitchUser || connection.identity?.isOfUsers(of: credentials) ?? true else {
      return WorkerAnswer(
        status: 403,
        text: "the token is of another user than the connection, which belongs to whoever opened it")
    }
    var identity = connection.identity ?? ConnectionIdentity()
    guard identity.adopt(credentials) else {
      let most = ConnectionIdentity.maximumCredentials
      return WorkerAnswer(
        status: 400, text: "header authorization: more than \(most) users for one connection")
    }
    if let refusal = connections.refusal(connection, users: identity.users) {
      metrics.refused(reason: "\(refusal.subject.rawValue)_limit")
      return WorkerAnswer(status: 429, text: refusal.detail)
    }
    return take(identity, by: connection)
  }

  private func take(_ taken: ConnectionIdentity, by connection: Connection) -> WorkerAnswer? {
    var identity = taken
    let isFollowing = connection.isFollowing
    let isPrivileged = access.isPrivileged(identity.credentials)
    if !isPrivileged {
      // The fresh token no longer has the role that this took.
      identity.followedUsers = []
      identity.followedRoles = []
    }
    // One of the sessions that it had before.
    guard connections.identify(connection, identity, isPrivileged: isPrivileged) else {
      return WorkerAnswer(AuthorizationEnd.sessionEnded.refusal)
    }
    guard !connection.isClosing else { return .gone }
    if isFollowing || connection.replay == nil { identities.follow(connection) }
    return nil
  }
}

extension WorkerAnswer {
  init(_ refusal: RefusedRequest) {
    self.init(status: UInt16(clamping: refusal.status), text: refusal.detail)
  }

  /// There is no such connection (any more).
  static let gone = WorkerAnswer(status: 410, text: "the connection no longer exists")

  static let tooMuchWaits = WorkerAnswer(
    status: 503, text: "too many requests wait for their turn in this worker")
}
