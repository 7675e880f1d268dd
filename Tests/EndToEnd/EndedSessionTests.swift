// When a session is ended, or a token expires, everything that it has authorised ends: what is still to come, what waits, and what
// streams (contract §6.2). One table of all that a token can authorise.

import Foundation
import Testing

@Suite("13.A3: an ended session ends everywhere", .serialized)
struct EndedSessionTests {
  enum Cause: CaseIterable {
    case blacklist
    case expiry
  }

  /// Long enough that everything is under way before the token is over.
  private static let shortSeconds = 40

  /// Services that keep their callers waiting, each in its way.
  private final class Services {
    let submissionCheck: TestService
    let subscriptionCheck: TestService
    let silent: TestService
    let half: TestService
    let tunnel: TestService
    let accepting: TestService

    init() throws {
      submissionCheck = try TestService(.answer(204))
      subscriptionCheck = try TestService(.answer(204))
      silent = try TestService(.silence)
      half = try TestService(.half)
      tunnel = try TestService(.upgrade(.echo))
      accepting = try TestService(.answer(202))
    }

    func stop() {
      for service in [submissionCheck, subscriptionCheck, silent, half, tunnel, accepting] { service.stop() }
    }

    func behaveChecks(_ behaviour: TestService.Behaviour) {
      submissionCheck.behave(behaviour)
      subscriptionCheck.behave(behaviour)
    }

    var settings: [String: String] {
      TestToken.settings([
        "SUBMISSION_CHECK": submissionCheck.url(), "SUBSCRIPTION_CHECK": subscriptionCheck.url(),
        "CHECK_TIMEOUT_MS": "60000", "PROXY_RECV_TIMEOUT": "60000", "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000",
        "PROXY_HTTP_ASYNC_RESPONSE_TIMEOUT": "60000",
        "KAFKA_PUBLISH_TIMEOUT_MS": "60000", "LONGPOLLING_WAIT_S": "60", "MIN_BODY_RATE": "0",
        "REQUEST_STALL_TIMEOUT_S": "3600",
      ])
    }

