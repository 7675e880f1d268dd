// Requests that are produced to Kafka: what the brokers get, and what the client is told when they get nothing. Contract §8.

import Foundation
import Testing

@Suite("Requests to Kafka", .serialized)
struct KafkaTargetTests {
  /// POST /orders goes to the topic `orders`.
  private static func api(
    _ more: String = "", version: String = "", definition: String = #""auth_type":"none""#
  )
    -> TestAPI
  {
    TestAPI(
      id: "shop", port: 1,
      endpoint: #""method":"POST","path_regex":"/orders.*","target":"kafka","topic":"orders"\#(more)"#,
      more: definition, version: version)
  }

  private static let json = ("content-type", "application/json")

  @Test("The event is in the topic, with what is known of the request, when its client is told so")
  func produced() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.define(
          Self.api(
            #","transform_request_headers":true"#,
            version: #""transform_request_headers":{"add_headers":{"x-added":"yes"}}"#))
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        let event = CloudEvent.json(
          "order", data: #"{"a":[1,2]}"#, extra: #""rig":{"target_partition":"k7","correlation":"mine"}"#)
        let answer = try gateway.inbound(
          "POST", "/orders/1?x=1&y", headers: [Self.json, ("X-Mine", "ä"), ("traceparent", parent)],
          body: event)
        #expect(answer.status == 202 && answer.text == "Accepted.")
        #expect(answer["content-type"] == "text/plain")

        let record = try KafkaLog.record("orders", at: broker.address)
        #expect(record.key == "k7")
        #expect(record.headers == "content-type=application/cloudevents+json")
        let json = try record.json
        #expect(json["specversion"] == "1.0" && json["type"] == "order" && json["data"] == ["a": [1, 2]])
        #expect(json["traceparent"]?.string == parent)
        let rig = try #require(json["rig"])
        #expect(rig["method"] == "POST" && rig["path"] == "/orders/1" && rig["query"] == "x=1&y")
        #expect(rig["remoteip"] == "127.0.0.1" && rig["scheme"] == "http" && rig["host"] == "localhost")
        #expect(rig["port"] == 80 && rig["target_partition"] == nil)
        #expect(rig["correlation"]?.string?.count == 43)
        let headers = try #require(rig["headers"]?.array)
        #expect(headers.contains(["x-mine", "ä"]) && headers.contains(["x-added", "yes"]))
        #expect(headers.contains(["host", "localhost"]))
        #expect(
          headers.allSatisfy { $0.array?.first?.string.map { $0 == $0.lowercased() } == true }, "14.D20")
        #expect(
          try gateway.metric("rig_produced_events_total", ["target": "kafka", "topic": "orders"]) == 1)
        #expect(
          try gateway.metric(
            "rig_proxy_requests_total",
            ["path": "/orders.*", "target": "kafka", "response_from": "http", "status": "ok"]) == 1)
        // A service can't answer a request that doesn't wait.
        #expect(try gateway.respond(rig["correlation"]?.string ?? "").status == 404)
      }
    }
  }

  @Test("Binary mode, any content type and no content type are taken; the event is structured in the topic")
  func forms() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.define(Self.api())
        let attributes = [
          ("ce-specversion", "1.0"), ("ce-type", "order"), ("ce-source", "/s"), ("ce-id", "b"),
        ]
        let binary = try gateway.inbound(
          "POST", "/orders", headers: attributes + [("content-type", "text/plain")], body: "hello")
        #expect(binary.status == 202, "\(binary.text)")
        for headers in [[], [("content-type", "text/plain")], [CloudEvent.contentType]] {
          let answer = try gateway.inbound(
            "POST", "/orders", headers: headers, body: CloudEvent.json("order"))
          #expect(answer.status == 202, "\(answer.text)")
        }
        let records = try KafkaLog.records("orders", at: broker.address)
        #expect(records.count == 4)
        let first = try #require(records.first).json
        #expect(first["data"] == "hello" && first["datacontenttype"] == "text/plain" && first["id"] == "b")
        let names = first["rig"]?["headers"]?.array?.compactMap { $0[0]?.string } ?? []
        #expect(names.contains("ce-type"))
      }
    }
  }

  @Test("What is no event is refused by name, and nothing is produced")
  func refused() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["MAX_EVENT_BYTES": "2000"])) { gateway in
        try gateway.define(Self.api())
        let batch = ("content-type", "application/cloudevents-batch+json")
        for (body, headers, named) in [
          ("", [], "JSON"), ("no JSON", [], "JSON"), ("[]", [], "object"),
          (#"{"specversion":"1.0","source":"/","id":"1"}"#, [], "type"),
          (#"{"type":"a","source":"/","id":"1"}"#, [], "specversion"),
          (CloudEvent.json("a", extra: #""rig":{"target_partition":7}"#), [], "rig.target_partition"),
          (CloudEvent.json("a", extra: #""rig":1,"rig":2"#), [], "rig is given twice"),
          ("[\(CloudEvent.json("a"))]", [batch], "batch"),
          ("x", [("ce-specversion", "1.0"), ("ce-type", "a"), ("ce-id", "1")], "source"),
          (CloudEvent.json("a"), [("content-type", "application/cloudevents+avro")], "content-type"),
        ] as [(String, [(String, String)], String)] {
          let answer = try gateway.inbound("POST", "/orders", headers: headers, body: body)
          #expect(answer.status == 400, "\(body): \(answer.status)")
          #expect(try answer.json["detail"]?.string?.contains(named) == true, "\(answer.text)")
          #expect(answer["content-type"] == "application/problem+json")
        }
        let large = CloudEvent.json("a", data: "\"\(String(repeating: "x", count: 2000))\"")
        #expect(try gateway.inbound("POST", "/orders", body: large).status == 413)
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send("POST /orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        try http.wire.send("9c4\r\n\(String(repeating: "x", count: 2500))\r\n")
        #expect(try http.answer(to: "POST").status == 413)
        #expect(try KafkaLog.records("orders", at: broker.address).isEmpty)
        // The next request is served.
        #expect(try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202)
      }
    }
  }

  @Test("An endpoint that demands a token produces nothing without one")
  func secured() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["JWT_SECRET_KEY": "mysecret"])) { gateway in
        try gateway.define(
          Self.api(
            #","secured":true"#,
            definition: #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization"}"#))
        #expect(try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 401)
        #expect(try KafkaLog.records("orders", at: broker.address).isEmpty)
      }
    }
  }

  @Test("Without Kafka, or with brokers that are away, the client is told to come again")
  func unavailable() throws {
    try Gateway.run { gateway in
      try gateway.define(Self.api())
      let answer = try gateway.inbound("POST", "/orders", body: CloudEvent.json("a"))
      #expect(answer.status == 503 && answer["retry-after"] == "1")
      #expect(try answer.json["detail"]?.string?.contains("KAFKA_BROKERS") == true)
    }
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["KAFKA_PUBLISH_TIMEOUT_MS": "1500"])) { gateway in
        try gateway.define(Self.api())
        try eventually("requests are taken") {
          try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202
        }
        try broker.stop()
        let answer = try gateway.inbound("POST", "/orders", body: CloudEvent.json("a"))
        #expect(answer.status == 503 && answer["retry-after"] == "1", "\(answer.text)")
        #expect(
          try gateway.metric("rig_produced_events_failed_total", ["target": "kafka", "topic": "orders"]) >= 1)
        try broker.restart()
        try eventually("requests are taken again") {
          try gateway.inbound("POST", "/orders", body: CloudEvent.json("a")).status == 202
        }
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test(
    "A streams worker that is killed before the acknowledgement: its clients are told, and the next ones are served"
  )
  func streamsKilled() throws {
    try KafkaBroker.run(topics: ["rig", "orders"]) { broker in
      let settings = Gateway.kafka(
        broker.address, ["KAFKA_PUBLISH_TIMEOUT_MS": "60000", "WATCHDOG_S": "60", "RESTART_INTENSITY": "100"])
      try Gateway.run(settings) { gateway in
        try gateway.define(Self.api())
        let streams = try #require(gateway.workers(.streams).first)
        // Stopped, it acknowledges nothing, and nobody takes it for dead.
        try streams.freeze()
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(HTTPConnection.request("POST", "/orders", body: CloudEvent.json("a")))
        try eventually("the record is in the ring") {
          try gateway.metric("rig_ring_used_bytes", ["ring": "publications.connections.0"])
            + gateway.metric("rig_ring_used_bytes", ["ring": "publications.connections.1"]) > 0
        }
        try gateway.killAndAwaitReplacement(streams)
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 503 && answer["retry-after"] == "1")
        #expect(answer.text.contains("has ended"), "\(answer.text)")
        // 14.E29: nobody knows whether it was produced, and the answer doesn't claim to.
        #expect(answer.text.contains("may be in topic orders, or not"), "\(answer.text)")
        #expect(try gateway.inbound("POST", "/orders", body: CloudEvent.json("b", id: "2")).status == 202)
        // What its client was told of isn't produced by the successor.
        #expect(try KafkaLog.record("orders", at: broker.address).json["id"] == "2")
      }
    }
  }
}
