// One pass over a request head that collects what the front itself looks at.
//
// Header fields are compared by length first, so that most of them cost one comparison.

import Kit
import NIOHTTP1

/// What the front has to know of a request's head.
struct HeadFields {
  /// Size of the head as its shortest spelling: request line, `name: value` lines, empty line.
  private(set) var bytes: Int
  private(set) var hosts = 0
  /// A `host` that is neither empty nor an authority.
  private(set) var invalidHost: String?
  private(set) var contentLength: Int?
  /// Whether there is a transfer-encoding.
  private(set) var isChunked = false
  /// Whether it is one field that says `chunked` and nothing else.
  private(set) var isPlainlyChunked = false
  private(set) var expectsContinue = false
  /// An `expect` that isn't `100-continue`.
  private(set) var unknownExpectation: String?
  private(set) var traceparent: String?
  private(set) var traceparents = 0
  /// Whether the parser (llhttp) stops behind this request: CONNECT, or `upgrade` that `connection` names. Holds unless
  /// `isUpgradeUncertain`.
  var isUpgrade: Bool { isConnect || (hasUpgrade && isUpgradeNamed) }
  /// Whether the parser may see an upgrade where we see none, or the reverse: it reads lists less strictly than we do, minds
  /// tabs, and takes `proxy-connection` for `connection`. It doesn't tell what it has seen, so such a request is refused.
  var isUpgradeUncertain: Bool { hasUpgrade && (isNamingUnclear || (isUpgradeNamed && hasEmptyUpgrade)) }
  private let isConnect: Bool
  private var hasUpgrade = false
  private var hasEmptyUpgrade = false
  private var isUpgradeNamed = false
  private var isNamingUnclear = false
  /// All `tracestate` fields, in order, joined by commas (RFC 9110 §5.3).
  private(set) var tracestate: String?

  init(_ head: HTTPRequestHead) {
    let requestLineOverhead = " ".utf8.count + " HTTP/1.1\r\n".utf8.count + "\r\n".utf8.count
    bytes = head.method.rawValue.utf8.count + head.uri.utf8.count + requestLineOverhead
    isConnect = head.method == .CONNECT
    for (name, value) in head.headers {
      bytes += name.utf8.count + value.utf8.count + ": \r\n".utf8.count
      switch name.utf8.count {
      case 4 where HTTPOctets.matches(name.utf8, "host"):
        hosts += 1
        if !value.isEmpty, !Authority.isValid(value) { invalidHost = value }
      case 6 where HTTPOctets.matches(name.utf8, "expect"): add(expectation: value)
      case 7 where HTTPOctets.matches(name.utf8, "upgrade"):
        hasUpgrade = true
        if HTTPOctets.trimmed(value).isEmpty { hasEmptyUpgrade = true }
      case 10 where HTTPOctets.matches(name.utf8, "connection"): add(connection: value)
      case 16 where HTTPOctets.matches(name.utf8, "proxy-connection"):
        if Self.mentionsUpgrade(value) { isNamingUnclear = true }
      case 10 where HTTPOctets.matches(name.utf8, "tracestate"):
        tracestate = tracestate.map { "\($0),\(value)" } ?? value
      case 11 where HTTPOctets.matches(name.utf8, "traceparent"):
        traceparents += 1
        traceparent = value
      case 14 where HTTPOctets.matches(name.utf8, "content-length"): contentLength = Int(value)
      case 17 where HTTPOctets.matches(name.utf8, "transfer-encoding"):
        isPlainlyChunked = !isChunked && HTTPOctets.matches(value.utf8, "chunked")
        isChunked = true
      default: break
      }
    }
  }

  private mutating func add(expectation value: String) {
    if HTTPOctets.matches(value.utf8, "100-continue") {
      expectsContinue = true
    } else {
      unknownExpectation = value
    }
  }

  private mutating func add(connection value: String) {
    guard Self.mentionsUpgrade(value) else { return }
    isUpgradeNamed = true
    // Clear: no tab anywhere, and every option that has the word in it is the word.
    let isClear =
      !value.utf8.contains(UInt8(ascii: "\t"))
      && value.split(separator: ",").allSatisfy { option in
        !Self.mentionsUpgrade(option) || HTTPOctets.matches(HTTPOctets.trimmed(option.utf8), "upgrade")
      }
    if !isClear { isNamingUnclear = true }
  }

  /// Whether the word is anywhere in `text`, in any case.
  private static func mentionsUpgrade(_ text: some StringProtocol) -> Bool {
    let word = "upgrade".utf8
    let bytes = text.utf8
    return bytes.count >= word.count
      && bytes.indices.contains { start in
        bytes[start] | 0x20 == UInt8(ascii: "u")
          && bytes[start...].prefix(word.count).elementsEqual(word) { $0 | 0x20 == $1 }
      }
  }
}
