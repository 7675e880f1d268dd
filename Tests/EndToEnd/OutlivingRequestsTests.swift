// Requests, polls and idle connections whose worker is killed: their clients notice nothing, or are told.

import Foundation
import Glibc
import TestSupport
import Testing

@Suite("16 What isn't an event stream outlives its worker")
struct OutlivingRequestsTests {
  private static func settings(_ more: [String: String] = [:]) -> [String: String] {
    ["CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "100"].merging(more) { $1 }
  }

  private func killWorker(_ gateway: Gateway) throws {
    try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
  }

  @Test("16 An idle connection serves the next request, and one on which nothing has been said the first")
  func idle() throws {
    try Gateway.run(Self.settings()) { gateway in
      let used = try HTTPConnection(port: gateway.inboundPort)
      let unused = try HTTPConnection(port: gateway.inboundPort)
      _ = try gateway.worker(holding: unused.wire.localPort)
      for _ in 0..<3 {
        for http in [used, unused] { #expect(try http.send("GET", "/_rig/health").status == 200) }
        let fresh = try HTTPConnection(port: gateway.inboundPort)
        _ = try gateway.worker(holding: fresh.wire.localPort)
        try killWorker(gateway)
        for http in [used, unused, fresh] { #expect(try http.send("GET", "/_rig/health").text == "OK") }
      }
    }
  }

  @Test(
    "16 A connection to the port for TLS on which nothing has been said shakes hands with the next worker")
  func untouchedTLS() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate, more: Self.settings())) { gateway in
      let raw = try Wire(port: gateway.inboundTLSPort)
      try eventually("the worker has accepted it") {
        guard
          let inode = RunningProcess.socketInode(
            serverPort: gateway.inboundTLSPort, clientPort: raw.localPort)
        else { return false }
        return gateway.workers(.connections).contains { $0.socketInodes.contains(inode) }
      }
      try killWorker(gateway)
      let wire = Wire(accepted: dup(raw.descriptor), tls: try TLSEnd())
      try wire.shakeHands()
      #expect(try HTTPConnection(wire: wire).send("GET", "/_rig/health").text == "OK")
    }
  }

