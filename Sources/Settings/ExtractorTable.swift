// Which fields of which event type can be constrained by a subscription, and where they are: in the event, and in a
// token. `{"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"},
// "jwt":{"json_pointer":"/username"}}}}`. A broken table is refused whole: running with fewer constraints than the
// operator asked for would send events to people who may not see them.

import Foundation

/// Where the value of one field is.
public struct Extractor: Codable, Sendable, Equatable {
  /// RFC 6901 tokens into the event; empty: the event itself.
  public var eventPointer: [String]
  /// RFC 6901 tokens into a token's claims; nil: the field makes no automatic subscription.
  public var jwtPointer: [String]?
  /// Whether subscriptions to the event type may only be had with the token's value of this field.
  public var isEnforced: Bool
  /// Accepted for compatibility with RIG 3, without effect.
  public var stableFieldIndex: Int?

  public init(
    eventPointer: [String], jwtPointer: [String]? = nil, isEnforced: Bool = false,
    stableFieldIndex: Int? = nil
  ) {
    self.eventPointer = eventPointer
    self.jwtPointer = jwtPointer
    self.isEnforced = isEnforced
    self.stableFieldIndex = stableFieldIndex
  }

  /// What another release doesn't say is as by `init`.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    eventPointer = try values.decode([String].self, forKey: .eventPointer)
    jwtPointer = try values.decodeIfPresent([String].self, forKey: .jwtPointer)
    isEnforced = try values.decodeIfPresent(Bool.self, forKey: .isEnforced) ?? false
    stableFieldIndex = try values.decodeIfPresent(Int.self, forKey: .stableFieldIndex)
  }
}

public struct ExtractorTable: Codable, Sendable, Equatable {
  /// Event type → field name → extractor.
  public var byType: [String: [String: Extractor]]

  public init(byType: [String: [String: Extractor]] = [:]) {
    self.byType = byType
  }

  // Reads an extractor table from a configuration tree. Collects every mistake with its place and the path of names that
  // leads to it; gives a table only if there is none.

  init(text: String) throws(ValueProblems) {
    let root: SourceNode?
    do {
      root = try SourceTree.parse(text)
    } catch {
      throw ValueProblems([error])
    }
    guard let root else { throw ValueProblems("is empty; expected an object of event types") }
    try self.init(node: root)
  }

  init(node: SourceNode) throws(ValueProblems) {
    var reader = ExtractorReader()
    let table = reader.table(node)
    guard reader.problems.isEmpty else { throw ValueProblems(reader.problems) }
    self = table
  }
}

private struct ExtractorReader {
  var problems: [ValueProblem] = []

  mutating func table(_ root: SourceNode) -> ExtractorTable {
    var table = ExtractorTable()
    for (type, node) in members(root, of: "extractors", holding: "event types") {
      var fields: [String: Extractor] = [:]
      for (name, extractor) in members(node, of: "'\(type)'", holding: "fields") {
        fields[name] = self.extractor(extractor, path: "'\(type)' field '\(name)'")
      }
      table.byType[type] = fields
    }
    return table
  }

  private mutating func extractor(_ node: SourceNode, path: String) -> Extractor? {
    let known = ["stable_field_index", "event", "jwt"]
    var event: [String]?
    var jwt: [String]?
    var isEnforced = false
    var index: Int?
    var hasEvent = false
    for (name, value) in members(node, of: path, holding: "\(known.joined(separator: ", "))") {
      switch name {
      case "event":
        hasEvent = true
        event = pointer(value, path: "\(path), event").tokens
      case "jwt":
        if !value.isNull { (jwt, isEnforced) = pointer(value, path: "\(path), jwt", mayEnforce: true) }
      case "stable_field_index":
        index = self.index(value, path: path)
      default:
        add(value, "\(path): unknown member '\(name)'" + expected(name, known))
      }
    }
    if node.members != nil, !hasEvent {
      add(node, "\(path): 'event' is missing; expected {\"json_pointer\":\"/…\"}")
    }
    guard let event else { return nil }
    return Extractor(eventPointer: event, jwtPointer: jwt, isEnforced: isEnforced, stableFieldIndex: index)
  }

