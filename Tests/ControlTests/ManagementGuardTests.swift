// Who may use the management port: with a token over a real socket, and without one as a table of requests.

import HTTP
import NIOCore
import NIOHTTP1
import Settings
import Testing

@testable import Control

@Suite(.serialized) struct ManagementGuardTests {
  private static let token = "0123456789abcdef"

  private static var closed: Settings {
    var settings = Settings()
    settings.managementToken = Secret(token)
    // Nobody beats here, and the test may take its time.
    settings.watchdogSeconds = 3_600
    return settings
  }

  @Test("Everything but health and metrics needs the token, what isn't there and RIG 1's paths included")
  func demanded() async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      for (method, path) in [
        ("GET", "/v3/apis"), ("POST", "/v3/apis"), ("GET", "/v2/apis/a"), ("POST", "/v3/messages"),
        ("POST", "/v2/messages"), ("POST", "/v3/session-blacklist"), ("GET", "/v3/session-blacklist/a"),
        ("GET", "/v3/sessions"), ("DELETE", "/v3/connections/0-1"), ("GET", "/rg/sessions"),
        ("GET", "/rg/sessions/a"), ("DELETE", "/rg/connections/a"), ("GET", "/nothing"),
        ("PATCH", "/v3/apis"), ("GET", "/health/"), ("GET", "//metrics"),
      ] {
        let answer = try client.ask(method, path)
        #expect(answer.status == 401, "\(method) \(path)")
        #expect(answer.header("www-authenticate") == "Bearer")
        #expect(answer.header("content-type") == "application/problem+json")
        let authorized = try client.ask(method, path, "authorization: bearer \(Self.token)\r\n")
        #expect(authorized.status != 401, "\(method) \(path)")
      }
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        #expect(try client.get(path).status == 200, "\(path)")
        #expect(try client.ask("POST", path).status == 405, "\(path)")
      }
    }
  }

  @Test(
    "A token that isn't the right one is refused, however alike it is",
    arguments: [
      "", "Bearer", "Basic \(token)", "Bearer \(token)0", "Bearer 0123456789abcde", "Bearer 0123456789abcdeF",
      "Bearer 0", "Bearer \(token)\(token)", token, "Bearer \(token)x, Bearer y",
    ])
  func refused(_ value: String) async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      let answer = try client.get("/v3/apis", "authorization: \(value)\r\n")
      #expect(answer.status == 401)
      #expect(answer.header("www-authenticate")?.hasPrefix("Bearer") == true)
      #expect(!answer.body.contains(Self.token))
    }
  }

  @Test("The right token opens every path, also beside others")
  func accepted() async throws {
    let gateway = try TestGateway()
    try await gateway.served(Self.closed) { client in
      for value in ["Bearer \(Self.token)", "bEaReR  \(Self.token)", "Bearer other, Bearer \(Self.token)"] {
        let answer = try client.get("/v3/apis", "authorization: \(value)\r\n")
        #expect(answer.status == 200, "\(value)")
      }
    }
  }
}

@Suite("13.A6: management port without a token")
struct TokenlessManagementTests {
  /// A request as it came from a peer.
  private static func request(
    _ peer: String?, host: String? = "localhost:4010", _ fields: [(String, String)] = []
  ) throws -> HTTPRequest {
    var headers = HTTPFields(fields)
    if let host { headers.add(name: "host", value: host) }
    return HTTPRequest(
      method: .GET, path: "/v3/apis", headers: headers, peer: PeerAddress(peer ?? ""))
  }

  private static func settings(_ change: (inout Settings) -> Void = { _ in }) -> Settings {
    var settings = Settings()
    change(&settings)
    return settings
  }

  private static func reason(_ settings: Settings, _ request: HTTPRequest) -> ManagementGuard.Reason? {
    let refusal = ManagementGuard(settings).refusal(of: request)
    if let refusal {
      #expect(refusal.response.status == (refusal.reason == .token ? .unauthorized : .forbidden))
    }
    return refusal?.reason
  }

  @Test(
    "13.A6: as long as no address is chosen, peers on this machine are served and others aren't",
    arguments: [
      ("127.0.0.1", nil), ("127.255.1.2", nil), ("::1", nil), ("::ffff:127.0.0.1", nil),
      ("172.17.0.1", .peer),
      ("192.0.2.1", .peer), ("128.0.0.1", .peer), ("0.0.0.0", .peer), ("10.127.0.0", .peer),
      ("2001:db8::1", .peer), ("fe80::1", .peer), ("::ffff:192.0.2.1", .peer), ("::2", .peer), (nil, .peer),
    ] as [(String?, ManagementGuard.Reason?)])
  func peers(peer: String?, expected: ManagementGuard.Reason?) throws {
    let request = try Self.request(peer)
    #expect(Self.reason(Self.settings(), request) == expected)
    // An address that was chosen is the operator's word, and so is a token.
    #expect(Self.reason(Self.settings { $0.apiBindAddress = "0.0.0.0" }, request) == nil)
    #expect(Self.reason(Self.settings { $0.bindAddress = "192.0.2.1" }, request) == nil)
    #expect(Self.reason(Self.settings { $0.managementToken = Secret("0123456789abcdef") }, request) == .token)
  }

