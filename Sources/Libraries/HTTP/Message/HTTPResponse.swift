// An answer as a responder gives it: status, headers, whole body.
//
// What every answer has is not in here but is added when it is sent (OutgoingHead): date, content-length,
// connection, traceparent. Never carries the body of a HEAD answer differently: that too is the writer's business.

import Kit
import NIOCore
import NIOHTTP1

/// One HTTP answer.
public struct HTTPResponse: Sendable {
  public var status: HTTPResponseStatus
  public var headers: HTTPFields
  public var body: ByteBuffer
  /// The answer to a HEAD whose GET is a stream: nobody knows its length, so none is announced (RFC 9110 §8.6).
  public private(set) var isHeadOfStream = false

  public init(status: HTTPResponseStatus, headers: HTTPFields = [:], body: ByteBuffer = ByteBuffer()) {
    self.status = status
    self.headers = headers
    self.body = body
  }

  /// A JSON document, already encoded.
  public static func json(
    _ bytes: some Collection<UInt8>, status: HTTPResponseStatus = .ok, headers: HTTPFields = [:]
  ) -> HTTPResponse {
    HTTPResponse(status: status, headers: headers, body: ByteBuffer(bytes: bytes)).typed("application/json")
  }

  /// Plain text.
  public static func text(
    _ text: String, status: HTTPResponseStatus = .ok, contentType: String = "text/plain; charset=utf-8"
  ) -> HTTPResponse {
    HTTPResponse(status: status, body: ByteBuffer(string: text)).typed(contentType)
  }

  /// Status and headers alone.
  public static func empty(_ status: HTTPResponseStatus, headers: HTTPFields = [:]) -> HTTPResponse {
    HTTPResponse(status: status, headers: headers)
  }

  /// What a GET would be answered by a stream with, for a HEAD.
  public static func headOfStream(_ headers: HTTPFields) -> HTTPResponse {
    var response = HTTPResponse(status: .ok, headers: headers)
    response.isHeadOfStream = true
    return response
  }

  /// A problem document (RFC 9457); `detail` names the offending field or header and what was expected.
  public static func problem(
    _ status: HTTPResponseStatus, _ detail: String, headers: HTTPFields = [:]
  ) -> HTTPResponse {
    let document = Problem.json(status: Int(status.code), detail: detail)
    return HTTPResponse(status: status, headers: headers, body: ByteBuffer(bytes: document))
      .typed("application/problem+json")
  }

  /// 503 for what can be done again in `seconds`.
  public static func unavailable(retryAfterSeconds seconds: Int, _ detail: String) -> HTTPResponse {
    problem(.serviceUnavailable, detail, headers: ["retry-after": String(seconds)])
  }

  /// 405 with the methods that the resource has (RFC 9110 §15.5.6).
  public static func methodNotAllowed(_ method: HTTPMethod, allowed: [HTTPMethod]) -> HTTPResponse {
    let list = allowed.map(\.rawValue).joined(separator: ", ")
    return problem(
      .methodNotAllowed, "method \(method.rawValue) is not allowed here, expected \(list)",
      headers: ["allow": list])
  }

  private func typed(_ contentType: String) -> HTTPResponse {
    var copy = self
    copy.headers.add(name: "content-type", value: contentType)
    return copy
  }
}
