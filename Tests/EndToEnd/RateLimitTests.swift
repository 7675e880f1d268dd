// Limits of proxied requests: that they hold for the gateway as a whole, however the requests come. Contract §8.

import Foundation
import Testing

@Suite("Rate limits of proxied requests")
struct RateLimitTests {
  private static let burst = 20

  /// One token per second: what a test needs of time is what it takes.
  private static func settings(_ more: [String: String] = [:]) -> [String: String] {
    [
      "RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_AVG_RATE_PER_SEC": "1", "RATE_LIMIT_BURST_SIZE": "\(burst)",
      "PROXY_WORKERS": "2", "RESTART_INTENSITY": "100",
    ].merging(more) { $1 }
  }

  private static func define(
    _ gateway: Gateway, _ service: TestService, id: String = "open", path: String = "/x"
  )
    throws
  {
    try gateway.define(
      TestAPI(id: id, port: service.port, endpoint: #""method":"GET","path_regex":"\#(path)""#))
  }

  /// As many pass as the bucket held and got since `begin`.
  private static func expectBurst(_ statuses: [Int], since begin: ContinuousClock.Instant) {
    let passed = statuses.count { $0 == 200 }
    let seconds = Int((ContinuousClock.now - begin).components.seconds) + 1
    #expect(passed >= burst && passed <= burst + seconds, "\(passed) passed in \(seconds) s")
    #expect(statuses.allSatisfy { $0 == 200 || $0 == 429 }, "\(statuses)")
  }

  @Test("One client's requests over many connections to all workers share one bucket, as those over one do")
  func shared() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(Self.settings()) { gateway in
      try Self.define(gateway, service)
      let begin = ContinuousClock.now
      let http = try HTTPConnection(port: gateway.inboundPort)
      var statuses: [Int] = []
      for _ in 0..<30 {
        statuses.append(try gateway.inbound("GET", "/x").status)
        statuses.append(try http.send("GET", "/x").status)
      }
      Self.expectBurst(statuses, since: begin)
      #expect(service.requests.count == statuses.count { $0 == 200 }, "the others never got there")
      let refused = try eventually("one is too many") { () -> HTTPAnswer? in
        let answer = try http.send("GET", "/x")
        return answer.status == 429 ? answer : nil
      }
      #expect(refused["retry-after"] == "1" && refused["content-type"] == "application/problem+json")
      #expect(refused.text.contains("too many requests"))
      let refusals = Double(statuses.count { $0 == 429 })
      #expect(try gateway.metric("rig_rate_limited_requests_total") > refusals)
      #expect(try gateway.metric("rig_proxy_requests_total", ["status": "rate_limited"]) > refusals)
      try eventually("the bucket is counted") { try gateway.metric("rig_rate_limit_buckets") == 1 }
      #expect(try gateway.metric("rig_rate_limit_bytes") > 0)
    }
  }

  @Test(
    "Each client of a trusted proxy and each service has a bucket of its own; nobody chooses one by claiming an address"
  )
  func apart() throws {
    let (first, second) = (try TestService(), try TestService())
    defer {
      first.stop()
      second.stop()
    }
    try Gateway.run(Self.settings(["TRUSTED_PROXIES": "127.0.0.1/32"])) { gateway in
      try Self.define(gateway, first)
      try Self.define(gateway, second, id: "other", path: "/y")
      for (client, path) in [("1.2.3.4", "/x"), ("1.2.3.5", "/x"), ("2001:db8::1", "/x"), ("1.2.3.4", "/y")] {
        let begin = ContinuousClock.now
        // What stands before the last untrusted address anybody may have written.
        let statuses = try (0..<30).map { index in
          try gateway.inbound("GET", path, headers: [("x-forwarded-for", "9.9.9.\(index), \(client)")]).status
        }
        Self.expectBurst(statuses, since: begin)
      }
    }
  }

  @Test("13.B12: all addresses of one /64 share a bucket; those of another have their own")
  func networks() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(Self.settings(["TRUSTED_PROXIES": "127.0.0.1/32"])) { gateway in
      try Self.define(gateway, service)
      for network in ["2001:db8:0:1", "2001:db8:0:2"] {
        let begin = ContinuousClock.now
        let statuses = try (0..<60).map { index in
          try gateway.inbound("GET", "/x", headers: [("x-forwarded-for", "\(network)::\(index)")]).status
        }
        Self.expectBurst(statuses, since: begin)
      }
    }
  }

