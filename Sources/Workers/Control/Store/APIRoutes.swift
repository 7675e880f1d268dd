// The API definitions on the management port (contract §9), with RIG's statuses and bodies.
//
//   /v3/apis      GET HEAD POST          /v2/apis the same
//   /v3/apis/:id  GET HEAD PUT DELETE

import APIs
import HTTP
import Kit
import NIOCore
import NIOHTTP1

enum APIResource: Equatable {
  case list
  case one(Substring)

  /// nil: the path is none of these. The id is still percent-encoded.
  init?(path: String) {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3 || parts.count == 4, parts[0].isEmpty, ["v2", "v3"].contains(parts[1]),
      parts[2] == "apis"
    else { return nil }
    guard parts.count == 4 else {
      self = .list
      return
    }
    guard !parts[3].isEmpty else { return nil }
    self = .one(parts[3])
  }

  /// Every path, with names in braces.
  static let templates = ["/v2/apis", "/v2/apis/{id}", "/v3/apis", "/v3/apis/{id}"]

  var methods: [HTTPMethod] {
    self == .list ? [.GET, .HEAD, .POST] : [.GET, .HEAD, .PUT, .DELETE]
  }
}

final class APIRoutes {
  /// What a client may wait before it tries again.
  private static let retrySeconds = 1
  /// Somebody has to make room on the disk first.
  private static let diskRetrySeconds = 10
  private static let fresh: HTTPFields = ["cache-control": "no-store"]

  private let store: APIStore

  init(store: APIStore) { self.store = store }

  func respond(to request: HTTPRequest, _ resource: APIResource, on loop: EventLoop) -> Reply {
    switch resource {
    case .list where request.method == .POST:
      return change(request, loop, .created) { .create($0) }
    case .list: return .response(.json(store.table.json, headers: Self.fresh))
    case .one(let segment):
      guard let id = PathSegment.decode(segment) else {
        return .response(.problem(.badRequest, "the path's last segment is no percent-encoded UTF-8"))
      }
      switch request.method {
      case .PUT: return change(request, loop, .ok) { .replace(id: id, $0) }
      case .DELETE: return later(loop, .remove(id: id)) { .empty(.noContent) }
      default: return .response(definition(id))
      }
    }
  }

  private func definition(_ id: String) -> HTTPResponse {
    guard let definition = store.table.definition(id) else { return Self.refusal(.unknown(id: id)) }
    return .json(definition.json, headers: Self.fresh)
  }

  private func change(
    _ request: HTTPRequest, _ loop: EventLoop, _ status: HTTPResponseStatus,
    _ order: ([UInt8]) -> OrderedAPIs.Change
  ) -> Reply {
    let type = request.header("content-type")
    guard let type, MediaType(type).isJSON else {
      let found = type.map { "is '\($0.prefix(100))'" } ?? "is missing"
      return .response(
        .problem(.unsupportedMediaType, "header content-type \(found), expected application/json"))
    }
    let change = order(Array(request.body.readableBytesView))
    return later(loop, change) { [store] in
      let warnings = store.warnings(about: change) { loop.soon($0) }
      return .json(Self.accepted(warnings: warnings), status: status)
    }
  }

  /// `{"message":"ok"}` as of RIG, with what is to be known of what stands now.
  private static func accepted(warnings: [String]) -> [UInt8] {
    var json = Array(#"{"message":"ok""#.utf8)
    if !warnings.isEmpty {
      json += #","warnings":"#.utf8
      JSONText.appendArray(warnings, to: &json) { JSONText.appendString($0, to: &$1) }
    }
    json.append(UInt8(ascii: "}"))
    return json
  }

  private func later(
    _ loop: EventLoop, _ change: OrderedAPIs.Change, _ answer: @escaping () -> HTTPResponse
  ) -> Reply {
    let promise = loop.makePromise(of: HTTPResponse.self)
    store.order(change) { outcome in
      switch outcome {
      case .done: promise.succeed(answer())
      case .refused(let error): promise.succeed(Self.refusal(error))
      case .busy:
        promise.succeed(
          .unavailable(
            retryAfterSeconds: Self.retrySeconds, "too many changes wait: the disk or a worker is slow"))
      case .unwritten(let reason):
        promise.succeed(
          .unavailable(retryAfterSeconds: Self.diskRetrySeconds, "\(reason); nothing has changed"))
      case .unknown:
        promise.succeed(
          .unavailable(
            retryAfterSeconds: Self.retrySeconds, "this worker ends; whether the change stands is not known"))
      case .unconfirmed:
        promise.succeed(
          .unavailable(
            retryAfterSeconds: Self.retrySeconds, "not every worker has confirmed; the change stands"))
      }
    }
    return .later(promise.futureResult)
  }

  private static func refusal(_ error: APIError) -> HTTPResponse {
    .json(error.json, status: HTTPResponseStatus(statusCode: error.status))
  }
}
