// A YAML or JSON text as a tree in which every node knows its line and column, so that a mistake can be named with its
// place. JSON is read by the same parser: it is a subset of YAML. The only file that knows the YAML library, whose own
// error texts quote the source and could show a secret: they are never passed on.

import Foundation
import Yams

/// One node of a configuration text. Lines and columns count from 1.
struct SourceNode: Sendable {
  enum Content: Sendable {
    /// `quoted` tells "true" (a text) from true, and "null" from null.
    case scalar(String, quoted: Bool)
    case sequence([SourceNode])
    case mapping([(key: SourceNode, value: SourceNode)])
  }

  let content: Content
  let line: Int
  let column: Int

  var text: String? {
    if case .scalar(let text, _) = content { return text }
    return nil
  }

  /// True for `null`, `~` and nothing at all.
  var isNull: Bool {
    guard case .scalar(let text, quoted: false) = content else { return false }
    return ["", "~", "null", "Null", "NULL"].contains(text)
  }

  var members: [(key: SourceNode, value: SourceNode)]? {
    if case .mapping(let members) = content { return members }
    return nil
  }

  func problem(_ message: String) -> ValueProblem {
    ValueProblem(message, line: line, column: column)
  }
}

enum SourceTree {
  /// Deeper nesting than this is no configuration.
  private static let deepest = 32

  /// Parses a whole text; nil if it holds nothing but comments.
  static func parse(_ text: String) throws(ValueProblem) -> SourceNode? {
    do {
      // A document of only comments has no root.
      guard let root = try Yams.Parser(yaml: text).singleRoot() else { return nil }
      return try node(root, depth: 0)
    } catch let problem as ValueProblem {
      throw problem
    } catch let error as YamlError {
      throw Self.problem(of: error, in: text)
    } catch {
      throw ValueProblem("not readable as YAML or JSON")
    }
  }

  private static func node(_ node: Yams.Node, depth: Int) throws(ValueProblem) -> SourceNode {
    let line = node.mark?.line ?? 1
    let column = node.mark?.column ?? 1
    guard depth <= deepest else {
      throw ValueProblem("nested deeper than \(deepest) levels", line: line, column: column)
    }
    let content: SourceNode.Content
    switch node {
    case .scalar(let scalar):
      content = .scalar(scalar.string, quoted: scalar.style != .plain && scalar.style != .any)
    case .sequence(let sequence):
      var items: [SourceNode] = []
      for item in sequence { items.append(try Self.node(item, depth: depth + 1)) }
      content = .sequence(items)
    case .mapping(let mapping):
      var members: [(key: SourceNode, value: SourceNode)] = []
      for (key, value) in mapping {
        members.append((try Self.node(key, depth: depth + 1), try Self.node(value, depth: depth + 1)))
      }
      content = .mapping(members)
    case .alias:
      throw ValueProblem("an alias (*name) whose anchor is unknown", line: line, column: column)
    }
    return SourceNode(content: content, line: line, column: column)
  }

  private static func problem(of error: YamlError, in text: String) -> ValueProblem {
    switch error {
    case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
      .composer(_, let problem, let mark, _):
      // The parser places the end of the text on a line of its own.
      // By scalars: to a String, CR LF is one character, and no line feed.
      let lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
      guard mark.line > lines.count, let last = lines.last else {
        return ValueProblem(problem, line: mark.line, column: mark.column)
      }
      return ValueProblem(problem, line: lines.count, column: last.count + 1)
    case .duplicatedKeysInMapping(let duplicates, let context):
      let names = duplicates.map { "'\($0)'" }.joined(separator: ", ")
      return ValueProblem(
        "\(names) more than once in one object", line: context.mark.line, column: context.mark.column)
    case .reader(let problem, let offset, _, _):
      return ValueProblem(offset.map { "\(problem) at byte \($0)" } ?? problem)
    case .dataCouldNotBeDecoded:
      return ValueProblem("not UTF-8")
    case .no, .memory, .writer, .emitter, .representer:
      return ValueProblem("not readable as YAML or JSON")
    }
  }
}

/// Reads files of bounded size.
public enum TextFile {
  /// A larger file is no configuration.
  private static let mostBytes = 4 * 1024 * 1024

  /// The content of the file at `path` as UTF-8. Throws what is wrong with it, naming the path.
  public static func read(_ path: String) throws(ValueProblem) -> String {
    guard let handle = FileHandle(forReadingAtPath: path) else {
      throw ValueProblem("'\(path)' can't be read: \(reason(path))")
    }
    defer { try? handle.close() }
    let data: Data
    do {
      data = try handle.read(upToCount: mostBytes + 1) ?? Data()
    } catch {
      throw ValueProblem("'\(path)' can't be read: it is no regular file")
    }
    guard data.count <= mostBytes else { throw ValueProblem("'\(path)' is larger than \(mostBytes) bytes") }
    guard let text = String(validating: data, as: UTF8.self) else {
      throw ValueProblem("'\(path)' is not UTF-8")
    }
    return text
  }

  private static func reason(_ path: String) -> String {
    FileManager.default.fileExists(atPath: path) ? "no permission" : "no such file"
  }
}
