// What the tests of this target share: bytes of texts, definitions of a few words.

import Kit

@testable import APIs

/// Calls `body` with the text's bytes.
func withBytes<Result, Failure: Error>(
  _ text: String, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
) throws(Failure) -> Result {
  let bytes = Array(text.utf8)
  let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
  defer { copy.deallocate() }
  copy.copyBytes(from: bytes)
  return try body(UnsafeRawBufferPointer(rebasing: copy[..<bytes.count]))
}

func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

func tree(_ text: String) throws -> JSONValue {
  try withBytes(text) { bytes throws(JSONError) in try JSONValue(parsing: bytes) }
}

let change = APIChange(timestamp: "2026-01-02T03:04:05Z", nodeName: "node-1")

extension PathPattern {
  func matches(_ path: String) -> Bool { groups(of: path) != nil }

  /// The whole path and its groups, nil for groups that had no part in the match; nil if the path doesn't match.
  func groups(of path: String) -> [String?]? {
    var matcher = PatternMatcher()
    return groups(of: path, &matcher)
  }

  func groups(of path: String, _ matcher: inout PatternMatcher) -> [String?]? {
    let bytes = Array(path.utf8)
    let isMatch = bytes.map(PathFolding.folded).withUnsafeBufferPointer {
      matches(folded: $0, slots: 2 * groupCount, &matcher)
    }
    guard isMatch else { return nil }
    let captures = matcher.captures
    return [path]
      + (0..<groupCount).map { group in
        let (start, end) = (Int(captures[2 * group]), Int(captures[2 * group + 1]))
        return start >= 0 && end >= start ? String(decoding: bytes[start..<end], as: UTF8.self) : nil
      }
  }
}

/// A whole definition around the text of its endpoints; `more` are further members with a comma behind them.
func definitionText(_ id: String, endpoints: String, more: String = "") -> String {
  #"""
  {"id":"\#(id)","name":"\#(id)",\#(more)"version_data":{"default":{"endpoints":[\#(endpoints)]}},
   "proxy":{"target_url":"http://localhost","port":3000}}
  """#
}

/// An endpoint by its pattern; backslashes are written once.
func endpointText(
  _ id: String, _ regex: String, method: String = "GET", replacement: String? = nil, more: String = ""
) -> String {
  var json: [UInt8] = []
  JSONText.appendString(regex, to: &json)
  var members = #""id":"\#(id)","method":"\#(method)","path_regex":\#(text(json))"#
  if let replacement {
    var json: [UInt8] = []
    JSONText.appendString(replacement, to: &json)
    members += #","path_replacement":\#(text(json))"#
  }
  return "{\(members)\(more)}"
}

extension APITable {
  @discardableResult
  mutating func create(_ text: String) throws(APIError) -> APIDefinition {
    try withBytes(text) { bytes throws(APIError) in try create(bytes, change) }
  }

  @discardableResult
  mutating func replace(_ id: String, _ text: String) throws(APIError) -> APIDefinition {
    try withBytes(text) { bytes throws(APIError) in try replace(id: id, bytes, change) }
  }
}

extension APIRouting {
  /// `books/get /v1/7`, `404`, or the methods: what tests compare.
  var summary: String {
    switch self {
    case .match(let match): "\(match.definition.id)/\(match.endpoint.id) \(match.path)"
    case .notFound: "404"
    case .otherMethods(let methods): "405 \(methods.joined(separator: ","))"
    case .refused: "400"
    }
  }
}
