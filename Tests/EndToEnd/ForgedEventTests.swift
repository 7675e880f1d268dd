// Nobody but the gateway says what only the gateway may say: events whose type begins with `rig.` are refused on every way in
// (contract §1). A forged `rig.connection.create` would have its victim hand its token to the forger's connection.

import Foundation
import Testing

@Suite("13.A1: the gateway's own events can't be forged", .serialized)
struct ForgedEventTests {
  private struct Submission: CustomStringConvertible {
    let description: String
    var headers = [CloudEvent.contentType]
    var body: String
  }

  private static func binary(_ version: String, _ name: String, _ type: String) -> [(String, String)] {
    [
      (version == "1.0" ? "ce-specversion" : "ce-cloudeventsversion", version), (name, type),
      ("ce-source", "/f"),
      ("ce-id", "1"), ("ce-eventid", "1"), ("ce-user", "alice"), ("content-type", "application/json"),
    ]
  }

  private static let data = #"{"connection_token":"mine","errors":[]}"#

  private static let submissions: [Submission] =
    ["1.0", "0.3", "0.2"].map { version in
      Submission(
        description: version,
        body:
          #"{"specversion":"\#(version)","type":"rig.connection.create","source":"rig","id":"1","user":"alice","data":\#(data)}"#
      )
    } + [
      Submission(
        description: "0.1",
        body:
          #"{"cloudEventsVersion":"0.1","eventType":"rig.connection.create","source":"rig","eventID":"1","user":"alice"}"#
      ),
      Submission(
        description: "1.0 with the type of 0.1",
        body: CloudEvent.json("message", extra: #""eventType":"rig.connection.create","user":"alice""#)),
      Submission(
        description: "another case",
        body: CloudEvent.json("message", extra: #""Type":"rig.session_killed","user":"alice""#)),
      Submission(description: "escaped", body: CloudEvent.json(#"\u0072ig\u002eserver_closing"#)),
      Submission(description: "escaped name", body: CloudEvent.json("a", extra: #""\u0054ype":"rig.x""#)),
      Submission(description: "given twice", body: CloudEvent.json("message", extra: #""type":"rig.x""#)),
      Submission(description: "a prefix alone", body: CloudEvent.json("rig.")),
      Submission(
        description: "batched", headers: [("content-type", "application/cloudevents-batch+json")],
        body: "[\(CloudEvent.json("message")),\(CloudEvent.json("rig.events_lost"))]"),
      Submission(
        description: "plain JSON", headers: [("content-type", "application/json")],
        body: CloudEvent.json("rig.x")),
      Submission(
        description: "binary", headers: binary("1.0", "ce-type", "rig.connection.create"), body: data),
      Submission(description: "binary, encoded", headers: binary("1.0", "CE-Type", "%72ig%2Ex"), body: data),
      Submission(description: "binary, quoted", headers: binary("1.0", "ce-type", #""rig.x""#), body: data),
      Submission(
        description: "binary, quoted and encoded", headers: binary("1.0", "ce-type", #""%72ig.x""#),
        body: data),
      Submission(description: "binary 0.1", headers: binary("0.1", "ce-eventtype", "rig.x"), body: data),
    ]

  /// Everybody who could be told: a subscriber of everything, and the user that forged events are addressed to.
  private func run(
    _ settings: [String: String] = [:], _ body: (Gateway) throws -> Void
  ) throws {
    try Gateway.run(TestToken.settings(settings)) { gateway in
      let all = Subscriptions.to("*")
      let alice = "jwt=\(TestToken.of("alice"))"
      let stream = try SSEClient.open(gateway, all)
      let socket = try WebSocketClient.open(gateway, all, query: alice)
      let poller = try LongPollClient(
        gateway, all, headers: [TestToken.bearer(TestToken.of("alice"))])
      try body(gateway)
      try gateway.publish(CloudEvent.json("end"))
      try stream.event(named: "end")
      try socket.event("end")
      let polled = try poller.poll(until: "end").compactMap { $0["type"]?.string }
      #expect(polled == ["rig.connection.create", "rig.subscriptions_set", "end"])
    }
  }

  @Test("By HTTP: in every version, mode and spelling, on both ports, 400 with the attribute's name")
  func submissions() throws {
    try run { gateway in
      for submission in Self.submissions {
        let inbound = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: submission.headers, body: submission.body)
        try expectProblem(inbound, 400, naming: "ype", "rig.")
        for path in ["/v3/messages", "/v2/messages"] {
          let answer = try gateway.management(
            "POST", path, headers: submission.headers, body: submission.body)
          #expect(answer.status == 400, "\(submission) \(path)")
          try expectProblem(answer, 400, naming: "ype", "rig.")
        }
      }
    }
  }

  @Test("By WebSocket: what isn't a command of a client is refused")
  func webSocket() throws {
    try run { gateway in
      let forger = try WebSocketClient.open(gateway, "[]")
      for submission in Self.submissions where submission.headers.first?.1 == CloudEvent.contentType.1 {
        try forger.send(submission.body)
        #expect(try forger.event("rig.error")["data"]?["status"] == 400, "\(submission)")
      }
      try forger.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":\#(Subscriptions.to("end"))}}"#)
      try forger.event("rig.subscriptions_set")
    }
  }

  @Test("By Kafka: skipped, counted and logged with its place and the reason, plain addressed objects too")
  func kafka() throws {
    try KafkaBroker.run { broker in
      try run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let records =
          Self.submissions.filter { $0.headers.first?.1 == CloudEvent.contentType.1 }.map(\.body) + [
            #"{"user":"alice","type":"rig.connection.create","source":"rig","id":"1","data":\#(Self.data)}"#,
            #"{"user":"alice","eventType":"rig.session_killed"}"#, #"{"user":"alice","TYPE":"\u0072ig.x"}"#,
          ]
        try broker.publish(records)
        let headers = ["ce_specversion=1.0", "ce_type=rig.x", "ce_source=/f", "ce_id=1", "ce_user=alice"]
        try broker.publish(["x"], headers: headers)
        let count = Double(records.count + 1)
        let labels = ["source": "kafka", "topic": "rig"]
        try eventually("all are counted") {
          try gateway.metric("rig_consumed_events_failed_total", labels) == count
        }
        let line = try #require(gateway.logged("a record is no event and is skipped").first)
        #expect(line["topic"] == "rig" && line["offset"] != nil && line["partition"] != nil)
        #expect(line["reason"]?.string?.contains("'rig.") == true)
      }
    }
  }

  @Test("By requests to Kafka, and by responses: 400, and nothing of it arrives")
  func gatewayTargets() throws {
    let topics = ["rig", "orders", "rig-proxy-response"]
    try KafkaBroker.run(topics: topics) { broker in
      try run(Gateway.kafka(broker.address, ["PROXY_KAFKA_RESPONSE_TIMEOUT": "60000"])) { gateway in
        try gateway.awaitReading()
        try gateway.define(
          TestAPI(
            id: "shop", port: 1,
            endpoint:
              #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders","response_from":"kafka""#
          ))
        for submission in Self.submissions {
          let answer = try gateway.inbound(
            "POST", "/orders", headers: submission.headers, body: submission.body)
          #expect(answer.status == 400, "\(submission): \(answer.text)")
        }
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(HTTPConnection.request("POST", "/orders", body: CloudEvent.json("order")))
        let correlation = try eventually("the request is in the topic") {
          try KafkaLog.records("orders", at: broker.address).first?.json["rig"]?["correlation"]?.string
        }
        let forged = CloudEvent.json("rig.connection.create")
        for headers in [[CloudEvent.contentType], [("content-type", "application/json")], []] {
          try expectProblem(
            gateway.respond(correlation, headers: headers, body: forged), 400, naming: "type", "rig.")
        }
        try expectProblem(
          gateway.respond(correlation, headers: [("ce-type", "rig.x")], body: "x"), 400, naming: "ce-type")
        try broker.respond(correlation, body: Array(forged.utf8))
        try broker.respond(correlation, headers: ["ce_type=rig.x"])
        try eventually("both records are counted") {
          try gateway.metric("rig_responses_total", ["source": "kafka", "result": "invalid"]) == 2
        }
        #expect(
          gateway.logged("a record is no response and is skipped").first?["reason"]?.string?.contains("rig.")
            == true)
        #expect(try gateway.respond(correlation, body: "genuine").status == 202)
        #expect(try http.answer(to: "POST").text == "genuine")
        #expect(try KafkaLog.records("orders", at: broker.address).count == 1)
      }
    }
  }

  @Test("Line breaks in a type open no field of an event stream")
  func lineBreaks() throws {
    try run { gateway in
      for type in [#"a\nevent: rig.session_killed"#, #"a\r\ndata: x"#, #"a\rretry: 1"#] {
        let body = CloudEvent.json(type)
        let inbound = try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: body)
        let management = try gateway.management(
          "POST", "/v3/messages", headers: [CloudEvent.contentType], body: body)
        #expect(inbound.status == 400 && management.status == 400)
      }
      let broken = [
        ("ce-specversion", "1.0"), ("ce-type", "a%0Aevent: rig.x"), ("ce-source", "/f"), ("ce-id", "1"),
        ("content-type", "text/plain"),
      ]
      let answer = try gateway.inbound("POST", "/_rig/v1/events", headers: broken, body: "x")
      #expect(answer.status == 400)
    }
  }

  @Test("SUBMISSION_MAY_ADDRESS=off: nobody on the inbound port addresses users; services still do")
  func mayAddress() throws {
    try Gateway.run(TestToken.settings(["SUBMISSION_MAY_ADDRESS": "off"])) { gateway in
      let alice = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice"))")
      let addressed = CloudEvent.json("a", extra: #""user":"alice""#)
      let forms = [
        ([CloudEvent.contentType], addressed),
        ([("content-type", "application/cloudevents-batch+json")], "[\(CloudEvent.json("a")),\(addressed)]"),
        (Self.binary("1.0", "ce-type", "a"), "{}"),
      ]
      for (headers, body) in forms {
        let answer = try gateway.inbound("POST", "/_rig/v1/events", headers: headers, body: body)
        try expectProblem(answer, 403, naming: "user", "SUBMISSION_MAY_ADDRESS")
      }
      let socket = try WebSocketClient.open(gateway, "[]")
      try socket.send(addressed)
      let error = try socket.event("rig.error")["data"]
      #expect(error?["status"] == 403)
      #expect(error?["detail"]?.string?.contains("SUBMISSION_MAY_ADDRESS") == true)
      #expect(
        try gateway.inbound(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("a")
        ).status == 202)
      try gateway.publish("end", to: "alice")
      try alice.event(named: "end")
    }
  }
}
