// POST /v3/responses and /v2/responses: a service answers a request that waits (contract §8).
//
//   rig-correlation: <id>   rig-response-code: 200…599   content-type, others ─► the client's answer; the body is its body
//   /v2 without these: the body is a CloudEvent with rig.correlation (RIG 2), and the answer's body
//
//   202 the request got it   400 a header is missing or wrong   404 no request waits under this id   503 may be tried again

import HTTP
import IPC
import Kit
import Links
import NIOCore
import NIOHTTP1

final class ResponseRoute {
  /// What a service may wait before it tries again.
  private static let retrySeconds = 1

  /// nil only in tests that have none.
  private let relay: ResponseRelay?
  private let invalid: Metric?

  init(relay: ResponseRelay?, status: StatusPage?) {
    self.relay = relay
    // What connection workers find is counted by them.
    invalid = status?.metric(
      .counter, "rig_responses_total",
      labels: [("result", "invalid"), ("source", PublicationClient.Source.http.rawValue)])
  }

  private static let ofRIG2 = "/v2/responses"
  static let templates = [ofRIG2, "/v3/responses"]

  static func takes(_ path: String) -> Bool { templates.contains(path) }

  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply {
    guard request.method == .POST else {
      return .response(.methodNotAllowed(request.method, allowed: [.POST]))
    }
    let response: ServiceResponse
    do throws(EventError) {
      response = try Self.response(request)
    } catch {
      invalid?.add()
      return .response(.problem(HTTPResponseStatus(statusCode: error.status), error.detail))
    }
    guard let relay else {
      return .response(.problem(.notFound, "no request waits for responses here"))
    }
    let promise = loop.makePromise(of: HTTPResponse.self)
    relay.pass(response) { promise.succeed(Self.answer($0)) }
    return .later(promise.futureResult)
  }

  private static func answer(_ outcome: ResponseRelay.Outcome) -> HTTPResponse {
    switch outcome {
    case .taken: .text("message sent to correlated reverse proxy request", status: .accepted)
    case .unknown:
      .problem(
        .notFound, "no request waits under this rig-correlation: it is unknown, expired or already answered")
    case .unconfirmed:
      .unavailable(retryAfterSeconds: retrySeconds, "the worker of the request hasn't confirmed")
    case .busy:
      .unavailable(retryAfterSeconds: retrySeconds, "the ring to the connection workers is full")
    }
  }

  private static func response(_ request: HTTPRequest) throws(EventError) -> ServiceResponse {
    let named = ConnectionOptions(request.fields)
    let fields = request.headers.filter { !named.contains($0.name) }.map {
      (name: $0.name.lowercased(), value: Array($0.valueOctets))
    }
    if request.path == ofRIG2, !request.headers.contains(name: ResponseFields.correlation) {
      return try event(request, fields)
    }
    let correlation = try required(ResponseFields.correlation, request)
    try requireID(correlation, "header rig-correlation")
    let code = try required(ResponseFields.status, request)
    guard let status = ResponseFields.status(code) else {
      throw EventError(
        "header rig-response-code is '\(code.prefix(64))', expected a status from 200 to 599")
    }
    return try ServiceResponse(
      correlation: correlation, status: status, fields: fields, body: Array(request.body.readableBytesView))
  }

  private static func event(
    _ request: HTTPRequest, _ fields: [ResponseFields.Field]
  ) throws(EventError) -> ServiceResponse {
    try HeaderFields.requireNoContentCoding(request.fields)
    let read = request.body.withUnsafeReadableBytes { body in
      Result { () throws(EventError) in try ServiceResponse(event: body, fields: fields) }
    }
    let response = try read.get()
    try requireID(response.correlation, "rig.correlation")
    return response
  }

  private static func requireID(_ text: String, _ place: String) throws(EventError) {
    guard CorrelationAddress.parse(text) != nil else {
      throw EventError("\(place) is '\(text.prefix(64))', which is no correlation id")
    }
  }

  private static func required(_ name: String, _ request: HTTPRequest) throws(EventError) -> String {
    let values = request.headers[name]
    guard let value = values.first, !value.isEmpty else {
      throw EventError("header \(name) is missing")
    }
    guard values.count == 1 else { throw EventError("header \(name) is given twice, expected once") }
    return value
  }
}
