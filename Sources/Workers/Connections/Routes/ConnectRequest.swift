// What a request for a connection asks for, the same for all three transports (contract §2.1): query, headers, and for
// long-polling cookies.

import HTTP
import Kit
import NIOCore
import NIOHTTP1

struct ConnectRequest {
  var subscriptions: [Subscription] = []
  /// What was accepted and will not do what the client may think; goes into the greeting.
  var warnings: [String] = []
  /// Where the client left off.
  var lastEventID: String?

  /// - Parameter parse: parses the text of `subscriptions`.
  /// - Throws: the answer for a request that can't be granted.
  init(
    _ request: HTTPRequest,
    parse: (UnsafeRawBufferPointer) throws(SubscriptionError) -> (
      subscriptions: [Subscription], warnings: [String]
    )
  ) throws(RefusedRequest) {
    let query = request.query
    try Self.checkIdentity(request, query)
    lastEventID = Self.value("lastEventId", query) ?? request.header("last-event-id")
    guard let text = Self.value("subscriptions", query) else { return }
    do throws(SubscriptionError) {
      var text = text
      var outcome: Result<(subscriptions: [Subscription], warnings: [String]), SubscriptionError>?
      text.withUTF8 { bytes in
        outcome = Result { () throws(SubscriptionError) in try parse(UnsafeRawBufferPointer(bytes)) }
      }
      guard let parsed = try outcome?.get() else { return }
      (subscriptions, warnings) = parsed
    } catch {
      throw RefusedRequest(status: error.status, detail: "subscriptions: \(error.detail)")
    }
  }

  /// The first value of a query parameter; an empty one counts as absent.
  static func value(_ name: String, _ query: [(name: String, value: String)]) -> String? {
    query.first { $0.name == name && !$0.value.isEmpty }?.value
  }

  /// Tokens can't be verified as long as no key is configured (contract §6.1), and privileges need a token.
  static func checkIdentity(
    _ request: HTTPRequest, _ query: [(name: String, value: String)]
  ) throws(RefusedRequest) {
    let given =
      value("jwt", query) != nil
      ? "query parameter jwt" : request.header("authorization").map { _ in "header authorization" }
    if let given {
      throw RefusedRequest(
        status: 401, detail: "\(given): the token can't be verified, no key for tokens is configured")
    }
    for name in ["users[]", "roles[]"] where query.contains(where: { $0.name == name }) {
      throw RefusedRequest(
        status: 403, detail: "query parameter \(name) needs a token with a role of PRIVILEGED_ROLES")
    }
  }
}

/// A request that is answered with a problem.
struct RefusedRequest: Error, Equatable {
  let status: Int
  let detail: String

  var response: HTTPResponse {
    let headers: HTTPHeaders =
      switch status {
      case 401: ["www-authenticate": "Bearer"]
      case 426: ["upgrade": "websocket"]
      default: [:]
      }
    return .problem(HTTPResponseStatus(statusCode: status), detail, headers: headers)
  }
}

/// The cookies of a request (RFC 6265 §4.2).
enum Cookies {
  /// The first cookie of that name; nil: there is none.
  static func value(_ name: String, _ headers: HTTPHeaders) -> String? {
    for header in headers["cookie"] {
      for pair in header.split(separator: ";") {
        let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, trimmed(parts[0]) == name else { continue }
        return unquoted(trimmed(parts[1]))
      }
    }
    return nil
  }

  private static func trimmed(_ text: Substring) -> Substring {
    var text = text
    while text.first == " " || text.first == "\t" { text.removeFirst() }
    while text.last == " " || text.last == "\t" { text.removeLast() }
    return text
  }

  private static func unquoted(_ text: Substring) -> String {
    guard text.count >= 2, text.first == "\"", text.last == "\"" else { return String(text) }
    return String(text.dropFirst().dropLast())
  }
}
