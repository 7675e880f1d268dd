// Answers about sessions, users and connections. Orders are answered when every connection worker has carried them out.

import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1
import Tokens

final class SessionRoutes {
  /// After which the keys of tokens may be there.
  private static let keysRetrySeconds = 1

  private let store: SessionStore
  private let hasher: SessionHasher
  private let legacy: LegacyAuthority
  private let legacySessions: LegacySessions
  private let node: String
  private let sessionRole: String

  init(
    store: SessionStore, hasher: SessionHasher, legacy: LegacyAuthority, legacySessions: LegacySessions,
    node: String, sessionRole: String
  ) {
    self.store = store
    self.hasher = hasher
    self.legacy = legacy
    self.legacySessions = legacySessions
    self.node = node
    self.sessionRole = sessionRole
  }

  func respond(to request: HTTPRequest, _ resource: SessionResource, on loop: EventLoop) -> Reply {
    switch resource {
    case .blacklist: blacklist(request, loop)
    case .blacklistEntry(let segment): named(segment) { .response(entry($0)) }
    case .sessions: .response(sessions())
    case .userSessions(let segment):
      named(segment) { request.method == .DELETE ? closeUser($0, loop) : .response(connections(of: $0)) }
    case .connection(let segment): named(segment) { closeConnection($0, loop) }
    case .legacy(let resource): ofRIG1(request, resource, loop)
    }
  }

  private func named(_ segment: Substring, _ body: (String) -> Reply) -> Reply {
    guard let name = PathSegment.decode(segment) else {
      return .response(.problem(.badRequest, "the path's last segment is no percent-encoded UTF-8"))
    }
    return body(name)
  }

  private func ofRIG1(_ request: HTTPRequest, _ resource: LegacyResource, _ loop: EventLoop) -> Reply {
    let fields = request.headers["authorization"]
    switch legacy.verdict(on: fields, resource.action, isBlacklisted: isBlacklisted) {
    case .allowed(let validUntil):
      do throws(EventError) {
        let question = try resource.question(validUntil: validUntil)
        let promise = loop.makePromise(of: HTTPResponse.self)
        legacySessions.answer(question) { promise.succeed($0) }
        return .later(promise.futureResult)
      } catch {
        return .response(.problem(.badRequest, error.detail))
      }
    case .unauthorized(let detail):
      return .response(.problem(.unauthorized, detail, headers: ["www-authenticate": "Bearer"]))
    case .forbidden: return .response(.problem(.forbidden, resource.refusal))
    case .unavailable(let detail):
      return .response(.unavailable(retryAfterSeconds: Self.keysRetrySeconds, detail))
    }
  }

  /// A session that can't be looked up counts as one that is.
  private func isBlacklisted(_ session: String) -> Bool {
    hasher.digest(session).map(store.isBlacklisted) ?? true
  }

  // MARK: Blacklist

  private func blacklist(_ request: HTTPRequest, _ loop: EventLoop) -> Reply {
    let order: BlacklistOrder
    do throws(BlacklistOrder.Refusal) {
      order = try BlacklistOrder(contentType: request.header("content-type"), body: request.body)
    } catch {
      return .response(.problem(HTTPResponseStatus(statusCode: error.status), error.detail))
    }
    guard let digest = hasher.digest(order.session) else {
      return .response(.problem(.internalServerError, "the session's digest can't be computed"))
    }
    let headers: HTTPFields = [
      "location": "/v3/session-blacklist/\(PathSegment.encode(order.session))",
      "access-control-allow-origin": "*",
    ]
    return later(loop, .json(Array("{}".utf8), status: .created, headers: headers)) {
      self.store.blacklist(digest, seconds: order.seconds, $0)
    }
  }

  private func entry(_ session: String) -> HTTPResponse {
    let headers: HTTPFields = ["access-control-allow-origin": "*", "cache-control": "no-store"]
    guard isBlacklisted(session) else {
      return .problem(.notFound, "the session is not on the blacklist", headers: headers)
    }
    return .json(Array("{}".utf8), headers: headers)
  }

  // MARK: Presence

  private static let fresh: HTTPFields = ["cache-control": "no-store"]

  private var incomplete: HTTPResponse? { store.incomplete }

  private func sessions() -> HTTPResponse {
    if let incomplete { return incomplete }
    return .json(SessionListing.users(store.registry.online(role: sessionRole)), headers: Self.fresh)
  }

