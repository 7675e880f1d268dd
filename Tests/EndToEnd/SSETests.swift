// Server-Sent Events as frontends see them: contract §2.1.

import Glibc
import Testing

@Suite("Server-Sent Events")
struct SSETests {
  private let greeting = "subscriptions=" + HTTP.encoded(Subscriptions.to("greeting"))

  @Test("A stream begins with retry, then the connection's token, then the subscriptions in force")
  func greetingRecords() throws {
    try Gateway.run { gateway in
      let client = try SSEClient(gateway, query: greeting)
      #expect(client.head.status == 200)
      #expect(client.head["content-type"] == "text/event-stream; charset=utf-8")
      #expect(client.head["cache-control"] == "no-cache")
      #expect(client.head["x-accel-buffering"] == "no")
      #expect(client.head["access-control-allow-origin"] == "*")

      let retry = try client.record()
      #expect(retry == (try SSEEvent(record: "retry: \(retry.retry ?? "")")))
      #expect((1_000...3_000).contains(retry.retry.flatMap(Int.init) ?? 0))
      let created = try client.event(named: "rig.connection.create")
      #expect(created.id == nil)
      let json = try created.json
      #expect(json["specversion"] == "1.0")
      #expect(json["type"] == "rig.connection.create")
      #expect(json["source"] == "rig")
      #expect(json["id"]?.string?.isEmpty == false)
      #expect(json["time"]?.string?.contains("T") == true)
      #expect(json["data"]?["errors"] == [])
      #expect((json["data"]?["connection_token"]?.string?.count ?? 0) >= 22)
      let subscriptions = try client.event(named: "rig.subscriptions_set")
      #expect(subscriptions.id?.isEmpty == false)
      #expect(try subscriptions.json["data"] == [["eventType": "greeting", "oneOf": []]])
    }
  }

  @Test(
    "An event comes with its cursor, its type and itself as one line of JSON, and unknown attributes are kept"
  )
  func delivery() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("greeting"))
      let event = CloudEvent.json(
        "greeting", data: #"{"text":"hellö \n\u0041"}"#, extra: #""comexampleextra":[1,{"a":2}]"#)
      try gateway.publish(event.replacing(",", with: " ,\n  "))
      let received = try client.event()
      #expect(received.name == "greeting")
      #expect(received.id?.isEmpty == false)
      var expected = try #require(try JSON(parsing: event).object)
      var found = try #require(try received.json.object)
      expected["traceparent"] = found["traceparent"]
      found["traceparent"] = found["traceparent"] ?? .null
      #expect(JSON.object(found) == JSON.object(expected))
      #expect(found["traceparent"]?.string?.hasPrefix("00-") == true)
    }
  }

  @Test(
    "Without subscriptions a stream opens with none",
    arguments: ["", "subscriptions=", "subscriptions=%5B%5D"])
  func noSubscriptions(query: String) throws {
    try Gateway.run { gateway in
      let client = try SSEClient(gateway, query: query)
      #expect(client.head.status == 200)
      #expect(try client.greet().subscriptions["data"] == [])
    }
  }

  @Test("A comment comes as heartbeat when nothing else does")
  func heartbeat() throws {
    try Gateway.run(["HEARTBEAT_S": "1"]) { gateway in
      let client = try SSEClient.open(gateway, "[]")
      #expect(try client.record().comment == "heartbeat")
      #expect(try client.record().comment == "heartbeat")
    }
  }

  @Test(
    "HTTP/1.0 clients get a plain stream that ends with the connection", arguments: ["close", "keep-alive"])
  func oldHTTP(connection: String) throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(
        "GET /_rig/v1/connection/sse?\(greeting) HTTP/1.0\r\nconnection: \(connection)\r\n\r\n")
      let head = try http.head()
      #expect(head.status == 200)
      #expect(head["transfer-encoding"] == nil)
      _ = try http.wire.receive("the greeting") { $0.distance(to: "event: rig.subscriptions_set\n") }
      try gateway.publish(CloudEvent.json("greeting", id: "old"))
      _ = try http.wire.receive("the event") { $0.distance(to: "event: greeting\n") }
    }
  }

  @Test(
    "Bad subscriptions are refused with what is wrong",
    arguments: [
      ("subscriptions=%7B", "JSON"), ("subscriptions=1", "list"), ("subscriptions=%5B1%5D", "object"),
      ("subscriptions=" + HTTP.encoded(#"[{"eventType":""}]"#), "eventType"),
      ("subscriptions=" + HTTP.encoded(#"[{"eventType":1}]"#), "eventType"),
      ("subscriptions=" + HTTP.encoded(#"[{"oneOf":[]}]"#), "eventType"),
      ("subscriptions=" + HTTP.encoded(#"[{"eventType":"a","oneOf":1}]"#), "oneOf"),
      ("subscriptions=" + HTTP.encoded(#"[{"eventType":"a","oneOf":[{"b":{}}]}]"#), "b"),
    ])
  func badSubscriptions(query: String, named: String) throws {
    try Gateway.run { gateway in
      for path in ["sse", "longpolling"] {
        let answer = try gateway.inbound("GET", "/_rig/v1/connection/\(path)?\(query)")
        try expectProblem(answer, 400, naming: named)
        #expect(answer["access-control-allow-origin"] == "*")
      }
      let client = try WebSocketClient(gateway, query: query)
      #expect(client.head.status == 400)
    }
  }

  @Test("Tokens are refused with 401 as long as they can't be verified")
  func tokens() throws {
    try Gateway.run { gateway in
      for path in ["sse", "longpolling"] {
        try expectProblem(try gateway.inbound("GET", "/_rig/v1/connection/\(path)?jwt=x.y.z"), 401)
        let bearer = [("authorization", "Bearer x.y.z")]
        try expectProblem(try gateway.inbound("GET", "/_rig/v1/connection/\(path)", headers: bearer), 401)
      }
      #expect(try WebSocketClient(gateway, query: "jwt=x.y.z").head.status == 401)
      #expect(try gateway.inbound("GET", "/_rig/v1/connection/longpolling?jwt=").status == 200)
    }
  }

  @Test("On an orderly stop the client is told why, and the stream ends")
  func shutdown() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, "[]")
      gateway.process.signal(SIGTERM)
      let closing = try client.event(named: "rig.server_closing")
      #expect(try closing.json["data"]?["reason"]?.string?.isEmpty == false)
      try client.awaitEnd()
      #expect(try gateway.process.wait() == .exited(0))
    }
  }
}
