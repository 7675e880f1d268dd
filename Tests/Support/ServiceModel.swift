// What services make of a request target, step by step as their libraries do it. Their secured resources are `/admin` and all below it.
//
// Paths are octets here, as they are for the services: what is decoded needn't be UTF-8.

/// How one kind of service finds the resource that a target names.
public struct ServiceModel: Sendable {
  public let name: String
  private let path: @Sendable ([UInt8]) -> [UInt8]?

  /// The resource, without dot segments, empty segments and a last slash; nil: the service refuses the target.
  public func resource(_ target: String) -> String? {
    path(Array(target.utf8)).map { Resource.normalized($0) }
  }

  /// Whether the target leads to what needs a token.
  public func isSecured(_ target: String) -> Bool {
    guard let resource = resource(target) else { return false }
    return resource == "/admin" || resource.hasPrefix("/admin/")
  }

  public static let all = [
    // http.server: leading slashes are one, then the query is cut off, then everything is decoded.
    ServiceModel(name: "Python http.server") { target in
      let path = ([Octet.slash] + Array(target.drop { $0 == Octet.slash })).cut(at: "?").cut(at: "#")
      return path.decoded
    },
    // WSGI: PATH_INFO is decoded, and split at slashes.
    ServiceModel(name: "Python WSGI") { $0.cut(at: "?").cut(at: "#").decoded },
    // urllib.parse.urlparse and unquote: `//` begins an authority, `;` the parameters of the last segment.
    ServiceModel(name: "Python urlparse") { target in
      var path = target.cut(at: "#").cut(at: "?")
      if path.starts(with: [Octet.slash, Octet.slash]) {
        path = Array(path.dropFirst(2).drop { $0 != Octet.slash })
      }
      let last = path.lastIndex(of: Octet.slash) ?? 0
      if let mark = path[last...].firstIndex(of: Octet.semicolon) { path = Array(path[..<mark]) }
      return path.decoded
    },
    // WHATWG URL (new URL(request.url, base)), then decodeURIComponent, which refuses what is no UTF-8.
    ServiceModel(name: "Node URL") { target in
      var path = target.cut(at: "#").cut(at: "?").map { $0 == Octet.backslash ? Octet.slash : $0 }
      if path.starts(with: [Octet.slash, Octet.slash]) {
        path = Array(path.drop { $0 == Octet.slash }.drop { $0 != Octet.slash })
      }
      // Dot segments are resolved as escaped as they may be, empty ones stay.
      let resolved = Resource.resolved(path) { segment in Array(segment).decoded }
      return resolved.strictlyDecoded
    },
    // Express: the path as it came, routes that don't mind a last slash, and static files by the decoded path.
    ServiceModel(name: "Node Express") { $0.cut(at: "#").cut(at: "?") },
    ServiceModel(name: "Node Express static") { $0.cut(at: "?").cut(at: "#").strictlyDecoded },
    // ngx_http_parse_complex_uri: decoded once, slashes merged, dot segments resolved, none above the root.
    ServiceModel(name: "nginx") { target in
      guard target.first == Octet.slash, let path = target.cut(at: "?").cut(at: "#").wholeDecoded,
        !path.contains(0)
      else { return nil }
      var depth = 0
      for segment in path.split(separator: Octet.slash) {
        if segment.elementsEqual("..".utf8) {
          depth -= 1
        } else if !segment.elementsEqual(".".utf8) {
          depth += 1
        }
        if depth < 0 { return nil }
      }
      return path
    },
    // Tomcat with backslashes and encoded slashes allowed: parameters of each segment off, then decoded.
    ServiceModel(name: "Tomcat") { target in
      var path: [UInt8] = []
      for segment in target.cut(at: "?").cut(at: "#").split(
        separator: Octet.slash, omittingEmptySubsequences: false)
      {
        if !path.isEmpty || segment.isEmpty { path.append(Octet.slash) }
        path += segment.prefix { $0 != Octet.semicolon }
      }
      return path.wholeDecoded?.map { $0 == Octet.backslash ? Octet.slash : $0 }
    },
    // urlsplit and new URL of what was decoded: both take out tabs and line breaks, and blanks and control characters at the ends.
    ServiceModel(name: "Python urlsplit of the decoded") { target in
      let path = target.decoded.withoutLineBreaks.cut(at: "#").cut(at: "?")
      guard path.starts(with: [Octet.slash, Octet.slash]) else { return path }
      return Array(path.dropFirst(2).drop { $0 != Octet.slash })
    },
    ServiceModel(name: "Node URL of the decoded") { target in
      let path = target.decoded.withoutLineBreaks.cut(at: "#").cut(at: "?").map {
        $0 == Octet.backslash ? Octet.slash : $0
      }
      guard path.starts(with: [Octet.slash, Octet.slash]) else { return path }
      return Array(path.drop { $0 == Octet.slash }.drop { $0 != Octet.slash })
    },
    // A pattern that is anchored by '$', which matches before a last line feed (Python, PCRE).
    ServiceModel(name: "anchored pattern") { target in
      let path = target.cut(at: "?").cut(at: "#").decoded
      return path.last == UInt8(ascii: "\n") ? path.dropLast() : path
    },
    // A proxy that decodes before a service that decodes.
    ServiceModel(name: "decoded twice") { $0.cut(at: "?").cut(at: "#").decoded.decoded },
  ]
}

