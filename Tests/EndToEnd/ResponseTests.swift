// Requests that are answered later, by a record of Kafka or by POST /v3/responses: every way of them, and what becomes of responses
// that are late, repeated, forged or for nobody. Contract §8.

import Foundation
import Testing

@Suite("Responses to waiting requests", .serialized)
struct ResponseTests {
  private static let topics = ["rig", "orders", "rig-proxy-response"]

  private static func toKafka(_ response: String) -> TestAPI {
    TestAPI(
      id: "shop", port: 1,
      endpoint:
        #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders","response_from":"\#(response)""#
    )
  }

  private static func toService(_ response: String, port: Int) -> TestAPI {
    TestAPI(
      id: "svc", port: port,
      endpoint:
        #""method":"POST","path_regex":"/jobs","path_replacement":"/work?a=b","response_from":"\#(response)""#
    )
  }

  /// A request that is under way over a connection of its own.
  private func send(_ gateway: Gateway, _ path: String, body: String = CloudEvent.json("order")) throws
    -> HTTPConnection
  {
    let http = try HTTPConnection(port: gateway.inboundPort)
    try http.wire.send(HTTPConnection.request("POST", path, body: body))
    return http
  }

  /// The correlation of the `number`th record in `orders`.
  private func correlation(_ broker: KafkaBroker, _ number: Int = 1) throws -> String {
    try eventually("the request is in the topic") {
      let records = try KafkaLog.records("orders", at: broker.address)
      return records.count >= number ? try records[number - 1].json["rig"]?["correlation"]?.string : nil
    }
  }

  /// The correlation of the last request at the service.
  private func correlation(_ service: TestService, _ number: Int = 1) throws -> String {
    let path = try eventually("the service has the request") {
      service.requests.count >= number ? service.requests[number - 1].path : nil
    }
    let prefix = "/work?a=b&x=1&correlation="
    guard path.hasPrefix(prefix) else { throw TestFailure("path \(path)") }
    return String(path.dropFirst(prefix.count))
  }

  private static let answers = "rig_responses_total"

  // MARK: Kafka both ways

