// The parts without a channel: targets, queries, dates, answers, cross-origin headers.

import NIOCore
import NIOHTTP1
import Testing

@testable import HTTP

struct RequestTargetTests {
  @Test(
    "A request target is split into path and query",
    arguments: [
      ("/", "/", nil), ("/a/b", "/a/b", nil), ("/a?x=1", "/a", "x=1"), ("/a?", "/a", ""),
      ("/a?b?c", "/a", "b?c"),
      ("http://host:4000/a?x", "/a", "x"), ("HTTPS://host", "/", nil), ("http://host?x", "/", "x"),
      ("*", "*", nil),
      ("//host/a", "//host/a", nil), ("host:443", "host:443", nil), ("?x=1", "/", "x=1"),
    ] as [(String, String, String?)])
  func split(target: String, path: String, query: String?) {
    let parsed = RequestTarget(target)
    #expect(parsed.path == path)
    #expect(parsed.query == query)
  }
}

struct AuthorityTests {
  @Test(
    "13.A6: whom a request is for is said by an absolute target, and else by Host",
    arguments: [
      ("/", nil), ("*", nil), ("//host/a", nil), ("http://host:4000/a?x", "host:4000"),
      ("HTTPS://host", "host"),
      ("http://host?x", "host"), ("http:///a", ""), ("http://a@host/", "a@host"),
    ] as [(String, String?)])
  func authority(target: String, expected: String?) {
    #expect(RequestTarget(target).authority == expected)
    var request = HTTPRequest(method: .GET, path: "/", headers: ["host": "field"])
    request.targetAuthority = RequestTarget(target).authority
    #expect(request.authority == expected ?? "field")
  }

  @Test("13.A7: a host is a name or an address, and perhaps a port")
  func validity() {
    for text in [
      "a", "rig.example.com", "RIG.example.com.:4000", "127.0.0.1:80", "[::1]", "[2001:db8::1%25eth0]:4000",
      "a_b-c~d",
      "caf%C3%A9", "a:", "*.example.com",
    ] {
      #expect(Authority.isValid(text), "\(text)")
    }
    for text in [
      "", ":80", "h@evil", "h@evil/x", "a/b", "a\\b", "a?b", "a#b", "a,b", "a b", "a\tb", "a:80:80", "a:x",
      "[::1", "::1", "[]",
      "[::1]x", "[::1]:x", "[a/b]", "a%", "a%2", "a%zz", "a\"b", "<a>", "é", "a\u{7f}", "[a[b]",
    ] {
      #expect(!Authority.isValid(text), "\(text)")
    }
  }
}

@Suite("15 Addresses of peers") struct PeerAddressTests {
  @Test(
    "An address is written as the system would, IPv4 as such also from a socket for both families",
    arguments: [
      ("127.0.0.1", "127.0.0.1"), ("255.10.0.100", "255.10.0.100"), ("::ffff:192.0.2.1", "192.0.2.1"),
      ("::ffff:9.90.200.0", "9.90.200.0"), ("2001:db8::1", "2001:db8::1"), ("::1", "::1"), ("::", "::"),
    ])
  func text(_ given: String, _ text: String) throws {
    let address = try SocketAddress(ipAddress: given, port: 80)
    #expect(PeerAddress.text(of: address) == text)
    #expect(PeerAddress(address) == PeerAddress(given))
  }

  @Test("What has no address has an empty one")
  func none() throws {
    #expect(PeerAddress.text(of: nil).isEmpty)
    #expect(PeerAddress.text(of: try SocketAddress(unixDomainSocketPath: "/tmp/x")).isEmpty)
  }
}

struct QueryStringTests {
  @Test(
    "Query parameters are decoded in their order",
    arguments: [
      ("", []), ("a=1", ["a=1"]), ("a=1&b=2&a=3", ["a=1", "b=2", "a=3"]), ("a", ["a="]), ("=1", ["=1"]),
      ("&&a=1&&", ["a=1"]), ("a=b=c", ["a=b=c"]), ("a+b=c+d", ["a b=c d"]),
      ("a=%7B%22x%22%7d", ["a={\"x\"}"]),
      ("users%5B%5D=J%C3%BCrgen", ["users[]=Jürgen"]), ("a=%", ["a=%"]), ("a=%2", ["a=%2"]),
      ("a=%zz", ["a=%zz"]),
      ("a=%2B%2b", ["a=++"]), ("a=%ff", ["a=\u{FFFD}"]), ("a=%00", ["a=\0"]),
    ] as [(String, [String])])
  func decode(text: String, expected: [String]) {
    #expect(QueryString.decode(text).map { "\($0.name)=\($0.value)" } == expected)
  }
}

