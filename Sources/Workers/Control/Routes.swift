// What the management port answers. It is for services and operators: who may use it is ManagementGuard's.
//
//   POST      /v3/messages  /v2/messages     events in: into this worker's ring, published once per turn
//   POST      /v3/responses /v2/responses    services' answers to requests that wait: ResponseRoute
//   GET HEAD  /health                        "OK" or 503, for RIG's users
//   GET HEAD  /livez  /readyz                JSON, naming each part
//   GET HEAD  /metrics                       Prometheus or OpenMetrics, as the scraper likes
//   GET HEAD  /openapi.json                  OpenAPI, of all of it
//   …         API definitions                see APIResource
//   …         sessions, users, connections   see SessionResource

import HTTP
import IPC
import Kit
import NIOCore
import NIOHTTP1

/// How the management port takes events in; the worker's is an EventIntake.
protocol MessageIntake: AnyObject {
  func respond(to request: HTTPRequest) -> HTTPResponse
  /// Makes visible what was answered 202 in this turn.
  @discardableResult func publish() -> Bool
}

extension EventIntake: MessageIntake {}

final class Routes: Responder {
  private enum Resource {
    case messages, health, livez, readyz, metrics, document

    var methods: [HTTPMethod] { self == .messages ? [.POST] : [.GET, .HEAD] }

    /// Probes and scrapers carry no token. Whoever may not use the interface needn't know it either.
    var isOpen: Bool { self != .messages && self != .document }
  }

  private static let table: [String: Resource] = [
    "/v3/messages": .messages, "/v2/messages": .messages,
    "/health": .health, "/livez": .livez, "/readyz": .readyz, "/metrics": .metrics,
    "/openapi.json": .document,
  ]
  /// Every path, with names in braces: what the document must have.
  static var templates: [String] {
    table.keys + SessionResource.templates + APIResource.templates + ResponseRoute.templates
  }
  /// Bytes of a path that are repeated in an answer.
  private static let maxPathShown = 200

  private let gate: ManagementGuard
  private let refused: [ManagementGuard.Reason: Metric]
  private let intake: any MessageIntake
  private let health: HealthWatch
  private let scrape: SlicedScrape
  private let sessions: SessionRoutes
  private let apis: APIRoutes
  private let responses: ResponseRoute
  private let document: ByteBuffer

  init(
    gate: ManagementGuard, status: StatusPage, intake: any MessageIntake, health: HealthWatch,
    scrape: SlicedScrape,
    sessions: SessionRoutes, apis: APIRoutes,
    responses: ResponseRoute = ResponseRoute(relay: nil, status: nil), document: [UInt8]
  ) {
    self.document = ByteBuffer(bytes: document)
    self.gate = gate
    refused = Dictionary(
      uniqueKeysWithValues: ManagementGuard.Reason.allCases.compactMap { reason in
        status.metric(.counter, "rig_management_refused_total", labels: [("reason", reason.rawValue)]).map {
          (reason, $0)
        }
      })
    self.responses = responses
    self.apis = apis
    self.intake = intake
    self.health = health
    self.scrape = scrape
    self.sessions = sessions
  }

  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply {
    if Self.table[request.path]?.isOpen != true, let refusal = gate.refusal(of: request) {
      refused[refusal.reason]?.add()
      return .response(refusal.response)
    }
    if let refusal = Self.codingRefusal(request) { return .response(refusal) }
    if let resource = SessionResource(path: request.path) {
      guard resource.methods.contains(request.method) else {
        return .response(.methodNotAllowed(request.method, allowed: resource.methods))
      }
      return sessions.respond(to: request, resource, on: loop)
    }
    if let resource = APIResource(path: request.path) {
      guard resource.methods.contains(request.method) else {
        return .response(.methodNotAllowed(request.method, allowed: resource.methods))
      }
      return apis.respond(to: request, resource, on: loop)
    }
    if ResponseRoute.takes(request.path) { return responses.respond(to: request, on: loop) }
    guard let resource = Self.table[request.path] else {
      let path = request.path.prefix(Self.maxPathShown)
      return .response(.problem(.notFound, "there is nothing at \(path) on the management port"))
    }
    guard resource.methods.contains(request.method) else {
      return .response(.methodNotAllowed(request.method, allowed: resource.methods))
    }
    switch resource {
    case .messages:
      // Nobody would get it, and nothing would keep it.
      if health.isGatewayStopping {
        return .response(
          .unavailable(retryAfterSeconds: 1, "the gateway is stopping: it takes no more events"))
      }
      return .response(intake.respond(to: request))
    case .health: return .response(Self.answer(brief: health.readiness()))
    case .livez: return .response(Self.answer(health.liveness()))
    case .readyz: return .response(Self.answer(health.readiness()))
    case .document: return .response(.json(document.readableBytesView, headers: Self.fresh))
    case .metrics:
      let format = ExpositionFormat(accept: request.headers["accept"])
      return .later(scrape.text(format).map { Self.answer($0, format) })
    }
  }

  /// Bodies of responses are passed on as they are.
  private static func codingRefusal(_ request: HTTPRequest) -> HTTPResponse? {
    guard [.POST, .PUT].contains(request.method), !ResponseRoute.takes(request.path) else { return nil }
    do throws(EventError) {
      try HeaderFields.requireNoContentCoding(request.fields)
      return nil
    } catch {
      return .problem(.unsupportedMediaType, error.detail)
    }
  }

  func turnWillFlush() {
    intake.publish()
  }

  private static let fresh: HTTPFields = ["cache-control": "no-store"]

  private static func answer(brief report: HealthReport) -> HTTPResponse {
    var response =
      report.isAvailable
      ? HTTPResponse.text("OK")
      : .problem(.serviceUnavailable, "unhealthy: \(report.unavailable.joined(separator: ", "))")
    response.headers.add(contentsOf: fresh)
    return response
  }

  private static func answer(_ report: HealthReport) -> HTTPResponse {
    .json(report.json, status: report.isAvailable ? .ok : .serviceUnavailable, headers: fresh)
  }

  private static func answer(_ body: ByteBuffer, _ format: ExpositionFormat) -> HTTPResponse {
    var headers = fresh
    headers.add(name: "content-type", value: format.contentType)
    headers.add(name: "vary", value: "accept")
    return HTTPResponse(status: .ok, headers: headers, body: body)
  }
}
