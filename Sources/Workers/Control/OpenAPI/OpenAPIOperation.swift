// One method of one path, as the document of the management API has it. Values only; OpenAPIDocument writes them.

struct OpenAPIOperation {
  /// The body of an answer.
  enum Content: Hashable {
    case none
    /// A text; the type of its content.
    case text(String)
    /// JSON after a schema of the document.
    case json(String)
    /// RFC 9457.
    case problem

    var mediaType: String? {
      switch self {
      case .none: nil
      case .text(let type): type
      case .json: "application/json"
      case .problem: "application/problem+json"
      }
    }

    var schema: String {
      switch self {
      case .none, .text: #"{"type":"string"}"#
      case .json(let name): ##"{"$ref":"#/components/schemas/\##(name)"}"##
      case .problem: ##"{"$ref":"#/components/schemas/Problem"}"##
      }
    }
  }

  struct Answer {
    var status: Int
    var description: String
    var contents: [Content]
    /// Names of headers that it always has.
    var headers: [String] = []
  }

  /// In lower case.
  var method: String
  var summary: String
  /// Types of the body that is demanded, each with the name of its schema; empty: no body.
  var bodies: [(type: String, schema: String)] = []
  /// Whether it takes a body of any type, or none.
  var takesAnyBody = false
  /// Headers that are demanded, each with a regular expression for its value.
  var headers: [(name: String, pattern: String)] = []
  var answers: [Answer]
  /// Whether it needs no MANAGEMENT_TOKEN.
  var isOpen = false
}

/// A path with all its methods but HEAD, which is where GET is.
struct OpenAPIPath {
  /// `/v3/apis/{id}`.
  var template: String
  /// What stands for the name in braces.
  var parameter: String?
  var operations: [OpenAPIOperation]
}

extension OpenAPIOperation.Answer {
  static func json(_ status: Int, _ schema: String, _ description: String, headers: [String] = []) -> Self {
    Self(status: status, description: description, contents: [.json(schema)], headers: headers)
  }

  static func problem(_ status: Int, _ description: String, headers: [String] = []) -> Self {
    Self(status: status, description: description, contents: [.problem], headers: headers)
  }

  static func empty(_ description: String) -> Self {
    Self(status: 204, description: description, contents: [.none])
  }

  /// What can't be done now.
  static let busy = problem(503, "It can't be done now; `retry-after` says when to try again.")
  static let unsupported = problem(415, "The body has another content type.")
}
