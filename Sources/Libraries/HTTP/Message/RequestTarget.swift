// Splits a request target (RFC 9112 §3.2) into path and query.
//
//   origin-form     /path?query
//   absolute-form   http://host/path?query     accepted from every client, as the RFC demands
//   asterisk-form   *                          (OPTIONS)
//   authority-form  host:port                  (CONNECT); kept as the path, no route will match it

/// Path and query of a request target, both as they came.
struct RequestTarget: Equatable {
  /// Of an absolute-form target; nil: another form.
  var authority: String?
  var path: String
  var query: String?

  init(_ target: String) {
    var rest = Substring(target)
    if rest.utf8.first != UInt8(ascii: "/"), let schemeEnd = Self.schemeEnd(of: rest) {
      let behind = rest.utf8[schemeEnd...]
      let pathStart =
        behind.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? rest.endIndex
      authority = String(rest[schemeEnd..<pathStart])
      rest = rest[pathStart...]
    }
    if let mark = rest.utf8.firstIndex(of: UInt8(ascii: "?")) {
      path = String(rest[..<mark])
      query = String(rest[rest.utf8.index(after: mark)...])
    } else {
      path = String(rest)
      query = nil
    }
    if path.isEmpty { path = "/" }
  }

  /// The index behind `http://` or `https://`; nil: the target doesn't begin with either.
  private static func schemeEnd(of target: Substring) -> Substring.Index? {
    for scheme in ["http://", "https://"] {
      let prefix = target.utf8.prefix(scheme.utf8.count)
      if prefix.count == scheme.utf8.count, prefix.elementsEqual(scheme.utf8, by: { $0 | 0x20 == $1 | 0x20 })
      {
        return target.utf8.index(target.startIndex, offsetBy: scheme.utf8.count)
      }
    }
    return nil
  }
}
