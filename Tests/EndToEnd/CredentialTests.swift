// Where credentials go and where they don't, and what of a message is taken from whom, however its fields are spelled. Contract §8.

import Testing

@Suite("Credentials and fields of the way")
struct CredentialTests {
  private static let auth =
    #""auth_type":"jwt","auth":{"use_header":true,"header_name":"X-Token","use_query":true,"query_name":"to ken"}"#
  private static let token = TestToken.of("alice", session: "s", #""exp":4102444800"#)
  /// All kinds of credentials, in all spellings.
  private static let credentials = [
    ("authorization", "Bearer secret-a"), ("Cookie", "c=secret-b"), ("x-token", token),
    ("X_Token", "secret-c"),
    ("proxy-authorization", "secret-d"), ("proxy_authorization", "secret-e"),
  ]
  private static let query = "a=1&to+ken=secret-f&to%20ken=secret-g&t%6f+ken=secret-h&jwt=secret-i&b=to+ken"

  @Test("13.A7: a service by HTTP gets the headers and no token parameter, unless its endpoint asks for it")
  func http() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(TestToken.settings()) { gateway in
      for (id, more) in [("kept", ""), ("asked", #","forward_credentials":true"#)] {
        try gateway.define(
          TestAPI(
            id: id, port: service.port,
            endpoint: #""method":"GET","path_regex":"/\#(id)","secured":true\#(more)"#, more: Self.auth))
      }
      #expect(try gateway.inbound("GET", "/kept?\(Self.query)", headers: Self.credentials).status == 200)
      let seen = try #require(service.requests.last)
      #expect(seen.path == "/kept?a=1&jwt=secret-i&b=to+ken")
      #expect(seen.all("authorization") == ["Bearer secret-a"] && seen.all("cookie") == ["c=secret-b"])
      #expect(seen.all("x-token") == [Self.token])
      #expect(seen.all("proxy-authorization") == [] && seen.all("proxy_authorization") == [])
      // Nothing is left of a query that was a token.
      let alone = try gateway.inbound("GET", "/kept?to%20ken=\(Self.token)")
      #expect(alone.status == 200 && service.requests.last?.path == "/kept")
      #expect(try gateway.inbound("GET", "/asked?\(Self.query)", headers: Self.credentials).status == 200)
      #expect(service.requests.last?.path == "/asked?\(Self.query)")
      // It is kept in the definition, and checked.
      #expect(try gateway.management("GET", "/v3/apis/asked").text.contains(#""forward_credentials":true"#))
      let bad = TestAPI(
        id: "bad", port: 1, endpoint: #""method":"GET","path_regex":"/bad","forward_credentials":"yes""#)
      let answer = try gateway.manageAPIs("POST", "/v3/apis", bad.json)
      #expect(answer.status == 400 && answer.text.contains(#"{"forward_credentials":"must be boolean"}"#))
    }
  }

  @Test(
    "13.A7: no credential lands in Kafka, as event or as record of the request, unless its endpoint asks for it"
  )
  func kafka() throws {
    try KafkaBroker.run(topics: ["rig", "orders", "requests"]) { broker in
      let log = ["REQUEST_LOG": "kafka", "REQUEST_LOG_TOPIC": "requests"]
      try Gateway.run(Gateway.kafka(broker.address, TestToken.settings(log))) { gateway in
        for (id, more) in [("kept", ""), ("asked", #","forward_credentials":true"#)] {
          try gateway.define(
            TestAPI(
              id: id, port: 1,
              endpoint:
                #""method":"POST","path_regex":"/\#(id)","target":"kafka","topic":"orders","secured":true"#
                + more, more: Self.auth))
        }
        let json = ("content-type", "application/json")
        for id in ["kept", "asked"] {
          let answer = try gateway.inbound(
            "POST", "/\(id)?\(Self.query)", headers: Self.credentials + [json, ("x-mine", "1")],
            body: CloudEvent.json("order"))
          #expect(answer.status == 202, "\(answer.text)")
        }
        let records = try eventually("both events are in the topic") {
          let records = try KafkaLog.records("orders", at: broker.address)
          return records.count == 2 ? records : nil
        }
        let kept = try #require(try records[0].json["rig"])
        let asked = try #require(try records[1].json["rig"])
        #expect(kept["query"] == "a=1&b=to+ken" && asked["query"]?.string == Self.query)
        let names = try #require(kept["headers"]?.array?.compactMap { $0.array?.first?.string?.lowercased() })
        #expect(names.contains("x-mine") && names.contains("content-type"))
        for name in [
          "authorization", "cookie", "x-token", "x_token", "proxy-authorization", "proxy_authorization",
        ] {
          #expect(!names.contains(name), "\(name)")
        }
        let all = try #require(asked["headers"]?.array)
        #expect(
          all.contains(["authorization", "Bearer secret-a"]) && all.contains(["cookie", "c=secret-b"]))
        #expect(all.contains(["x_token", "secret-c"]) && all.contains(["x-token", .string(Self.token)]))
        // What is of one connection only goes nowhere.
        #expect(!"\(all)".contains("secret-d") && !"\(all)".contains("secret-e"))
        let values = try eventually("both records are in the topic") {
          let values = try KafkaLog.values("requests", at: broker.address)
          return values.count == 2 ? values : nil
        }
        #expect(!values.joined().contains("secret") && !values.joined().contains(Self.token))
      }
    }
  }

  /// Fields that a client must not be believed, and those that are its own.
  private static let claims = [
    ("x-forwarded-for", "6.6.6.6"), ("x_forwarded_for", "6.6.6.6"), ("X_Forwarded-Host", "evil"),
    ("x-forwarded-port", "1"), ("x-real-ip", "6.6.6.6"), ("x_real_ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6"),
    ("via", "1.1 evil"), ("x-original-url", "/admin"), ("x-rewrite-url", "/admin"), ("x_tenant", "evil"),
    ("content_length", "3"), ("transfer_encoding", "chunked"), ("proxy_authorization", "secret"),
    ("Proxy", "http://evil:1"), ("te_", "kept"),
  ]

  @Test("13.A7: what a client claims to be isn't passed on, spelled with '_' or by HTTP/2 neither")
  func claims() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port))
      #expect(
        try gateway.inbound(
          "GET", "/x", headers: Self.claims + [("connection", "x-hop"), ("x_hop", "1")]
        ).status == 200)
      try Self.checkClaims(try #require(service.requests.last), via: "1.1 rig")
      let client = try HTTP2Client(port: gateway.inboundPort)
      let stream = try client.get("/x", headers: Self.claims.map { ($0.0.lowercased(), $0.1) })
      try client.read(until: "the answer") { $0.ended.contains(stream) }
      try Self.checkClaims(try #require(service.requests.last), via: "2 rig")
      #expect(service.requests.count == 2)
    }
  }

  private static func open(_ port: Int, method: String = "GET") -> TestAPI {
    TestAPI(
      port: port, endpoint: #""method":"\#(method)","path_regex":"/x.*","transform_request_headers":true"#,
      version: #""transform_request_headers":{"add_headers":{"x-tenant":"acme"}}"#)
  }

  private static func checkClaims(_ seen: TestService.Request, via: String) throws {
    #expect(seen.all("x-forwarded-for") == ["127.0.0.1"] && seen.all("via") == [via])
    #expect(seen.all("x-tenant") == ["acme"] && seen.all("te_") == ["kept"])
    for (name, value) in seen.fields {
      #expect(!["6.6.6.6", "evil", "/admin", "secret"].contains { value.contains($0) }, "\(name): \(value)")
    }
    for name in [
      "x_hop", "x-forwarded-port", "content_length", "transfer_encoding", "content-length", "proxy",
    ] {
      #expect(seen.all(name) == [], "\(name)")
    }
  }

  @Test("13.A7: a trusted proxy is believed, but for what it can't have written itself")
  func trusted() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["TRUSTED_PROXIES": "127.0.0.0/8"]) { gateway in
      try gateway.define(Self.open(service.port))
      let fields = [
        ("x-forwarded-for", "1.2.3.4"), ("x_forwarded_for", "6.6.6.6"), ("x-real-ip", "1.2.3.4"),
        ("x-forwarded-port", "443"), ("via", "1.1 front"), ("x_real_ip", "6.6.6.6"),
      ]
      #expect(try gateway.inbound("GET", "/x", headers: fields).status == 200)
      let seen = try #require(service.requests.last)
      #expect(seen.all("x-forwarded-for") == ["1.2.3.4, 127.0.0.1"] && seen.all("x-real-ip") == ["1.2.3.4"])
      #expect(seen.all("x-forwarded-port") == ["443"] && seen.all("via") == ["1.1 front, 1.1 rig"])
      #expect(seen.all("x_forwarded_for") == [] && seen.all("x_real_ip") == [])
    }
  }

  @Test("13.A7: fields behind a body and in answers are judged by the same list")
  func trailersAndAnswers() throws {
    let service = try TestService(
      .answer(
        200, body: "made",
        fields: [
          ("content_length", "3"), ("transfer_encoding", "x"), ("keep_alive", "1"), ("connection", "x-named"),
          ("x_named", "1"), ("x-kept", "1"), ("x_kept", "2"),
        ]))
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.open(service.port, method: "POST"))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n"
          + "x-forwarded-for: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nAuthorization: secret\r\ncontent_length: 9\r\n\r\n"
      )
      let answer = try http.answer(to: "POST")
      #expect(answer.status == 200 && answer.text == "made" && answer["content-length"] == "4")
      #expect(answer["x-kept"] == "1" && answer["x_kept"] == "2")
      for name in ["content_length", "transfer_encoding", "keep_alive", "x_named", "connection"] {
        #expect(answer[name] == nil, "\(name)")
      }
      #expect(service.requests.last?.body == "ok")
    }
  }
}
