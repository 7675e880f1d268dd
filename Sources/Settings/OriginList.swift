// Which web pages may call: origins (RFC 6454), and patterns of them.
//
//   *                            every origin
//   https://app.example.com      this one; the port counts, and is that of the scheme where none is named
//   https://*.example.com        every host below example.com, however deep; not example.com itself
//   null                         pages without an origin of their own, such as files and sandboxed frames
//
// Scheme and host are the same in any case of their letters.

public struct OriginList: Sendable, Equatable {
  private var takesAll = false
  private var takesNull = false
  private var exact: Set<Origin> = []
  private var patterns: [Origin] = []

  /// - Parameter texts: as `CORS` has them; what is none is left out.
  public init(_ texts: [String]) {
    for text in texts {
      switch text {
      case Origin.all: takesAll = true
      case Origin.null: takesNull = true
      default:
        guard let origin = Origin(text, mayBePattern: true) else { continue }
        if origin.isPattern { patterns.append(origin) } else { exact.insert(origin) }
      }
    }
  }

  /// Whether every origin is in it, and whatever is no origin too.
  public var isAll: Bool { takesAll }

  /// - Parameter text: the value of a request's field `origin`.
  public func contains(_ text: String) -> Bool {
    if takesAll { return true }
    if text == Origin.null { return takesNull }
    guard let origin = Origin(text, mayBePattern: false) else { return false }
    return exact.contains(origin) || patterns.contains { $0.covers(origin) }
  }
}

/// Scheme, host and port of a page.
struct Origin: Hashable, Sendable {
  static let all = "*"
  static let null = "null"
  private static let anyLabels = "*."
  private static let mostBytes = 512
  private static let defaultPorts = ["http": 80, "ws": 80, "https": 443, "wss": 443]

  private let scheme: String
  /// In lower case; of a pattern what stands behind the asterisk, with its dot.
  private let host: String
  /// nil: that of the scheme.
  private let port: Int?
  let isPattern: Bool

  /// nil: `text` is no origin.
  init?(_ text: String, mayBePattern: Bool) {
    guard text.utf8.count <= Self.mostBytes, text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      return nil
    }
    let parts = text.lowercased().split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, parts[1].hasPrefix("//"), Self.isScheme(parts[0]) else { return nil }
    scheme = String(parts[0])
    var authority = parts[1].dropFirst(2)
    var port: Int?
    let isLiteral = authority.hasPrefix("[")
    if let colon = authority.lastIndex(of: ":"), !(isLiteral && authority.hasSuffix("]")) {
      let digits = authority[authority.index(after: colon)...]
      guard let number = Int(digits), (1...ValueForm.largestPort).contains(number), !digits.hasPrefix("+")
      else { return nil }
      port = number
      authority = authority[..<colon]
    }
    isPattern = mayBePattern && authority.hasPrefix(Self.anyLabels)
    guard isLiteral ? Self.isAddress(authority) : Self.isName(authority.dropFirst(isPattern ? 2 : 0)) else {
      return nil
    }
    host = String(authority.dropFirst(isPattern ? 1 : 0))
    self.port = port == Self.defaultPorts[scheme] ? nil : port
  }

  /// As a browser writes it.
  var text: String {
    "\(scheme)://\(isPattern ? "*" : "")\(host)" + (port.map { ":\($0)" } ?? "")
  }

  /// Whether this pattern stands for `origin`, whose labels are whole by its own form.
  func covers(_ origin: Origin) -> Bool {
    scheme == origin.scheme && port == origin.port && origin.host.utf8.count > host.utf8.count
      && origin.host.hasSuffix(host) && !origin.host.hasPrefix("[")
  }

  /// RFC 3986 §3.1.
  private static func isScheme(_ text: Substring) -> Bool {
    guard let first = text.utf8.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first) else {
      return false
    }
    return ValueForm.hasOnly(text, "+-.")
  }

  /// Labels of letters, digits, `-` and `_` with dots between them.
  private static func isName(_ text: Substring) -> Bool {
    let labels = text.split(separator: ".", omittingEmptySubsequences: false)
    return labels.allSatisfy { !$0.isEmpty && ValueForm.hasOnly($0, "-_") }
  }

  private static func isAddress(_ text: Substring) -> Bool {
    text.utf8.count > 2 && text.hasSuffix("]")
      && text.utf8.dropFirst().dropLast().allSatisfy("0123456789abcdef:.".utf8.contains)
  }
}
