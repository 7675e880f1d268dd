// Ending sessions while everything else goes on: at once, against who is just coming, and through crashes. Contract §6.2.

import Glibc
import Testing

@Suite("Identity: ended sessions")
struct IdentityBlacklistTests {
  /// What has been sent before can be read without waiting.
  private static let now = Deadline(after: 0)

  @Test("When the order is answered every connection of the session has been told already, waiting polls too")
  func atOnce() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let token = TestToken.of("alice", session: "gone")
      var streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      }.map(\.1)
      var sockets = try gateway.onePerWorker({ (client: WebSocketClient) in client.wire }) {
        try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)")
      }.map(\.1)
      for _ in 0..<20 {
        streams.append(try SSEClient.open(gateway, "[]", query: "jwt=\(token)"))
        sockets.append(try WebSocketClient.open(gateway, "[]", query: "jwt=\(token)"))
      }
      let kept = try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of("alice", session: "kept"))")
      #expect(try gateway.blacklist("gone").status == 201)
      for stream in streams {
        #expect(try stream.record(Self.now).name == "rig.session_killed")
        _ = try stream.wire.receiveToEnd(Self.now)
      }
      for socket in sockets {
        #expect(try JSON(parsing: socket.frame(Self.now).payload)["type"] == "rig.session_killed")
        #expect(try socket.frame(Self.now).opcode == WebSocketFrame.Opcode.close)
      }
      try gateway.publish("still", to: "alice")
      try kept.event(named: "still")
    }
  }

  @Test("A poll that waits is answered with the end of its session, whichever worker it came to")
  func waitingPolls() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let pollers = try (0..<8).map { _ in
        let poller = try LongPollClient(
          gateway, "[]", headers: [TestToken.bearer(TestToken.of("alice", session: "gone"))])
        _ = try poller.poll(until: "rig.subscriptions_set")
        return poller
      }
      let polls = try pollers.map { poller in
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(
          HTTPConnection.request("GET", poller.request.path, headers: poller.request.headers))
        return http
      }
      #expect(try gateway.blacklist("gone").status == 201)
      for (poller, http) in zip(pollers, polls) {
        #expect(try poller.events(of: http.answer()).map { $0["type"] } == ["rig.session_killed"])
      }
    }
  }

  @Test("Who opens a connection while its session is being ended is refused, or closed at once")
  func racing() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      for round in 0..<5 {
        let token = TestToken.of("alice", session: "round\(round)")
        let request = HTTPConnection.request("GET", "/_rig/v1/connection/sse?jwt=\(token)")
        let wires = try (0..<40).map { _ in
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(request)
          return http
        }
        #expect(try gateway.blacklist("round\(round)").status == 201)
        for http in wires {
          let status = try http.head().status
          guard status == 200 else {
            #expect(status == 401)
            continue
          }
          #expect(try http.wire.receiveToEnd().text.contains("event: rig.session_killed"))
        }
      }
    }
  }

  @Test("A token that is shown by PUT while its session is being ended is refused, or ends the connection")
  func racingPut() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      for round in 0..<5 {
        let token = TestToken.of("bob", session: "round\(round)")
        let pairs = try (0..<20).map { _ in
          let client = try SSEClient.open(gateway, "[]")
          let http = try HTTPConnection(port: gateway.inboundPort)
          return (client, http)
        }
        for (client, http) in pairs {
          try http.wire.send(
            HTTPConnection.request(
              "PUT", "/_rig/v1/connection/sse/\(client.token)/subscriptions",
              headers: [("content-type", "application/json"), TestToken.bearer(token)],
              body: #"{"subscriptions":[]}"#))
        }
        #expect(try gateway.blacklist("round\(round)").status == 201)
        var kept: [SSEClient] = []
        for (client, http) in pairs {
          let status = try http.answer(to: "PUT").status
          // The connection's worker stood still: nobody knows.
          if status == 503 { continue }
          guard status == 401 else {
            #expect(status == 204)
            #expect(try client.events(until: "rig.session_killed").count == 1)
            continue
          }
          kept.append(client)
        }
        for client in kept {
          #expect(try gateway.setSubscriptions(Subscriptions.to("end"), of: client.token).status == 204)
          try client.event(named: "rig.subscriptions_set")
        }
        try gateway.publish("secret", to: "bob")
        try gateway.publish(CloudEvent.json("end"))
        for client in kept { try client.event(named: "end") }
      }
    }
  }

  @Test(
    "Thousands of ended sessions survive the crash of the control worker and of all connection workers at once"
  )
  func crashes() throws {
    let count = 2_000
    try Gateway.run(TestToken.settings(["RESTART_INTENSITY": "100"])) { gateway in
      let http = try HTTPConnection(port: gateway.managementPort)
      for number in 0..<count {
        let answer = try http.send(
          "POST", "/v3/session-blacklist", headers: [("content-type", "application/json")],
          body: #"{"sessionId":"s\#(number)","validityInSeconds":600}"#)
        guard answer.status == 201 else { throw TestFailure("entry \(number): \(answer.status)") }
      }
      let victims = gateway.workers(.control) + gateway.workers(.connections)
      for victim in victims { victim.signal(SIGKILL) }
      try eventually("all of them are replaced") {
        let living = gateway.workers(.control) + gateway.workers(.connections)
        return living.count == victims.count && !living.contains { victims.contains($0) }
      }
      try gateway.waitUntilReady()
      for number in stride(from: 0, to: count, by: 97) {
        let token = TestToken.of("alice", session: "s\(number)")
        #expect(try SSEClient(gateway, query: "jwt=\(token)").head.status == 401)
        #expect(
          try WebSocketClient(
            gateway, query: "", headers: WebSocketClient.upgrade + [TestToken.bearer(token)]
          ).head.status == 401)
        #expect(try gateway.management("GET", "/v3/session-blacklist/s\(number)").status == 200)
      }
      let free = TestToken.of("alice", session: "s\(count)")
      #expect(try gateway.statuses(of: free) == [200])
      #expect(try gateway.blacklist("s\(count)").status == 201)
      #expect(try gateway.statuses(of: free) == [401])
    }
  }

  @Test("The answer waits for a worker that stands still, and then says that it can't vouch for it")
  func heldWorker() throws {
    try Gateway.run(TestToken.settings(["WATCHDOG_S": "3600"])) { gateway in
      let token = TestToken.of("alice", session: "gone")
      let streams = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
      }
      let held = try #require(gateway.workers(.connections).first)
      let itsStream = try #require(streams.first { $0.0 == held.pid }?.1)
      try held.freeze()
      let answer = try gateway.blacklist("gone")
      try expectProblem(answer, 503, naming: "confirmed")
      #expect(Int(answer["retry-after"] ?? "").map { $0 > 0 } == true)
      for (pid, stream) in streams where pid != held.pid { try stream.event(named: "rig.session_killed") }

      let http = try HTTPConnection(port: gateway.managementPort)
      try http.wire.send(
        HTTPConnection.request(
          "POST", "/v3/session-blacklist", headers: [("content-type", "application/json")],
          body: #"{"sessionId":"gone","validityInSeconds":60}"#))
      #expect(try gateway.management("GET", "/v3/session-blacklist/gone").status == 200)
      held.thaw()
      #expect(try http.answer(to: "POST").status == 201)
      #expect(try itsStream.record(Self.now).name == "rig.session_killed")
      #expect(try gateway.statuses(of: token) == [401])
    }
  }

  @Test("A session's name may be any text, and is found under its percent-encoded form")
  func names() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      for name in ["a b/c?d#e%", "Ren\u{e9}", String(repeating: "x", count: 1_024)] {
        let token = TestToken.of("alice", session: name)
        let client = try SSEClient.open(gateway, "[]", query: "jwt=\(token)")
        let answer = try gateway.blacklist(name)
        #expect(answer.status == 201)
        let location = try #require(answer["location"])
        #expect(location == "/v3/session-blacklist/\(HTTP.encoded(name))")
        #expect(try gateway.management("GET", location).status == 200)
        try client.event(named: "rig.session_killed")
      }
      #expect(try gateway.blacklist(String(repeating: "x", count: 1_025)).status == 400)
    }
  }
}
