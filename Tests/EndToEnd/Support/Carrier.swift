// What a client's requests come by. To the clients of these tests all of it looks like a connection of HTTP/1.1.

import Testing

enum Carrier: String, CaseIterable, CustomTestStringConvertible {
  case http1 = "HTTP/1.1"
  case http2 = "HTTP/2"
  case http1OverTLS = "HTTP/1.1 over TLS"
  case http2OverTLS = "HTTP/2 over TLS"

  var testDescription: String { rawValue }
  var isTLS: Bool { self == .http1OverTLS || self == .http2OverTLS }
  var isHTTP2: Bool { self == .http2 || self == .http2OverTLS }

  func wire(to gateway: Gateway, receiveBuffer: Int? = nil) throws -> Wire {
    let tls = isTLS ? try TLSEnd(protocols: [isHTTP2 ? "h2" : "http/1.1"]) : nil
    let port = isTLS ? gateway.inboundTLSPort : gateway.inboundPort
    return isHTTP2
      ? try HTTP2Wire(port: port, receiveBuffer: receiveBuffer, tls: tls)
      : try Wire(port: port, receiveBuffer: receiveBuffer, tls: tls)
  }
}
