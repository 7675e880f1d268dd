// Events handed in by HTTP, on both ports: contract §4.1. Every form and version goes in, and comes out as it went in.

import Foundation
import Testing

@Suite("Submission of events")
struct SubmissionTests {
  /// Where events are handed in.
  enum Door: String, CaseIterable, Sendable {
    case inbound = "/_rig/v1/events"
    case management = "/v3/messages"
    case oldManagement = "/v2/messages"

    func send(
      _ gateway: Gateway, _ method: String = "POST", headers: [(String, String)], body: String?
    ) throws -> HTTPAnswer {
      try self == .inbound
        ? gateway.inbound(method, rawValue, headers: headers, body: body)
        : gateway.management(method, rawValue, headers: headers, body: body)
    }
  }

  /// Members of `expected` that `event` hasn't, or has with another value.
  private static func difference(_ event: JSON, _ expected: JSON) -> [String] {
    (expected.object ?? [:]).filter { event[$0.key] != $0.value }.map {
      "\($0.key): \(String(describing: event[$0.key]))"
    }
  }

  /// A submission that is accepted, the event that comes of it, and its type.
  private struct Accepted {
    let headers: [(String, String)]
    let body: String
    let type: String
    let event: JSON
  }

  private static func binary(_ attributes: [String: String], contentType: String?) -> [(String, String)] {
    attributes.sorted { $0.key < $1.key }.map { ("ce-\($0.key)", $0.value) }
      + (contentType.map { [("content-type", $0)] } ?? [])
  }

