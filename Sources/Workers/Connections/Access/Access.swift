// Who asks, and whether they may: the same questions for every way in (contract §3, §6), judged by the worker's clock.
//
//   request ─► tokens verified (TokenAuthority) ─► restricted by them (TokenSubscriptions) ─► a service asked (AccessChecks)
//              └─ their key is on its way: later      what is under way ends with them (AuthorizedWork) ─► judged again

import HTTP
import Kit
import Links
import NIOCore
import Settings
import Tokens

/// What the tokens of a request say.
struct Authorization {
  var tokens: [VerifiedToken] = []
  var credentials: [Credential] = []
  /// Of the tokens' sessions.
  var sessions: [SessionDigest] = []

  /// The earliest end of a token, in whole seconds since 1970; 0: none ends.
  var validUntil: UInt32 { credentials.earliestEnd }
}

/// Why what a token has authorised ends.
enum AuthorizationEnd {
  case sessionEnded
  case tokenExpired

  /// The answer to what hasn't been answered yet.
  var refusal: RefusedRequest {
    switch self {
    case .sessionEnded: RefusedRequest(status: 401, detail: "the token's session has been ended")
    case .tokenExpired: RefusedRequest(status: 401, detail: "the token has expired")
    }
  }
}

/// Belongs to the worker's loop.
final class Access {
  /// SUBSCRIPTION_CHECK or SUBMISSION_CHECK.
  enum Check {
    case subscription, submission
  }

  /// Types of events that only privileged connections get.
  static let presencePrefix = "rig.presence."

  let authority: TokenAuthority
  let checks: AccessChecks
  /// What tokens have authorised and is under way.
  let work = AuthorizedWork()
  private let settings: Settings
  private let subscriptions: TokenSubscriptions
  private let clock: LoopClock
  private let metrics: WorkerMetrics

  init(
    _ authority: TokenAuthority, _ checks: AccessChecks, _ settings: Settings, _ clock: LoopClock,
    _ metrics: WorkerMetrics
  ) {
    self.authority = authority
    self.checks = checks
    self.settings = settings
    self.clock = clock
    self.metrics = metrics
    subscriptions = TokenSubscriptions(settings.extractors)
  }

  // MARK: What tokens say

  /// Without keys of its own the gateway leaves tokens to the service that it asks: they may be of any kind.
  private var isLeftToService: Bool { !authority.isConfigured && settings.subscriptionCheck.url != nil }

  /// Verifies everything that a request shows: the `Authorization` fields and the `jwt` parameter.
  ///
  /// - Parameters:
  ///   - check: who is asked besides. A service may know opaque tokens, which are none of ours.
  ///   - malformedStatus: of the answer to what is no token at all.
  /// - Throws: 401 for a token that isn't valid, or whose session is on the blacklist.
  func authorize(
    _ request: HTTPRequest, jwt: String? = nil, for check: Check = .subscription, malformedStatus: Int = 401
  ) throws(RefusedRequest) -> Authorization {
    guard !isLeftToService else { return Authorization() }
    var named: [(place: String, token: String)] = []
    if let jwt { named.append(("query parameter jwt", jwt)) }
    do throws(TokenError) {
      for token in try BearerTokens.parse(request.headers["authorization"]) {
        named.append(("header authorization", token))
      }
    } catch {
      throw RefusedRequest(status: malformedStatus, detail: "header authorization: \(error)")
    }
    return try authorize(named, for: check, malformedStatus: malformedStatus)
  }

  func authorize(
    _ named: [(place: String, token: String)], for check: Check = .subscription,
    malformedStatus: Int = 401
  ) throws(RefusedRequest) -> Authorization {
    guard !isLeftToService else { return Authorization() }
    let ours = asksService(check) ? named.filter { BearerTokens.mayBeJWT($0.token) } : named
    return try verify(ours, malformedStatus: malformedStatus)
  }

  private func asksService(_ check: Check) -> Bool {
    switch check {
    case .subscription: settings.subscriptionCheck.url != nil
    case .submission: settings.submissionCheck.url != nil
    }
  }

  /// Verifies tokens, whoever else may be asked.
  func verify(
    _ named: [(place: String, token: String)], malformedStatus: Int = 401
  ) throws(RefusedRequest) -> Authorization {
    // Before anything is verified: what a connection can't keep is of no use, and each costs a signature.
    guard named.count <= ConnectionIdentity.maximumCredentials else {
      throw RefusedRequest(
        status: malformedStatus,
        detail:
          "\(named.count) tokens in one request, expected at most \(ConnectionIdentity.maximumCredentials)")
    }
    var result = Authorization()
    for (place, token) in named {
      let verified: VerifiedToken
      do throws(TokenError) {
        verified = try authority.verify(token, unixMs: clock.unixMs)
      } catch {
        var status = 401
        var mayNeedKeys = error.isUnknownKey
        if case .unavailable = error {
          status = 503
          mayNeedKeys = true
        }
        if case .malformed = error { status = malformedStatus }
        if case .tooLong = error { status = malformedStatus }
        throw RefusedRequest(
          status: status, detail: "\(place): \(error)",
          awaitedKeySet: mayNeedKeys ? authority.keySetOnItsWay(for: token) : nil)
      }
      let sessions = verified.session.map { [$0] } ?? []
      guard let digests = authority.digests(of: sessions) else {
        throw RefusedRequest(status: 401, detail: "\(place): the token's session has been ended")
      }
      let claims = verified.claims.json
      result.sessions += digests
      result.tokens.append(verified)
      result.credentials.append(
        Credential(
          user: verified.user, session: verified.session, roles: verified.roles,
          validUntil: verified.validUntil,
          claims: claims.count <= Credential.maximumClaimsBytes ? claims : []))
    }
    return result
  }

