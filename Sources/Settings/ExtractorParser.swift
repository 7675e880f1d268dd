// Reads an extractor table from a configuration tree. Collects every mistake with its place and the path of names that
// leads to it; gives a table only if there is none.

import Foundation

extension ExtractorTable {
  /// Parses JSON or YAML text.
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
