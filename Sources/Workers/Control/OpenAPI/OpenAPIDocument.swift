// GET /openapi.json: the management API as it is, as OpenAPI 3.1. Written once, when the worker starts.
//
//   OpenAPIPaths     paths, methods, answers               what every answer can be is added here:
//   OpenAPISchemas   what bodies look like                  400, 408, 431; with a body 413, 429, 503; with a MANAGEMENT_TOKEN 401,
//                                                           else 403
//
// It must not promise more than the gateway does, nor less: schemathesis holds the two against each other
// (Tests/EndToEnd/OpenAPITests).

import Kit

enum OpenAPIDocument {
  /// - Parameters:
  ///   - version: of the gateway.
  ///   - isClosed: whether there is a MANAGEMENT_TOKEN.
  ///   - userField: member of events that addresses them.
  static func json(version: String, isClosed: Bool, userField: String) -> [UInt8] {
    let paths = OpenAPIPaths.all.map { quoted($0.template) + ":" + path($0, isClosed) }
    var members = [
      #""openapi":"3.1.0""#,
      #""info":{"title":"Reactive Interaction Gateway: management API","version":\#(quoted(version))}"#,
      #""paths":{"# + paths.joined(separator: ",") + "}",
    ]
    var components = #""schemas":{"# + OpenAPISchemas.all(userField: quoted(userField)) + "}"
    if isClosed {
      components +=
        #","securitySchemes":{"managementToken":{"type":"http","scheme":"bearer","description":"MANAGEMENT_TOKEN"}}"#
      members.append(#""security":[{"managementToken":[]}]"#)
    }
    members.append(#""components":{"# + components + "}")
    return Array(("{" + members.joined(separator: ",") + "}").utf8)
  }

  private static func path(_ path: OpenAPIPath, _ isClosed: Bool) -> String {
    var members: [String] = []
    if let parameter = path.parameter, let open = path.template.firstIndex(of: "{") {
      let name = path.template[open...].dropFirst().dropLast()
      members.append(
        #""parameters":[{"name":\#(quoted(name)),"in":"path","required":true,"description":\#(quoted(parameter)),"#
          + #""schema":{"type":"string","minLength":1}}]"#)
    }
    for operation in path.operations {
      members.append(write(operation, path, isClosed))
      guard operation.method == "get" else { continue }
      var head = operation
      head.method = "head"
      head.answers = head.answers.map { answer in
        var answer = answer
        answer.contents = [.none]
        return answer
      }
      members.append(write(head, path, isClosed))
    }
    return "{" + members.joined(separator: ",") + "}"
  }

  private static func write(_ operation: OpenAPIOperation, _ path: OpenAPIPath, _ isClosed: Bool) -> String {
    var members = [
      #""operationId":\#(quoted(operation.method + path.template))"#,
      #""summary":\#(quoted(operation.summary))"#,
    ]
    if operation.isOpen, isClosed { members.append(#""security":[]"#) }
    if !operation.headers.isEmpty {
      let headers = operation.headers.map {
        #"{"name":\#(quoted($0.name)),"in":"header","required":true,"#
          + #""schema":{"type":"string","pattern":\#(quoted($0.pattern))}}"#
      }
      members.append(#""parameters":["# + headers.joined(separator: ",") + "]")
    }
    if operation.takesAnyBody {
      let content = #""application/octet-stream":{"schema":{"type":"string","format":"binary"}}"#
      members.append(#""requestBody":{"required":false,"content":{"# + content + "}}")
    }
    if !operation.bodies.isEmpty {
      let contents = operation.bodies.map {
        ##"\##(quoted($0.type)):{"schema":{"$ref":"#/components/schemas/\##($0.schema)"}}"##
      }
      members.append(#""requestBody":{"required":true,"content":{"# + contents.joined(separator: ",") + "}}")
    }
    let answers = all(of: operation, path, isClosed).map { "\"\($0.status)\":" + write($0) }
    members.append(#""responses":{"# + answers.joined(separator: ",") + "}")
    return "\"\(operation.method)\":{" + members.joined(separator: ",") + "}"
  }

  /// What every request can be answered, besides what is said of the operation.
  private static func all(
    of operation: OpenAPIOperation, _ path: OpenAPIPath, _ isClosed: Bool
  ) -> [OpenAPIOperation.Answer] {
    var answers = operation.answers
    func add(_ answer: OpenAPIOperation.Answer) {
      guard !answers.contains(where: { $0.status == answer.status }) else { return }
      var answer = answer
      if operation.method == "head" { answer.contents = [.none] }
      answers.append(answer)
    }
    add(.problem(400, "The request is no HTTP, or the path is not percent-encoded UTF-8."))
    add(.problem(408, "The request came too slowly."))
    add(.problem(431, "The head of the request is too large."))
    if !operation.bodies.isEmpty || operation.takesAnyBody {
      add(.problem(413, "The body is too large."))
      add(.problem(429, "There are too many unanswered bodies on this connection.", headers: ["retry-after"]))
      add(.problem(503, "There are too many unanswered bodies.", headers: ["retry-after"]))
    }
    // RIG 1's paths want a JWT where there is no token.
    if isClosed && !operation.isOpen || path.template.hasPrefix("/rg/") {
      add(.problem(401, "There is no bearer token that is right.", headers: ["www-authenticate"]))
    }
    if !isClosed && !operation.isOpen {
      add(.problem(403, "The peer, the host or the origin may not use this port without a MANAGEMENT_TOKEN."))
    }
    return answers.sorted { $0.status < $1.status }
  }

  private static func write(_ answer: OpenAPIOperation.Answer) -> String {
    var members = [#""description":\#(quoted(answer.description))"#]
    if !answer.headers.isEmpty {
      let headers = answer.headers.map { #"\#(quoted($0)):{"required":true,"schema":{"type":"string"}}"# }
      members.append(#""headers":{"# + headers.joined(separator: ",") + "}")
    }
    let contents = answer.contents.compactMap { content in
      content.mediaType.map { #"\#(quoted($0)):{"schema":\#(content.schema)}"# }
    }
    if !contents.isEmpty { members.append(#""content":{"# + contents.joined(separator: ",") + "}") }
    return "{" + members.joined(separator: ",") + "}"
  }

  private static func quoted(_ text: some StringProtocol) -> String {
    var bytes: [UInt8] = []
    JSONText.appendString(text, to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// One method of one path, as the document of the management API has it. Values only; OpenAPIDocument writes them.
struct OpenAPIOperation {
  enum Content: Hashable {
    case none
    /// A text; the type of its content.
    case text(String)
    /// JSON after a schema of the document.
    case json(String)
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