  private mutating func pointer(
    _ node: SourceNode, path: String, mayEnforce: Bool = false
  ) -> (tokens: [String]?, isEnforced: Bool) {
    let known = mayEnforce ? ["json_pointer", "enforce"] : ["json_pointer"]
    var tokens: [String]?
    var isEnforced = false
    var found = false
    for (name, value) in members(node, of: path, holding: known.joined(separator: ", ")) {
      if name == "enforce", mayEnforce {
        isEnforced = flag(value, path: "\(path), enforce")
        continue
      }
      guard name == "json_pointer" else {
        add(value, "\(path): unknown member '\(name)'" + expected(name, known))
        continue
      }
      found = true
      guard let text = value.text, !value.isNull else {
        add(value, "\(path), json_pointer: expected a text")
        continue
      }
      do {
        tokens = try JSONPointer.parse(text)
      } catch {
        add(value, "\(path), json_pointer: \(error.message)")
      }
    }
    if node.members != nil, !found { add(node, "\(path): 'json_pointer' is missing") }
    return (tokens, isEnforced)
  }

  private mutating func flag(_ node: SourceNode, path: String) -> Bool {
    switch node.content {
    case .scalar("true", quoted: false): return true
    case .scalar("false", quoted: false): return false
    default:
      add(node, "\(path): expected true or false")
      return false
    }
  }

  private mutating func index(_ node: SourceNode, path: String) -> Int? {
    guard case .scalar(let text, quoted: false) = node.content, let index = Int(text), index >= 0 else {
      add(node, "\(path), stable_field_index: expected a whole number from 0")
      return nil
    }
    return index
  }

  /// The members of `node` with their names, after saying what is wrong with the others.
  private mutating func members(
    _ node: SourceNode, of path: String, holding what: String
  ) -> [(name: String, value: SourceNode)] {
    guard let members = node.members else {
      add(node, "\(path): expected an object holding \(what)")
      return []
    }
    return members.compactMap { key, value in
      guard let name = key.text, !name.isEmpty else {
        add(key, "\(path): a name must be a text that isn't empty")
        return nil
      }
      return (name, value)
    }
  }

  private func expected(_ name: String, _ known: [String]) -> String {
    guard let nearest = NearestName.suggestion(for: name, among: known) else {
      return "; expected \(known.joined(separator: ", "))"
    }
    return "; did you mean '\(nearest)'?"
  }

  private mutating func add(_ node: SourceNode, _ message: String) {
    problems.append(node.problem(message))
  }
}

/// Where the extractor table may stand: as JSON text, as an object of the configuration file, or in a file of its own
/// whose path is given.
enum ExtractorSource {
  /// The table that `node` holds or points to. Never an empty table because something couldn't be read.
  static func table(_ node: SourceNode) throws(ValueProblems) -> ExtractorTable {
    guard let text = node.text else { return try ExtractorTable(node: node) }
    if ValueForm.trimmed(text[...]).hasPrefix("{") { return try ExtractorTable(text: text) }
    let path = ValueForm.trimmed(text[...])
    let content: String
    do {
      content = try TextFile.read(path)
    } catch {
      throw ValueProblems("\(error.message); expected JSON text beginning with '{', or the path of a file")
    }
    do {
      return try ExtractorTable(text: content)
    } catch {
      throw ValueProblems(
        error.problems.map { problem in ValueProblem("\(place(problem, in: path)): \(problem.message)") })
    }
  }

  private static func place(_ problem: ValueProblem, in path: String) -> String {
    guard let line = problem.line else { return path }
    return "\(path):\(line):\(problem.column ?? 1)"
  }
}
