// How many connections a user and an address may have open at a gateway, and which one goes. Contract §10.

import Foundation
import Testing

@Suite("13.B12: connections per user and per address")
struct ConnectionLimitTests {
  private static let limit = 3

  private static func from(_ address: String) -> [(String, String)] { [("x-forwarded-for", address)] }

  private static func stream(_ gateway: Gateway, _ address: String) throws -> SSEClient {
    let stream = try SSEClient(gateway, query: "", headers: from(address))
    if stream.head.status == 200 { try stream.greet() }
    return stream
  }

  private static func settings(_ more: [String: String]) -> [String: String] {
    ["TRUSTED_PROXIES": "127.0.0.1"].merging(more) { $1 }
  }

  @Test(
    "The oldest of an address is told why and closed, on whichever worker, and told to stay away for a while")
  func oldestOfAddress() throws {
    try Gateway.run(Self.settings(["MAX_CONNECTIONS_PER_ADDRESS": "\(Self.limit)"])) { gateway in
      let address = "2001:db8:7::1"
      let first = try Self.stream(gateway, address)
      let socket = try WebSocketClient(
        gateway, query: "", headers: WebSocketClient.upgrade + Self.from("2001:db8:7::2"))
      let poller = try LongPollClient(gateway, "[]", headers: Self.from("2001:db8:7::3"))
      let elsewhere = try Self.stream(gateway, "2001:db8:8::1")
      // All of one /64; each new one displaces the oldest.
      var more: [SSEClient] = []
      more.append(try Self.stream(gateway, "2001:db8:7::4"))
      let farewell = try first.event(named: "rig.server_closing")
      #expect(try farewell.json["data"]?["reason"] == "too many connections from this address")
      #expect((30_000...90_000).contains(farewell.retry.flatMap { Int($0) } ?? 0))
      try first.awaitEnd()
      more.append(try Self.stream(gateway, "2001:db8:7::5"))
      let close = try socket.awaitClose()
      #expect(close.code == 1008 && close.reason == "too many connections from this address")
      more.append(try Self.stream(gateway, "2001:db8:7::6"))
      _ = try poller.poll(until: "rig.server_closing")
      try eventually("three of the network and one elsewhere are open") {
        try gateway.metric("rig_connections", ["transport": "sse"]) == Double(Self.limit + 1)
      }
      #expect(try gateway.metric("rig_connections_displaced_total", ["limit": "address"]) == 3)
      #expect(try gateway.metric("rig_limit", ["limit": "MAX_CONNECTIONS_PER_ADDRESS"]) == Double(Self.limit))
      try gateway.publish(CloudEvent.json("nobody's"))
      #expect(!elsewhere.wire.isAtEnd)
    }
  }

  @Test("Over many workers as many of a user stay open as are allowed, those that were opened last")
  func oldestOfUser() throws {
    let settings = TestToken.settings([
      "MAX_CONNECTIONS_PER_USER": "\(Self.limit)", "CONNECTION_WORKERS": "4",
    ])
    try Gateway.run(settings) { gateway in
      let query = "subscriptions=\(HTTP.encoded(Subscriptions.to("a")))&jwt=\(TestToken.of("alice"))"
      let bob = try SSEClient.open(gateway, Subscriptions.to("a"), query: "jwt=\(TestToken.of("bob"))")
      var streams: [SSEClient] = []
      for number in 1...20 {
        let stream = try SSEClient(gateway, query: query)
        try stream.greet()
        streams.append(stream)
        try eventually("\(number) were opened, and the oldest are gone") {
          try gateway.metric("rig_connections", ["transport": "sse"]) == Double(min(number, Self.limit) + 1)
        }
      }
      for stream in streams.dropLast(Self.limit) {
        let farewell = try stream.event(named: "rig.server_closing")
        #expect(try farewell.json["data"]?["reason"] == "too many connections of this user")
      }
      try gateway.publish(CloudEvent.json("a"))
      for stream in streams.suffix(Self.limit) + [bob] { try stream.event(named: "a") }
      // A connection that becomes hers by a PUT counts as well.
      let late = try SSEClient.open(gateway, "[]")
      #expect(try gateway.show(TestToken.of("alice"), of: late.token).status == 204)
      try streams[streams.count - Self.limit].event(named: "rig.server_closing")
      #expect(try gateway.metric("rig_connections_displaced_total", ["limit": "user"]) == 18)
    }
  }

  @Test(
    "If the newest goes, it is refused before anything is opened, with the setting's name, until there is room"
  )
  func newest() throws {
    let settings = TestToken.settings([
      "MAX_CONNECTIONS_PER_USER": "\(Self.limit)", "MAX_CONNECTIONS_PER_ADDRESS": "\(2 * Self.limit)",
      "CONNECTION_LIMIT_CLOSES": "newest", "KEEPER_TTL_S": "0",
    ])
    try Gateway.run(settings) { gateway in
      let query = "jwt=\(TestToken.of("alice"))"
      var streams = try (0..<Self.limit).map { _ in try SSEClient.open(gateway, "[]", query: query) }
      for path in ["sse", "ws", "longpolling"] {
        let answer = try gateway.inbound(
          "GET", "/_rig/v1/connection/\(path)?\(query)", headers: WebSocketClient.upgrade)
        try expectProblem(answer, 429, naming: "\(Self.limit)", "MAX_CONNECTIONS_PER_USER")
        #expect(answer["retry-after"] != nil)
      }
      let anonymous = try SSEClient.open(gateway, "[]")
      let change = try gateway.show(TestToken.of("alice"), of: anonymous.token)
      try expectProblem(change, 429, naming: "MAX_CONNECTIONS_PER_USER")
      streams.removeLast()
      try eventually("there is room again") {
        let stream = try SSEClient(gateway, query: query)
        guard stream.head.status == 200 else { return false }
        streams.append(stream)
        return true
      }
      for _ in 0..<2 { streams.append(try SSEClient.open(gateway, "[]")) }
      try expectProblem(
        try gateway.inbound("GET", "/_rig/v1/connection/sse"), 429, naming: "MAX_CONNECTIONS_PER_ADDRESS")
      #expect(try gateway.metric("rig_connections_refused_total", ["reason": "user_limit"]) >= 4)
      #expect(try gateway.metric("rig_connections_refused_total", ["reason": "address_limit"]) == 1)
      // The connections of a worker that has died count no more.
      for worker in gateway.workers(.connections) { try gateway.killAndAwaitReplacement(worker) }
      for _ in 0..<Self.limit { _ = try SSEClient.open(gateway, "[]", query: query) }
    }
  }
}
