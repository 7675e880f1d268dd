// How texts become values, and what is said when they don't: "'99999' is out of range; expected a port number from 1 to
// 65535". Pure functions from text to value.

import Foundation

enum ValueForm {
  static let boolean = "true or false, or on or off"
  static let origin =
    "* or origins such as https://app.example.com or https://*.example.com, separated by commas"
  static let sasl = "plain:USER:PASSWORD"

  static let largestPort = 65_535

  static func integer(_ range: ClosedRange<Int>, unit: String) -> String {
    let number =
      range.upperBound == Int.max
      ? "from \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
    return "a whole number \(number)" + (unit.isEmpty ? "" : " (\(unit))")
  }

  static func integer(_ text: String, _ range: ClosedRange<Int>, unit: String) throws(ValueProblem) -> Int {
    let expected = "expected \(integer(range, unit: unit))"
    let digits = trimmed(text[...])
    guard let value = Int(digits) else { throw ValueProblem("'\(text)' is no whole number; \(expected)") }
    guard range.contains(value) else { throw ValueProblem("'\(text)' is out of range; \(expected)") }
    return value
  }

  static func boolean(_ text: String) throws(ValueProblem) -> Bool {
    switch trimmed(text[...]).lowercased() {
    case "true", "1", "yes", "on": return true
    case "false", "0", "no", "off": return false
    default: throw ValueProblem("'\(text)' is neither true nor false; expected \(boolean)")
    }
  }

  /// One of `known`, in any case; `synonyms` maps other spellings to one of them.
  static func choice(
    _ text: String, of known: [String], synonyms: [String: String] = [:]
  ) throws(ValueProblem) -> String {
    let lowercased = trimmed(text[...]).lowercased()
    let value = synonyms[lowercased] ?? lowercased
    guard known.contains(value) else {
      throw ValueProblem("'\(text)' is unknown; expected one of \(known.joined(separator: ", "))")
    }
    return value
  }

  /// An IP address; of IPv6 perhaps with a zone (RFC 4007 §11).
  static func address(_ text: String) throws(ValueProblem) -> String {
    let value = trimmed(text[...])
    let parts = value.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    var four = in_addr()
    var six = in6_addr()
    let isAddress =
      parts.count == 1 && inet_pton(AF_INET, value, &four) == 1
      || inet_pton(AF_INET6, parts.first.map(String.init) ?? "", &six) == 1 && parts.last?.isEmpty == false
    guard isAddress else {
      throw ValueProblem("'\(text)' is no IP address; expected one such as 127.0.0.1, 0.0.0.0 or ::1")
    }
    return value
  }

  /// A host name (RFC 1123 §2.1), which is compared in lower case.
  static func hostName(_ text: String) throws(ValueProblem) -> String {
    guard hasOnly(text, "-_."), !text.hasPrefix("."), text.utf8.count <= 255 else {
      throw ValueProblem(
        "'\(text)' is no host name; expected one such as rig.example.com, without scheme, port and path")
    }
    return text.lowercased()
  }

  /// A host name or an IP address, as it is written.
  static func host(_ text: String) throws(ValueProblem) -> String {
    if (try? address(text)) == nil { _ = try hostName(text) }
    return text
  }

  /// An IP address, or a network as `address/bits`.
  static func network(_ text: String) throws(ValueProblem) -> String {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    var bits: Int?
    var four = in_addr()
    var six = in6_addr()
    if inet_pton(AF_INET, String(parts[0]), &four) == 1 { bits = 32 }
    if inet_pton(AF_INET6, String(parts[0]), &six) == 1 { bits = 128 }
    guard let bits, parts.count == 1 || Int(parts[1]).map({ (0...bits).contains($0) }) ?? false else {
      throw ValueProblem(
        "'\(text)' is no address; expected one such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32")
    }
    return text
  }

  static func nonEmpty(_ text: String) throws(ValueProblem) -> String {
    let value = trimmed(text[...])
    guard !value.isEmpty else { throw ValueProblem("must not be empty") }
    return value
  }

  /// `host:port`, with an IPv6 address in brackets.
  static func brokerAddress(_ text: String) throws(ValueProblem) -> String {
    let problem = ValueProblem(
      "'\(text)' is no broker address; expected host:port, such as kafka-1:9092 or [::1]:9092")
    guard let colon = text.lastIndex(of: ":") else { throw problem }
    let host = text[..<colon]
    guard let port = Int(text[text.index(after: colon)...]), (1...largestPort).contains(port) else {
      throw problem
    }
    let isBracketed = host.hasPrefix("[") && host.hasSuffix("]") && host.count > 2
    guard isBracketed || (!host.isEmpty && !host.contains(where: { ":/ []".contains($0) })) else {
      throw problem
    }
    return text
  }

