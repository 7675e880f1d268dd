// What is logged and counted of proxied requests. Contract §8, §9.

import Foundation
import Testing

@Suite("Log and figures of proxied requests")
struct RequestLogTests {
  private static let message = "proxied request"
  private static let post = #""method":"POST","path_regex":"/x.*""#

  private static func records(_ gateway: Gateway, _ count: Int) throws -> [JSON] {
    try eventually("\(count) records") {
      let records = gateway.logged(message)
      return records.count >= count ? records : nil
    }
  }

  @Test("One record for each request at its end, whatever its end is and whatever LOG_LEVEL says")
  func records() throws {
    let service = try TestService(.answer(201, body: "made"))
    defer { service.stop() }
    let settings = [
      "REQUEST_LOG": "console", "LOG_LEVEL": "critical", "TRUSTED_PROXIES": "127.0.0.0/8",
      "PROXY_RECV_TIMEOUT": "60000",
    ]
    try Gateway.run(settings) { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: Self.post))
      let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      let headers = [("x-forwarded-for", "192.0.2.7"), ("traceparent", trace)]
      let path = "/x/%2f\"a"
      #expect(
        try gateway.inbound("POST", "\(path)?token=secret", headers: headers, body: "12345").status == 201)
      let first = try #require(try Self.records(gateway, 1).first)
      let expected: [(String, JSON)] = [
        ("level", "info"), ("method", "POST"), ("path", .string(path)), ("api", "books"),
        ("endpoint", "only"), ("target", "http"), ("response_from", "http"), ("remote", "192.0.2.7"),
        ("status", 201), ("complete", true), ("bytes_in", 5), ("bytes_out", 4),
        ("traceparent", .string(trace)),
      ]
      for (name, value) in expected { #expect(first[name] == value, "\(name): \(first)") }
      #expect(first["duration_ms"]?.integer ?? -1 >= 0 && first["worker"]?.string == "connections")
      #expect(!gateway.log.contains("secret"))

      service.behave(.cut)
      #expect(throws: (any Error).self) { try gateway.inbound("POST", "/x", body: "a") }
      let cut = try #require(try Self.records(gateway, 2).last)
      #expect(cut["status"] == 200 && cut["complete"] == false && cut["bytes_out"] == 3)

      service.behave(.silence)
      var http: HTTPConnection? = try HTTPConnection(port: gateway.inboundPort)
      try http?.wire.send(HTTPConnection.request("POST", "/x", body: "abc"))
      try eventually("the service has the request") { service.requests.count == 3 }
      http?.wire.reset()
      http = nil
      let gone = try #require(try Self.records(gateway, 3).last)
      #expect(gone["status"] == 0 && gone["complete"] == false && gone["bytes_in"] == 3)

      #expect(try gateway.metric("rig_proxied_bytes_total", ["direction": "request"]) == 9)
      #expect(try gateway.metric("rig_proxied_bytes_total", ["direction": "response"]) == 7)
      for (status, count) in [("2xx", 2.0), ("gone", 1), ("5xx", 0)] {
        let name = "rig_proxy_request_duration_seconds_count"
        #expect(try gateway.metric(name, ["status": status]) == count, "\(status)")
      }
      #expect(try gateway.metric("rig_request_log_dropped_total") == 0)
    }
  }

  @Test(
    "A refusal by the gateway itself has a record too; without REQUEST_LOG there is none, but the figures are there"
  )
  func refusals() throws {
    let service = try TestService()
    defer { service.stop() }
    for log in ["console", ""] {
      try Gateway.run(TestToken.settings(["REQUEST_LOG": log])) { gateway in
        try gateway.define(
          TestAPI(port: service.port, endpoint: Self.post + #","secured":true"#, more: #""auth_type":"jwt""#))
        #expect(try gateway.inbound("POST", "/x", body: "a").status == 401)
        #expect(try gateway.metric("rig_proxy_request_duration_seconds_count", ["status": "4xx"]) == 1)
        guard !log.isEmpty else { return #expect(gateway.logged(Self.message).isEmpty) }
        let refused = try #require(try Self.records(gateway, 1).first)
        #expect(refused["status"] == 401 && refused["complete"] == true && refused["bytes_out"] == 0)
      }
    }
  }

  @Test(
    "14.D20 Records go to a topic of Kafka too, as RIG's CloudEvents; what the brokers don't take is dropped and counted, and requests are answered"
  )
  func kafka() throws {
    let service = try TestService()
    defer { service.stop() }
    try KafkaBroker.run(topics: ["rig", "requests"]) { broker in
      let settings = [
        "REQUEST_LOG": "console,kafka", "REQUEST_LOG_TOPIC": "requests", "KAFKA_PUBLISH_TIMEOUT_MS": "10000",
      ]
      let kafka = Gateway.kafka(broker.address).merging(settings) { $1 }
      try Gateway.run(kafka) { gateway in
        try gateway.define(TestAPI(port: service.port, endpoint: Self.post))
        #expect(try gateway.inbound("POST", "/x", body: "abc").status == 200)
        // Nobody waits for it, the first one also not for a producer to be made.
        let record = try eventually("the record is in the topic") {
          try KafkaLog.records("requests", at: broker.address).first
        }
        #expect(record.key.isEmpty && record.headers == "content-type=application/cloudevents+json")
        let json = try record.json
        #expect(json["type"] == "com.rig.proxy.api.call" && json["source"] == "/rig")
        #expect(json["time"]?.string?.hasSuffix("Z") == true && json["id"]?.string?.isEmpty == false)
        #expect(json["traceparent"]?.string?.isEmpty == false)
        let data = try #require(json["data"])
        #expect(data["request_path"] == "/x" && data["remote_ip"] == "127.0.0.1")
        #expect(data["endpoint"]?["id"] == "only" && data["endpoint"]?["path_regex"] == "/x.*")
        #expect(data["method"] == "POST" && data["status"] == 200)
        #expect(data["bytes_in"] == 3 && data["api"] == "books")
        #expect(try Self.records(gateway, 1).count == 1)

        try broker.stop()
        #expect(try gateway.inbound("POST", "/x", body: "abc").status == 200)
        try eventually("the record is given up") {
          try gateway.metric("rig_request_log_dropped_total", ["log": "kafka"]) == 1
        }
      }
    }
  }

  @Test("With a log that nobody reads requests are answered all the same, and what is dropped is counted")
  func blockedLog() throws {
    let service = try TestService()
    defer { service.stop() }
    let directory = try TestDirectory()
    let fifo = "\(directory.path)/log"
    try #require(mkfifo(fifo, 0o600) == 0)
    // Both ends are open in the shell's child, and nobody reads.
    let launcher = ["/bin/bash", "-c", "exec 2<>'\(fifo)'; exec \"$@\"", "sh"]
    let settings = ["REQUEST_LOG": "console", "LOG_LEVEL": "critical", "CONNECTION_WORKERS": "1"]
    try Gateway.run(settings, launcher: launcher) { gateway in
      let path = "/" + String(repeating: "x", count: 1000)
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"GET","path_regex":"/x.*""#))
      let http = try HTTPConnection(port: gateway.inboundPort)
      // The pipe holds 64 KiB and the worker 1 MiB.
      for _ in 0..<1_500 { #expect(try http.send("GET", path).status == 200) }
      #expect(try gateway.metric("rig_request_log_dropped_total", ["log": "console"]) > 0)
      #expect(try gateway.metric("rig_worker_restarts_total") == 0)
    }
  }
}
