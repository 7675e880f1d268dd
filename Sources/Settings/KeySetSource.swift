// JWT_JWKS: where the keys of token signatures come from, and whose they are.
//
//   https://issuer.example/jwks.json                               one set, for tokens of whatever issuer
//   /etc/rig/jwks.json
//   https://a.example=https://a.example/jwks.json,b=/etc/b.json    sets with their issuers (the claim iss, RFC 7519 §4.1.1)
//   {"https://a.example/?x=1,2":"https://a.example/jwks.json"}     the same as an object, for issuers of any form
//
// Issuers are URLs mostly, and these may hold '=' and ',' as those of key sets do. In the text form the '=' between both is
// the one with an absolute location right behind it (http://, https:// or /), before any '?' and '#': the issuers of OpenID
// Connect have neither (OpenID Connect Discovery 1.0 §2). What could be read in two ways is refused, and can be said as an object.

import Foundation

/// A JWK set, and whose tokens it is for.
public struct KeySetSource: Codable, Sendable, Equatable {
  /// The `iss` of the tokens that its keys verify; nil: those of every issuer. Compare its UTF-8.
  public var issuer: String?
  /// File, or `http` or `https` URL.
  public var location: String

  /// - Parameter issuer: nil: tokens of every issuer.
  public init(issuer: String? = nil, location: String) {
    self.issuer = issuer
    self.location = location
  }

  /// The location if it is a URL; nil: it is a file.
  public var url: String? { location.contains("://") ? location : nil }

  /// As the text form has it.
  var text: String { issuer.map { "\($0)=\(location)" } ?? location }
}

extension KeySetSource {
  static let form =
    "a path or URL; or issuer=URL or issuer=/path, separated by commas; or an object of these"
  /// Each worker reads each set.
  private static let mostSets = 100
  private static let beginnings = ["http://", "https://", "/"]

  static func list(_ node: SourceNode) throws(ValueProblems) -> [KeySetSource] {
    let sources: [KeySetSource]
    switch node.content {
    case .mapping(let members): sources = try object(members)
    case .sequence(let items): sources = try entries(items)
    case .scalar(let text, _):
      let text = ValueForm.trimmed(text[...])
      if text.hasPrefix("{") {
        sources = try object(text: text)
      } else if let only = try alone(text) {
        sources = [only]
      } else {
        sources = try entries(text)
      }
    }
    try requireDistinct(sources)
    return sources
  }

  // MARK: Text

  /// The one set of a text without issuers; nil: it has some. Commas belong to the location, as in a query.
  private static func alone(_ text: String) throws(ValueProblems) -> KeySetSource? {
    guard !text.isEmpty, separators(in: text).isEmpty else { return nil }
    for beginning in beginnings where text.contains(",\(beginning)") {
      throw ValueProblems("several JWK sets, but no issuers; expected issuer=URL or issuer=/path for each")
    }
    do throws(ValueProblem) {
      return KeySetSource(location: try plain(text))
    } catch {
      throw ValueProblems([error])
    }
  }

  /// A location without an issuer.
  private static func plain(_ text: String) throws(ValueProblem) -> String {
    let problem = ValueProblem(
      "\(shown(text)) is neither a path nor a URL; expected \(form), each location absolute")
    guard let scheme = text.firstRange(of: "://") else {
      guard text.hasPrefix("/") || text.hasPrefix(".") || !text.contains("=") else { throw problem }
      return text
    }
    let authority = text[scheme.upperBound...].prefix { !"/?#".contains($0) }
    guard !authority.contains("="), !text[..<scheme.lowerBound].contains("=") else { throw problem }
    return try ValueForm.url(text)
  }

  private static func entries(_ text: String) throws(ValueProblems) -> [KeySetSource] {
    var sources: [KeySetSource] = []
    var problems: [ValueProblem] = []
    for entry in text.split(separator: ",").map(ValueForm.trimmed) where !entry.isEmpty {
      do throws(ValueProblem) { sources.append(try Self.entry(entry)) } catch { problems.append(error) }
    }
    guard problems.isEmpty else { throw ValueProblems(problems) }
    return sources
  }

