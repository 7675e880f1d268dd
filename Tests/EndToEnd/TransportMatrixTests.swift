// Every promise of contract §2 for every way in which a frontend may come.
//
//                   HTTP/1.1   HTTP/2   HTTP/1.1 over TLS   HTTP/2 over TLS
//   sse                x         x              x                  x
//   ws                 x         x              x                  x         over HTTP/2: RFC 8441
//   longpolling        x         x              x                  x
//
// One gateway for each cell; the promises are kept one after the other. Those of the dead peer begin first and are looked at last:
// they take their time.

import Foundation
import Glibc
import Testing

@Suite("14.C13 What every transport promises, whatever carries it", .serialized)
final class TransportMatrixTests {
  struct Cell: CustomTestStringConvertible, Sendable {
    let transport: EventTransport
    let carrier: Carrier

    var testDescription: String { "\(transport.rawValue) by \(carrier.rawValue)" }
  }

  static let cells = EventTransport.allCases.flatMap { transport in
    Carrier.allCases.map { Cell(transport: transport, carrier: $0) }
  }

  /// What is promised, in the order in which it is looked at.
  private static let promises: [(name: String, isKept: @Sendable (Cell, Gateway) throws -> Void)] = [
    ("greeting", greeting), ("heartbeat", heartbeat), ("resume", resume), ("slow consumer", slowConsumer),
    ("limits", limits),
  ]

  private static let settings = [
    "CONNECTION_WORKERS": "1", "HEARTBEAT_S": "1", "WEBSOCKET_PONG_TIMEOUT_S": "10",
    "TCP_USER_TIMEOUT_S": "10",
    "LONGPOLLING_WAIT_S": "1", "LONGPOLLING_TIMEOUT_S": "10", "LONGPOLLING_MAX_EVENTS": "20",
    "MAX_UNSENT_BYTES": "65536", "SLOW_CONSUMER_S": "1", "MAX_SUBSCRIPTIONS_PER_CONNECTION": "3",
    "TURN_LIMIT_MS": "1000",
  ]

  private let certificate: TestCertificate
  private let directory: TestDirectory

  init() throws {
    directory = try TestDirectory()
    certificate = try TestCertificate(directory.path, ["localhost"])
  }

  @Test("14.C13 Greeting, heartbeat, dead peer, resume, slow consumer, limits, farewell", arguments: cells)
  func promises(cell: Cell) throws {
    try Gateway.run(TestCertificate.settings(certificate, more: Self.settings)) { gateway in
      gateway.carrier = cell.carrier
      let dead = try EventClient(cell.transport, gateway, Subscriptions.to("a"))
      try dead.vanish()
      for promise in Self.promises {
        do { try promise.isKept(cell, gateway) } catch { Issue.record("\(promise.name): \(error)") }
      }
      do { try Self.deadPeer(cell, gateway) } catch { Issue.record("dead peer: \(error)") }
      let client = try EventClient(cell.transport, gateway, Subscriptions.to("a"))
      let reason = try client.awaitFarewell(gateway) { gateway.process.signal(SIGTERM) }
      #expect(reason == "shutdown", "farewell")
      withExtendedLifetime(dead) {}
    }
  }

  private static func greeting(_ cell: Cell, _ gateway: Gateway) throws {
    let client = try EventClient(cell.transport, gateway, Subscriptions.to("a"))
    #expect(!client.token.isEmpty)
    // The token is good for changing the subscriptions, which is told.
    let answer = try gateway.setSubscriptions(
      Subscriptions.to("b"), of: client.token, path: cell.transport.rawValue)
    #expect(answer.status == 204)
    let told = try client.events(until: "rig.subscriptions_set").last
    #expect(told?["data"]?.array?.first?["eventType"] == "b")
    try gateway.publish(CloudEvent.json("b", id: "1"))
    #expect(try client.events(until: "b").last?["id"] == "1")
  }

  private static func heartbeat(_ cell: Cell, _ gateway: Gateway) throws {
    let client = try EventClient(cell.transport, gateway, "[]")
    for _ in 0..<2 { try client.awaitHeartbeat() }
  }

  private static func resume(_ cell: Cell, _ gateway: Gateway) throws {
    // A WebSocket gets its first cursor where it comes from: another transport, or a WebSocket before it.
    let first = try EventClient(
      cell.transport == .webSocket ? .sse : cell.transport, gateway, Subscriptions.to("a"))
    try gateway.publish(CloudEvent.json("a", id: "seen"))
    _ = try first.events(until: "a")
    for id in ["missed", "missed too"] { try gateway.publish(CloudEvent.json("a", id: id)) }
    let seen = try #require(first.cursor)
    let second = try EventClient(cell.transport, gateway, Subscriptions.to("a"), resumingAt: seen)
    #expect(try second.events(until: "a").last?["id"] == "missed")
    let cursor = try #require(second.cursor)
    #expect(try second.events(until: "a").last?["id"] == "missed too")
    try gateway.publish(CloudEvent.json("a", id: "live"))
    #expect(try second.events(until: "a").last?["id"] == "live")
    guard cell.transport != .longPolling else { return }
    let third = try EventClient(cell.transport, gateway, Subscriptions.to("a"), resumingAt: cursor)
    let rest = try (0..<2).map { _ in try third.events(until: "a").last?["id"] }
    #expect(rest == ["missed too", "live"])
  }