  @Test(
    "16 A request that a service hasn't answered is 502 with the reason; one for an event stream is ended")
  func unanswered() throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(Self.settings(["PROXY_RECV_TIMEOUT": "60000"])) { gateway in
      try gateway.define(TestAPI(port: service.port, endpoint: #""method":"GET","path_regex":"/x.*""#))
      let plain = try HTTPConnection(port: gateway.inboundPort)
      // One that has been served before, too.
      #expect(try plain.send("GET", "/_rig/health").status == 200)
      try plain.wire.send(HTTPConnection.request("GET", "/x"))
      let first = try HTTPConnection(port: gateway.inboundPort)
      try first.wire.send(HTTPConnection.request("GET", "/x"))
      let stream = try HTTPConnection(port: gateway.inboundPort)
      try stream.wire.send(HTTPConnection.request("GET", "/x", headers: [("accept", "text/event-stream")]))
      try eventually("the service has them all") { service.requests.count == 3 }
      try killWorker(gateway)
      for http in [plain, first] {
        let answer = try http.answer()
        try expectProblem(answer, 502, naming: "has ended")
        #expect(answer["connection"] == "close")
      }
      let rest = try stream.wire.receiveToEnd()
      #expect(rest.text == "")
    }
  }

  @Test(
    "16 A long-polling session goes on with its cookies, and a waiting poll is answered by the next event")
  func polls() throws {
    try Gateway.run(Self.settings()) { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      let idle = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      _ = try client.poll()
      let http = try HTTPConnection(port: gateway.inboundPort)
      for round in 0..<3 {
        let request = client.request
        try http.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
        #expect(try !http.wire.receive(Deadline(after: 0.2)), "answered without an event")
        try killWorker(gateway)
        try gateway.publish(NumberedEvents.json(round))
        let events = try client.events(of: try http.answer())
        #expect(events.map { $0["id"]?.string } == [NumberedEvents.mark(round)])
      }
      // What came for the one that didn't poll meanwhile, its greeting first.
      let all = try idle.poll()
      #expect(all.prefix(2).map { $0["type"] } == ["rig.connection.create", "rig.subscriptions_set"])
      let expected = (0..<3).map { NumberedEvents.mark($0) }
      #expect(all.dropFirst(2).map { $0["id"]?.string } == expected)
    }
  }

  @Test("16 An answer that wasn't acknowledged is given again by the next worker, and what was is not")
  func unacknowledged() throws {
    try Gateway.run(Self.settings()) { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      _ = try client.poll()
      for number in 0..<5 { try gateway.publish(NumberedEvents.json(number)) }
      var acknowledged: [String?] = []
      try eventually("three have come") {
        acknowledged += try client.poll().map { $0["id"]?.string }
        return acknowledged.count >= 3
      }
      let request = client.request
      for number in 5..<8 { try gateway.publish(NumberedEvents.json(number)) }
      var unacknowledged: [String?] = []
      try eventually("the rest has come") {
        let answer = try gateway.inbound("GET", request.path, headers: request.headers)
        unacknowledged = try answer.json["events"]?.array?.map { $0["id"]?.string } ?? []
        return acknowledged.count + unacknowledged.count == 8
      }
      try killWorker(gateway)
      let again = try client.poll().map { $0["id"]?.string }
      #expect(acknowledged + again == (0..<8).map { NumberedEvents.mark($0) })
    }
  }

  @Test(
    "16 A poll that waits at another worker for a session of the killed one waits on, and is answered once")
  func remotePoll() throws {
    try Gateway.run(["CONNECTION_WORKERS": "2", "RESTART_INTENSITY": "100"]) { gateway in
      let doors = try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
        try HTTPConnection(port: gateway.inboundPort)
      }
      let wanted = HTTP.encoded(Subscriptions.to(NumberedEvents.type))
      func cookies(_ answer: HTTPAnswer) -> (String, String) {
        #expect(answer.status == 200)
        return (
          "cookie", answer.head.all("set-cookie").map { $0.prefix { $0 != ";" } }.joined(separator: "; ")
        )
      }
      var cookie = cookies(try doors[0].1.send("GET", "\(LongPollClient.path)?subscriptions=\(wanted)"))
      let other = doors[1].1
      cookie = cookies(try other.send("GET", LongPollClient.path, headers: [cookie]))
      for round in 0..<2 {
        try other.wire.send(HTTPConnection.request("GET", LongPollClient.path, headers: [cookie]))
        #expect(try !other.wire.receive(Deadline(after: 0.2)), "answered without an event")
        // The worker that has the session, then the one that has the poll.
        let doomed = try gateway.worker(holding: doors[round].1.wire.localPort)
        try gateway.killAndAwaitReplacement(doomed)
        try gateway.publish(NumberedEvents.json(round))
        let answer = try other.answer()
        #expect(try answer.json["events"]?.array?.map { $0["id"]?.string } == [NumberedEvents.mark(round)])
        cookie = cookies(answer)
      }
    }
  }

  @Test(
    "16 A change of subscriptions that comes while its connection is adopted is made, whoever it comes to")
  func change() throws {
    // The heir stops in the middle of adopting.
    let settings = [
      "CONNECTION_WORKERS": "2", "RESTART_INTENSITY": "100", "WATCHDOG_S": "3600",
      "RIG_TEST_STOP_AT": "connections.0:entryAdopted#2",
    ]
    try Gateway.run(settings) { gateway in
      let clients = try gateway.onePerWorker({ (client: SSEClient) in client.wire }) {
        try SSEClient.open(gateway, Subscriptions.to("old"))
      }
      let doomed = try #require(gateway.workers(.connections).first)
      let client = try #require(clients.first { $0.0 == doomed.pid }?.1)
      let other = try HTTPConnection(port: gateway.inboundPort)
      kill(doomed.pid, SIGKILL)
      let heir = try eventually("the heir has stopped") {
        gateway.workers(.connections).first { $0 != doomed && $0.state == "T" }
      }
      let headers = [("content-type", "application/json")]
      let path = "/_rig/v1/connection/sse/\(client.token)/subscriptions"
      let body = #"{"subscriptions":[{"eventType":"new"}]}"#
      // The worker that lives takes it, and the heir has it when it goes on.
      try other.wire.send(HTTPConnection.request("PUT", path, headers: headers, body: body))
      #expect(try !other.wire.receive(Deadline(after: 0.3)), "nobody says yet that the connection has gone")
      heir.thaw()
      #expect(try other.answer(to: "PUT").status == 204)
      try client.event(named: "rig.subscriptions_set")
      try gateway.publish(CloudEvent.json("new"))
      try client.event(named: "new")
    }
  }

