// The definitions that the gateway starts with: `PROXY_CONFIG_FILE`, a JSON list. Any mistake stops the start, so all of
// them are named at once, each with the place of its definition.

import Kit

/// What is wrong with the file, a line each.
public struct APIFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// More mistakes than anybody reads at once.
  static let maximumLines = 100

  public let lines: [String]

  init(_ lines: [String]) {
    let rest = lines.count - Self.maximumLines
    self.lines = lines.prefix(Self.maximumLines) + (rest > 0 ? ["and \(rest) more"] : [])
  }

  public var description: String { lines.joined(separator: "\n") }
}

extension APITable {
  /// The longest file.
  public static let maximumFileBytes = 64 * 1_048_576

  /// Reads a list of definitions.
  public init(list bytes: UnsafeRawBufferPointer, _ change: APIChange) throws(APIFileError) {
    self.init()
    guard bytes.count <= Self.maximumFileBytes else {
      throw APIFileError(["a list of definitions of more than \(Self.maximumFileBytes) bytes"])
    }
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue(parsing: bytes)
    } catch {
      throw APIFileError(["a list of definitions that is no JSON: \(error)"])
    }
    guard let elements = document.elements else {
      throw APIFileError(["\(document.kindName), expected a list of definitions"])
    }
    var lines: [String] = []
    for (index, element) in elements.enumerated() {
      let id = element.member("id")?.string.map { " (\($0.prefix(64)))" } ?? ""
      do throws(APIError) {
        let problems = APIValidation.problems(of: element)
        guard problems.isEmpty else { throw .invalid(problems) }
        _ = try create(Self.withUpperCaseMethods(element), change)
      } catch {
        lines.append("definition \(index + 1)\(id): \(error.message)")
      }
    }
    guard lines.isEmpty else { throw APIFileError(lines) }
  }

  /// RIG writes the methods of its file in upper case.
  private static func withUpperCaseMethods(_ definition: JSONValue) -> JSONValue {
    guard let versions = definition.member("version_data")?.members else { return definition }
    let upperVersions = versions.map { name, value in
      guard let endpoints = value.member("endpoints")?.elements else { return (name: name, value: value) }
      var value = value
      value.set("endpoints", .array(endpoints.map(withUpperCaseMethod)))
      return (name: name, value: value)
    }
    var definition = definition
    definition.set("version_data", .object(upperVersions))
    return definition
  }

  private static func withUpperCaseMethod(_ endpoint: JSONValue) -> JSONValue {
    guard let method = endpoint.text("method") else { return endpoint }
    var endpoint = endpoint
    endpoint.set("method", .scalar(.string(method.uppercased())))
    return endpoint
  }
}
