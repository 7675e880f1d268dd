// Heads of HTTP/2 requests that are too large: each is its own stream's affair.

import Foundation
import Testing

@Suite("14.C14 Oversized heads over HTTP/2", .serialized)
struct HTTP2HeadTests {
  /// Bytes of cookie; the limit on a head is 16 KiB.
  private static let cookies = [17_000, 24_000, 40_000, 100_000, 200_000]

  private static func cookie(_ bytes: Int) -> (String, String) {
    ("cookie", "a=" + String(repeating: "c", count: bytes))
  }

  @Test(
    "14.C14 17 to 200 KB of cookie are answered 431, and the event stream of the same connection goes on",
    arguments: [false, true])
  func otherStreamsGoOn(isTLS: Bool) throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    let settings = TestCertificate.settings(certificate, more: ["CONNECTION_WORKERS": "1"])
    try Gateway.run(settings) { gateway in
      let http = try HTTP2Client(
        port: isTLS ? gateway.inboundTLSPort : gateway.inboundPort,
        tls: isTLS ? TLSEnd(protocols: ["h2"]) : nil)
      let events = try http.get(
        "/_rig/v1/connection/sse?subscriptions=\(HTTP.encoded(Subscriptions.to("a")))")
      // Before the client has read a setting of the server's, and after.
      for round in 0..<2 {
        let streams = try Self.cookies.map { try http.get("/_rig/health", headers: [Self.cookie($0)]) }
        try http.read(until: "answers") { http in streams.allSatisfy { http.ended.contains($0) } }
        #expect(
          streams.allSatisfy { http.heads[$0] == 431 && http.text($0).contains("expected at most 16384") })
        let good = try http.get("/_rig/health")
        try http.read(until: "an ordinary answer") { $0.ended.contains(good) }
        #expect(http.heads[good] == 200)
        try gateway.publish(CloudEvent.json("a", id: "id-\(round)"))
        try http.read(until: "the event") { $0.text(events).contains("id-\(round)") }
      }
      #expect(http.goAways.isEmpty && http.resets.isEmpty)
      #expect(
        try gateway.metric("rig_http_open_connections", ["port": isTLS ? "inbound-tls" : "inbound"]) == 1)
    }
  }

  @Test("14.C14 curl's first request may be too large")
  func curl() throws {
    try Gateway.run { gateway in
      let status = try Command.run(
        "curl",
        [
          "-sS", "--http2-prior-knowledge", "--max-time", "110", "-o", "/dev/null", "-w", "%{http_code}",
          "-H", "cookie: \(Self.cookie(40_000).1)", "http://127.0.0.1:\(gateway.inboundPort)/_rig/health",
        ])
      #expect(status == "431")
    }
  }

  @Test("14.C14 A head without a reasonable end, and oversized heads one after the other, end the connection")
  func floods() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let endless = try HTTP2Client(port: gateway.inboundPort)
      _ = try endless.get("/_rig/health", headers: [Self.cookie(1_000_000)])
      try endless.read(until: "GOAWAY") { !$0.goAways.isEmpty }
      let many = try HTTP2Client(port: gateway.inboundPort)
      for _ in 0..<200 where many.goAways.isEmpty {
        let stream = try many.get("/_rig/health", headers: [Self.cookie(17_000)])
        try many.read(until: "an answer") { $0.ended.contains(stream) || !$0.goAways.isEmpty }
      }
      #expect(many.goAways == [11])
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
    }
  }
}