  @Test("13.B12: requests to a topic are limited as those to a service are, before their bodies are read")
  func topics() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, Self.settings())) { gateway in
        try gateway.define(
          TestAPI(
            id: "shop", port: 1,
            endpoint: #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders""#))
        func order() throws -> HTTPAnswer {
          try gateway.inbound(
            "POST", "/orders", headers: [("content-type", "application/json")], body: CloudEvent.json("order")
          )
        }
        let begin = ContinuousClock.now
        var statuses: [Int] = []
        for _ in 0..<40 { statuses.append(try order().status == 202 ? 200 : 429) }
        Self.expectBurst(statuses, since: begin)
        let refused = try eventually("one is too many") { () -> HTTPAnswer? in
          let answer = try order()
          return answer.status == 429 ? answer : nil
        }
        #expect(refused["retry-after"] == "1" && refused["content-type"] == "application/problem+json")
        #expect(refused.text.contains("topic orders"))
        let refusals = Double(statuses.count { $0 == 429 })
        #expect(try gateway.metric("rig_rate_limited_requests_total") > refusals)
        let limited = ["target": "kafka", "status": "rate_limited"]
        #expect(try gateway.metric("rig_proxy_requests_total", limited) > refusals)
        try eventually("an upload is refused before it has come") {
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(HTTPConnection.request("POST", "/orders", headers: [("content-length", "100")]))
          // One that counted waits for its body, and so for ever.
          return (try? http.head(Deadline(after: 2)).status) == 429
        }
      }
    }
  }

  @Test("Without RATE_LIMIT_PER_IP all clients of a service share its bucket")
  func together() throws {
    let service = try TestService()
    defer { service.stop() }
    let settings = ["TRUSTED_PROXIES": "127.0.0.1/32", "RATE_LIMIT_PER_IP": "false"]
    try Gateway.run(Self.settings(settings)) { gateway in
      try Self.define(gateway, service)
      let begin = ContinuousClock.now
      let statuses = try (0..<60).map { index in
        try gateway.inbound("GET", "/x", headers: [("x-forwarded-for", "1.2.3.\(index)")]).status
      }
      Self.expectBurst(statuses, since: begin)
    }
  }

  @Test("A killed connection worker changes no bucket; the buckets of a killed proxy worker are full again")
  func crashes() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(Self.settings(["PROXY_WORKERS": "1"])) { gateway in
      try Self.define(gateway, service)
      func statuses() throws -> [Int] { try (0..<40).map { _ in try gateway.inbound("GET", "/x").status } }
      var begin = ContinuousClock.now
      var all = try statuses()
      for worker in gateway.workers(.connections) { try gateway.killAndAwaitReplacement(worker) }
      all += try statuses()
      Self.expectBurst(all, since: begin)
      begin = ContinuousClock.now
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.proxies).first))
      Self.expectBurst(try statuses(), since: begin)
    }
  }

  @Test("A request that is tried twice takes one token, and without RATE_LIMIT_ENABLED nothing is limited")
  func tries() throws {
    let service = try TestService(.hangUp)
    defer { service.stop() }
    try Gateway.run(Self.settings()) { gateway in
      try Self.define(gateway, service)
      let begin = ContinuousClock.now
      let statuses = try (0..<40).map { _ in try gateway.inbound("GET", "/x").status == 502 ? 200 : 429 }
      Self.expectBurst(statuses, since: begin)
    }
    service.behave(.answer(200))
    try Gateway.run(Self.settings(["RATE_LIMIT_ENABLED": "false"])) { gateway in
      try Self.define(gateway, service)
      for _ in 0..<40 { #expect(try gateway.inbound("GET", "/x").status == 200) }
    }
  }
}
