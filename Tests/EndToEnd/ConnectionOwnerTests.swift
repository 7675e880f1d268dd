// A connection belongs to whoever opened it: nobody else's token is taken on by it, and a poll that shows one gets none of its events.
// Contract §2.3, §2.4.

import Foundation
import Testing

@Suite("13.A2: a connection belongs to whoever opened it", .serialized)
struct ConnectionOwnerTests {
  private static let alice = TestToken.of("alice", session: "a")
  private static let bob = TestToken.of("bob", session: "b")

  private static func put(
    _ http: HTTPConnection, _ token: String, of connection: String, subscriptions: String = "[]"
  ) throws -> HTTPAnswer {
    try http.send(
      "PUT", "/_rig/v1/connection/sse/\(connection)/subscriptions",
      headers: [("content-type", "application/json"), TestToken.bearer(token)],
      body: #"{"subscriptions":\#(subscriptions)}"#)
  }

  /// One connection to each worker.
  private static func doors(_ gateway: Gateway) throws -> [HTTPConnection] {
    try gateway.onePerWorker({ (http: HTTPConnection) in http.wire }) {
      try HTTPConnection(port: gateway.inboundPort)
    }.map(\.1)
  }

  @Test("PUT with the token of another user is 403 and changes nothing, whichever worker gets it")
  func anotherUser() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let query = "jwt=\(Self.alice)"
      let stream = try SSEClient.open(gateway, Subscriptions.to("old"), query: query)
      let socket = try WebSocketClient.open(gateway, Subscriptions.to("old"), query: query)
      let poller = try LongPollClient(
        gateway, Subscriptions.to("old"), headers: [TestToken.bearer(Self.alice)])
      _ = try poller.poll(until: "rig.subscriptions_set")
      for http in try Self.doors(gateway) {
        for connection in [stream.token, socket.token, poller.token] {
          let answer = try Self.put(http, Self.bob, of: connection, subscriptions: Subscriptions.to("new"))
          try expectProblem(answer, 403, naming: "another user")
          // A token of each: one of them isn't the connection's.
          let both = try http.send(
            "PUT", "/_rig/v1/connection/sse/\(connection)/subscriptions",
            headers: [("content-type", "application/json"), TestToken.bearer(Self.alice, Self.bob)],
            body: #"{"subscriptions":[]}"#)
          try expectProblem(both, 403, naming: "another user")
        }
      }
      try socket.send(
        #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[],"jwt":"\#(Self.bob)"}}"#)
      let error = try socket.event("rig.error")["data"]
      #expect(error?["status"] == 403 && error?["id"] == "1")
      try gateway.publish("secret", to: "bob")
      try gateway.publish(CloudEvent.json("new"))
      try gateway.publish(CloudEvent.json("old"))
      try stream.event(named: "old")
      try socket.event("old")
      #expect(try poller.poll(until: "old").count == 1)

      let fresh = TestToken.of("alice", session: "fresh")
      for http in try Self.doors(gateway) {
        for connection in [stream.token, socket.token, poller.token] {
          #expect(try Self.put(http, fresh, of: connection).status == 204)
        }
      }
    }
  }

  @Test("A connection of nobody takes on a user once")
  func once() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let stream = try SSEClient.open(gateway, "[]")
      let doors = try Self.doors(gateway)
      #expect(try Self.put(doors[0], Self.alice, of: stream.token).status == 204)
      try stream.event(named: "rig.subscriptions_set")
      for http in doors { #expect(try Self.put(http, Self.bob, of: stream.token).status == 403) }
      try gateway.publish("no", to: "bob")
      try gateway.publish("yes", to: "alice")
      try stream.event(named: "yes")
    }
  }

  @Test("MAY_SWITCH_USER=on: a connection takes on further users")
  func switched() throws {
    try Gateway.run(TestToken.settings(["MAY_SWITCH_USER": "on"])) { gateway in
      let stream = try SSEClient.open(gateway, "[]", query: "jwt=\(Self.alice)")
      for http in try Self.doors(gateway) {
        #expect(try Self.put(http, Self.bob, of: stream.token).status == 204)
        try stream.event(named: "rig.subscriptions_set")
      }
      try gateway.publish("yes", to: "bob")
      try stream.event(named: "yes")
    }
  }

  // MARK: Polls

