// Why the management API refuses, with the answer that RIG gives.

import Kit

public enum APIError: Error, Equatable, Sendable {
  /// The body is no JSON, or too large.
  case malformed(String)
  case invalid(APIProblems)
  case exists(id: String)
  case unknown(id: String)
  /// A bound of the table, by name.
  case full(String)

  /// The status of the answer.
  public var status: Int {
    switch self {
    case .malformed, .invalid: 400
    case .exists: 409
    case .unknown: 404
    case .full: 503
    }
  }

  /// What went wrong, in one line.
  public var message: String {
    switch self {
    case .malformed(let reason), .full(let reason): reason
    case .invalid(let problems): problems.description
    case .exists(let id): "API with id=\(id) already exists."
    case .unknown(let id): "API with id=\(id) doesn't exists."
    }
  }

  /// The body as RIG has it: the mistakes by scope, or `{"message":"…"}`.
  public var json: [UInt8] {
    if case .invalid(let problems) = self { return problems.json }
    var json = Array(#"{"message":"#.utf8)
    JSONText.appendString(message, to: &json)
    json.append(UInt8(ascii: "}"))
    return json
  }
}