private enum Octet {
  static let slash = UInt8(ascii: "/")
  static let backslash = UInt8(ascii: "\\")
  static let semicolon = UInt8(ascii: ";")
  static let percent = UInt8(ascii: "%")
}

private enum Resource {
  /// Dot segments resolved and empty ones gone (posixpath.normpath).
  static func normalized(_ path: [UInt8]) -> String {
    let segments = resolved(path) { Array($0) }.split(separator: Octet.slash)
    return "/" + segments.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "/")
  }

  /// Dot segments resolved, by what `reading` makes of each.
  static func resolved(_ path: [UInt8], _ reading: (ArraySlice<UInt8>) -> [UInt8]) -> [UInt8] {
    var kept: [ArraySlice<UInt8>] = []
    for segment in path.split(separator: Octet.slash, omittingEmptySubsequences: false) {
      switch reading(segment) {
      case Array("..".utf8): if kept.count > 1 { kept.removeLast() }
      case Array(".".utf8): break
      default: kept.append(segment)
      }
    }
    return Array(kept.joined(separator: [Octet.slash]))
  }
}

extension [UInt8] {
  fileprivate func cut(at mark: Unicode.Scalar) -> [UInt8] { Array(prefix { $0 != UInt8(ascii: mark) }) }

  fileprivate var withoutLineBreaks: [UInt8] {
    let isBlank = { (octet: UInt8) in octet <= UInt8(ascii: " ") }
    guard let last = lastIndex(where: { !isBlank($0) }) else { return [] }
    let lineBreaks = "\t\n\r".utf8
    return self[...last].drop(while: isBlank).filter { !lineBreaks.contains($0) }
  }

  /// Every escape decoded; what is none stays as it is.
  fileprivate var decoded: [UInt8] { decodedEscapes.octets }

  /// nil: there is a '%' that begins no escape.
  fileprivate var wholeDecoded: [UInt8]? {
    let (octets, isWhole) = decodedEscapes
    return isWhole ? octets : nil
  }

  /// nil as well: what is decoded is no UTF-8.
  fileprivate var strictlyDecoded: [UInt8]? {
    wholeDecoded.flatMap { String(validating: $0, as: UTF8.self) == nil ? nil : $0 }
  }

  private var decodedEscapes: (octets: [UInt8], isWhole: Bool) {
    var octets: [UInt8] = []
    var isWhole = true
    var rest = self[...]
    while let octet = rest.popFirst() {
      guard octet == Octet.percent else {
        octets.append(octet)
        continue
      }
      let digits = rest.prefix(2)
      let isEscape = digits.count == 2 && digits.allSatisfy { Character(Unicode.Scalar($0)).isHexDigit }
      guard isEscape, let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16) else {
        isWhole = false
        octets.append(octet)
        continue
      }
      octets.append(value)
      rest = rest.dropFirst(2)
    }
    return (octets, isWhole)
  }
}
