// Where the service of an API is: `{"use_env":false,"target_url":"http://localhost","port":3000}`.
//
// As in RIG only scheme and host of `target_url` count; the port is the member `port`. Without a scheme it is http.

import Kit

/// The `proxy` of a definition.
public struct APITarget: Equatable, Sendable {
  /// `target_url` names an environment variable.
  public let usesEnvironment: Bool
  public let targetURL: String
  public let port: Int
  /// Where it is unless the environment tells.
  private let fixedOrigin: Origin?

  init(_ json: JSONValue?) {
    usesEnvironment = json?.member("use_env")?.boolean ?? false
    targetURL = json?.member("target_url")?.string ?? ""
    port = json?.member("port")?.integer.flatMap { Int(exactly: $0) } ?? 0
    fixedOrigin = usesEnvironment ? nil : Self.origin(of: targetURL, port: port)
  }

  /// Scheme, host and port of the service.
  public struct Origin: Hashable, Sendable, CustomStringConvertible {
    public let isTLS: Bool
    /// A name or an address; IPv6 in brackets.
    public let host: String
    public let port: Int
    /// As the field `host` has it: with the port unless that is the scheme's own.
    public let authority: String

    init(isTLS: Bool, host: String, port: Int) {
      self.isTLS = isTLS
      self.host = host
      self.port = port
      authority = port == (isTLS ? 443 : 80) ? host : "\(host):\(port)"
    }

    /// `http://localhost:3000`, never with a slash at its end.
    public var description: String { "\(isTLS ? "https" : "http")://\(host):\(port)" }
  }

  /// The service's origin; nil if the environment variable isn't set or says no URL.
  /// - Parameter environment: the value of an environment variable.
  public func origin(environment: (String) -> String?) -> Origin? {
    guard usesEnvironment else { return fixedOrigin }
    return environment(targetURL).flatMap { Self.origin(of: $0, port: port) }
  }

  static func origin(of url: String, port: Int) -> Origin? {
    var rest = Array(url.utf8)[...]
    var isTLS = false
    if let colon = rest.firstIndex(of: UInt8(ascii: ":")), rest[colon...].starts(with: Array("://".utf8)) {
      switch String(decoding: rest[..<colon], as: UTF8.self).lowercased() {
      case "http": break
      case "https": isTLS = true
      default: return nil
      }
      rest = rest[(colon + 3)...]
    }
    rest = rest.prefix { ![UInt8(ascii: "/"), UInt8(ascii: "?"), UInt8(ascii: "#")].contains($0) }
    guard !rest.contains(UInt8(ascii: "@")), (1...65_535).contains(port), let host = host(rest) else {
      return nil
    }
    return Origin(isTLS: isTLS, host: String(decoding: host, as: UTF8.self), port: port)
  }

  /// The host of `host[:port]`.
  private static func host(_ authority: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
    if authority.first == UInt8(ascii: "[") {
      guard let close = authority.firstIndex(of: UInt8(ascii: "]")) else { return nil }
      let inside = authority[(authority.startIndex + 1)..<close]
      let isAddress =
        !inside.isEmpty
        && inside.allSatisfy { HTTPOctets.hexadecimal($0) != nil || $0 == 0x3A || $0 == 0x2E }
      return isAddress ? authority[...close] : nil
    }
    let host = authority.prefix { $0 != UInt8(ascii: ":") }
    let isName = host.allSatisfy { ByteSet.wordBytes.contains($0) || $0 == 0x2D || $0 == 0x2E }
    return !host.isEmpty && isName ? host : nil
  }
}
