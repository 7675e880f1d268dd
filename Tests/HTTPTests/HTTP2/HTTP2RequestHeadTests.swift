// Heads of HTTP/2 requests: what they mean in HTTP/1.1, and all that must not get that far (RFC 9113 §8.2, §8.3).

import NIOHPACK
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("Heads of HTTP/2 requests")
struct HTTP2RequestHeadTests {
  typealias Fields = [(String, String)]

  private static func read(
    _ fields: Fields, isEnd: Bool = true
  ) -> Result<HTTP2RequestHead, HTTP2RequestHead.Failure> {
    Result { () throws(HTTP2RequestHead.Failure) in
      try HTTP2RequestHead(HPACKHeaders(fields), isEnd: isEnd, limits: HTTPLimits())
    }
  }

  @Test("A head is that of the HTTP/1.1 request with the same meaning")
  func meaning() throws {
    let fields =
      HTTP2Peer.head(
        "POST", "/a?b=c", [("x-one", "1"), ("cookie", "a=b"), ("te", "trailers"), ("cookie", "c=d")])
    let head = try Self.read(fields, isEnd: false).get().head
    #expect(
      head.minorVersion == 1 && head.method == "POST" && head.target == "/a?b=c" && head.framing == .chunked)
    #expect(
      head.fields.map { "\($0.name): \($0.value)" } == [
        "host: gateway", "x-one: 1", "te: trailers", "cookie: a=b; c=d", "transfer-encoding: chunked",
      ])
  }

  @Test("14.C13 CONNECT for a WebSocket is the handshake of HTTP/1.1")
  func webSocket() throws {
    let fields =
      [(":protocol", "websocket")]
      + HTTP2Peer.head(
        "CONNECT", "/ws?a=b", [("sec-websocket-version", "13"), ("sec-websocket-key", "theirs")])
    let read = try Self.read(fields, isEnd: false).get()
    #expect(
      read.isTunnel && read.contentLength == nil && read.head.method == "GET" && read.head.target == "/ws?a=b"
    )
    let headers = read.head.fields
    #expect(headers["connection"] == ["upgrade"] && headers["upgrade"] == ["websocket"])
    #expect(headers["sec-websocket-version"] == ["13"] && !headers.contains(name: "transfer-encoding"))
    let keys = headers["sec-websocket-key"]
    #expect(keys.count == 1 && keys[0].utf8.count == 24 && keys[0].hasSuffix("=="))
    guard case .failure(.malformed) = Self.read(fields + [("content-length", "0")], isEnd: false) else {
      Issue.record("a length of a tunnel")
      return
    }
  }

  @Test("Only a body without a length is chunked, and host stands in for a missing authority")
  func framing() throws {
    let counted = try Self.read(HTTP2Peer.head("PUT", "/", [("content-length", "5")]), isEnd: false).get()
    #expect(counted.contentLength == 5 && counted.head.framing == .counted(5))
    #expect(!counted.head.fields.contains(name: "transfer-encoding"))
    let bare: Fields = [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), ("host", "other:1")]
    let head = try Self.read(bare).get().head
    #expect(head.fields.map(\.value) == ["other:1"] && head.target == "*")
  }

  /// A head with one thing changed.
  static let malformed: [(what: String, fields: Fields)] = {
    var all: [(String, Fields)] = []
    func add(_ what: String, _ more: Fields) { all.append((what, HTTP2Peer.head("GET", "/", more))) }
    for value in ["a\rb", "a\nb", "a\r\nx-evil: 1", "a\0b", "\u{1}", "a\u{7f}", " a", "a ", "\ta"] {
      add("value \(value.debugDescription)", [("x-field", value)])
      add("cookie \(value.debugDescription)", [("cookie", value)])
    }
    for name in ["X-Upper", "hoSt", "", "a b", "a:b", "a\r\nb", "a\0", "ä", ":", ":unknown", "x\t"] {
      add("name \(name.debugDescription)", [(name, "1")])
    }
    for name in [
      "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings",
    ] {
      add(name, [(name, name == "transfer-encoding" ? "chunked" : "upgrade")])
    }
    add("te with more than trailers", [("te", "trailers, deflate")])
    add("host that differs", [("host", "other")])
    add("host twice", [("host", "gateway"), ("host", "gateway")])
    add("a status", [(":status", "200")])
    for length in ["x", "-1", "+1", "1 ", "0x1", "1,1", "", "99999999999999999999", "5"] {
      add("content-length \(length.debugDescription)", [("content-length", length)])
    }
    add("content-length twice", [("content-length", "0"), ("content-length", "0")])
    let whole = HTTP2Peer.head()
    for name in [":method", ":scheme", ":path"] {
      all.append(("no \(name)", whole.filter { $0.0 != name }))
      all.append(("\(name) twice", [whole.first { $0.0 == name }].compactMap { $0 } + whole))
    }
    all.append((":authority twice", [(":authority", "gateway")] + whole))
    all.append(("pseudo field behind a field", [("x-a", "1")] + whole))
    all.append(("pseudo field behind host", [("host", "gateway")] + whole))
    all.append(("pseudo field behind a cookie", [("cookie", "a=b")] + whole))
    for path in ["", "a", "*", "/a b", "/a\r\nx: 1", "/a\0", "/a#b", "/ä", "http://other/"] {
      all.append(("path \(path.debugDescription)", HTTP2Peer.head("GET", path)))
    }
    for method in ["", "GE T", "GET / HTTP/1.1\r\nx: y\r\n\r\n", "G\0T"] {
      all.append(("method \(method.debugDescription)", HTTP2Peer.head(method)))
    }
    for authority in ["", "user@gateway", "a b", "a/b", "a\r\nx: 1", "a,b", "a\\b", "a:b", "a%2", "[::1"] {
      all.append(
        (
          "authority \(authority.debugDescription)",
          [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")]
        ))
    }
    for scheme in ["", "ftp", "http\r\n", "HTTP"] {
      all.append(
        (
          "scheme \(scheme.debugDescription)",
          [(":method", "GET"), (":scheme", scheme), (":path", "/"), ("host", "a")]
        ))
    }
    all.append((":protocol without CONNECT", [(":protocol", "websocket")] + whole))
    let tunnel = [(":protocol", "websocket")] + HTTP2Peer.head("CONNECT", "/ws")
    all.append(("a WebSocket that has ended", tunnel))
    for name in [":scheme", ":path", ":authority"] {
      all.append(("a WebSocket without \(name)", tunnel.filter { $0.0 != name }))
    }
    all.append((":protocol twice", [(":protocol", "websocket")] + tunnel))
    return all
  }()

  @Test("What isn't exactly as it should be is malformed")
  func malformedHeads() {
    for (what, fields) in Self.malformed {
      switch Self.read(fields) {
      case .failure(.malformed): break
      case let other: Issue.record("\(what): \(other)")
      }
    }
  }

  @Test("Trailers are checked like fields, and may have no pseudo fields")
  func trailers() throws {
    let trailers = try HTTP2RequestHead.trailers(HPACKHeaders([("x-sum", "1")]), limits: HTTPLimits())
    #expect(trailers.map(\.name) == ["x-sum"])
    for fields in [[(":path", "/")], [("X-Sum", "1")], [("x-sum", "1\r\n")], [("connection", "close")]] {
      #expect(throws: HTTP2RequestHead.Failure.self) {
        _ = try HTTP2RequestHead.trailers(HPACKHeaders(fields), limits: HTTPLimits())
      }
    }
  }

  @Test("Tunnels, unknown methods and too many fields are answered")
  func refused() {
    func status(_ fields: Fields) -> HTTPResponseStatus? {
      guard case .failure(.refused(let refusal)) = Self.read(fields) else { return nil }
      return refusal.status
    }
    #expect(status([(":method", "CONNECT"), (":authority", "a:1")]) == .notImplemented)
    #expect(status([(":protocol", "connect-udp")] + HTTP2Peer.head("CONNECT", "/ws")) == .notImplemented)
    for method in ["PRI", "get"] { #expect(status(HTTP2Peer.head(method)) == .methodNotAllowed, "14.D20") }
    let many = (0..<200).map { ("x-\($0)", "1") }
    #expect(status(HTTP2Peer.head("GET", "/", many)) == .requestHeaderFieldsTooLarge)
  }
}
