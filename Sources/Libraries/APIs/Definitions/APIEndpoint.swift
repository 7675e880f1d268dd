// One endpoint of an API: which requests it takes, and what becomes of them.

import Kit

/// An endpoint as requests are matched with it. Immutable: definitions are replaced whole.
public final class APIEndpoint: Sendable {
  private static let mostJSONBytes = 4096

  public enum Target: String, Sendable {
    case http, kafka
  }

  /// Where the answer comes from.
  public enum Response: String, Sendable {
    case http, kafka
    /// The service answers the gateway by `POST /v3/responses`.
    case httpAsync = "http_async"
  }

  public let id: String
  /// In upper case.
  public let method: String
  /// As the definition has it: `path_regex`, or else RIG 1's `path`. For people and for metrics.
  public let path: String
  /// Tried in this order: RIG 1's `path` first, then `path_regex`.
  public let patterns: [PathPattern]
  /// nil: the path stays as it came.
  public let replacement: PathReplacement?
  /// Whether its path is written as RIG 1 has it (`path`), perhaps beside a `path_regex`.
  public let isOfRIG1: Bool
  /// Whether a token is demanded: by `secured`, and in an API with JWT as in RIG 1: where `not_secured` is false, and where there is a
  /// `path` unless `not_secured` is true.
  public let isSecured: Bool
  /// Whether the headers of the API's `add_headers` are set.
  public let transformsRequestHeaders: Bool
  public let target: Target
  /// nil for Kafka without an answer.
  public let responseFrom: Response?
  public let topic: String?
  /// The endpoint itself as its definition has it; empty if that has more than 4096 bytes.
  public let json: [UInt8]
  /// Whether credentials go where they else don't: the token parameter to the service, all of them into the event.
  public let forwardsCredentials: Bool

  /// Reads an endpoint that has been validated. What doesn't compile is left out: it matches nothing.
  init(_ json: JSONValue, isJWT: Bool) {
    var text: [UInt8] = []
    json.appendJSON(to: &text)
    self.json = text.count <= Self.mostJSONBytes ? text : []
    id = json.member("id")?.string ?? ""
    method = (json.member("method")?.string ?? "").uppercased()
    var patterns: [PathPattern] = []
    if let path = json.text("path"), let pattern = try? PathPattern(wildcards: path) {
      patterns.append(pattern)
    }
    if let regex = json.text("path_regex"), let pattern = try? PathPattern(regex) { patterns.append(pattern) }
    self.patterns = patterns
    path = json.text("path_regex") ?? json.text("path") ?? ""
    replacement = json.text("path_replacement").flatMap { try? PathReplacement($0) }
    isOfRIG1 = json.text("path") != nil
    let isOpened = json.member("not_secured")?.boolean
    isSecured = json.member("secured")?.boolean == true || isJWT && !(isOpened ?? !isOfRIG1)
    transformsRequestHeaders = json.member("transform_request_headers")?.boolean ?? false
    target = json.text("target").flatMap { Target(rawValue: $0.lowercased()) } ?? .http
    let response = json.text("response_from").flatMap { Response(rawValue: $0.lowercased()) }
    // RIG's default, which for Kafka means that nothing is waited for.
    responseFrom = target == .http ? response ?? .http : response == .http ? nil : response
    topic = json.text("topic")
    forwardsCredentials = json.member("forward_credentials")?.boolean ?? false
  }
}

extension JSONValue {
  /// The text of a member that is a string and not empty.
  func text(_ name: String) -> String? {
    guard let text = member(name)?.string, !text.isEmpty else { return nil }
    return text
  }
}
