// Who may use the management port, and who reads API definitions on the inbound one: contract §1, §9.

import Foundation
import Testing

@Suite("Management port: who may use it")
struct ManagementAccessTests {
  private static let open = ["/health", "/livez", "/readyz", "/metrics"]
  private static let loopback = "127.0.0.1"
  private static let other = NetworkNamespace.address

  /// One call, as text, from the address that it goes to.
  private static func ask(
    _ port: Int, _ path: String, method: String = "GET", at address: String = loopback,
    host: String? = "localhost", _ headers: [(String, String)] = [], tls: TLSEnd? = nil
  ) throws -> HTTPAnswer {
    let connection = HTTPConnection(wire: try Wire(port: port, host: address, tls: tls))
    let fields = (host.map { [("host", $0)] } ?? []) + headers
    let text = fields.map { "\($0): \($1)\r\n" }.joined()
    try connection.wire.send("\(method) \(path) HTTP/1.1\r\n\(text)content-length: 0\r\n\r\n")
    return try connection.answer(to: method)
  }

  /// The status of a call over HTTP/2 by prior knowledge, or over TLS by ALPN, by curl.
  private static func http2(
    _ scheme: String, _ port: Int, _ path: String, at address: String = loopback, host: String = "localhost"
  ) throws -> String {
    let version = scheme == "http" ? "--http2-prior-knowledge" : "--http2"
    return try Command.run(
      "curl",
      [
        version, "-sSk", "--max-time", "110", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "-H",
        "host: \(host)", "\(scheme)://\(address):\(port)\(path)",
      ])
  }

  @Test(
    "13.A6: without token and address the port serves its own machine, and others health and metrics only",
    .enabled(if: NetworkNamespace.isAvailable, Comment(rawValue: NetworkNamespace.hint)))
  func unchosen() throws {
    try NetworkNamespace.run {
      try Gateway.run(["BIND_ADDRESS": ""]) { gateway in
        let port = gateway.managementPort
        for path in Self.open {
          #expect(try Self.ask(port, path, at: Self.other).status == 200, "\(path)")
        }
        for (method, path) in [
          ("GET", "/v3/apis"), ("POST", "/v3/messages"), ("DELETE", "/v3/sessions/alice"),
          ("GET", "/rg/sessions"),
          ("GET", "/openapi.json"), ("GET", "/nothing"),
        ] {
          let answer = try Self.ask(port, path, method: method, at: Self.other)
          try expectProblem(answer, 403)
          #expect(answer.text.contains("MANAGEMENT_TOKEN") && answer.text.contains("API_BIND_ADDRESS"))
          #expect(try Self.ask(port, path, method: method).status != 403, "\(path)")
        }
        // A proxy on this machine speaks for others.
        #expect(try Self.ask(port, "/v3/apis", [("x-forwarded-for", Self.loopback)]).status == 403)
        #expect(try Self.http2("http", port, "/v3/apis", at: Self.other) == "2 403")
        #expect(try Self.http2("http", port, "/metrics", at: Self.other) == "2 200")
        #expect(try gateway.metric("rig_management_refused_total", ["reason": "peer"]) == 8)
        #expect(gateway.log.contains("the management port serves this machine only"))
      }
    }
  }