  private func connections(of user: String) -> HTTPResponse {
    if let incomplete { return incomplete }
    let connections = store.registry.connections(of: Name(user))
    guard !connections.isEmpty else { return .problem(.notFound, "the user is not online") }
    return .json(SessionListing.connections(connections, node: node), headers: Self.fresh)
  }

  private func closeUser(_ user: String, _ loop: EventLoop) -> Reply {
    if let incomplete { return .response(incomplete) }
    guard !store.registry.connections(of: Name(user)).isEmpty else {
      return .response(.problem(.notFound, "the user is not online"))
    }
    return later(loop, .empty(.noContent)) { self.store.closeAll(of: Name(user), $0) }
  }

  private func closeConnection(_ text: String, _ loop: EventLoop) -> Reply {
    if let incomplete { return .response(incomplete) }
    guard let id = ConnectionID(text), store.registry.connection(id) != nil else {
      return .response(.problem(.notFound, "there is no such connection"))
    }
    return later(loop, .empty(.noContent)) { self.store.close([id], $0) }
  }

  // MARK: Answers to orders

  private func later(
    _ loop: EventLoop, _ done: HTTPResponse, _ order: (@escaping (SessionStore.Result) -> Void) -> Void
  ) -> Reply {
    let promise = loop.makePromise(of: HTTPResponse.self)
    order { promise.succeed($0.answer(done)) }
    return .later(promise.futureResult)
  }
}

extension SessionStore {
  /// The answer as long as presence isn't known; nil: it is.
  var incomplete: HTTPResponse? {
    guard !registry.isComplete else { return nil }
    return .unavailable(
      retryAfterSeconds: Result.retrySeconds,
      "not every connection worker has reported its connections yet")
  }
}

extension SessionStore.Result {
  /// What a client may wait before it tries again.
  fileprivate static let retrySeconds = 1

  /// The answer to an order, which is `done` if it has been carried out.
  func answer(_ done: HTTPResponse) -> HTTPResponse {
    let retrySeconds = Self.retrySeconds
    return switch self {
    case .done: done
    case .busy: .unavailable(retryAfterSeconds: retrySeconds, "the state log is full: a worker is slow")
    case .tooMany: .unavailable(retryAfterSeconds: retrySeconds, "there is no place for one more entry")
    case .unconfirmed:
      .unavailable(retryAfterSeconds: retrySeconds, "not every worker has confirmed; the entry stands")
    case .unkept(let reason):
      .unavailable(
        retryAfterSeconds: retrySeconds, "\(reason); the entry stands until the gateway ends")
    }
  }
}

/// What the management port has about sessions, users and connections, by path.
///
///   POST         /v3/session-blacklist        /v2/…   GET HEAD  /v3/session-blacklist/:id   /v2/…
///   GET HEAD     /v3/sessions                         GET HEAD DELETE  /v3/sessions/:user
///   DELETE       /v3/connections/:id
///   …            /rg/…                                as in RIG 1: LegacyResource
enum SessionResource: Equatable {
  case blacklist
  case blacklistEntry(Substring)
  case sessions
  case userSessions(Substring)
  case connection(Substring)
  case legacy(LegacyResource)

  /// nil: the path is none of these. Names are still percent-encoded.
  init?(path: String) {
    if let legacy = LegacyResource(path: path) {
      self = .legacy(legacy)
      return
    }
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3 || parts.count == 4, parts[0].isEmpty else { return nil }
    let name = parts.count == 4 ? parts[3] : nil
    if let name, name.isEmpty { return nil }
    switch (parts[1], parts[2], name) {
    case ("v3", "session-blacklist", nil), ("v2", "session-blacklist", nil): self = .blacklist
    case ("v3", "session-blacklist", let name?), ("v2", "session-blacklist", let name?):
      self = .blacklistEntry(name)
    case ("v3", "sessions", nil): self = .sessions
    case ("v3", "sessions", let name?): self = .userSessions(name)
    case ("v3", "connections", let name?): self = .connection(name)
    default: return nil
    }
  }

  /// Every path, with names in braces.
  static let templates =
    [
      "/v3/session-blacklist", "/v2/session-blacklist", "/v3/session-blacklist/{id}",
      "/v2/session-blacklist/{id}", "/v3/sessions", "/v3/sessions/{user}", "/v3/connections/{id}",
    ] + LegacyResource.templates

  var methods: [HTTPMethod] {
    switch self {
    case .blacklist: [.POST]
    case .blacklistEntry, .sessions: [.GET, .HEAD]
    case .userSessions: [.GET, .HEAD, .DELETE]
    case .connection: [.DELETE]
    case .legacy(let resource): resource.methods
    }
  }
}