  private static func dead(_ gateway: Gateway) throws -> [(String, String)] {
    #expect(try gateway.blacklist("dead").status == 201)
    return [
      ("expired", TestToken.of("alice", session: "a", #""exp":\#(Int(Date().timeIntervalSince1970) - 10)"#)),
      ("ended", TestToken.of("alice", session: "dead")), ("of another key", "\(alice)x"),
      ("malformed", "nonsense"),
    ]
  }

  @Test("A poll that shows a token is judged by it, in a field or in the query, whichever worker gets it")
  func polls() throws {
    try Gateway.run(TestToken.settings()) { gateway in
      let poller = try LongPollClient(
        gateway, Subscriptions.to("secret"), headers: [TestToken.bearer(Self.alice)])
      _ = try poller.poll(until: "rig.subscriptions_set")
      try gateway.publish(CloudEvent.json("secret"))
      let dead = try Self.dead(gateway)
      let request = poller.request
      for http in try Self.doors(gateway) {
        func poll(_ token: String) throws -> [HTTPAnswer] {
          [
            try http.send("GET", request.path, headers: request.headers + [TestToken.bearer(token)]),
            try http.send("GET", "\(request.path)?jwt=\(HTTP.encoded(token))", headers: request.headers),
          ]
        }
        for answer in try poll(Self.bob) { try expectProblem(answer, 403, naming: "another user") }
        for answer in try poll(TestToken.of("alice", session: "other")) {
          try expectProblem(answer, 403, naming: "another session")
        }
        for (what, token) in dead {
          for answer in try poll(token) {
            #expect(answer.status == 401, "\(what)")
            #expect(answer["set-cookie"] == nil && !answer.text.contains("secret"))
          }
        }
        for answer in try poll(Self.alice) + poll(TestToken.of("alice")) {
          #expect(answer.status == 200 && answer.text.contains("secret"))
        }
      }
      // A fresh token that was shown for the connection is the connection's.
      let fresh = TestToken.of("alice", session: "fresh")
      #expect(try gateway.show(fresh, of: poller.token).status == 204)
      #expect(
        try gateway.inbound("GET", request.path, headers: request.headers + [TestToken.bearer(fresh)]).status
          == 200)
    }
  }

  @Test("That holds over TLS and HTTP/2 as well")
  func transports() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate, more: TestToken.settings())) { gateway in
      let poller = try LongPollClient(
        gateway, Subscriptions.to("secret"), usesCookies: false, headers: [TestToken.bearer(Self.alice)])
      try gateway.publish(CloudEvent.json("secret"))
      let path = poller.request.path
      let http = try HTTPConnection(wire: gateway.wire(nil, TLSEnd()))
      try expectProblem(try http.send("GET", "\(path)&jwt=\(Self.bob)"), 403, naming: "another user")
      #expect(try http.send("GET", "\(path)&jwt=nonsense").status == 401)
      #expect(try http.send("GET", "\(path)&jwt=\(Self.alice)").text.contains("secret"))

      let second = try HTTP2Client(port: gateway.inboundPort)
      let refused = try second.get("\(path)&jwt=\(Self.bob)")
      let own = try second.get("\(path)&jwt=\(Self.alice)")
      try second.read(until: "both answers") { $0.ended.isSuperset(of: [refused, own]) }
      #expect(second.text(refused).contains("another user") && !second.text(refused).contains("secret"))
      #expect(second.heads[own] == 200 && second.text(own).contains("secret"))
    }
  }

  @Test("A poll whose token ends while it waits is told so, though its connection goes on")
  func endsWhileWaiting() throws {
    try Gateway.run(TestToken.settings(["LONGPOLLING_WAIT_S": "20"])) { gateway in
      let poller = try LongPollClient(
        gateway, Subscriptions.to("late"), headers: [TestToken.bearer(TestToken.of("alice"))])
      _ = try poller.poll(until: "rig.subscriptions_set")
      let doors = try Self.doors(gateway)
      let end = Int(Date().timeIntervalSince1970) + 4
      let short = TestToken.of("alice", #""exp":\#(end)"#)
      for http in doors {
        try http.wire.send(
          HTTPConnection.request(
            "GET", poller.request.path, headers: poller.request.headers + [TestToken.bearer(short)]))
      }
      // The first of the two is answered with nothing when the second comes.
      try eventually("the token is over") { Date().timeIntervalSince1970 > Double(end) }
      try gateway.publish(CloudEvent.json("late"))
      let statuses = try doors.map { try $0.answer() }
      #expect(statuses.map(\.status).contains(401))
      #expect(!statuses.contains { $0.text.contains(#""late""#) })
    }
  }
}
