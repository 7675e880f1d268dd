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

  public var status: Int {
    switch self {
    case .malformed, .invalid: 400
    case .exists: 409
    case .unknown: 404
    case .full: 503
    }
  }

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

// Everything that is wrong with a definition, in RIG's shape:
//
//   {"api":[{"name":"must be string"}],"books/get-book":[{"topic":"must be present"}]}
//
// The scope is "api" for the top, the API's id for `auth`, "<API id>/<endpoint id>" for an endpoint.

/// The mistakes of one definition, by scope, in the order in which they were found.
public struct APIProblems: Equatable, Sendable, CustomStringConvertible {
  /// More are counted, not listed: an answer must not be many times the size of its question.
  public static let maximumListed = 200
  /// The longest name of a scope in an answer; ids of any length come in.
  private static let maximumScopeBytes = 600

  public struct Problem: Equatable, Sendable {
    public let field: String
    public let reason: String
  }

  public private(set) var scopes: [(name: String, problems: [Problem])] = []
  /// All of them, listed or not.
  public private(set) var count = 0

  public var isEmpty: Bool { count == 0 }

  /// Adds a mistake. The mistakes of one scope come one after the other, but for those of the top.
  mutating func add(_ scope: String, _ field: String, _ reason: String) {
    count += 1
    guard count <= Self.maximumListed else { return }
    let name = String(decoding: scope.utf8.prefix(Self.maximumScopeBytes), as: UTF8.self)
    let problem = Problem(field: field, reason: reason)
    if let index = scopes.lastIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
      // RIG drops what it has said already.
      if !scopes[index].problems.contains(problem) { scopes[index].problems.append(problem) }
    } else {
      scopes.append((name, [problem]))
    }
  }

  public var json: [UInt8] {
    var json = [UInt8(ascii: "{")]
    for (index, scope) in listed.enumerated() {
      if index > 0 { json.append(UInt8(ascii: ",")) }
      JSONText.appendString(scope.name, to: &json)
      json.append(UInt8(ascii: ":"))
      JSONText.appendArray(scope.problems, to: &json) { problem, json in
        json.append(UInt8(ascii: "{"))
        JSONText.appendString(problem.field, to: &json)
        json.append(UInt8(ascii: ":"))
        JSONText.appendString(problem.reason, to: &json)
        json.append(UInt8(ascii: "}"))
      }
    }
    json.append(UInt8(ascii: "}"))
    return json
  }

  /// One line for logs: `api: name must be string; books/get-book: topic must be present`.
  public var description: String {
    listed.flatMap { scope in scope.problems.map { "\(scope.name): \($0.field) \($0.reason)" } }
      .joined(separator: "; ")
  }

  private var listed: [(name: String, problems: [Problem])] {
    guard count > Self.maximumListed else { return scopes }
    let rest = Problem(field: "more", reason: "and \(count - Self.maximumListed) more mistakes")
    return scopes + [("more", [rest])]
  }

  public static func == (a: APIProblems, b: APIProblems) -> Bool {
    a.count == b.count
      && a.scopes.elementsEqual(b.scopes) { $0.name == $1.name && $0.problems == $1.problems }
  }
}
