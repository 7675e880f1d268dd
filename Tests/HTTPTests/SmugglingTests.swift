// Requests that two readers could take for different ones: refused with 400, whoever is to handle them, and nothing behind them
// is understood.

import NIOCore
import NIOHTTP1
import Testing

@testable import HTTP

struct SmugglingTests {
  private static let smuggled = get("/smuggled")

  /// Fields behind the host field, and what stands behind the head.
  static let corpus: [(String, String)] = [
    ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ncontent-length: 0\r\n", "0\r\n\r\n"),
    ("content-length: 4\r\ncontent-length: 4\r\n", "body"),
    ("content-length: 4\r\ncontent-length: 5\r\n", "body"),
    ("content-length: 0\r\ncontent-length: 0\r\n", ""), ("content-length: 4, 4\r\n", "body"),
    ("content-length: 4 4\r\n", "body"), ("content-length: +4\r\n", "body"),
    ("content-length: -4\r\n", "body"),
    ("content-length: 0x4\r\n", "body"), ("content-length: 4;\r\n", "body"), ("content-length:\r\n", ""),
    ("content-length: 18446744073709551620\r\n", "body"), ("content-length : 4\r\n", "body"),
    ("content-length\t: 4\r\n", "body"), ("transfer-encoding : chunked\r\n", "0\r\n\r\n"),
    ("x : y\r\n", ""), (" x: y\r\n", ""), ("x: y\r\n z\r\n", ""), ("x: y\r\n\tz\r\n", ""),
    ("x:\r\n y\r\n", ""),
    ("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n , x\r\n", "0\r\n\r\n"),
    ("transfer-encoding: x,\r\n chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: gzip\r\n", "0\r\n\r\n"), ("transfer-encoding: identity\r\n", ""),
    ("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"),
    ("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n"), ("transfer-encoding: chunked;q=1\r\n", "0\r\n\r\n"),
    ("transfer-encoding: \u{b}chunked\r\n", "0\r\n\r\n"), ("transfer-encoding:\r\n", "0\r\n\r\n"),
    ("x: y\n", ""), ("x: y\r", ""), ("x: a\rb: c\r\n", ""), ("x: a\u{0}b\r\n", ""), ("x\u{0}: a\r\n", ""),
    ("x\r\n", ""), (": x\r\n", ""), ("x: y\nz: a\r\n", ""), ("host: b\r\n", ""),
  ]

  /// Chunked bodies.
  static let chunks: [String] = [
    "4\nWiki\r\n0\r\n\r\n", "4\r\nWiki\n0\r\n\r\n", "4\r\nWiki\r\n0\n\r\n", "4\r\nWiki\r\n0\r\n\n",
    "4\r\nWikipedia\r\n0\r\n\r\n", "4 \r\nWiki\r\n0\r\n\r\n", " 4\r\nWiki\r\n0\r\n\r\n",
    "0x4\r\nWiki\r\n0\r\n\r\n",
    "+4\r\nWiki\r\n0\r\n\r\n", "-4\r\nWiki\r\n0\r\n\r\n", "\r\nWiki\r\n0\r\n\r\n", "4\rWiki\r\n0\r\n\r\n",
    "10000000000000004\r\nWiki\r\n0\r\n\r\n", "4\r\nWiki0\r\n\r\n", "4;a\nb\r\nWiki\r\n0\r\n\r\n",
    "4\r\nWiki\r\n0\r\nx : y\r\n\r\n", "4\r\nWiki\r\n0\r\nx: y\n\r\n", "4\r\nWiki\r\n0\r\nx: y\r\n z\r\n\r\n",
  ]

  private func check(_ request: String, mayBeOffered: Bool) throws {
    for path in ["/s", "/plain"] {
      let front = StreamFront {
        ScriptedExchange(
          onBegin: { $0.readBody() }, onReceived: { s, _ in s.readBody() },
          onEnd: { $0.respond(.text("done")) })
      }
      let client = try front.front.connect()
      let answer = try client.send("POST \(path)" + request + Self.smuggled)
      #expect(statusLines(answer) == ["HTTP/1.1 400 Bad Request"], "\(request.debugDescription)")
      #expect(header("connection", in: answer) == "close")
      #expect(front.front.responder.requests.isEmpty)
      #expect(mayBeOffered || front.front.responder.offered.isEmpty, "\(request.debugDescription)")
      #expect(front.exchanges.allSatisfy { !$0.calls.contains("end") })
      #expect(try client.send(Self.smuggled).isEmpty)
    }
  }

  @Test(
    "A head that two readers could read differently is refused before anybody is asked", arguments: corpus)
  func heads(fields: String, body: String) throws {
    try check(" HTTP/1.1\r\nhost: a\r\n\(fields)\r\n\(body)", mayBeOffered: false)
  }

  @Test("Request lines and versions that others read differently are refused")
  func lines() throws {
    for request in [
      " HTTP/1.1\nhost: a\r\n\r\n",
      "\tHTTP/1.1\r\nhost: a\r\n\r\n",
      " HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", " HTTP/1.1\r\nhost: a\r\n\n",
      " HTTP/1.1\r\n host: a\r\n\r\n",
    ] {
      try check(request, mayBeOffered: false)
    }
  }

  @Test("A chunked body that two readers could read differently is refused and never ends", arguments: chunks)
  func bodies(body: String) throws {
    try check(" HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\(body)", mayBeOffered: true)
  }

  @Test("A chunk extension isn't passed on")
  func extensions() throws {
    let front = StreamFront { .echo() }
    let (_, exchange, _) = try front.open(chunkedHead("/s") + "4;a=\"b\";c\r\nWiki\r\n0;d\r\n\r\n")
    #expect(exchange.body == "Wiki" && exchange.calls.last == "end")
  }
}
