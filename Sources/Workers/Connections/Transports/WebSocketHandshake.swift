// The opening handshake of RFC 6455 §4.2 as a server: what the request must carry, and the key's answer.

import COpenSSL
import Kit

enum WebSocketHandshake {
  /// Every event is one text message (CloudEvents WebSocket binding §2.2).
  private static let cloudEventsInJSON = "cloudevents.json"

  /// RFC 6455 §1.3.
  private static let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

  /// Why a request is no opening handshake, as the answer says it.
  struct Refusal: Error, Equatable {
    /// 426 (upgrade to a version that we have) or 400.
    let status: Int
    let detail: String
  }

  /// Checks a request's headers; the value of `sec-websocket-accept` for the answer 101.
  ///
  /// - Parameter header: all values of the header of that (lower-case) name, as they came.
  static func accept(isGET: Bool, header: (String) -> [String]) throws(Refusal) -> String {
    guard isGET else { throw Refusal(status: 400, detail: "a WebSocket handshake must be a GET") }
    guard hasToken("websocket", in: header("upgrade")), hasToken("upgrade", in: header("connection")) else {
      throw Refusal(
        status: 426, detail: "expected the headers `connection: upgrade` and `upgrade: websocket`")
    }
    guard header("sec-websocket-version").map({ HTTPOctets.trimmed($0) }) == ["13"] else {
      throw Refusal(status: 426, detail: "sec-websocket-version: expected 13")
    }
    let keys = header("sec-websocket-key").map { HTTPOctets.trimmed($0) }
    guard keys.count == 1, let key = keys.first, isKey(key) else {
      throw Refusal(status: 400, detail: "sec-websocket-key: expected one base64 text of 16 bytes")
    }
    return acceptValue(key: key)
  }

  /// The subprotocol that the server selects (RFC 6455 §4.2.2 /subprotocol/); nil: none.
  ///
  /// - Parameter offered: all values of `sec-websocket-protocol`.
  static func subprotocol(offered: [String]) -> String? {
    let names = offered.flatMap { $0.split(separator: ",") }
    return names.contains { HTTPOctets.trimmed($0) == cloudEventsInJSON } ? cloudEventsInJSON : nil
  }

  /// Base64 of SHA-1 of key and GUID (§4.2.2).
  static func acceptValue(key: String) -> String {
    let input = Array((key + guid).utf8)
    var digest = [UInt8](repeating: 0, count: Int(SHA_DIGEST_LENGTH))
    SHA1(input, input.count, &digest)
    return base64(digest)
  }

  /// 22 significant characters and two of padding: 16 bytes.
  private static func isKey(_ text: String) -> Bool {
    guard text.hasSuffix("=="), text.utf8.count == 24 else { return false }
    let standard = text.utf8.dropLast(2).allSatisfy { character in
      switch character {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "/"):
        true
      default: false
      }
    }
    return standard
  }

  private static func hasToken(_ token: String, in values: [String]) -> Bool {
    values.contains { value in
      value.split(separator: ",").contains { HTTPOctets.trimmed($0).lowercased() == token }
    }
  }

  private static func base64(_ bytes: [UInt8]) -> String {
    let url = Base64URL.encode(bytes)
    let padding = String(repeating: "=", count: (4 - url.utf8.count % 4) % 4)
    return String(url.map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 }) + padding
  }
}