  /// Judges again what was verified a while ago: its session or its time may have ended since.
  ///
  /// - Throws: 401.
  func requireValid(_ credentials: [Credential]) throws(RefusedRequest) {
    guard !credentials.contains(where: { $0.hasExpired(unixMs: clock.unixMs) }) else {
      throw AuthorizationEnd.tokenExpired.refusal
    }
    guard authority.digests(of: credentials.compactMap(\.session)) != nil else {
      throw AuthorizationEnd.sessionEnded.refusal
    }
  }

  func isPrivileged(_ credentials: [Credential]) -> Bool {
    credentials.isPrivileged(by: settings.privilegedRoles)
  }

  /// The subscriptions that come of those asked for: with those of the tokens before them, and restricted by them.
  ///
  /// - Throws: 403 if one of them, or all of them, may not be had.
  func subscriptions(
    asked: [Subscription], _ authorization: Authorization, isRequested: Bool = true
  ) throws(SubscriptionError) -> [Subscription] {
    if isRequested, settings.subscriptionCheck == .token, authorization.tokens.isEmpty {
      throw SubscriptionError(status: 403, "subscriptions need a valid token (SUBSCRIPTION_CHECK)")
    }
    if !isPrivileged(authorization.credentials),
      let presence = asked.first(where: { Self.isPresence($0.eventType) })
    {
      throw SubscriptionError(
        status: 403,
        "subscription to '\(presence.eventType.text)' needs a token with a role of PRIVILEGED_ROLES")
    }
    return subscriptions.automatic(authorization.tokens)
      + (try subscriptions.enforce(asked, authorization.tokens))
  }

  /// The same for a change of subscriptions.
  func permitted(_ asked: [Subscription], _ authorization: Authorization) throws(RefusedRequest)
    -> [Subscription]
  {
    do throws(SubscriptionError) {
      return try subscriptions(asked: asked, authorization)
    } catch {
      throw RefusedRequest(error)
    }
  }

  /// Whether an event may be submitted. What its tokens say.
  ///
  /// - Throws: 403 without a valid token where one is needed, 401 for an invalid one.
  func requireSubmission(_ request: HTTPRequest) throws(RefusedRequest) -> Authorization {
    // Without keys a token says nothing, and may be meant for somebody else.
    guard authority.isConfigured || settings.submissionCheck == .token else { return Authorization() }
    let authorization = try authorize(request, for: .submission)
    try requireSubmission(hasToken: !authorization.tokens.isEmpty)
    return authorization
  }

  func requireSubmission(hasToken: Bool) throws(RefusedRequest) {
    guard settings.submissionCheck != .token || hasToken else {
      throw RefusedRequest(status: 403, detail: "submitting events needs a valid token (SUBMISSION_CHECK)")
    }
  }

  // MARK: What has to wait

  /// The reply of `granted`, once the service has allowed it; at once if there is nothing to ask. What waits ends with its tokens, and is
  /// judged again when it has been allowed.
  func whenAllowed(
    _ call: ServiceCall?, _ authorization: Authorization, on loop: EventLoop, _ granted: @escaping () -> Reply
  ) -> Reply {
    guard let call else { return granted() }
    return Deferred.reply(on: loop) { complete in
      var giveUp: (() -> Void)?
      let ticket = work.begin(authorization) { end in
        giveUp?()
        complete(.response(end.refusal.response))
      }
      giveUp = checks.ask(call, nowNs: clock.nowNs) { [unowned self] refusal in
        work.finish(ticket)
        clock.refresh()
        if let refusal { return complete(.response(refusal.response)) }
        do throws(RefusedRequest) {
          try requireValid(authorization.credentials)
          complete(granted())
        } catch {
          complete(.response(error.response))
        }
      }
      return { [work] in
        work.finish(ticket)
        giveUp?()
      }
    }
  }

  /// The answer to a refused request: at once, or, if the key of its token may be on its way, what `again` says when the keys
  /// have come.
  func refusal(_ error: RefusedRequest, on loop: EventLoop, again: @escaping () -> Reply) -> Reply {
    guard let set = error.awaitedKeySet else { return .response(error.response) }
    return Deferred.reply(on: loop) { complete in
      var isGivenUp = false
      authority.whenKeySetIsThere(set) { [clock] in
        guard !isGivenUp else { return }
        clock.refresh()
        complete(again())
      }
      return { isGivenUp = true }
    }
  }

  // MARK: What ends

  /// What the session had authorised and is under way ends.
  func endWork(of session: SessionDigest) { metrics.endedWork(work.end(session), by: .sessionEnded) }

  /// Once per second.
  func tick() {
    authority.tick(unixMs: clock.unixMs)
    metrics.endedWork(work.sweep(unixSecond: clock.unixSecond), by: .tokenExpired)
  }

  private static func isPresence(_ pattern: EventTypePattern) -> Bool {
    switch pattern {
    case .exact(let type): type.utf8.starts(with: presencePrefix.utf8)
    case .prefix(let prefix): prefix.utf8.starts(with: presencePrefix.utf8)
    case .any: false
    }
  }
}