    func define(_ gateway: Gateway) throws {
      func api(_ id: String, _ port: Int, _ method: String, _ more: String = "") -> TestAPI {
        TestAPI(
          id: id, port: port,
          endpoint: #""method":"\#(method)","path_regex":"/\#(id)","secured":true\#(more)"#,
          more:
            #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization","use_query":true,"query_name":"token"}"#
        )
      }
      let kafka = #","target":"kafka","topic":"orders""#
      for api in [
        api("get", silent.port, "GET"), api("post", silent.port, "POST"), api("half", half.port, "GET"),
        api("tunnel", tunnel.port, "GET"),
        api("async", accepting.port, "POST", #","response_from":"http_async""#),
        api("async-silent", silent.port, "POST", #","response_from":"http_async""#),
        api("orders", 1, "POST", kafka + #","response_from":"kafka""#), api("acknowledged", 1, "POST", kafka),
      ] {
        try gateway.define(api)
      }
    }
  }

  /// Requests that wait until somebody answers: their clients have got nothing yet.
  private static func waiting(_ token: String, _ connection: String) -> [(name: String, text: String)] {
    func request(
      _ method: String, _ path: String, _ headers: [(String, String)] = [], body: String? = nil
    ) -> String {
      HTTPConnection.request(method, path, headers: headers + [TestToken.bearer(token)], body: body)
    }
    let query = "subscriptions=\(HTTP.encoded(Subscriptions.to("a")))"
    let forbidden = CloudEvent.json("forbidden")
    return [
      (
        "submission in its check",
        request("POST", "/_rig/v1/events", [CloudEvent.contentType], body: forbidden)
      ),
      (
        "batch in its check",
        request(
          "POST", "/_rig/v1/events", [("content-type", "application/cloudevents-batch+json")],
          body: "[\(forbidden)]")
      ),
      ("event stream in its check", request("GET", "/_rig/v1/connection/sse?\(query)")),
      ("WebSocket in its check", request("GET", "/_rig/v1/connection/ws?\(query)", WebSocketClient.upgrade)),
      ("session in its check", request("GET", "/_rig/v1/connection/longpolling?\(query)")),
      (
        "subscriptions in their check",
        request(
          "PUT", "/_rig/v1/connection/sse/\(connection)/subscriptions",
          [("content-type", "application/json")],
          body: #"{"subscriptions":\#(Subscriptions.to("forbidden"))}"#)
      ),
      ("request at its service", request("GET", "/get")),
      ("upload", request("POST", "/post", [("content-length", "100")]) + "some"),
      ("chunked upload", request("POST", "/post", [("transfer-encoding", "chunked")]) + "4\r\nsome\r\n"),
      ("correlated request at its service", request("POST", "/async-silent", body: "x")),
      ("correlated request that waits for its response", request("POST", "/async", body: "x")),
      (
        "request to Kafka that waits for its response",
        request("POST", "/orders", body: CloudEvent.json("order"))
      ),
      (
        "request to Kafka whose body is coming", request("POST", "/orders", [("content-length", "100")]) + "{"
      ),
    ]
  }

  /// Those whose answers have begun.
  private static func streaming(_ token: String) -> [(name: String, text: String)] {
    [
      (
        "streamed answer", HTTPConnection.request("GET", "/half", headers: [TestToken.bearer(token)])
      ),
      (
        "tunnel",
        HTTPConnection.request("GET", "/tunnel", headers: WebSocketClient.upgrade + [TestToken.bearer(token)])
      ),
    ]
  }

  private func send(_ all: [(name: String, text: String)], _ gateway: Gateway) throws -> [(
    String, HTTPConnection
  )] {
    try all.map { name, text in
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(text)
      return (name, http)
    }
  }

  private func half(_ http: HTTPConnection) throws {
    guard try http.head().status == 200 else { throw TestFailure("no beginning of an answer") }
    try Tunnel.expect("hal", http.wire)
  }

  private func upgraded(_ http: HTTPConnection) throws {
    guard try http.head().status == 101 else { throw TestFailure("no tunnel") }
    try Tunnel.exchange("hello", http.wire)
  }

  @Test(
    "Before, while it waits, while it streams: everything that a token can authorise ends with it, and nothing else",
    arguments: Cause.allCases)
  func everything(cause: Cause) throws {
    let services = try Services()
    defer { services.stop() }
    try KafkaBroker.run(topics: ["rig", "orders", "rig-proxy-response"]) { broker in
      try Gateway.run(Gateway.kafka(broker.address, services.settings)) { gateway in
        try gateway.awaitReading()
        try services.define(gateway)
        let watcher = try SSEClient.open(gateway, Subscriptions.to("forbidden", "end"))
        let keptToken = TestToken.of("alice", session: "kept")
        let kept = try SSEClient.open(gateway, "[]", query: "jwt=\(keptToken)")
        let exp = Int(Date().timeIntervalSince1970) + Self.shortSeconds
        let token = TestToken.of("alice", session: "gone", cause == .expiry ? #""exp":\#(exp)"# : "")
        let stream = try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
        let submitting = try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)")
        let changing = try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)")
        let poller = try LongPollClient(gateway, "[]", headers: [TestToken.bearer(token)])
        _ = try poller.poll(until: "rig.subscriptions_set")
        let poll = HTTPConnection.request(
          "GET", poller.request.path, headers: poller.request.headers + [TestToken.bearer(token)])

        // Under way:
        let asked = services.subscriptionCheck.requests.count
        services.behaveChecks(.held)
        var waiting = try send(Self.waiting(token, kept.token), gateway)
        let streaming = try send(Self.streaming(token), gateway)
        let polling = try send([("poll", poll)], gateway)[0].1
        try submitting.send(CloudEvent.json("forbidden"))
        try changing.send(
          #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":\#(Subscriptions.to("forbidden"))}}"#
        )
        try half(streaming[0].1)
        try upgraded(streaming[1].1)
        let others = try send(
          [Self.waiting(keptToken, kept.token)[6]] + Self.streaming(keptToken), gateway
        ).map(\.1)
        try half(others[1])
        try upgraded(others[2])
        try eventually("everything is under way") {
          try services.submissionCheck.requests.count == 3
            && services.subscriptionCheck.requests.count == asked + 5 && services.silent.openConnections == 5
            && services.accepting.requests.count == 1
            && KafkaLog.records("orders", at: broker.address).count == 1
            && gateway.metric("rig_waiting_requests") == 3
        }
        try broker.freeze()
        defer { broker.thaw() }
        waiting += try send(
          [
            (
              "request to Kafka that waits for its acknowledgement",
              HTTPConnection.request(
                "POST", "/acknowledged", headers: [TestToken.bearer(token)], body: CloudEvent.json("order"))
            )
          ], gateway)
        try eventually("the event is on its way to the broker") {
          try gateway.metric("rig_producer_queued_records") == 1
        }

        // The end:
        switch cause {
        case .blacklist: #expect(try gateway.blacklist("gone").status == 201)
        case .expiry:
          #expect(Date().timeIntervalSince1970 < Double(exp), "the machine is too slow for this test")
        }
        for (name, http) in waiting {
          let answer = try http.answer()
          #expect(answer.status == 401, "\(name): \(answer.text)")
          #expect(answer["www-authenticate"] == "Bearer", "\(name)")
        }
        for (name, http) in streaming {
          let rest = try http.wire.receiveToEnd()
          #expect(rest.isEmpty, "\(name): \(rest.text)")
        }
        let told = cause == .blacklist ? "rig.session_killed" : "rig.server_closing"
        try stream.event(named: told)
        try stream.awaitEnd()
        for socket in [submitting, changing] { #expect(try socket.awaitClose().code == 1008) }
        #expect(try polling.answer().text.contains(told))
        broker.thaw()

        // Nobody waits for the services any more, but for the other session.
        try eventually("the services have been told") {
          services.silent.openConnections == 1 && services.half.openConnections == 1
            && services.tunnel.openConnections == 1
        }
        #expect(
          try gateway.metric(
            "rig_authorized_work_ended_total",
            ["reason": cause == .blacklist ? "session_ended" : "token_expired"]) == 16)
        #expect(try gateway.metric("rig_waiting_requests") == 0 && gateway.metric("rig_tunnels") == 1)

        // What the checks say now comes too late.
        services.behaveChecks(.answer(204))
        for (name, http) in try send(Self.waiting(token, kept.token) + Self.streaming(token), gateway) {
          #expect(try http.answer().status == 401, "\(name), before")
        }
        #expect(
          try gateway.inbound("GET", LongPollClient.path, headers: [TestToken.bearer(token)]).status == 401)
        try gateway.publish(CloudEvent.json("end"))
        try watcher.event(named: "end")
        try Tunnel.exchange("still", others[2].wire)
        try gateway.publish("still", to: "alice")
        try kept.event(named: "still")
        try eventually("the one that waited for its response and the one on its way are there, and no other")
        {
          try KafkaLog.records("orders", at: broker.address).count == 2
        }
      }
    }
  }

  @Test("Over TLS and HTTP/2 as well, both ways")
  func transports() throws {
    let services = try Services()
    defer { services.stop() }
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate, more: services.settings)) { gateway in
      for api in ["get", "half", "tunnel"] {
        let port = ["get": services.silent.port, "half": services.half.port, "tunnel": services.tunnel.port][
          api]
        try gateway.define(
          TestAPI(
            id: api, port: port ?? 0, endpoint: #""method":"GET","path_regex":"/\#(api)","secured":true"#,
            more:
              #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization","use_query":true,"query_name":"token"}"#
          ))
      }
      let token = TestToken.of("alice", session: "gone")
      func open(_ path: String, _ headers: [(String, String)] = []) throws -> HTTPConnection {
        let http = try HTTPConnection(wire: gateway.wire(nil, TLSEnd()))
        try http.wire.send(
          HTTPConnection.request("GET", path, headers: headers + [TestToken.bearer(token)]))
        return http
      }
      let waiting = try open("/get")
      let streamed = try open("/half")
      try half(streamed)
      let tunnel = try open("/tunnel", WebSocketClient.upgrade)
      try upgraded(tunnel)
      let second = try HTTP2Client(port: gateway.inboundPort)
      let waitingStream = try second.get("/get?token=\(token)")
      let halfStream = try second.get("/half?token=\(token)")
      let keptStream = try second.get("/half?token=\(TestToken.of("alice", session: "kept"))")
      try second.read(until: "both answers have begun") {
        $0.text(halfStream) == "hal" && $0.text(keptStream) == "hal"
      }
      try eventually("both wait") { services.silent.requests.count == 2 }
      #expect(try gateway.blacklist("gone").status == 201)
      #expect(try waiting.answer().status == 401)
      for http in [streamed, tunnel] { _ = try http.wire.receiveToEnd() }
      try second.read(until: "both streams have ended") {
        $0.ended.contains(waitingStream) && $0.resets[halfStream] != nil
      }
      #expect(second.text(waitingStream).contains("401") && second.text(halfStream) == "hal")
      #expect(!second.ended.contains(keptStream) && second.resets[keptStream] == nil)
      try eventually("the services have been told") {
        services.silent.openConnections == 0 && services.half.openConnections == 1
          && services.tunnel.openConnections == 0
      }
    }
  }

