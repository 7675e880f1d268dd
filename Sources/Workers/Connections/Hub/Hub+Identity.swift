// Whose a connection is: tokens taken on, sessions ended, users closed, presence reported.

import Kit

extension Hub {
  // MARK: Of one connection

  /// The connection belongs to whom its tokens name. False: one of its sessions has been ended meanwhile, or the connection has:
  /// its place is no longer its own.
  func identify(_ connection: Connection, _ identity: ConnectionIdentity, isPrivileged: Bool) -> Bool {
    guard !connection.isClosing, table[connection.index] === connection,
      let digests = authorizer.authority.digests(of: identity.sessions)
    else { return false }
    let place = Int(connection.index)
    forget(connection)
    connection.state.identity = identity
    connection.sessions = digests
    sessions.add(connection.index, digests)
    table.privileges[place] = isPrivileged
    table.expiries[place] = settings.jwtCloseOnExpiry ? identity.validUntil : 0
    for user in identity.users where !connection.isClosing {
      giveWay(to: limits?.joined(connection.index, user, nowNs: clock.nowNs))
    }
    return true
  }

  /// Addressed events come live from here on.
  func follow(_ connection: Connection) {
    guard let identity = connection.identity, !connection.isFollowing, !connection.isClosing else { return }
    followers.add(connection.index, identity)
    connection.isFollowing = true
  }

  /// Takes back `identify` and `follow`; the identity itself stays known to the connection.
  func forget(_ connection: Connection) {
    sessions.remove(connection.index, connection.sessions)
    connection.sessions = []
    if connection.isFollowing, let identity = connection.identity {
      followers.remove(connection.index, identity)
    }
    connection.isFollowing = false
  }

  /// Fresh tokens were shown for the connection. The answer if it can't be: then nothing has changed.
  func adopt(_ change: SubscriptionChange, by connection: Connection) -> WorkerAnswer? {
    guard !change.credentials.isEmpty else { return nil }
    guard !connection.isClosing else { return .gone }
    // The worker that verified the tokens may have done so before the session, or the token, ended.
    do throws(RefusedRequest) {
      try authorizer.requireValid(change.credentials, unixMs: clock.unixMs)
    } catch {
      return WorkerAnswer(error)
    }
    guard settings.maySwitchUser || connection.identity?.isOfUsers(of: change.credentials) ?? true else {
      return WorkerAnswer(
        status: 403,
        text: "the token is of another user than the connection, which belongs to whoever opened it")
    }
    var identity = connection.identity ?? ConnectionIdentity()
    guard identity.adopt(change.credentials) else {
      let most = ConnectionIdentity.maximumCredentials
      return WorkerAnswer(
        status: 400, text: "header authorization: more than \(most) users for one connection")
    }
    if let limits,
      let refusal = limits.refusal(users: limits.newUsers(connection.index, among: identity.users))
    {
      metrics.refused(reason: "\(refusal.subject.rawValue)_limit")
      return WorkerAnswer(status: 429, text: refusal.detail)
    }
    let isFollowing = connection.isFollowing
    let isPrivileged = authorizer.isPrivileged(identity.credentials)
    if !isPrivileged {
      // The fresh token no longer has the role that this took.
      identity.followedUsers = []
      identity.followedRoles = []
    }
    // One of the sessions that it had before.
    guard identify(connection, identity, isPrivileged: isPrivileged) else {
      return WorkerAnswer(AuthorizationEnd.sessionEnded.refusal)
    }
    guard !connection.isClosing else { return .gone }
    if isFollowing || connection.replay == nil { follow(connection) }
    return nil
  }

  // MARK: Events

  func isPresence(_ event: EventRecord) -> Bool {
    let prefix = Authorizer.presencePrefix.utf8
    return event.typeBytes.count > prefix.count && event.typeBytes.starts(with: prefix)
  }

  /// Whether an event of the past is for the connection.
  func wants(_ connection: Connection, _ replay: Replay, _ event: EventRecord) -> Bool {
    if event.isGap {
      metrics.eventsLost?.add()
      return true
    }
    if event.isAddressed {
      return connection.identity.map { followers.isRecipient($0, of: event) } ?? false
    }
    let matches = replay.isCatchingUp ? index.matches(event, connection.index) : replay.matches(event)
    guard matches else { return false }
    return !isPresence(event) || table.privileges[Int(connection.index)]
  }

  // MARK: What the control worker says

  /// Reads everything that is known of sessions and users. To be called once, before anything is served.
  func catchUpState() {
    clock.refresh()
    state?.catchUp { [unowned self] in apply($0) }
    apis.refresh()
  }

  func apply(_ record: StateRecord) {
    switch record {
    case .blacklisted(let session, let until):
      guard authorizer.authority.blacklist(session, until: until) else { return }
      for index in sessions[session] { end(index, .sessionKilled) }
      metrics.endedWork(work.end(session), by: .sessionEnded)
    case .online(let user, let roles):
      if !settings.privilegedRoles.isEmpty { followers.note(user: user, holds: roles) }
    case .offline(let user):
      if !settings.privilegedRoles.isEmpty { followers.note(user: user, holds: []) }
    case .closeUser(let user):
      for connection in table.all where NameSet.contains(connection.identity?.users ?? [], user) {
        close(connection, .closedByOperator)
      }
    case .closeConnection(let id):
      guard Int(id.slot) == slot, let connection = table.find(serial: id.serial) else { return }
      close(connection, .closedByOperator)
    case .reportConnections:
      presence?.restart()
    case .apiDefined(let id, let order, let json):
      guard !apis.define(id: id, order: order, json: json) else { return }
      log.error(
        "an API definition of the control worker makes no sense", metadata: ["api": "\(id.prefix(64))"])
    case .apiRemoved(let id): apis.remove(id: id)
    case .apisForgotten: apis.removeAll()
    }
  }

  private func end(_ index: ConnectionIndex, _ reason: ClosingReason) {
    if let connection = table[index] { close(connection, reason) }
  }

  // MARK: Presence

  /// Subscriptions longer than this aren't reported.
  private static let mostSubscriptionBytes = 16 << 10
  /// The text of more than this is longer than that.
  private static let mostContentBytes = 4 * mostSubscriptionBytes

  /// Something about an identified connection has changed, or it is new.
  func reportChange(of connection: Connection) {
    guard let present = present(connection) else { return }
    presence?.opened(present)
    scheduleTurn()
  }

  /// Goes on with reports. Whether there is more to do at once.
  func reportPresence() -> Bool {
    presence?.step(capacity: table.capacity) { [unowned self] index in
      table[ConnectionIndex(index)].flatMap { present($0) }
    } ?? false
  }

  private func present(_ connection: Connection) -> PresentConnection? {
    guard let identity = connection.identity, !connection.isClosing else { return nil }
    let content = connection.state.subscriptions
    var subscriptions: [UInt8] = []
    if content.count <= Self.mostContentBytes {
      subscriptions = Subscription.list(SubscriptionContent.decode(content))
    }
    return PresentConnection(
      serial: connection.serial, transport: table.transports[Int(connection.index)].label,
      sinceUnixMs: connection.state.origin.sinceUnixMs, users: identity.users, sessions: identity.sessions,
      roles: identity.roles, remote: connection.state.origin.remote,
      userAgent: connection.state.origin.userAgent,
      subscriptions: subscriptions.count <= Self.mostSubscriptionBytes ? subscriptions : [],
      validUntil: identity.lastEnd, claims: identity.claims)
  }
}