struct HTTPDateTests {
  @Test(
    "A Unix time becomes an IMF-fixdate",
    arguments: [
      (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
      (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
      (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"), (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
    ])
  func format(seconds: Int, text: String) {
    var date = HTTPDate()
    #expect(date.text(at: seconds) == text)
    #expect(date.text(at: seconds + 86400 * 7).prefix(3) == text.prefix(3))
  }
}

struct CORSTests {
  private func request(_ origins: String...) -> HTTPRequest {
    HTTPRequest(method: .GET, path: "/", headers: HTTPFields(origins.map { ("origin", $0) }))
  }

  @Test("With any origin nothing varies and no credentials are allowed")
  func anyOrigin() {
    let headers = CORS(["*"]).headers(for: request("https://app.example"), credentials: true)
    #expect(headers["access-control-allow-origin"] == ["*"])
    #expect(headers["vary"].isEmpty)
    #expect(headers["access-control-allow-credentials"].isEmpty)
  }

  @Test(
    "With a list the request's own origin is answered, may bring credentials, and every answer varies by origin"
  )
  func list() {
    let cors = CORS(["https://app.example", "https://*.other.example"])
    for origin in ["https://app.example", "https://a.other.example"] {
      let headers = cors.headers(for: request(origin))
      #expect(headers["access-control-allow-origin"] == [origin] && headers["vary"] == ["origin"])
      #expect(headers["access-control-allow-credentials"].isEmpty)
      let credentials = cors.headers(for: request(origin), credentials: true)
      #expect(credentials["access-control-allow-credentials"] == ["true"])
    }
    let foreign = [
      request(), request("https://evil.example"), request("https://app.example", "https://app.example"),
    ]
    for request in foreign {
      #expect(cors.headers(for: request, credentials: true).map(\.name) == ["vary"])
    }
  }

  @Test("A handshake is refused that names an origin which isn't in the list; without one it is no page's")
  func handshakes() {
    let cors = CORS(["https://app.example"])
    #expect(cors.handshakeRefusal(request()) == nil)
    #expect(cors.handshakeRefusal(request("https://app.example")) == nil)
    #expect(
      cors.handshakeRefusal(request("https://evil.example"))?.contains(
        "header origin is 'https://evil.example'") == true)
    #expect(cors.handshakeRefusal(request("null")) != nil)
    #expect(cors.handshakeRefusal(request("https://app.example", "https://app.example")) != nil)
    #expect(CORS(["*"]).handshakeRefusal(request("whatever")) == nil)
  }

  @Test("Cross-origin headers that an answer has of its own are left as they are")
  func ownHeaders() {
    var headers: HTTPFields = ["Access-Control-Allow-Origin": "https://service.example"]
    CORS(["https://app.example"]).apply(to: &headers, for: request("https://app.example"))
    #expect(headers.count == 1)
  }

  @Test("A preflight is answered 204 with the methods and the headers that were asked for")
  func preflight() {
    let asked = HTTPRequest(
      method: .OPTIONS, path: "/", headers: ["access-control-request-headers": "ce-custom,content-type"])
    let answer = CORS(["*"]).preflight(for: asked, methods: [.GET, .PUT])
    #expect(answer.status == .noContent)
    #expect(answer.headers["access-control-allow-methods"] == ["GET, PUT"])
    #expect(answer.headers["access-control-allow-headers"] == ["ce-custom,content-type"])
    let odd = HTTPRequest(
      method: .OPTIONS, path: "/", headers: ["access-control-request-headers": "<script>"])
    let fallback = CORS(["*"]).preflight(for: odd, methods: [.GET])
    #expect(fallback.headers["access-control-allow-headers"] == [CORS.defaultAllowedHeaders])
  }
}