  @Test("A request to Kafka is answered by a record: its status, its fields, its body byte for byte, once")
  func byKafka() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      try Gateway.run(Gateway.kafka(broker.address, ["PROXY_KAFKA_RESPONSE_TIMEOUT": "60000"])) { gateway in
        try gateway.awaitReading("rig-proxy-response")
        try gateway.define(Self.toKafka("kafka"))
        let http = try send(gateway, "/orders")
        let id = try correlation(broker)
        #expect(try gateway.metric("rig_waiting_requests") == 1)
        let bytes = (0...255).map { UInt8($0) } + [0, 0xff, 0xfe]
        try broker.respond(
          id, status: "418",
          headers: [
            "content-type=image/x-test", "x-kept=1", "transfer-encoding=chunked", "content-length=3",
            "connection=x-kept-not", "x-kept-not=1", "user-agent=kcat", "host=a", "rig-other=1",
            "bad name=1", "x-split=a\nset-cookie: b", "set-cookie=c=d", "content_length=3",
            "transfer_encoding=x",
            "x_forwarded_for=6.6.6.6", "x-real-ip=6.6.6.6", "Via=1.1 x", "rig_other=1",
            "proxy_authorization=x",
          ], body: bytes)
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 418 && answer.body == bytes)
        #expect(answer["content-type"] == "image/x-test" && answer["x-kept"] == "1")
        #expect(answer.head.all("set-cookie") == ["c=d"] && answer["content-length"] == "259")
        for name in [
          "transfer-encoding", "user-agent", "host", "rig-other", "bad name", "x-split", "rig-correlation",
          "content_length", "transfer_encoding", "x_forwarded_for", "x-real-ip", "via", "rig_other",
          "proxy_authorization",
        ] {
          #expect(answer[name] == nil, "\(name)")
        }
        // The connection is still of use, and the response isn't.
        try broker.respond(id)
        try eventually("the duplicate is counted") {
          try gateway.metric(Self.answers, ["source": "kafka", "result": "unknown"]) == 1
        }
        #expect(try gateway.metric(Self.answers, ["source": "kafka", "result": "delivered"]) == 1)
        #expect(try gateway.metric("rig_waiting_requests") == 0)
        #expect(
          try gateway.metric(
            "rig_proxy_requests_total", ["target": "kafka", "response_from": "kafka", "status": "ok"]) == 1)
        // RIG 2 had the correlation in the body; the default status is 200.
        try http.wire.send(HTTPConnection.request("POST", "/orders", body: CloudEvent.json("order")))
        let second = try correlation(broker, 2)
        let event = CloudEvent.json("done", extra: #""rig":{"correlation":"\#(second)","response_code":201}"#)
        try broker.publish(Array(event.utf8), topic: "rig-proxy-response", headers: [])
        let later = try http.answer(to: "POST")
        #expect(later.status == 201 && later.text == event && later["content-type"] == "application/json")
        #expect(try gateway.metric("rig_consumed_events_total") == 0, "responses are no events")
      }
    }
  }

  @Test(
    "A response larger than any record of a ring comes whole, one that is too large doesn't; neither do those that are none"
  )
  func sizes() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = [
        "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000", "RESPONSE_RING_BYTES": "65536", "MAX_EVENT_BYTES": "950000",
      ]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading("rig-proxy-response")
        try gateway.define(Self.toKafka("kafka"))
        // The request too, through a ring with records of 8 KiB.
        let large = String(repeating: "0123456789abcdef", count: 57_600)
        let http = try send(gateway, "/orders", body: CloudEvent.json("order", data: "\"\(large)\""))
        let id = try correlation(broker)
        #expect(try KafkaLog.record("orders", at: broker.address).json["data"]?.string == large)
        try broker.respond(id, body: [UInt8](repeating: 7, count: 950_001))
        try broker.respond(id, status: "199")
        try broker.respond(id, status: "abc")
        try broker.respond("nonsense")
        try broker.publish(Array("no JSON".utf8), topic: "rig-proxy-response", headers: [])
        try broker.publish(Array(CloudEvent.json("x").utf8), topic: "rig-proxy-response", headers: [])
        try broker.respond(id, body: Array(large.utf8))
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 200 && answer.text == large)
        for (result, count) in [("too_large", 1.0), ("invalid", 4), ("unknown", 1), ("delivered", 1)] {
          #expect(
            try gateway.metric(Self.answers, ["source": "kafka", "result": result]) == count, "\(result)")
        }
        #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      }
    }
  }

  @Test(
    "Of several nodes the one whose request waits takes the response from Kafka, the others leave it alone")
  func nodes() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = Gateway.kafka(broker.address, ["PROXY_KAFKA_RESPONSE_TIMEOUT": "60000"])
      try Gateway.run(settings) { first in
        try Gateway.run(settings) { second in
          for gateway in [first, second] {
            try gateway.awaitReading("rig-proxy-response")
            try gateway.define(Self.toKafka("kafka"))
          }
          var number = 0
          for (gateway, other) in [(first, second), (second, first)] {
            let http = try send(gateway, "/orders")
            number += 1
            let id = try correlation(broker, number)
            #expect(try other.respond(id).status == 404)
            try broker.respond(id, body: Array("mine".utf8))
            #expect(try http.answer(to: "POST").text == "mine")
            try eventually("the other one has seen it too") {
              try other.metric(Self.answers, ["source": "kafka", "result": "foreign"]) == 1
            }
          }
        }
      }
    }
  }

  // MARK: Services by HTTP

  @Test(
    "A service that has accepted answers later, by Kafka or by HTTP; what it said with its 202 is nobody's")
  func byService() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let service = try TestService(.answer(202, body: "thrown away", fields: [("x-first", "1")]))
      defer { service.stop() }
      let settings = [
        "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000",
      ]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading("rig-proxy-response")
        try gateway.define(Self.toService("kafka", port: service.port))
        var http = try send(gateway, "/jobs?x=1&correlation=mine", body: "hello")
        try broker.respond(try correlation(service), status: "201", body: Array("by Kafka".utf8))
        var answer = try http.answer(to: "POST")
        #expect(answer.status == 201 && answer.text == "by Kafka" && answer["x-first"] == nil)
        #expect(service.requests.last?.body == "hello")

        #expect(
          try gateway.manageAPIs(
            "PUT", "/v3/apis/svc", Self.toService("http_async", port: service.port).json
          ).status == 200)
        http = try send(gateway, "/jobs?x=1", body: "hello")
        let id = try correlation(service, 2)
        let said = try gateway.respond(id, status: "203", headers: [("x-kept", "1")], body: "by HTTP")
        #expect(said.status == 202, "\(said.text)")
        answer = try http.answer(to: "POST")
        #expect(answer.status == 203 && answer.text == "by HTTP" && answer["x-kept"] == "1")
        #expect(try gateway.respond(id).status == 404, "once")
        // Anything but 202 is the answer.
        service.behave(.answer(409, body: "no", fields: [("x-first", "1")]))
        try http.wire.send(HTTPConnection.request("POST", "/jobs?x=1", body: "hello"))
        answer = try http.answer(to: "POST")
        #expect(answer.status == 409 && answer.text == "no" && answer["x-first"] == "1")
        #expect(try gateway.respond(try correlation(service, 3)).status == 404)
        #expect(try gateway.metric("rig_waiting_requests") == 0)
        for (response, count) in [("kafka", 1.0), ("http_async", 2)] {
          #expect(
            try gateway.metric(
              "rig_proxy_requests_total",
              ["target": "http", "response_from": response, "status": "ok"]) == count)
        }
        #expect(try gateway.metric("rig_proxied_requests_in_progress") == 0)
      }
    }
  }

  @Test("14.D20 /v2/responses takes a CloudEvent that says by rig.correlation for whom it is")
  func byEvent() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.toService("http_async", port: service.port))
      func respond(_ rig: String, path: String = "/v2/responses") throws -> (
        answer: HTTPAnswer, event: String
      ) {
        let event = CloudEvent.json("done", data: #"{"a":[1, 2]}"#, extra: #""rig":\#(rig)"#)
        return (
          try gateway.management("POST", path, headers: [("content-type", "application/json")], body: event),
          event
        )
      }
      for (code, status) in [("", 200), (#","response_code":201"#, 201)] {
        let http = try send(gateway, "/jobs?x=1")
        let id = try correlation(service, service.requests.isEmpty ? 1 : 2)
        let (answer, event) = try respond(#"{"correlation":"\#(id)"\#(code)}"#)
        #expect(answer.status == 202, "\(answer.text)")
        let got = try http.answer(to: "POST")
        #expect(got.status == status && got.text == event && got["content-type"] == "application/json")
        #expect(try respond(#"{"correlation":"\#(id)"}"#).answer.status == 404)
      }
      try expectProblem(respond("{}").answer, 400, naming: "rig.correlation")
      try expectProblem(respond(#"{"correlation":"x"}"#).answer, 400, naming: "rig.correlation", "x")
      try expectProblem(respond("{}", path: "/v3/responses").answer, 400, naming: "header rig-correlation")
    }
  }

  @Test(
    "14.D20 One topic has events and responses: what has the header rig-correlation is a response, all else an event"
  )
  func sharedTopic() throws {
    try KafkaBroker.run(topics: ["rig"]) { broker in
      let settings = ["PROXY_KAFKA_RESPONSE_TOPICS": "rig", "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000"]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(
          TestAPI(
            id: "shop", port: 1,
            endpoint:
              #""method":"POST","path_regex":"/orders","target":"kafka","topic":"rig","response_from":"kafka""#
          ))
        let client = try SSEClient.open(gateway, Subscriptions.to("order", "done", "end"))
        let http = try send(gateway, "/orders")
        // The request itself is an event, though it has a rig.correlation.
        let order = try client.event(named: "order").json
        let id = try #require(order["rig"]?["correlation"]?.string)
        try broker.respond(
          id, status: "201", headers: ["content-type=application/json"],
          body: Array(CloudEvent.json("done").utf8), topic: "rig")
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 201 && answer.text == CloudEvent.json("done"))
        try broker.publish([CloudEvent.json("end")])
        #expect(try client.events(until: "end").isEmpty, "a response is no event")
        let consumed = ["source": "kafka", "topic": "rig"]
        try eventually("the events are counted") {
          try gateway.metric("rig_consumed_events_total", consumed) == 2
        }
        #expect(
          try gateway.metric("rig_consumed_event_processing_duration_milliseconds_count", consumed) >= 2)
      }
    }
  }

  @Test("A response that is faster than the service's 202 is kept until that")
  func early() throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(["PROXY_RECV_TIMEOUT": "60000"]) { gateway in
      try gateway.define(Self.toService("http_async", port: service.port))
      let http = try send(gateway, "/jobs?x=1")
      #expect(try gateway.respond(try correlation(service), body: "early").status == 202)
      service.behave(.answer(202))
      let answer = try http.answer(to: "POST")
      #expect(answer.status == 200 && answer.text == "early")
      // It answers nothing but a 202.
      service.behave(.held)
      try http.wire.send(HTTPConnection.request("POST", "/jobs?x=1", body: ""))
      #expect(try gateway.respond(try correlation(service, 2), body: "early").status == 202)
      service.behave(.answer(400, body: "own"))
      let own = try http.answer(to: "POST")
      #expect(own.status == 400 && own.text == "own")
    }
  }

  @Test("A request to Kafka is answered by HTTP as well")
  func kafkaByHTTP() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = ["PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000"]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(Self.toKafka("http_async"))
        let http = try send(gateway, "/orders")
        let body = String(repeating: "x", count: 900_000)
        #expect(try gateway.respond(try correlation(broker), body: body).status == 202)
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 200 && answer.text == body)
      }
    }
  }

  @Test(
    "15.5 A response's fields reach the client octet for octet, by Kafka and by HTTP, whatever their coding")
  func octets() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let service = try TestService(.answer(202))
      defer { service.stop() }
      let settings = [
        "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000",
      ]
      let field = Array("x-latin: caf".utf8) + [0xE9, 0xFF] + Array("\r\n".utf8)
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading("rig-proxy-response")
        for (number, response) in ["kafka", "http_async"].enumerated() {
          let api = Self.toService(response, port: service.port)
          let defined = try gateway.manageAPIs(
            number == 0 ? "POST" : "PUT", "/v3/apis\(number == 0 ? "" : "/svc")", api.json)
          #expect([200, 201].contains(defined.status), "\(defined.text)")
          let http = try send(gateway, "/jobs?x=1")
          let id = try correlation(service, number + 1)
          if response == "kafka" {
            try broker.respond(id, printed: #"x-latin=caf\351\377"#)
          } else {
            let service = try HTTPConnection(port: gateway.managementPort)
            let head =
              "POST /v3/responses HTTP/1.1\r\nhost: a\r\nrig-correlation: \(id)\r\nrig-response-code: 200\r\n"
            _ = try service.wire.send(Array(head.utf8) + field + Array("content-length: 1\r\n\r\nx".utf8))
            #expect(try service.answer(to: "POST").status == 202)
          }
          var answer: [UInt8] = []
          _ = try http.wire.receive("the answer") { (queue: inout ByteQueue) -> Bool? in
            answer += queue.takeAll()
            return answer.suffix(5) == Array("\r\n\r\nx".utf8)[...] ? true : nil
          }
          #expect(answer.firstRange(of: Array("\r\n".utf8) + field) != nil, "\(response)")
        }
      }
    }
  }

  // MARK: POST /v3/responses

  @Test("What is wrong with a response by HTTP is named; a forged correlation is unknown")
  func byHTTP() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    try Gateway.run(["PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000", "MAX_EVENT_BYTES": "2000"]) { gateway in
      try gateway.define(Self.toService("http_async", port: service.port))
      let http = try send(gateway, "/jobs?x=1")
      let id = try correlation(service)
      for (headers, named) in [
        ([("rig-response-code", "200")], "rig-correlation"),
        ([("rig-correlation", "short"), ("rig-response-code", "200")], "rig-correlation"),
        ([("rig-correlation", id)], "rig-response-code"),
        ([("rig-correlation", id), ("rig-response-code", "100")], "rig-response-code"),
        ([("rig-correlation", id), ("rig-response-code", "600")], "rig-response-code"),
        ([("rig-correlation", id), ("rig-response-code", "+20")], "rig-response-code"),
        ([("rig-correlation", id), ("rig-correlation", id), ("rig-response-code", "200")], "twice"),
      ] as [([(String, String)], String)] {
        let answer = try gateway.management("POST", "/v3/responses", headers: headers, body: "")
        #expect(answer.status == 400 && answer.text.contains(named), "\(answer.text)")
      }
      #expect(try gateway.management("GET", "/v3/responses").status == 405)
      #expect(try gateway.respond(id, body: String(repeating: "x", count: 2001)).status == 413)
      // Every character of an id counts: worker, life of the gateway, number, authentication.
      for position in [0, 1, 3, 9, 12, 20, 22, 30, 40] {
        var characters = Array(id)
        characters[position] = characters[position] == "A" ? "B" : "A"
        #expect(try gateway.respond(String(characters)).status == 404, "\(position)")
      }
      let good = try gateway.respond(id, status: "599", body: "fine", path: "/v2/responses")
      #expect(good.status == 202, "\(good.text)")
      let answer = try http.answer(to: "POST")
      #expect(answer.status == 599 && answer.text == "fine")
      #expect(try gateway.metric(Self.answers, ["source": "http", "result": "invalid"]) == 7)
    }
  }

  // MARK: Time, bounds, faults

  @Test("Without a response in time the answer is 504, and the response then finds nobody")
  func timeout() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let service = try TestService(.answer(202))
      defer { service.stop() }
      let settings = ["PROXY_KAFKA_RESPONSE_TIMEOUT": "300", "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "300"]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(Self.toKafka("kafka"))
        try gateway.define(Self.toService("http_async", port: service.port))
        for (path, body) in [("/orders", CloudEvent.json("order")), ("/jobs?x=1", "")] {
          let answer = try gateway.inbound("POST", path, body: body)
          #expect(answer.status == 504 && answer["content-type"] == "application/problem+json")
        }
        #expect(try gateway.respond(try correlation(service)).status == 404)
        #expect(try gateway.respond(try correlation(broker)).status == 404)
        #expect(try gateway.metric(Self.answers, ["source": "http", "result": "unknown"]) == 2)
        #expect(try gateway.metric("rig_waiting_requests") == 0)
      }
    }
  }

  @Test("More waiting requests than allowed are refused; one whose client goes makes room")
  func bounded() throws {
    let service = try TestService(.answer(202))
    defer { service.stop() }
    let settings = [
      "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000", "MAX_WAITING_REQUESTS": "1", "CONNECTION_WORKERS": "1",
    ]
    try Gateway.run(settings) { gateway in
      try gateway.define(Self.toService("http_async", port: service.port))
      var first: HTTPConnection? = try send(gateway, "/jobs?x=1")
      _ = try correlation(service)
      #expect(first != nil)
      let refused = try gateway.inbound("POST", "/jobs?x=1", body: "")
      #expect(refused.status == 503 && refused["retry-after"] == "1")
      #expect(service.requests.count == 1)
      first = nil
      try eventually("nobody waits any more") { try gateway.metric("rig_waiting_requests") == 0 }
      let second = try send(gateway, "/jobs?x=1")
      #expect(try gateway.respond(try correlation(service, 2), body: "second").status == 202)
      #expect(try second.answer(to: "POST").text == "second")
    }
  }

  @Test("A response that is produced while no streams worker lives is found by the next one")
  func missedResponse() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = ["PROXY_KAFKA_RESPONSE_TIMEOUT": "60000", "RESTART_INTENSITY": "100"]
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(Self.toKafka("kafka"))
        let http = try send(gateway, "/orders")
        let id = try correlation(broker, 1)
        let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
        let streams = try #require(gateway.workers(.streams).first)
        try supervisor.freeze()
        kill(streams.pid, SIGKILL)
        try eventually("the streams worker is dead") { streams.state.map { $0 == "Z" } ?? true }
        try broker.respond(id, body: Array("late".utf8))
        supervisor.thaw()
        #expect(try http.answer(to: "POST").text == "late")
      }
    }
  }

  @Test("Requests go on waiting when control and streams workers die, and end with their own worker")
  func deaths() throws {
    try KafkaBroker.run(topics: Self.topics) { broker in
      let settings = [
        "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000", "CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "100",
      ].merging(Gateway.withoutKeepers) { $1 }
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.define(Self.toKafka("kafka"))
        let (first, second, third) = (
          try send(gateway, "/orders"), try send(gateway, "/orders"), try send(gateway, "/orders")
        )
        let ids = try (1...3).map { try correlation(broker, $0) }
        let records = try KafkaLog.records("orders", at: broker.address)
        #expect(Set(ids).count == 3 && records.count == 3)
        for kind in [WorkerKind.streams, .control] {
          try gateway.killAndAwaitReplacement(try #require(gateway.workers(kind).first))
        }
        // By whichever way: each id belongs to one of the three.
        try eventually("the successor reads the topic") {
          gateway.logged("reading a partition").filter { $0["partition"] == "rig-proxy-response/0" }.count
            == 2
        }
        try broker.respond(ids[0], body: Array("one".utf8))
        #expect(try gateway.respond(ids[1], body: "one").status == 202)
        try eventually("two are answered") { try gateway.metric("rig_waiting_requests") == 1 }
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
        #expect(try gateway.respond(ids[2], body: "one").status == 404)
        var answered = 0
        for http in [first, second, third] {
          if let answer = try? http.answer(to: "POST") {
            #expect(answer.status == 200 && answer.text == "one")
            answered += 1
          }
        }
        #expect(answered == 2)
      }
    }
  }
}