  @Test(
    "13.A6: an address that was chosen opens the port to whoever reaches it, which is said aloud",
    .enabled(if: NetworkNamespace.isAvailable, Comment(rawValue: NetworkNamespace.hint)))
  func chosen() throws {
    func status(
      _ port: Int, _ path: String = "/v3/apis", at address: String = Self.other, host: String = "rig",
      _ headers: [(String, String)] = []
    ) throws -> Int {
      try Self.ask(port, path, at: address, host: host, headers).status
    }
    try NetworkNamespace.run {
      try Gateway.run(["BIND_ADDRESS": "", "API_BIND_ADDRESS": "0.0.0.0"]) { gateway in
        let statuses = try ["rig", "evil.example"].map { try status(gateway.managementPort, host: $0) }
        #expect(statuses == [200, 403])
        #expect(gateway.log.contains("THE MANAGEMENT PORTS ARE OPEN"))
      }
      try Gateway.run(["BIND_ADDRESS": "", "MANAGEMENT_TOKEN": "0123456789abcdef"]) { gateway in
        let port = gateway.managementPort
        let bearer = TestToken.bearer("0123456789abcdef")
        let statuses = try [[], [bearer]].map { try status(port, host: "rig.example", $0) }
        #expect(statuses == [401, 200])
        #expect(!gateway.log.contains("THE MANAGEMENT PORTS ARE OPEN"))
      }
      // An address for each port.
      try Gateway.run(["BIND_ADDRESS": Self.other, "API_BIND_ADDRESS": "127.0.0.1"]) { gateway in
        #expect(throws: (any Error).self) { try status(gateway.managementPort, "/health") }
        #expect(throws: (any Error).self) {
          try status(gateway.inboundPort, "/_rig/health", at: Self.loopback)
        }
        let health = try status(gateway.inboundPort, "/_rig/health")
        #expect(health == 200)
      }
    }
  }

  @Test(
    "13.A6: pages of other sites can't use the port, whatever name they gave it, over HTTP/1.1, HTTP/2 and TLS"
  )
  func pages() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    let settings = TestCertificate.settings(certificate, more: ["API_HOSTS": "rig.example.com"])
    try Gateway.run(settings) { gateway in
      let port = gateway.managementPort
      for (host, status) in [
        ("localhost", 200), ("rig:4010", 200), ("127.0.0.1:\(port)", 200), ("[::1]", 200),
        ("RIG.example.com", 200),
        ("evil.example", 403), ("evil.example:\(port)", 403), ("localhost.evil.example", 403),
      ] {
        #expect(try Self.ask(port, "/v3/apis", host: host).status == status, "\(host)")
        let tlsPort = gateway.managementTLSPort
        #expect(try Self.ask(tlsPort, "/v3/apis", host: host, tls: TLSEnd()).status == status, "\(host)")
        #expect(try Self.http2("http", port, "/v3/apis", host: host) == "2 \(status)", "\(host)")
        #expect(try Self.http2("https", tlsPort, "/v3/apis", host: host) == "2 \(status)", "\(host)")
      }
      let refused = try Self.ask(port, "/v3/apis", host: "evil.example")
      try expectProblem(refused, 403)
      #expect(refused.text.contains("API_HOSTS") && refused.text.contains("evil.example"))
      #expect(try Self.ask(port, "http://evil.example/v3/apis").status == 403)
      #expect(try Self.ask(port, "http://localhost/v3/apis", host: "evil.example").status == 200)
      for (origin, status) in [
        ("http://localhost:\(port)", 404), ("https://rig.example.com", 404), ("https://evil.example", 403),
        ("http://localhost:\(gateway.inboundPort)", 403), ("null", 403),
      ] {
        let answer = try Self.ask(
          port, "/v3/apis/none", method: "DELETE", host: "localhost:\(port)", [("origin", origin)])
        #expect(answer.status == status, "\(origin)")
      }
      for path in Self.open {
        #expect(
          try Self.ask(port, path, host: "evil.example", [("origin", "https://evil.example")]).status == 200)
      }
    }
  }

  @Test(
    "13.A6: INBOUND_APIS lists the networks whose peers read the definitions on the inbound port",
    .enabled(if: NetworkNamespace.isAvailable, Comment(rawValue: NetworkNamespace.hint)))
  func inboundAPIs() throws {
    try NetworkNamespace.run {
      let table: [(value: String?, loopback: Int, other: Int)] = [
        (nil, 200, 404), ("loopback", 200, 404), ("off", 404, 404), ("192.0.2.0/24", 404, 200),
        ("loopback,192.0.2.1", 200, 200), ("172.17.0.0/16", 404, 404),
      ]
      for row in table {
        var settings = ["BIND_ADDRESS": "0.0.0.0", "CONNECTION_WORKERS": "1"]
        settings["INBOUND_APIS"] = row.value
        try Gateway.run(settings) { gateway in
          let port = gateway.inboundPort
          let own = try Self.ask(port, "/apis")
          #expect(own.status == row.loopback, "\(row)")
          #expect(try Self.ask(port, "/apis", at: Self.other).status == row.other, "\(row)")
          #expect(try Self.ask(port, "/apis", at: Self.other, [("x-real-ip", "192.0.2.1")]).status == 404)
          #expect(try Self.ask(port, "/apis", at: Self.other, host: "evil.example").status == 404)
        }
      }
    }
  }
}
