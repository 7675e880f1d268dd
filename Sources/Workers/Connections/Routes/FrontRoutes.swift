// Everything on the inbound port, by path (contract §1, §2, §4.1). Answers to what browsers call carry the cross-origin
// headers, refusals too; the API definitions are for local tools, and no page's.
//
//   /_rig/v1/connection/{sse,ws,longpolling}                        GET
//   /_rig/v1/connection/{sse,ws,longpolling}/:token/subscriptions   PUT
//   /_rig/v1/events                                                 POST
//   /_rig/health, /_rig/demo (with --dev)                           GET
//   /apis, /apis/:id for peers of INBOUND_APIS                      GET
//   /rg/sessions, /rg/sessions/:id, /rg/connections/:jti            as in RIG 1: LegacyRoute
//   everything else outside /_rig/                                  by API definition (APIGateway)

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class FrontRoutes: Responder {
  private enum Route {
    case sse
    case webSocket
    case longPolling
    case subscriptions(token: String)
    case events
    case health
    case demo
    case legacy(LegacyResource)

    var methods: [HTTPMethod] {
      switch self {
      case .sse, .longPolling, .health, .demo: [.GET, .HEAD]
      case .webSocket: [.GET]
      case .subscriptions: [.PUT]
      case .events: [.POST]
      case .legacy(let resource): resource.methods
      }
    }

    var isWebSocket: Bool {
      if case .webSocket = self { true } else { false }
    }

    /// Whether cookies are part of it.
    var hasCredentials: Bool {
      if case .longPolling = self { true } else { false }
    }
  }

  private static let prefix = "/_rig/"
  private static let connection = "/_rig/v1/connection/"

  private let streams: StreamRoutes
  private let longPolling: LongPollRoute
  private let subscriptions: SubscriptionsRoute
  private let events: EventsRoute
  private let legacy: LegacyRoute
  private let cors: CORS
  private let gateway: APIGateway?
  private let definitions: DefinitionsRoute
  /// nil unless in development mode.
  private let demo: HTTPResponse?

  init(
    streams: StreamRoutes, longPolling: LongPollRoute, subscriptions: SubscriptionsRoute, events: EventsRoute,
    legacy: LegacyRoute, gateway: APIGateway?, definitions: DefinitionsRoute, cors: CORS, demo: DemoPage?
  ) {
    self.gateway = gateway
    self.definitions = definitions
    self.streams = streams
    self.longPolling = longPolling
    self.subscriptions = subscriptions
    self.events = events
    self.legacy = legacy
    self.cors = cors
    self.demo = demo?.response
  }

  func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? {
    guard !request.path.hasPrefix(Self.prefix), !definitions.takes(request),
      LegacyResource(path: request.path) == nil
    else { return nil }
    return gateway?.exchange(for: request, on: loop)
  }

  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply {
    guard let route = route(request.path) else { return .response(outside(request)) }
    if request.method == .OPTIONS {
      return .response(
        cors.preflight(for: request, methods: route.methods, credentials: route.hasCredentials))
    }
    guard route.methods.contains(request.method) else {
      return .response(crossOrigin(.methodNotAllowed(request.method, allowed: route.methods), request))
    }
    // By CONNECT (RFC 8441 §4), which is no GET: any success would say that there is a WebSocket now.
    if request.isHTTP2, request.isUpgrade, !route.isWebSocket {
      let detail = "CONNECT for a WebSocket, expected the path \(Self.connection)ws or another method"
      return .response(crossOrigin(.problem(.notImplemented, detail), request))
    }
    let headers = cors.headers(for: request, credentials: route.hasCredentials)
    if let part = request.rawQuery.flatMap(QueryString.firstPartThatIsNoUTF8) {
      let name = part.prefix { $0 != "=" }.prefix(64)
      let detail = "query parameter \(name) is no UTF-8 when percent-decoded, expected UTF-8 (RFC 3986 §2.5)"
      return .response(Self.adding(headers, to: .problem(.badRequest, detail)))
    }
    return Self.adding(headers, to: answer(route, request, loop))
  }

  func answersWhenDraining(_ request: HTTPRequest) -> Bool { continuation(of: request) != .end }

  /// What another process does with a request that its worker couldn't answer.
  enum Continuation {
    /// Says so.
    case refuse
    /// Ends its connection: the client comes back, and never again after an error.
    case end
    /// Gives it to its routes as if it had just come: nothing has been done for it yet.
    case again
  }

  func continuation(of request: HTTPRequest) -> Continuation {
    if request.path.hasPrefix(Self.connection) {
      if case .sse? = route(request.path) { return .end }
      if case .longPolling? = route(request.path), request.method == .GET, request.announcedBody == .none {
        return .again
      }
    }
    // An `EventSource` says what it takes, also where a service serves its stream.
    let takesStream = request.headers["accept"].contains { $0.lowercased().contains("text/event-stream") }
    return takesStream ? .end : .refuse
  }

  func crossOriginHeaders(for request: HTTPRequest) -> HTTPFields {
    guard request.path.hasPrefix(Self.prefix) || !definitions.takes(request) else { return [:] }
    return cors.headers(for: request, credentials: route(request.path)?.hasCredentials ?? false)
  }

  func turnWillFlush() {
    events.publish()
  }

  private func answer(_ route: Route, _ request: HTTPRequest, _ loop: EventLoop) -> Reply {
    switch route {
    case .sse where request.method == .HEAD: .response(.headOfStream(StreamRoutes.eventStreamHeaders))
    case .sse: streams.sse(request, on: loop)
    case .webSocket: streams.webSocket(request, on: loop)
    case .longPolling where request.method == .HEAD:
      .response(.headOfStream(["cache-control": "no-cache"]))
    case .longPolling: longPolling.respond(request, on: loop)
    case .subscriptions(let token): subscriptions.respond(request, token: token, on: loop)
    case .events: events.respond(request, on: loop)
    case .health: .response(.text("OK"))
    case .demo: .response(demo ?? .empty(.notFound))
    case .legacy(let resource): legacy.respond(request, resource, on: loop)
    }
  }

  // MARK: Paths

  private func route(_ path: String) -> Route? {
    switch path {
    case Self.connection + "sse": return .sse
    case Self.connection + "ws": return .webSocket
    case Self.connection + "longpolling": return .longPolling
    case "/_rig/v1/events": return .events
    case "/_rig/health": return .health
    case "/_rig/demo" where demo != nil: return .demo
    default: break
    }
    if let resource = LegacyResource(path: path) { return .legacy(resource) }
    guard path.hasPrefix(Self.connection) else { return nil }
    let parts = path.dropFirst(Self.connection.count).split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3, ["sse", "ws", "longpolling"].contains(parts[0]), parts[2] == "subscriptions"
    else {
      return nil
    }
    return .subscriptions(token: String(parts[1]))
  }

  /// Whatever no API takes.
  private func outside(_ request: HTTPRequest) -> HTTPResponse {
    guard !request.path.hasPrefix(Self.prefix) else { return notFound(request) }
    if definitions.takes(request) { return definitions.respond(request) }
    let methods = gateway?.methods(for: request) ?? []
    guard !methods.isEmpty else {
      gateway?.countUnmatched(request, .notFound)
      return notFound(request)
    }
    let allowed = methods.map { HTTPMethod(rawValue: $0) }
    guard request.method != .OPTIONS else { return cors.preflight(for: request, methods: allowed) }
    gateway?.countUnmatched(request, .methodNotAllowed)
    return crossOrigin(.methodNotAllowed(request.method, allowed: allowed), request)
  }

  /// Outside of `/_rig/` RIG's clients look for `message`.
  private func notFound(_ request: HTTPRequest) -> HTTPResponse {
    let isOurs = request.path.hasPrefix(Self.prefix)
    var response = HTTPResponse.problem(.notFound, "path \(request.path.prefix(256)) is not known here")
    guard !isOurs else { return crossOrigin(response, request) }
    var body = Array(response.body.readableBytesView.dropLast())
    body.append(contentsOf: #","message":"Not Found"}"#.utf8)
    response.body = ByteBuffer(bytes: body)
    return crossOrigin(response, request)
  }

  // MARK: Cross-origin headers

  private func crossOrigin(_ response: HTTPResponse, _ request: HTTPRequest) -> HTTPResponse {
    Self.adding(crossOriginHeaders(for: request), to: response)
  }

  private static func adding(_ headers: HTTPFields, to response: HTTPResponse) -> HTTPResponse {
    var response = response
    response.headers.add(contentsOf: headers)
    return response
  }

  private static func adding(_ headers: HTTPFields, to reply: Reply) -> Reply {
    switch reply {
    case .response(let response): .response(adding(headers, to: response))
    case .later(let future, let onClientGone):
      .later(future.map { adding(headers, to: $0) }, onClientGone: onClientGone)
    case .eventually(let future, let onClientGone):
      .eventually(
        future.assumeIsolated().map { adding(headers, to: $0) }.nonisolated(), onClientGone: onClientGone)
    case .takeOver: reply
    }
  }
}
