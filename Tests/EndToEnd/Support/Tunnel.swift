// WebSockets to services, as raw bytes behind their handshake.

import Testing

enum Tunnel {
  static func api(_ port: Int, more: String = "") -> TestAPI {
    TestAPI(id: "open", port: port, endpoint: #""method":"GET","path_regex":"/x.*"\#(more)"#)
  }

  /// A tunnel through the gateway.
  static func open(
    _ gateway: Gateway, headers: [(String, String)] = WebSocketClient.upgrade,
    receiveBuffer: Int? = nil
  ) throws -> Wire {
    let http = try HTTPConnection(wire: Wire(port: gateway.inboundPort, receiveBuffer: receiveBuffer))
    try http.wire.send(HTTPConnection.request("GET", "/x", headers: headers))
    let head = try http.head()
    guard head.status == 101 else { throw TestFailure("no upgrade: \(head.status)") }
    return http.wire
  }

  static func exchange(_ text: String, _ wire: Wire) throws {
    try wire.send(text)
    try expect(text, wire)
  }

  static func expect(_ text: String, _ wire: Wire) throws {
    let got = try wire.receive("\(text.utf8.count) bytes") { queue in
      queue.count >= text.utf8.count ? queue.take(text.utf8.count) : nil
    }
    #expect(got == Array(text.utf8))
  }
}
