// Which events reach which connections: contract §3 and §5.

import Testing

@Suite("Subscriptions and delivery")
struct MatchingTests {
  private static let extractors = [
    "EXTRACTORS": """
    {"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"}},\
    "lang":{"event":{"json_pointer":"/data/lang"}},"age":{"event":{"json_pointer":"/data/a~1b/0"}}}}
    """
  ]

  @Test("One object of oneOf must match, and in it every field; values compare as JSON values")
  func constraints() throws {
    try Gateway.run(Self.extractors) { gateway in
      let client = try SSEClient.open(
        gateway,
        #"[{"eventType":"greeting","oneOf":[{"name":"John","lang":"en"},{"name":"Fr\u0061nk"},{"age":1}]},{"eventType":"end"}]"#
      )
      let table: [(data: String, matches: Bool)] = [
        (#"{"name":"John","lang":"en"}"#, true), (#"{"name":"John"}"#, false),
        (#"{"name":"John","lang":"de"}"#, false),
        (#"{"name":"\u0046rank","lang":7}"#, true), (#"{"name":["Frank"]}"#, false),
        (#"{"name":null}"#, false),
        (#"{"a/b":[1.0]}"#, true), (#"{"a/b":[1e0,2]}"#, true), (#"{"a/b":["1"]}"#, false),
        (#"{"a/b":[true]}"#, false),
        (#"{"a/b":{"0":1}}"#, true), (#"3"#, false), (#"{}"#, false),
      ]
      for (index, row) in table.enumerated() {
        try gateway.publish(CloudEvent.json("greeting", id: "\(index)", data: row.data))
      }
      try gateway.publish(CloudEvent.json("end"))
      let ids = try client.events(until: "end").compactMap { try $0.json["id"]?.string }
      #expect(ids == table.indices.filter { table[$0].matches }.map(String.init))
    }
  }

  @Test("An event that matches several subscriptions of a connection comes once")
  func once() throws {
    try Gateway.run(Self.extractors) { gateway in
      let client = try SSEClient.open(
        gateway,
        #"[{"eventType":"*"},{"eventType":"greeting"},{"eventType":"greeting","oneOf":[{"name":"x"},{"lang":"y"}]}]"#
      )
      try gateway.publish(CloudEvent.json("greeting", data: #"{"name":"x","lang":"y"}"#))
      try gateway.publish(CloudEvent.json("end"))
      #expect(try client.events(until: "end").count == 1)
    }
  }

  @Test("A star stands for every type, and after a dot for every type with that beginning")
  func patterns() throws {
    try Gateway.run { gateway in
      let all = try SSEClient.open(gateway, Subscriptions.to("*"))
      let some = try SSEClient.open(gateway, Subscriptions.to("com.example.*", "end"))
      let types = ["com.example.a", "com.example.a.b", "com.example", "com.examples.a", "greeting"]
      for type in types { try gateway.publish(CloudEvent.json(type)) }
      try gateway.publish(CloudEvent.json("end"))
      #expect(try all.events(until: "end").map(\.name) == types)
      #expect(try some.events(until: "end").map(\.name) == ["com.example.a", "com.example.a.b"])
    }
  }

  @Test("RIG's other spellings are accepted")
  func aliases() throws {
    try Gateway.run(Self.extractors) { gateway in
      for member in ["oneOf", "one_of", "constraints"] {
        let client = try SSEClient.open(
          gateway, #"[{"event_type":"greeting","\#(member)":[{"name":"x"}]},{"eventType":"end"}]"#)
        try gateway.publish(CloudEvent.json("greeting", id: "1", data: #"{"name":"x"}"#))
        try gateway.publish(CloudEvent.json("greeting", id: "2", data: #"{"name":"y"}"#))
        try gateway.publish(CloudEvent.json("end"))
        #expect(try client.events(until: "end").count == 1)
      }
    }
  }

  @Test("A field that no extractor defines never matches and is named in the greeting")
  func unknownField() throws {
    try Gateway.run(Self.extractors) { gateway in
      let subscriptions = #"[{"eventType":"greeting","oneOf":[{"nmae":"x"}]},{"eventType":"end"}]"#
      let client = try SSEClient(gateway, query: "subscriptions=\(HTTP.encoded(subscriptions))")
      let errors = try client.greet().created["data"]?["errors"]?.array ?? []
      #expect(errors.count == 1)
      #expect(errors.first?.description.contains("nmae") == true)
      try gateway.publish(CloudEvent.json("greeting", data: #"{"nmae":"x"}"#))
      try gateway.publish(CloudEvent.json("end"))
      #expect(try client.events(until: "end").isEmpty)
    }
  }

  @Test(
    "Events addressed to users never come by type subscription",
    arguments: [#""user":"frank""#, #""user":["a","b"]"#])
  func addressed(extra: String) throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("*"))
      try gateway.publish(CloudEvent.json("private", extra: extra))
      try gateway.publish(CloudEvent.json("end"))
      #expect(try client.events(until: "end").isEmpty)
    }
  }

  @Test("An event past its rigexpires isn't delivered, one before it is")
  func expiry() throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("*"))
      try gateway.publish(CloudEvent.json("old", extra: #""rigexpires":"2020-01-01T00:00:00Z""#))
      try gateway.publish(CloudEvent.json("new", extra: #""rigexpires":"2999-01-01T00:00:00+02:00""#))
      try gateway.publish(CloudEvent.json("end"))
      #expect(try client.events(until: "end").map(\.name) == ["new"])
    }
  }

  @Test("Events of one publisher reach every transport in order")
  func order() throws {
    try Gateway.run { gateway in
      let stream = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let socket = try WebSocketClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let poller = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      let publisher = try HTTPConnection(port: gateway.inboundPort)
      let count = 150
      for number in 0..<count {
        let answer = try publisher.send(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: NumberedEvents.json(number))
        #expect(answer.status == 202)
      }
      var accounts = [Account](repeating: Account(), count: 3)
      for _ in 0..<count {
        let event = try stream.event(named: NumberedEvents.type)
        accounts[0].add(try #require(NumberedEvents.number(in: Array((event.data ?? "").utf8))))
        accounts[1].add(try #require(NumberedEvents.number(in: try socket.frame().payload)))
      }
      try eventually("all of them are polled") {
        for event in try poller.poll() where event["type"]?.string == NumberedEvents.type {
          accounts[2].add(try #require(Int(event["id"]?.string?.dropFirst(2) ?? "")))
        }
        return accounts[2].next >= count
      }
      #expect(accounts == .init(repeating: Account(next: count), count: 3))
    }
  }

  @Test(
    "Ten thousand constrained subscriptions on one connection are taken, where configured, and match by themselves"
  )
  func tenThousand() throws {
    var settings = Self.extractors
    settings["MAX_SUBSCRIPTIONS_PER_CONNECTION"] = "10000"
    // Half a megabyte of text is read in one turn, ten times as slowly in a debug build.
    settings["MAX_SUBSCRIPTION_BYTES_PER_CONNECTION"] = "1048576"
    settings["TURN_LIMIT_MS"] = "1000"
    try Gateway.run(settings) { gateway in
      let client = try SSEClient.open(gateway, "[]")
      let one = (0..<10_000).map { #"{"eventType":"greeting","oneOf":[{"name":"n\#($0)"}]}"# }
      let answer = try gateway.setSubscriptions("[\(one.joined(separator: ","))]", of: client.token)
      #expect(answer.status == 204, "\(answer.text)")
      #expect(try client.event(named: "rig.subscriptions_set").json["data"]?.array?.count == 10_000)
      try gateway.publish(CloudEvent.json("greeting", id: "hit", data: #"{"name":"n9999"}"#))
      #expect(try client.event(named: "greeting").json["id"] == "hit")
    }
  }
}
