// What a request for a connection asks for, the same for all three transports (contract §2.1): query, headers, and for
// long-polling cookies.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1

struct ConnectRequest {
  /// Of a user agent's text that is kept.
  private static let mostUserAgentBytes = 256

  /// Those in force: of the tokens, and those asked for.
  var subscriptions: [Subscription] = []
  /// The same in the index.
  var hold: SubscriptionHold?
  /// What was accepted and will not do what the client may think; goes into the greeting.
  var warnings: [String] = []
  /// Where the client left off.
  var lastEventID: String?
  /// Whether a WebSocket's client wants to know where it stands with each event, to be able to resume.
  var wantsCursors = false
  /// nil: nobody in particular.
  var identity: ConnectionIdentity?
  var isPrivileged = false
  /// What the tokens say that it was granted by.
  var authorization = Authorization()
  var origin = ConnectionOrigin()
  /// What check services may want to see of the client.
  var credentials = ServiceCredentials()
  /// What is to be asked before the connection may be opened.
  var check: ServiceCall?

  /// What somebody asks for who is known already, or nobody.
  init(_ subscriptions: [Subscription] = [], identity: ConnectionIdentity? = nil, isPrivileged: Bool = false)
  {
    self.subscriptions = subscriptions
    self.identity = identity
    self.isPrivileged = isPrivileged
  }

  /// - Throws: the answer for a request that can't be granted.
  init(
    _ request: HTTPRequest, _ parser: SubscriptionParser, _ access: Access, _ proxies: TrustedProxies,
    unixMs: Int64
  ) throws(RefusedRequest) {
    let query = request.query
    let jwt = try Self.value("jwt", query)
    authorization = try access.authorize(request, jwt: jwt)
    if access.checks.areAsked {
      credentials = try ServiceCredentials(
        of: request, tokens: jwt.map { [("query parameter jwt", $0)] } ?? [])
    }
    isPrivileged = access.isPrivileged(authorization.credentials)
    (lastEventID, wantsCursors) = try Self.place(request, query)
    let users = try Self.followed("users[]", query, isPrivileged)
    let roles = try Self.followed("roles[]", query, isPrivileged)
    if !authorization.credentials.isEmpty {
      // As many as are let through fit.
      identity = ConnectionIdentity(authorization.credentials)
      identity?.followedUsers = users
      identity?.followedRoles = roles
    }
    origin.sinceUnixMs = unixMs
    origin.userAgent = String(
      decoding: (request.header("user-agent") ?? "").utf8.prefix(Self.mostUserAgentBytes), as: UTF8.self)
    origin.remote = proxies.client(of: request)
    let text = try Self.value("subscriptions", query)
    do throws(SubscriptionError) {
      var asked: [Subscription] = []
      if let text { (asked, warnings) = try parser.parse(Array(text.utf8)) }
      subscriptions = try access.subscriptions(
        asked: asked, authorization, isRequested: text != nil)
      if text != nil { check = access.checks.subscription(asked, credentials) }
    } catch {
      throw RefusedRequest(status: error.status, detail: "subscriptions: \(error.detail)")
    }
  }

  /// Where the client left off, and whether it wants cursors: also who says that it has none yet. The header counts first, since an
  /// EventSource that reconnects by itself has its latest id there, and in the query whatever its page began with.
  private static func place(
    _ request: HTTPRequest, _ query: [(name: String, value: String)]
  ) throws(RefusedRequest) -> (lastEventID: String?, wantsCursors: Bool) {
    let header = request.header("last-event-id")
    let isGiven = header != nil || query.contains { $0.name == "lastEventId" }
    let named = try value("lastEventId", query)
    let lastEventID = header.flatMap { $0.isEmpty ? nil : $0 } ?? named
    switch try value("cursors", query) {
    case nil, "false": return (lastEventID, isGiven)
    case "true": return (lastEventID, true)
    case let text?:
      throw RefusedRequest(
        status: 400, detail: "query parameter cursors is '\(text.prefix(64))', expected true or false")
    }
  }

  /// What it costs to take a request's subscriptions in, at most about.
  static func units(_ request: HTTPRequest) -> Int {
    TurnWork.units(forBytes: TurnWork.unitsPerCondition * (request.rawQuery?.utf8.count ?? 0))
  }

  /// The value of a query parameter; an empty one counts as absent.
  ///
  /// - Throws: 400 if there are two: which of them counts would be a guess.
  static func value(
    _ name: String, _ query: [(name: String, value: String)]
  ) throws(RefusedRequest) -> String? {
    var value: String?
    var count = 0
    for parameter in query where parameter.name == name && !parameter.value.isEmpty {
      value = parameter.value
      count += 1
    }
    guard count <= 1 else {
      throw RefusedRequest(
        status: 400, detail: "query parameter \(name) is given \(count) times, expected once")
    }
    return value
  }

  /// Other users or roles whose events are asked for, which takes a privileged role.
  private static func followed(
    _ name: String, _ query: [(name: String, value: String)], _ isPrivileged: Bool
  ) throws(RefusedRequest) -> [String] {
    guard query.contains(where: { $0.name == name }) else { return [] }
    guard isPrivileged else {
      throw RefusedRequest(
        status: 403, detail: "query parameter \(name) needs a token with a role of PRIVILEGED_ROLES")
    }
    let names = NameSet.union([query.filter { $0.name == name }.map(\.value)])
    guard !names.contains("") else {
      throw RefusedRequest(status: 400, detail: "query parameter \(name) is empty, expected a name")
    }
    guard names.count <= ConnectionIdentity.mostFollowed else {
      throw RefusedRequest(
        status: 400,
        detail: "\(names.count) query parameters \(name), expected at most \(ConnectionIdentity.mostFollowed)"
      )
    }
    return names
  }
}

/// A request that is answered with a problem.
struct RefusedRequest: Error, Equatable {
  /// What a client that is told to come back may wait.
  private static let retrySeconds = 1

  let status: Int
  let detail: String
  /// The key set on its way that may have the key which a token names (TokenAuthority); nil: waiting for keys is of no use.
  let awaitedKeySet: Int?

  init(status: Int, detail: String, awaitedKeySet: Int? = nil) {
    self.status = status
    self.detail = detail
    self.awaitedKeySet = awaitedKeySet
  }

  init(_ error: SubscriptionError) {
    self.init(status: error.status, detail: error.detail)
  }

  var response: HTTPResponse {
    let headers: HTTPFields =
      switch status {
      case 401: ["www-authenticate": "Bearer"]
      case 426: ["upgrade": "websocket"]
      case 429, 503: ["retry-after": String(Self.retrySeconds)]
      default: [:]
      }
    return .problem(HTTPResponseStatus(statusCode: status), detail, headers: headers)
  }
}

/// The cookies of a request (RFC 6265 §4.2).
enum Cookies {
  /// The first cookie of that name; nil: there is none.
  static func value(_ name: String, _ headers: HTTPFields) -> String? {
    for header in headers["cookie"] {
      for pair in header.split(separator: ";") {
        let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, HTTPOctets.trimmed(parts[0]) == name else { continue }
        return unquoted(HTTPOctets.trimmed(parts[1]))
      }
    }
    return nil
  }

  private static func unquoted(_ text: Substring) -> String {
    guard text.count >= 2, text.first == "\"", text.last == "\"" else { return String(text) }
    return String(text.dropFirst().dropLast())
  }
}
