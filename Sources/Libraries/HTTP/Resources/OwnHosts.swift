// Under which names a port may be called where no token is asked for.
//
// A page of any site can have its own name resolved to 127.0.0.1, and is then, to the browser, of the same origin as
// whatever listens there (DNS rebinding). What the browser can't change is the name in `Host`: it is the site's. Such a name has
// a dot, and is none of the operator's.

import Settings

/// Names of a host that requests may be for, and origins that are its own.
public struct OwnHosts: Sendable {
  private let names: Set<String>

  /// - Parameter names: host names without port, in any case, beside those that always count.
  public init(_ names: [String]) {
    self.names = Set(names.map(Self.normalized))
  }

  /// Whether a request may be for this authority (`host` or `host:port`, RFC 3986 §3.2): its host is an IP address, a name
  /// without a dot, or one of the names.
  public func contains(authority: String) -> Bool {
    guard let host = Self.host(of: authority) else { return false }
    if authority.utf8.first == UInt8(ascii: "[") { return host.contains(":") && NetworkSet.isAddress(host) }
    if NetworkSet.isAddress(host) || names.contains(Self.normalized(host)) { return true }
    return host.utf8.allSatisfy(Self.isOfLabel)
  }

  /// Whether a page of this origin (RFC 6454 §6.2) is one of the host's own: it has the authority that the request is for, or
  /// its host is one of the names.
  public func isOwn(origin: String, at authority: String) -> Bool {
    guard let mark = origin.firstRange(of: "://") else { return false }
    let other = String(origin[mark.upperBound...])
    if other.lowercased() == authority.lowercased() { return true }
    return Self.host(of: other).map { names.contains(Self.normalized($0)) } ?? false
  }

  /// The host of an authority, without brackets; nil: it has none, or there is more than a port behind it.
  private static func host(of authority: String) -> String? {
    let isBracketed = authority.utf8.first == UInt8(ascii: "[")
    guard let end = authority.firstIndex(of: isBracketed ? "]" : ":") else {
      return isBracketed || authority.isEmpty ? nil : authority
    }
    let host = isBracketed ? authority[..<end].dropFirst() : authority[..<end]
    let port = isBracketed ? authority[authority.index(after: end)...] : authority[end...]
    let isPort =
      port.isEmpty
      || port.utf8.first == UInt8(ascii: ":")
        && port.utf8.dropFirst().allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    return isPort && !host.isEmpty ? String(host) : nil
  }

  /// In lower case, without the dot of the root.
  private static func normalized(_ name: String) -> String {
    let name = name.lowercased()
    return name.hasSuffix(".") ? String(name.dropLast()) : name
  }

  private static func isOfLabel(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
