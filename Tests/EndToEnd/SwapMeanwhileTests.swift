// What clients and operators do while connections are passed from one process to the next. The heir stops itself with a batch in its
// hands, or in the middle of claiming it; what the test then does falls into the hand-over for certain.

import Foundation
import Testing

@Suite("16.9 Meanwhile a connection is handed over", .serialized)
struct SwapMeanwhileTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<4).flatMap { _ in Form.all }
  /// The heir has received everything and claimed nothing; it has claimed five of them.
  private static let steps = ["batchReceived#2", "entryAdopted#2@5"]

  /// Runs `body` with clients that are being passed to an heir which has stopped itself, and then lets it go on.
  private static func withHeldHeir(
    at step: String, _ settings: [String: String] = [:], open: (CheckedClients, Gateway) throws -> Void,
    _ body: (CheckedClients, Gateway) throws -> Void, after: (CheckedClients, Gateway) throws -> Void
  ) throws {
    try Gateway.run(Gateway.stopping(at: step, settings)) { gateway in
      let clients = CheckedClients(gateway)
      try open(clients, gateway)
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      let heir = try gateway.awaitStop("the heir stops itself at \(step)")
      #expect(!before.contains(heir))
      try body(clients, gateway)
      heir.thaw()
      try gateway.awaitSuccessors(of: before, clients)
      try after(clients, gateway)
    }
  }

  @Test("16.9 Clients that end their side or break off are taken for gone; the others stay", arguments: steps)
  func clientsGo(step: String) throws {
    try Self.withHeldHeir(at: step) { clients, _ in
      try clients.open([.sse, .webSocket], ["left"])
      try clients.open(Self.forms, ["a"])
      try clients.open([.sse, .webSocket], ["left"])
    } _: { clients, _ in
      let leaving = clients.following("left").sorted()
      for index in leaving.prefix(2) { clients.wire(index).endSending() }
      for index in leaving.suffix(2) { clients.breakOff(index) }
      try clients.publish("a")
    } after: { clients, gateway in
      let leaving = clients.following("left")
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(but: leaving)
      try gateway.awaitConnections(clients.count - leaving.count)
    }
  }

  @Test("16.9 What WebSocket clients say is understood once", arguments: steps)
  func clientsSpeak(step: String) throws {
    try Self.withHeldHeir(at: step) { clients, _ in
      try clients.open(Self.forms, ["a"])
    } _: { clients, _ in
      for index in [1, 2, 3, 13, 14, 15] {
        try clients.wire(index).send(WebSocketFrame.text(clients.next("a")[0]).encoded())
        try clients.wire(index).send(WebSocketFrame(WebSocketFrame.Opcode.ping, [UInt8(index)]).encoded())
      }
      // What an event stream's client says means nothing.
      try clients.wire(0).send("nothing")
    } after: { clients, _ in
      try clients.pump("pings are answered") { clients in
        [1, 2, 3, 13, 14, 15].allSatisfy { clients.pongs($0) == [[UInt8($0)]] }
      }
      try clients.pump("everything has come") { clients in
        (0..<clients.count).allSatisfy { clients.has("a", 6, at: $0) }
      }
      // Of several senders the order is nobody's.
      for index in 0..<clients.count {
        #expect(clients.received(index, "a").sorted() == Array(0..<6) && clients.ended[index] == nil)
      }
    }
  }

  @Test("16.9 A PUT finds its connection, wherever either is, and is never answered 410", arguments: steps)
  func change(step: String) throws {
    var puts: [SplitRequest] = []
    try Self.withHeldHeir(at: step, SplitRequest.settings) { clients, gateway in
      try clients.open(Self.forms, ["a"])
      for index in 0..<clients.count {
        puts.append(
          SplitRequest(
            gateway, "PUT",
            "/_rig/v1/connection/\(index % 4 == 0 ? "sse" : "ws")/\(try clients.token(index))/subscriptions",
            headers: [("content-type", "application/json")],
            body: #"{"subscriptions":\#(Subscriptions.to("a", "b"))}"#))
        // Every other one has come to the incumbent, who serves it then; the others come to the heir.
        if index % 2 == 0 { try puts[index].begin() }
      }
      try SplitRequest.awaitRead(gateway)
    } _: { _, _ in
      for put in puts { try put.finish() }
    } after: { clients, gateway in
      for (index, put) in puts.enumerated() {
        let status = try put.answer().status
        #expect([204, 503].contains(status), "client \(index): \(status)")
        if status == 503 {
          let again = try gateway.setSubscriptions(Subscriptions.to("a", "b"), of: try clients.token(index))
          #expect(again.status == 204)
        }
        clients.follow("b", at: index)
      }
      try clients.publish("a")
      try clients.publish("b")
      try clients.pumpToEnd()
      clients.expectWhole(told: ["rig.subscriptions_set"])
    }
  }

  @Test("16.9 A session that is ended is ended for those who are passed, whoever has them", arguments: steps)
  func blacklist(step: String) throws {
    var order: HTTPConnection?
    try Self.withHeldHeir(at: step, TestToken.settings()) { clients, gateway in
      for form in Form.all {
        try clients.open([form], ["left"], query: "jwt=\(TestToken.of("alice", session: "gone"))")
      }
      try clients.open(Self.forms, ["a"])
      for form in Form.all {
        try clients.open([form], ["left"], query: "jwt=\(TestToken.of("alice", session: "gone"))")
      }
    } _: { clients, gateway in
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
    "16.9 DELETE of a user's connections closes them, whoever has them, and nobody else's", arguments: steps)
  func deletion(step: String) throws {
    var order: HTTPConnection?
    try Self.withHeldHeir(at: step, TestToken.settings()) { clients, _ in
      try clients.open([.sse], ["left"], query: "jwt=\(TestToken.of("alice", session: "phone"))")
      try clients.open(Self.forms, ["a"], query: "jwt=\(TestToken.of("bob", session: "phone"))")
      try clients.open([.sse], ["left"], query: "jwt=\(TestToken.of("alice", session: "phone"))")
    } _: { clients, gateway in
      let connection = try HTTPConnection(port: gateway.managementPort)
      try connection.wire.send(HTTPConnection.request("DELETE", "/v3/sessions/alice"))
      order = connection
    } after: { clients, gateway in
      let status = try #require(order).answer(to: "DELETE").status
      #expect([204, 503].contains(status), "\(status)")
      let leaving = clients.following("left")
      if status == 503 { #expect(try gateway.management("DELETE", "/v3/sessions/alice").status == 204) }
      try clients.pump("they are closed") { clients in leaving.allSatisfy { clients.ended[$0] != nil } }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(but: leaving)
    }
  }

  @Test("16.9 A token that runs out ends its connection, whoever has it", arguments: steps)
  func expiry(step: String) throws {
    try Self.withHeldHeir(at: step, TestToken.settings()) { clients, _ in
      let token = TestToken.make(#"{"user":"alice","exp":\#(Int(Date().timeIntervalSince1970) + 8)}"#)
      try clients.open([.sse, .webSocket], ["left"], query: "jwt=\(token)")
      try clients.open(Self.forms, ["a"])
    } _: { _, _ in
      let end = Int(Date().timeIntervalSince1970) + 9
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
    "16.9 Polls of sessions that are passed are answered, each event once, wherever either is",
    arguments: steps)
  func polls(step: String) throws {
    var sessions: [LongPollClient] = []
    var polls: [SplitRequest] = []
    try Self.withHeldHeir(at: step, SplitRequest.settings) { _, gateway in
      for number in 0..<9 {
        let session = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
        _ = try session.poll()
        sessions.append(session)
        let request = session.request
        let poll = SplitRequest(gateway, "GET", request.path, headers: request.headers)
        // A third of them wait when the swap comes, a third are being read, and a third come to the heir.
        if number % 3 < 2 { try poll.begin() }
        if number % 3 == 0 { try poll.finish() }
        polls.append(poll)
      }
      try SplitRequest.awaitRead(gateway)
    } _: { _, gateway in
      for (number, poll) in polls.enumerated() where number % 3 != 0 { try poll.finish() }
      try gateway.publish(NumberedEvents.json(0))
    } after: { _, gateway in
      for (session, poll) in zip(sessions, polls) {
        #expect(try session.events(of: poll.answer()).map { $0["id"]?.string } == [NumberedEvents.mark(0)])
      }
      try gateway.publish(NumberedEvents.json(1))
      for session in sessions {
        #expect(try session.poll().map { $0["id"]?.string } == [NumberedEvents.mark(1)])
      }
    }
  }

  @Test("16.9 New clients who come wait for the heir at most, and are served", arguments: steps)
  func newcomers(step: String) throws {
    var newcomer = 0
    try Self.withHeldHeir(at: step) { clients, _ in
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

/// A request that comes in two pieces: as long as only the first has come its connection stays with the process that has read it.
private final class SplitRequest {
  static let settings = ["REQUEST_HEAD_TIMEOUT_S": "120"]

  private let gateway: Gateway
  private let method: String
  private var rest: Substring
  private var http: HTTPConnection?

  init(
    _ gateway: Gateway, _ method: String, _ path: String, headers: [(String, String)] = [],
    body: String? = nil
  ) {
    self.gateway = gateway
    self.method = method
    rest = Substring(HTTPConnection.request(method, path, headers: headers, body: body))
  }

  /// Connects, and sends the first piece.
  func begin() throws { try send(20) }

  /// Sends the rest; connects for it if that hasn't been done.
  func finish() throws { try send(rest.count) }

  private func send(_ count: Int) throws {
    let connected = try http ?? HTTPConnection(port: gateway.inboundPort)
    http = connected
    try connected.wire.send(String(rest.prefix(count)))
    rest = rest.dropFirst(count)
  }

  func answer() throws -> HTTPAnswer { try #require(http).answer(to: method) }

  /// What was sent before has been read by the only worker when it has answered this.
  static func awaitRead(_ gateway: Gateway) throws { _ = try gateway.inbound("GET", "/_rig/health") }
}
