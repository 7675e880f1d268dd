// Requests to the gateway, one connection for one request or for several.

import Foundation

/// A connection that carries requests one after the other.
final class HTTPConnection {
  let wire: Wire

  init(port: Int) throws {
    wire = try Wire(port: port)
  }

  init(wire: Wire) {
    self.wire = wire
  }

  /// Sends a request and reads its answer.
  func send(
    _ method: String, _ path: String, headers: [(String, String)] = [], body: String? = nil,
    _ deadline: Deadline = Deadline()
  ) throws -> HTTPAnswer {
    try wire.send(Self.request(method, path, headers: headers, body: body))
    return try answer(to: method, deadline)
  }

  /// Reads an answer to a request already sent.
  func answer(to method: String = "GET", _ deadline: Deadline = Deadline()) throws -> HTTPAnswer {
    let head = try head(deadline)
    var decoder = BodyDecoder(head, hasBody: method != "HEAD")
    var body = ByteQueue()
    try decoder.decode(&wire.received, into: &body)
    while !decoder.isComplete, try wire.receive(deadline) { try decoder.decode(&wire.received, into: &body) }
    guard decoder.isComplete || (wire.isAtEnd && head["content-length"] == nil) else {
      throw TestFailure("\(head.status) without its whole body: \(body.text.prefix(300))")
    }
    return HTTPAnswer(head: head, body: body.takeAll(), trailers: decoder.trailers)
  }

  /// Reads the head of an answer; interim answers (1xx) are skipped, except 101.
  func head(_ deadline: Deadline = Deadline()) throws -> HTTPHead {
    while true {
      let head = try wire.receive("the head of an answer", deadline) { queue -> HTTPHead? in
        guard let length = queue.distance(to: "\r\n\r\n") else { return nil }
        return try HTTPHead(String(decoding: queue.take(length + 4), as: UTF8.self))
      }
      if head.status / 100 != 1 || head.status == 101 { return head }
    }
  }

  static func request(
    _ method: String, _ path: String, headers: [(String, String)] = [], body: String? = nil
  ) -> String {
    var text = "\(method) \(path) HTTP/1.1\r\nhost: localhost\r\n"
    for (name, value) in headers { text += "\(name): \(value)\r\n" }
    if let body { text += "content-length: \(body.utf8.count)\r\n\r\n\(body)" } else { text += "\r\n" }
    return text
  }
}

enum HTTP {
  /// One request over a connection of its own.
  static func send(
    _ method: String, _ path: String, port: Int, headers: [(String, String)] = [], body: String? = nil
  ) throws -> HTTPAnswer {
    try HTTPConnection(port: port).send(method, path, headers: headers, body: body)
  }

  /// Percent-encodes everything that isn't unreserved.
  static func encoded(_ text: String) -> String {
    var allowed = CharacterSet.alphanumerics
    allowed.insert(charactersIn: "-._~")
    return text.utf8.map { byte -> String in
      let scalar = Unicode.Scalar(byte)
      return byte < 0x80 && allowed.contains(scalar) ? String(scalar) : "%" + Hex.text(byte)
    }.joined()
  }
}

enum Hex {
  static func text(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
  }
}