  private static func slowConsumer(_ cell: Cell, _ gateway: Gateway) throws {
    let client = try EventClient(
      cell.transport, gateway, Subscriptions.to(NumberedEvents.type), receiveBuffer: 4_096)
    guard cell.transport != .longPolling else {
      // It isn't closed, and it is told what it has lost.
      for number in 0..<30 { try gateway.publish(NumberedEvents.json(number)) }
      let lost = try client.events(until: "rig.events_lost").last
      #expect(lost?["data"]?["count"] == 10)
      return
    }
    let before = try gateway.metric("rig_slow_consumers_total")
    var published = 0
    while try gateway.metric("rig_slow_consumers_total") == before {
      guard published < 2_000 else { throw TestFailure("\(published) events, and it isn't slow") }
      try gateway.publish(NumberedEvents.json(published, padding: 16_000))
      published += 1
    }
    let reason = try client.awaitFarewell()
    #expect(reason == "slow consumer")
  }

  private static func limits(_ cell: Cell, _ gateway: Gateway) throws {
    let many = HTTP.encoded(Subscriptions.to("a", "b", "c", "d"))
    let refused = try gateway.inbound(
      "GET", "\(cell.transport.path)?subscriptions=\(many)", headers: cell.transport.headers)
    #expect(refused.status == 400 && refused.text.contains("4 subscriptions, expected at most 3"))
    let large = try gateway.inbound(
      "GET", cell.transport.path,
      headers: cell.transport.headers + [("cookie", String(repeating: "c", count: 20_000))])
    #expect(large.status == 431 && large["content-type"] == "application/problem+json")
    guard cell.transport == .webSocket else { return }
    let client = try WebSocketClient.open(gateway, "[]")
    try client.send(WebSocketFrame(WebSocketFrame.Opcode.text, [UInt8](repeating: 0x20, count: 1_100_000)))
    #expect(try client.awaitClose().code == 1009)
  }

  /// Streams whose client is gone have ended, and so have sessions that nobody polls.
  private static func deadPeer(_ cell: Cell, _ gateway: Gateway) throws {
    try eventually("the dead connection is gone") {
      try gateway.metric("rig_connections", ["transport": cell.transport.rawValue]) == 0
    }
  }

  @Test(
    "14.C13 A WebSocket whose client's kernel lives, but not the client, is told and closed; one that answers pings stays open"
  )
  func noPong() throws {
    let settings = ["CONNECTION_WORKERS": "1", "HEARTBEAT_S": "1", "WEBSOCKET_PONG_TIMEOUT_S": "8"]
    try Gateway.run(TestCertificate.settings(certificate, more: settings)) { gateway in
      var pairs: [(carrier: Carrier, answering: WebSocketClient, silent: WebSocketClient)] = []
      for carrier in Carrier.allCases {
        gateway.carrier = carrier
        pairs.append(
          (carrier, try WebSocketClient.open(gateway, "[]"), try WebSocketClient.open(gateway, "[]")))
      }
      // Each silent one has answered once. What it doesn't answer comes later than the first ping of the others.
      for pair in pairs { try pair.silent.answerPing() }
      var ends: [Carrier: (code: Int, reason: String)] = [:]
      let deadline = Deadline(after: 2 * Deadline.patience)
      while ends.count < pairs.count {
        guard !deadline.hasPassed else { throw TestFailure("only \(ends.keys) were closed") }
        for pair in pairs {
          try pair.answering.answerPing()
          if ends[pair.carrier] == nil { ends[pair.carrier] = try pair.silent.closeIfCome() }
        }
      }
      for pair in pairs {
        let end = try #require(ends[pair.carrier])
        #expect(end.code == 1008 && end.reason == "no pong for 8 s", "\(pair.carrier)")
        try pair.answering.answerPing()
        pair.silent.wire.endSending()
      }
      try eventually("the silent ones are gone, and the others aren't") {
        for pair in pairs { try pair.answering.answerPing() }
        return try gateway.metric("rig_connections", ["transport": "ws"]) == Double(pairs.count)
      }
    }
  }

  @Test("14.C13 Rate and number of connections are bounded alike", arguments: [429, 503])
  func connectionLimits(status: Int) throws {
    let most = 8
    let limit =
      status == 429 ? ["MAX_CONNECTIONS_PER_MINUTE": "\(most)"] : ["MAX_CONNECTIONS_PER_WORKER": "\(most)"]
    let more = limit.merging(["CONNECTION_WORKERS": "1"]) { $1 }
    try Gateway.run(TestCertificate.settings(certificate, more: more)) { gateway in
      let open = try (0..<most).map { _ in try SSEClient.open(gateway, "[]") }
      for cell in Self.cells {
        gateway.carrier = cell.carrier
        // A minute may end meanwhile: then some are let in, and stay.
        var asked: [HTTPConnection] = []
        var head: HTTPHead
        repeat {
          let http = HTTPConnection(wire: try gateway.wire())
          let path = "\(cell.transport.path)?subscriptions=%5B%5D"
          try http.wire.send(HTTPConnection.request("GET", path, headers: cell.transport.headers))
          head = try http.head()
          asked.append(http)
        } while head.status != status && asked.count <= most
        #expect(head.status == status && head["retry-after"] != nil, "\(cell.testDescription)")
      }
      withExtendedLifetime(open) {}
    }
  }
}