  @Test("What waits for a tunnel's client when its service has ended already is dropped with the session")
  func drainingTunnel() throws {
    // More than the kernel takes for a client that doesn't read, and little enough that the service can say it all.
    let bytes = 400_000
    let service = try TestService(.upgrade(.flood(bytes)))
    defer { service.stop() }
    try Gateway.run(TestToken.settings(["CONNECTION_WORKERS": "1"])) { gateway in
      try gateway.define(
        TestAPI(
          id: "tunnel", port: service.port, endpoint: #""method":"GET","path_regex":"/x","secured":true"#,
          more: #""auth_type":"jwt","auth":{"use_header":true,"header_name":"Authorization"}"#))
      func open(_ session: String) throws -> Wire {
        let token = TestToken.of("alice", session: session)
        return try Tunnel.open(
          gateway, headers: WebSocketClient.upgrade + [TestToken.bearer(token)], receiveBuffer: 4096)
      }
      let (gone, kept) = (try open("gone"), try open("kept"))
      try eventually("the service has ended both, and all it said waits for the clients") {
        try service.openConnections == 0
          && gateway.metric("rig_proxied_bytes_total", ["direction": "response"]) == Double(2 * bytes)
      }
      #expect(try gateway.blacklist("gone").status == 201)
      let left = try gone.receiveToEnd().count
      #expect(gone.isReset && left < bytes / 4, "\(left) bytes after the session's end")
      #expect(try kept.receiveToEnd().count == bytes)
      #expect(!kept.isReset)
      kept.endSending()
      try eventually("neither has its place any more") { try gateway.metric("rig_tunnels") == 0 }
    }
  }
}