  /// The entries of a list in the file; one alone may go without an issuer.
  private static func entries(_ items: [SourceNode]) throws(ValueProblems) -> [KeySetSource] {
    if items.count == 1, let text = items[0].text, let only = try alone(ValueForm.trimmed(text[...])) {
      return [only]
    }
    var sources: [KeySetSource] = []
    var problems: [ValueProblem] = []
    for item in items {
      guard let text = item.text else {
        problems.append(item.problem("expected issuer=URL or issuer=/path"))
        continue
      }
      do throws(ValueProblem) {
        sources.append(try entry(ValueForm.trimmed(text[...])))
      } catch {
        problems.append(item.problem(error.message))
      }
    }
    guard problems.isEmpty else { throw ValueProblems(problems) }
    return sources
  }

  private static func entry(_ text: String) throws(ValueProblem) -> KeySetSource {
    let separators = separators(in: text)
    guard let separator = separators.first else {
      throw ValueProblem(
        "\(shown(text)) has no issuer; expected issuer=URL or issuer=/path, or an object for an issuer with a comma"
      )
    }
    guard separators.count == 1 else {
      throw ValueProblem(
        "\(shown(text)) can be read in two ways; expected an object of issuers and locations")
    }
    return try source(text[..<separator], String(text[text.index(after: separator)...]))
  }

  /// Every '=' that may stand between an issuer and a location.
  private static func separators(in text: String) -> [String.Index] {
    guard !text.hasPrefix("/"), !text.hasPrefix(".") else { return [] }
    let end = text.firstIndex { $0 == "?" || $0 == "#" } ?? text.endIndex
    return text[..<end].indices.filter { index in
      text[index] == "=" && beginnings.contains { text[text.index(after: index)...].hasPrefix($0) }
    }
  }

  // MARK: Object

  private static func object(text: String) throws(ValueProblems) -> [KeySetSource] {
    let node: SourceNode?
    do throws(ValueProblem) { node = try SourceTree.parse(text) } catch { throw ValueProblems([error]) }
    guard let members = node?.members else { throw ValueProblems("expected \(form)") }
    return try object(members)
  }

  private static func object(
    _ members: [(key: SourceNode, value: SourceNode)]
  ) throws(ValueProblems) -> [KeySetSource] {
    var sources: [KeySetSource] = []
    var problems: [ValueProblem] = []
    for (key, value) in members {
      guard let issuer = key.text, let location = value.text else {
        problems.append(value.problem("expected an object of issuers and locations, each a text"))
        continue
      }
      do throws(ValueProblem) {
        sources.append(try source(issuer[...], location))
      } catch {
        problems.append(value.problem(error.message))
      }
    }
    guard problems.isEmpty else { throw ValueProblems(problems) }
    return sources
  }

  // MARK: Both

  /// A URL with credentials is a mistake, and isn't repeated.
  private static func shown(_ text: String) -> String { text.contains("@") ? "an entry" : "'\(text)'" }

  private static func source(_ issuer: Substring, _ location: String) throws(ValueProblem) -> KeySetSource {
    let issuer = ValueForm.trimmed(issuer)
    let location = ValueForm.trimmed(location[...])
    guard !issuer.isEmpty else { throw ValueProblem("an entry without an issuer; expected issuer=URL") }
    guard location.contains("://") || location.hasPrefix("/") else {
      throw ValueProblem(
        "\(shown(location)) is no location of a JWK set; expected a URL or an absolute path")
    }
    return KeySetSource(
      issuer: issuer, location: location.contains("://") ? try ValueForm.url(location) : location)
  }

  private static func requireDistinct(_ sources: [KeySetSource]) throws(ValueProblems) {
    guard sources.count <= mostSets else {
      throw ValueProblems("\(sources.count) JWK sets; expected at most \(mostSets)")
    }
    var seen: Set<[UInt8]> = []
    for issuer in sources.compactMap(\.issuer) where !seen.insert(Array(issuer.utf8)).inserted {
      throw ValueProblems("the issuer '\(issuer)' comes twice; expected one JWK set for each")
    }
  }
}
