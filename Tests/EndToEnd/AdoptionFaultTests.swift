// What happens between a connection worker's death and the adoption of its connections, and deaths of heirs. The heir stops itself at a
// step of the adoption; what the test then does falls between death and adoption for certain.

import Foundation
import Testing

@Suite("16.3 Faults while connections are adopted", .serialized)
struct AdoptionFaultTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<4).flatMap { _ in Form.all }
  /// The second process of the place has the sockets, and owns none of them.
  private static let heirHolds = "batchReceived#2"

  /// Runs `body` with clients whose worker is dead and whose heir has stopped itself, and then lets it go on.
  private static func withHeldHeir(
    _ settings: [String: String] = [:], open: (CheckedClients, Gateway) throws -> Void,
    _ body: (CheckedClients, Gateway) throws -> Void, after: (CheckedClients, Gateway) throws -> Void
  ) throws {
    try Gateway.run(Gateway.stopping(at: heirHolds, settings)) { gateway in
      let clients = CheckedClients(gateway)
      try open(clients, gateway)
      let worker = try #require(gateway.workers(.connections).first)
      try gateway.slay(worker, heirStops: true)
      let heir = try gateway.awaitStop()
      try body(clients, gateway)
      heir.thaw()
      try gateway.waitUntilReady()
      try after(clients, gateway)
    }
  }

  @Test(
    "16.3 An heir that dies while it adopts leaves the rest to its own heir: each connection has one owner",
    arguments: [
      "batchReceived#2", "entryAdopted#2", "entryAdopted#2@7", "beforeTaken#2", "adopted#2",
      "entryAdopted#2@3,entryAdopted#3@5,beforeTaken#4",
    ])
  func heirDies(steps: String) throws {
    try Gateway.run(Gateway.stopping(at: steps)) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      try clients.publishTogether("a", 3)
      let lives = steps.split(separator: ",").count
      var worker = try #require(gateway.workers(.connections).first)
      for life in 0..<lives {
        try gateway.slay(worker, heirStops: true)
        worker = try gateway.awaitStop("heir \(life) stops itself")
        try clients.publishTogether("a", 2)
      }
      try gateway.slay(worker)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(steps)
      try eventually("one keeper is left") { gateway.keepers.count == 1 }
      try gateway.awaitConnections(clients.count)
    }
  }

  @Test(
    "16.3 A turn's rest that an heir hasn't sent is sent by its heir",
    arguments: ["sentUnnoted@4", "planMarked", "betweenSends@9"])
  func turnAndHeir(step: String) throws {
    try Gateway.run(Gateway.stopping(at: "\(step),entryAdopted#2@5,beforeTaken#3")) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      try clients.publishTogether("a", 6, padding: 500)
      var worker = try gateway.awaitStop()
      for _ in 0..<2 {
        try gateway.slay(worker, heirStops: true)
        worker = try gateway.awaitStop()
      }
      try gateway.slay(worker)
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(step)
    }
  }

  @Test("16.3 An heir that hangs is killed by the watchdog, and its heir goes on")
  func heirHangs() throws {
    let settings = Gateway.stopping(at: Self.heirHolds, ["WATCHDOG_S": "3"])
    try Gateway.run(settings) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      try clients.publish("a")
      let worker = try #require(gateway.workers(.connections).first)
      worker.signal(SIGKILL)
      try clients.pump("the heir's heir serves") { _ in
        try gateway.metric("rig_worker_restarts_total", ["worker": "connections.0"]) >= 2
      }
      try gateway.waitUntilReady()
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test(
    "16.3 Clients that end their side, break off or go meanwhile are taken for gone; the others stay")
  func clientsGo() throws {
    try Self.withHeldHeir { clients, _ in
      try clients.open(Self.forms, ["a"])
      try clients.open([.sse, .sse, .webSocket, .webSocket], ["left"])
    } _: { clients, _ in
      let leaving = clients.following("left").sorted()
      for index in [leaving[0], leaving[2]] { clients.wire(index).endSending() }
      for index in [leaving[1], leaving[3]] { clients.breakOff(index) }
      try clients.publish("a")
    } after: { clients, gateway in
      let leaving = clients.following("left")
      try clients.pumpToEnd()
      clients.expectWhole(but: leaving)
      try gateway.awaitConnections(clients.count - leaving.count)
    }
  }

  @Test(
    "16.3 What a WebSocket client says meanwhile is read by the heir, once")
  func clientsSpeak() throws {
    try Self.withHeldHeir { clients, _ in
      try clients.open(Self.forms, ["a"])
    } _: { clients, _ in
      for index in [1, 2, 3] {
        try clients.wire(index).send(WebSocketFrame.text(clients.next("a")[0]).encoded())
        try clients.wire(index).send(WebSocketFrame(WebSocketFrame.Opcode.ping, [UInt8(index)]).encoded())
      }
      // What an event stream's client says means nothing.
      try clients.wire(0).send("nothing")
    } after: { clients, _ in
      try clients.pump("pings are answered") { clients in
        [1, 2, 3].allSatisfy { clients.pongs($0) == [[UInt8($0)]] }
      }
      try clients.pump("everything has come") { clients in
        (0..<clients.count).allSatisfy { clients.has("a", 3, at: $0) }
      }
      // Of three senders the order is nobody's.
      for index in 0..<clients.count {
        #expect(clients.received(index, "a").sorted() == [0, 1, 2] && clients.ended[index] == nil)
      }
    }
  }

  @Test(
    "16.3 A session that is ended meanwhile is ended for those who are adopted, before anything is answered")
  func blacklist() throws {
    var order: HTTPConnection?
    try Self.withHeldHeir(TestToken.settings()) { clients, gateway in
      try clients.open(Self.forms, ["a"])
      for form in Form.all {
        let token = TestToken.of("alice", session: "gone")
        try clients.open([form], ["left"], query: "jwt=\(token)")
      }
    } _: { clients, gateway in
      // It is answered when the connections are closed: by the heir.
      let connection = try HTTPConnection(port: gateway.managementPort)
      try connection.wire.send(
        HTTPConnection.request(
          "POST", "/v3/session-blacklist", headers: [("content-type", "application/json")],
          body: #"{"sessionId":"gone","validityInSeconds":600}"#))
      order = connection
      try eventually("control has the order") {
        try gateway.management("GET", "/v3/session-blacklist/gone").status == 200
      }
    } after: { clients, _ in
      #expect(try #require(order).answer(to: "POST").status == 201)
      let leaving = clients.following("left")
      try clients.pump("they are told, and closed") { clients in
        leaving.allSatisfy { clients.ended[$0] != nil }
      }
      for index in leaving {
        #expect(clients.told(index) == ["rig.session_killed"], "\(clients.told(index))")
      }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(but: leaving)
    }
  }

  @Test(
    "16.3 A connection that is to be closed, by DELETE, while nobody serves it is closed by the heir")
  func deletion() throws {
    var order: HTTPConnection?
    try Self.withHeldHeir(TestToken.settings()) { clients, _ in
      try clients.open(Form.all, ["a"])
      try clients.open([.sse], ["left"], query: "jwt=\(TestToken.of("alice", session: "phone"))")
    } _: { clients, gateway in
      let connection = try HTTPConnection(port: gateway.managementPort)
      try connection.wire.send(HTTPConnection.request("DELETE", "/v3/sessions/alice"))
      order = connection
    } after: { clients, _ in
      let status = try #require(order).answer(to: "DELETE").status
      #expect([204, 503].contains(status), "\(status)")
      let leaving = try #require(clients.following("left").first)
      if status == 204 { try clients.pump("it is closed") { $0.ended[leaving] != nil } }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(but: [leaving])
    }
  }

  @Test(
    "16.3 A token that runs out meanwhile ends its connection as soon as it is adopted")
  func expiry() throws {
    try Self.withHeldHeir(TestToken.settings()) { clients, _ in
      try clients.open(Form.all, ["a"])
      let token = TestToken.make(#"{"user":"alice","exp":\#(Int(Date().timeIntervalSince1970) + 4)}"#)
      try clients.open([.sse, .webSocket], ["left"], query: "jwt=\(token)")
    } _: { _, _ in
      let end = Int(Date().timeIntervalSince1970) + 5
      try eventually("the token has run out") { Int(Date().timeIntervalSince1970) > end }
    } after: { clients, _ in
      let leaving = clients.following("left")
      try clients.pump("they are told, and closed") { clients in
        leaving.allSatisfy { clients.ended[$0] != nil }
      }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(but: leaving)
    }
  }

  @Test(
    "16.3 A PUT that comes while the heir adopts waits for it, and is never answered 410")
  func change() throws {
    var put: HTTPConnection?
    try Self.withHeldHeir { clients, _ in
      try clients.open(Form.all, ["a"])
    } _: { clients, gateway in
      let connection = try HTTPConnection(port: gateway.inboundPort)
      try connection.wire.send(
        HTTPConnection.request(
          "PUT", "/_rig/v1/connection/sse/\(try clients.token(0))/subscriptions",
          headers: [("content-type", "application/json")],
          body: #"{"subscriptions":\#(Subscriptions.to("a", "b"))}"#))
      put = connection
    } after: { clients, gateway in
      let status = try #require(put).answer(to: "PUT").status
      #expect([204, 503].contains(status), "\(status)")
      if status == 503 {
        #expect(
          try gateway.setSubscriptions(Subscriptions.to("a", "b"), of: try clients.token(0)).status == 204)
      }
      clients.follow("b", at: 0)
      try clients.publish("a")
      try clients.publish("b")
      try clients.pumpToEnd()
      clients.expectWhole(told: ["rig.subscriptions_set"])
    }
  }

  @Test(
    "16.3 New clients who come while the heir adopts wait for it at most, and are served")
  func newcomers() throws {
    var newcomer = 0
    try Self.withHeldHeir { clients, _ in
      try clients.open(Self.forms, ["a"])
    } _: { clients, _ in
      newcomer = try clients.begin(.sse, ["b"])
    } after: { clients, _ in
      try clients.pump("the newcomer is greeted") { $0.isGreeted(newcomer) }
      try clients.publish("b")
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }
}