  private static func structured() throws -> [Accepted] {
    let events = [
      (
        "greeting",
        #"{"specversion":"1.0","type":"greeting","source":"/s","id":"1","data":{"a":[1,null]},"ext":7}"#
      ),
      (
        "greeting",
        #"{"specversion":"0.3","type":"greeting","source":"/s","id":"2","datacontentencoding":"base64","data":"AA=="}"#
      ),
      (
        "greeting",
        #"{"specversion":"0.2","type":"greeting","source":"/s","id":"3","contenttype":"text/plain","data":"x"}"#
      ),
      (
        "greeting",
        #"{"cloudEventsVersion":"0.1","eventType":"greeting","source":"/s","eventID":"4","extensions":{"a":1}}"#
      ),
      ("ä 🦊", #"{"specversion":"1.0","type":"ä 🦊","source":"urn:x","id":"5","data_base64":"AAEC"}"#),
    ]
    let types = [
      "application/cloudevents+json", "application/json", "application/cloudevents+json; charset=utf-8",
    ]
    return try events.enumerated().map { index, event in
      Accepted(
        headers: [("content-type", types[index % types.count])], body: event.1, type: event.0,
        event: try JSON(parsing: event.1))
    }
  }

  private static func binary() throws -> [Accepted] {
    let new = [
      "specversion": "1.0", "type": "greeting", "source": "/s", "id": "6", "subject": "a%20%F0%9F%A6%8A",
      "ext": "7",
    ]
    let old = ["cloudeventsversion": "0.1", "eventtype": "greeting", "source": "/s", "eventid": "7"]
    let common = #""specversion":"1.0","type":"greeting","source":"/s","id":"6","subject":"a 🦊","ext":"7""#
    return [
      Accepted(
        headers: binary(new, contentType: "application/json"), body: #"{"a":1}"#, type: "greeting",
        event: try JSON(parsing: #"{\#(common),"datacontenttype":"application/json","data":{"a":1}}"#)),
      Accepted(
        headers: binary(new, contentType: "text/plain"), body: "hällo\n", type: "greeting",
        event: try JSON(parsing: #"{\#(common),"datacontenttype":"text/plain","data":"hällo\n"}"#)),
      Accepted(
        headers: binary(new, contentType: nil), body: "", type: "greeting",
        event: try JSON(parsing: #"{\#(common)}"#)),
      Accepted(
        headers: binary(old, contentType: "application/json"), body: "[2]", type: "greeting",
        event: try JSON(
          parsing:
            #"{"cloudEventsVersion":"0.1","eventType":"greeting","source":"/s","eventID":"7","contenttype":"application/json","data":[2]}"#
        )),
    ]
  }

  @Test(
    "Structured and binary events of every version are answered with 202 and the event, and delivered by their type"
  )
  func forms() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("*"))
      for door in Door.allCases {
        for submission in try Self.structured() + Self.binary() {
          let answer = try door.send(gateway, headers: submission.headers, body: submission.body)
          #expect(answer.status == 202, "\(door) \(submission): \(answer.text)")
          #expect(answer["content-type"]?.hasPrefix("application/json") == true)
          #expect(try Self.difference(answer.json, submission.event).isEmpty, "\(answer.text)")
          let delivered = try client.event()
          #expect(delivered.name == submission.type)
          #expect(try delivered.json == answer.json)
        }
      }
    }
  }

  @Test("Bytes that are no text are delivered as base64")
  func bytes() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("greeting"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let head =
        "POST /_rig/v1/events HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-type: greeting\r\nce-source: /s\r\n"
        + "ce-id: 1\r\ncontent-type: application/octet-stream\r\ncontent-length: 4\r\n\r\n"
      try http.wire.send(Array(head.utf8) + [0xff, 0x00, 0xfe, 0x0a])
      #expect(try http.answer().status == 202)
      #expect(try client.event(named: "greeting").json["data_base64"] == "/wD+Cg==")
    }
  }

  @Test("A batch is accepted as a whole, in order, or refused as a whole, naming the event")
  func batches() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a", "end"))
      let type = [("content-type", "application/cloudevents-batch+json")]
      for door in Door.allCases {
        let events = (0..<3).map { CloudEvent.json("a", id: "\($0)") }
        let answer = try door.send(gateway, headers: type, body: "[\(events.joined(separator: " ,\n"))]")
        #expect(answer.status == 202)
        #expect(try answer.json.array?.map { $0["id"] } == ["0", "1", "2"])
        for id in 0..<3 { #expect(try client.event(named: "a").json["id"]?.string == "\(id)") }

        let empty = try door.send(gateway, headers: type, body: "[]")
        #expect(empty.status == 202)
        #expect(try empty.json == [])

        let bad = [CloudEvent.json("a"), #"{"specversion":"1.0","type":"a","source":"/s"}"#]
        let refused = try door.send(gateway, headers: type, body: "[\(bad.joined(separator: ","))]")
        try expectProblem(refused, 400, naming: "event 1", "id")
        try expectProblem(
          try door.send(gateway, headers: type, body: CloudEvent.json("a")), 400, naming: "list")
        try gateway.publish(CloudEvent.json("end"))
        try client.event(named: "end")
      }
    }
  }

  /// What is no event: body or headers, and what the answer must name.
  private static let mistakes: [(headers: [(String, String)], body: String, names: String)] = {
    let json = [CloudEvent.contentType]
    let ce = [("ce-specversion", "1.0"), ("ce-type", "a"), ("ce-source", "/s"), ("ce-id", "1")]
    let nested = String(repeating: "[", count: 10_000) + String(repeating: "]", count: 10_000)
    return [
      (json, "", "body"), (json, "{", "body"), (json, "[]", "object"), (json, "3", "object"),
      (json, #"{"specversion":"1.0","type":"a","source":"/s","id":"1"} x"#, "body"),
      (json, #"{"type":"a","source":"/s","id":"1"}"#, "specversion"),
      (json, #"{"specversion":"2.0","type":"a","source":"/s","id":"1"}"#, "specversion"),
      (json, #"{"specversion":1.0,"type":"a","source":"/s","id":"1"}"#, "specversion"),
      (json, #"{"specversion":"1.0","source":"/s","id":"1"}"#, "type"),
      (json, #"{"specversion":"1.0","type":"","source":"/s","id":"1"}"#, "type"),
      (json, #"{"specversion":"1.0","type":"a\nb","source":"/s","id":"1"}"#, "type"),
      (json, #"{"specversion":"1.0","type":"a\r\nid: 7\n\ndata: x","source":"/s","id":"1"}"#, "type"),
      (json, #"{"specversion":"1.0","type":["a"],"source":"/s","id":"1"}"#, "type"),
      (json, #"{"specversion":"1.0","type":"a","id":"1"}"#, "source"),
      (json, #"{"specversion":"1.0","type":"a","source":"/s"}"#, "id"),
      (json, #"{"specversion":"1.0","type":"a","source":"/s","id":1}"#, "id"),
      (json, #"{"specversion":"1.0","type":"a","source":"/s","id":null}"#, "id"),
      (json, #"{"cloudEventsVersion":"0.1","source":"/s","eventID":"1"}"#, "eventType"),
      (json, #"{"cloudEventsVersion":"0.1","eventType":"a","source":"/s"}"#, "eventID"),
      (json, CloudEvent.json("a", extra: #""user":["x",7]"#), "user"),
      (json, CloudEvent.json("a", extra: #""rigexpires":"soon""#), "rigexpires"),
      (json, CloudEvent.json("a", data: nested), "body"),
      (json, String(repeating: #"{"a":"#, count: 10_000), "body"),
      ([("content-type", "application/json")] + ce, nested, "body"),
      ([("content-type", "application/json")] + ce, "{", "body"),
      (ce.dropLast() + [("content-type", "text/plain")], "x", "id"),
      (ce + [("ce-id", "2"), ("content-type", "text/plain")], "x", "id"),
      (ce.dropLast() + [("ce-id", "%FF"), ("content-type", "text/plain")], "x", "ce-id"),
      (ce.dropLast() + [("ce-id", "a%0Ab"), ("content-type", "text/plain")], "x", "id"),
      (ce + [("ce-data", "x"), ("content-type", "text/plain")], "x", "data"),
    ]
  }()

  @Test("What is no event is refused with the attribute named, and nothing of it is delivered")
  func mistakes() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("*"))
      for door in Door.allCases {
        for mistake in Self.mistakes {
          let answer = try door.send(gateway, headers: mistake.headers, body: mistake.body)
          try expectProblem(answer, 400, naming: mistake.names)
        }
        try gateway.publish(CloudEvent.json("end"))
        #expect(try client.events(until: "end").isEmpty)
      }
    }
  }

  @Test(
    "Media types that events don't come in are refused with 415, other methods with 405 and what is allowed")
  func mediaTypesAndMethods() throws {
    try Gateway.run { gateway in
      for door in Door.allCases {
        for type in ["text/plain", "application/cloudevents+xml", "application/cloudevents", "", nil] {
          let answer = try door.send(
            gateway, headers: type.map { [("content-type", $0)] } ?? [], body: CloudEvent.json("a"))
          try expectProblem(answer, 415, naming: "content-type")
        }
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
          let answer = try door.send(gateway, method, headers: [], body: nil)
          try expectProblem(answer, 405, naming: method)
          #expect(answer["allow"] == "POST")
        }
      }
    }
  }

  @Test(
    "14.C18 A body in a content coding is refused with 415 and the field named, wherever bodies are read")
  func contentCoding() throws {
    try Gateway.run { gateway in
      let coding = ("content-encoding", "gzip")
      for door in Door.allCases {
        for type in [
          "application/json", "application/cloudevents+json", "application/cloudevents-batch+json",
        ] {
          let answer = try door.send(
            gateway, headers: [("content-type", type), coding], body: CloudEvent.json("a"))
          try expectProblem(answer, 415, naming: "content-encoding", "gzip")
        }
        let binary = Self.binary(
          ["specversion": "1.0", "type": "a", "source": "s", "id": "1"], contentType: "text/plain")
        try expectProblem(
          door.send(gateway, headers: binary + [coding], body: "x"), 415, naming: "content-encoding")
      }
      let client = try SSEClient.open(gateway, "[]")
      let change = try gateway.inbound(
        "PUT", "/_rig/v1/connection/sse/\(client.token)/subscriptions",
        headers: [("content-type", "application/json"), coding], body: #"{"subscriptions":[]}"#)
      try expectProblem(change, 415, naming: "content-encoding")
      for path in ["/v3/apis", "/v3/session-blacklist", "/v2/responses"] {
        let answer = try gateway.management(
          "POST", path, headers: [("content-type", "application/json"), coding], body: "{}")
        try expectProblem(answer, 415, naming: "content-encoding")
      }
      try gateway.define(
        TestAPI(
          port: 1, endpoint: #""method":"POST","path_regex":"/orders","target":"kafka","topic":"orders""#))
      let produced = try gateway.inbound(
        "POST", "/orders", headers: [CloudEvent.contentType, coding], body: CloudEvent.json("a"))
      try expectProblem(produced, 415, naming: "content-encoding")
    }
  }

  @Test(
    "14.C18 Quoted attributes are unquoted and then decoded; JSON without a content type is JSON; a user that is no name is none"
  )
  func leniency() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      for door in Door.allCases {
        let headers = Self.binary(
          ["specversion": "1.0", "type": "a", "source": "s", "id": "1", "subject": #""J%C3%BCrgen \"J\"""#],
          contentType: nil)
        #expect(try door.send(gateway, headers: headers, body: #"{"n":[1]}"#).status == 202)
        let event = try client.event(named: "a").json
        #expect(event["subject"] == #"Jürgen "J""# && event["data"] == ["n": [1]])
        #expect(event["datacontenttype"] == nil)

        for user in ["7", #"{"name":"x"}"#] {
          let open = CloudEvent.json("a", extra: #""user":\#(user)"#)
          #expect(try door.send(gateway, headers: [CloudEvent.contentType], body: open).status == 202)
          #expect(try client.event(named: "a").json["user"] != nil)
        }
        let both = CloudEvent.json("a", data: "1", extra: #""data_base64":"AA==""#)
        try expectProblem(
          door.send(gateway, headers: [CloudEvent.contentType], body: both), 400, naming: "data_base64")
      }
    }
  }

  @Test(
    "A valid trace context goes into the event and back to the sender; an event's own is kept; a bad one is replaced"
  )
  func traceContext() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
      let own = "00-11111111111111111111111111111111-2222222222222222-00"
      for door in Door.allCases {
        let headers = [
          CloudEvent.contentType, ("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2"),
        ]
        let answer = try door.send(gateway, headers: headers, body: CloudEvent.json("a"))
        #expect(answer["traceparent"] == parent)
        let event = try client.event(named: "a").json
        #expect(event["traceparent"]?.string == parent)
        #expect(event["tracestate"] == "a=1,b=2")

        _ = try door.send(
          gateway, headers: headers,
          body: CloudEvent.json("a", extra: #""traceparent":"\#(own)","tracestate":"c=3""#))
        let delivered = try client.event(named: "a")
        #expect(delivered.data?.components(separatedBy: #""traceparent""#).count == 2, "once")
        let kept = try delivered.json
        #expect(kept["traceparent"]?.string == own)
        #expect(kept["tracestate"] == "c=3")

        for bad in [
          "x", parent.uppercased(), parent + "-1", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
          let answer = try door.send(
            gateway, headers: [CloudEvent.contentType, ("traceparent", bad), ("tracestate", "a=1")],
            body: CloudEvent.json("a"))
          let event = try client.event(named: "a").json
          let made = try #require(event["traceparent"]?.string)
          #expect(made.hasPrefix("00-") && made.utf8.count == parent.utf8.count && made != parent)
          #expect(answer["traceparent"] == made)
          #expect(event["tracestate"] == nil)
        }
      }
    }
  }
}