  /// `*`, `null`, or scheme and host and perhaps port, without a path (RFC 6454); `*.` before the host stands for labels of it.
  static func origin(_ text: String) throws(ValueProblem) -> String {
    let value = trimmed(text[...])
    if value == Origin.all || value == Origin.null { return value }
    guard let origin = Origin(value, mayBePattern: true) else {
      let why =
        value.utf8.contains(UInt8(ascii: "*"))
        ? "'*' stands only for whole labels at the beginning of a host"
        : "without a path and without a slash at the end"
      throw ValueProblem("'\(text)' is no origin; expected \(Self.origin), \(why)")
    }
    return origin.text
  }

  /// An absolute `http` or `https` URL without credentials and fragment (RFC 9110 §4.2).
  static func url(_ text: String) throws(ValueProblem) -> String {
    let value = trimmed(text[...])
    guard value.utf8.allSatisfy({ (0x21...0x7e).contains($0) }), let url = URLComponents(string: value),
      let scheme = url.scheme?.lowercased(), ["http", "https"].contains(scheme),
      let host = url.host, !host.isEmpty, url.fragment == nil,
      url.port.map({ (1...largestPort).contains($0) }) ?? true
    else {
      throw ValueProblem("'\(text)' is no URL; expected one such as https://auth.example.com/check")
    }
    // Not quoted: it may hold a password.
    guard url.user == nil, url.password == nil else {
      throw ValueProblem("the URL holds credentials, which would show in logs; expected one without")
    }
    return value
  }

  /// `plain:user:password`; the password may hold colons. The text is never quoted: it holds the password.
  static func sasl(_ text: String) throws(ValueProblem) -> KafkaSASL {
    let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, !parts[1].isEmpty else { throw ValueProblem("expected \(sasl)") }
    guard parts[0].lowercased() == "plain" else {
      throw ValueProblem("unknown mechanism before the first ':'; expected \(sasl)")
    }
    return KafkaSASL(mechanism: "PLAIN", user: String(parts[1]), password: Secret(String(parts[2])))
  }

  static func directory(_ text: String) throws(ValueProblem) -> String {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: text, isDirectory: &isDirectory) else {
      throw ValueProblem("'\(text)' doesn't exist; expected the path of a directory")
    }
    guard isDirectory.boolValue else {
      throw ValueProblem("'\(text)' is no directory; expected the path of a directory")
    }
    return text
  }

  /// Fewer can be guessed in time.
  private static let leastTokenBytes = 16
  /// A header with more is refused before it is looked at.
  private static let mostTokenBytes = 512
  static let bearerToken =
    "\(leastTokenBytes) to \(mostTokenBytes) letters, digits, '-', '.', '_', '~', '+', '/' or '='"

  /// What can stand behind `Bearer` in a header (RFC 6750 §2.1). The text is never quoted: it is a secret.
  static func bearerToken(_ text: String) throws(ValueProblem) -> Secret {
    let length = text.utf8.count
    guard (leastTokenBytes...mostTokenBytes).contains(length) else {
      throw ValueProblem("has \(length) bytes; expected \(bearerToken)")
    }
    guard hasOnly(text, "-._~+/=") else {
      throw ValueProblem("has a character that no header can carry in a token; expected \(bearerToken)")
    }
    return Secret(text)
  }

  /// A multiple of the page size of shared memory, within `range`.
  static func ringSize(_ text: String, _ range: ClosedRange<Int>) throws(ValueProblem) -> Int {
    let value = try integer(text, range, unit: "bytes")
    guard value.isMultiple(of: pageSize) else {
      throw ValueProblem("'\(text)' is no multiple of \(pageSize) bytes, the size of a memory page")
    }
    return value
  }

  /// Ring segments are made of whole memory pages.
  static let pageSize = 4_096

  /// Whether a text has ASCII letters, digits and the characters of `others` alone.
  static func hasOnly(_ text: some StringProtocol, _ others: String) -> Bool {
    text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: others.utf8.contains(byte)
      }
    }
  }

  static func trimmed(_ text: Substring) -> String {
    text.trimmingCharacters(in: .whitespacesAndNewlines)
  }
}