  @Test("16 Nobody is said to have left or come when a worker is killed, even without a grace time")
  func presence() throws {
    let settings = TestToken.settings(
      Self.settings(["PRIVILEGED_ROLES": "support", "PRESENCE_GRACE_S": "0", "CONNECTION_WORKERS": "2"]))
    try Gateway.run(settings) { gateway in
      let watcher = try SSEClient.open(
        gateway, Subscriptions.to("rig.presence.*"),
        query: "jwt=\(TestToken.of("carol", #""roles":["support"]"#))")
      let users = (0..<6).map { "user\($0)" }
      let clients = try users.map { try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of($0))") }
      for _ in 0...users.count { try watcher.event(named: "rig.presence.join") }
      for _ in 0..<2 {
        for worker in gateway.workers(.connections) { try gateway.killAndAwaitReplacement(worker) }
      }
      let listed = try gateway.listed("/v3/sessions", count: 1 + users.count)
      #expect(listed.map { $0["user"]?.string } == ["carol"] + users)
      clients[0].wire.endSending()
      let next = try watcher.event()
      let left = try next.json["data"]?["user"]?.string
      #expect(next.name == "rig.presence.leave" && left == "user0")
    }
  }

  @Test("16 What was ordered while nobody served the place holds for those who are adopted")
  func orders() throws {
    let settings = TestToken.settings(
      Self.settings(["WATCHDOG_S": "3600", "RIG_TEST_STOP_AT": "connections.0:batchReceived#2"]))
    try Gateway.run(settings) { gateway in
      func open(_ user: String) throws -> SSEClient {
        try SSEClient.open(gateway, "[]", query: "jwt=\(TestToken.of(user, session: "s-\(user)"))")
      }
      let (ended, closed, removed, kept) = (
        try open("ended"), try open("closed"), try open("removed"), try open("kept")
      )
      let listed = try gateway.listed("/v3/sessions/removed", count: 1)
      let id = try #require(listed.first?["connection"]?.string)
      let doomed = try #require(gateway.workers(.connections).first)
      kill(doomed.pid, SIGKILL)
      let heir = try eventually("the heir has stopped") {
        gateway.workers(.connections).first { $0 != doomed && $0.state == "T" }
      }
      // They stand, and aren't confirmed, since nobody has carried them out: the requests wait for that.
      let orders = try [
        HTTPConnection.request(
          "POST", "/v3/session-blacklist", headers: [("content-type", "application/json")],
          body: #"{"sessionId":"s-ended","validityInSeconds":600}"#),
        HTTPConnection.request("DELETE", "/v3/sessions/closed"),
        HTTPConnection.request("DELETE", "/v3/connections/\(id)"),
      ].map { text in
        let http = try HTTPConnection(port: gateway.managementPort)
        try http.wire.send(text)
        return http
      }
      for http in orders { #expect(try !http.wire.receive(Deadline(after: 0.2))) }
      heir.thaw()
      try ended.event(named: "rig.session_killed")
      for client in [closed, removed] { try client.event(named: "rig.server_closing") }
      for client in [ended, closed, removed] { try client.awaitEnd() }
      for http in orders { #expect(try http.answer().status / 100 == 2) }
      try gateway.publish("for-kept", to: "kept")
      try kept.event(named: "for-kept")
    }
  }
}