  @Test(
    "13.A6: a peer on this machine that speaks for somebody else is no peer on this machine",
    arguments: [
      "forwarded", "X-Forwarded-For", "x-forwarded-host", "x-forwarded-proto", "X_Forwarded_For", "x-real-ip",
      "x_real-ip", "Via",
    ])
  func forwarding(field: String) throws {
    let request = try Self.request("127.0.0.1", [(field, "127.0.0.1")])
    #expect(Self.reason(Self.settings(), request) == .peer)
    #expect(Self.reason(Self.settings { $0.apiBindAddress = "127.0.0.1" }, request) == nil)
  }

  @Test("13.A6: the refusal of a peer names the settings that change it")
  func named() throws {
    let guardian = ManagementGuard(Self.settings())
    for request in [
      try Self.request("192.0.2.1"), try Self.request("127.0.0.1", [("forwarded", "for=192.0.2.1")]),
    ] {
      let text = try #require(guardian.refusal(of: request).map { String(buffer: $0.response.body) })
      for name in ["MANAGEMENT_TOKEN", "API_BIND_ADDRESS", "BIND_ADDRESS"] { #expect(text.contains(name)) }
    }
  }

  @Test(
    "13.A6: without a token the host is an address, a name without a dot, or one that is configured",
    arguments: [
      ("localhost", nil), ("localhost:4010", nil), ("LOCALHOST:4010", nil), ("rig", nil), ("rig_1-a:80", nil),
      ("127.0.0.1", nil), ("127.0.0.1:4010", nil), ("192.0.2.1:4010", nil), ("[::1]", nil),
      ("[::1]:4010", nil),
      ("[2001:db8::1]:", nil), ("rig.example.com", nil), ("Rig.Example.COM:4010", nil),
      ("rig.example.com.", nil),
      ("evil.example", .host), ("evil.example:4010", .host), ("rig.example.com.evil.example", .host),
      ("xrig.example.com", .host), ("localhost.", .host), ("localhost.evil.example", .host),
      ("127.0.0.1.evil.example", .host), ("127.0.0.1.", .host), ("127.1", .host), ("1.2.3.4.5", .host),
      ("", .host), (":4010", .host), ("[::1", .host), ("[::1]evil.example", .host), ("[evil.example]", .host),
      ("[127.0.0.1]", .host), ("::1", .host), ("localhost:4010:1", .host), ("localhost:x", .host),
      ("a@localhost", .host), ("localhost/", .host), ("localhost evil.example", .host),
      ("l\u{f6}calhost", .host),
      (nil, .host),
    ] as [(String?, ManagementGuard.Reason?)])
  func hosts(host: String?, expected: ManagementGuard.Reason?) throws {
    let settings = Self.settings { $0.apiHosts = ["rig.example.com"] }
    #expect(Self.reason(settings, try Self.request("127.0.0.1", host: host)) == expected)
    let chosen = Self.settings {
      $0.apiHosts = ["rig.example.com"]
      $0.apiBindAddress = "0.0.0.0"
    }
    #expect(Self.reason(chosen, try Self.request("192.0.2.1", host: host)) == expected)
    // Who shows a token is no page that was led here by its name.
    let token = Self.settings { $0.managementToken = Secret("0123456789abcdef") }
    let fields = [("authorization", "Bearer 0123456789abcdef"), ("origin", "https://evil.example")]
    #expect(Self.reason(token, try Self.request("192.0.2.1", host: host, fields)) == nil)
  }

  @Test(
    "13.A6: without a token the origin is the port's own, or of a host that is configured",
    arguments: [
      ("http://localhost:4010", nil), ("HTTP://LOCALHOST:4010", nil), ("https://localhost:4010", nil),
      ("https://rig.example.com", nil), ("https://rig.example.com:8443", nil),
      ("http://localhost", .origin), ("http://localhost:3000", .origin), ("http://127.0.0.1:4010", .origin),
      ("https://evil.example", .origin), ("http://evil.example:4010", .origin), ("null", .origin),
      ("", .origin),
      ("localhost:4010", .origin), ("http://localhost:4010.evil.example", .origin),
      ("https://rig.example.com.evil.example", .origin), ("http://localhost:4010/", .origin),
    ] as [(String, ManagementGuard.Reason?)])
  func origins(origin: String, expected: ManagementGuard.Reason?) throws {
    let settings = Self.settings { $0.apiHosts = ["rig.example.com"] }
    #expect(Self.reason(settings, try Self.request("::1", [("Origin", origin)])) == expected)
    let twice = [("origin", "http://localhost:4010"), ("origin", origin)]
    #expect(Self.reason(settings, try Self.request("::1", twice)) == expected)
  }

  @Test("13.A6: health and metrics go on for everybody; what is refused is counted")
  func counted() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let foreign = "origin: https://evil.example\r\n"
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        #expect(try client.get(path, foreign + "x-forwarded-for: 192.0.2.1\r\n").status == 200, "\(path)")
      }
      #expect(try client.ask("DELETE", "/v3/apis/a", foreign).status == 403)
      #expect(try client.get("/openapi.json", "via: 1.1 proxy\r\n").status == 403)
      // The target's own authority counts, and not the field (RFC 9112 §3.2.2).
      #expect(try client.get("http://evil.example/v3/apis").status == 403)
      #expect(try client.get("http://localhost:4010/v3/apis").status == 200)
      let metrics = try client.get("/metrics")
      for (reason, count) in [("origin", "1"), ("peer", "1"), ("host", "1"), ("token", "0")] {
        #expect(metrics.value(#"rig_management_refused_total{reason="\#(reason)"}"#) == count, "\(reason)")
      }
    }
  }
}
