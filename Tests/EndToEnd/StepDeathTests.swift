// Death of a connection worker at each step of what it does: it stops itself there, is killed, and its heir goes on. Issue 16,
// "Death at every step". Steps are those of Sources/Libraries/Kit/Life/StopPoint.swift.

import Glibc
import Testing

@Suite("16.2 Death at each step", .serialized)
struct StepDeathTests {
  private typealias Form = CheckedClients.Form
  private static let forms = (0..<3).flatMap { _ in Form.all }
  /// The answer to an event of a WebSocket's client.
  private static let accepted = "rig.accepted"

  @Test(
    "16.2 In a turn: what was sent isn't sent again, what wasn't is, to the byte",
    arguments: [
      "planIncomplete", "planMarked", "sentUnnoted", "sentUnnoted@5", "sentUnnoted@12", "betweenSends",
      "betweenSends@7",
      "beforeCommit",
    ])
  func turn(step: String) throws {
    try Gateway.run(Gateway.stopping(at: step)) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a", "b"])
      // The clients' stretches of the turn touch, and those of the others don't.
      try clients.open(Form.all, ["b"])
      try Self.publishMixed(clients)
      let worker = try gateway.awaitStop()
      try Self.publishMixed(clients)
      try gateway.slay(worker)
      try Self.publishMixed(clients)
      try clients.pumpToEnd()
      clients.expectWhole(step)
    }
  }

  /// Events of two rows in one request, which takes them in one turn.
  private static func publishMixed(_ clients: CheckedClients) throws {
    var events: [String] = []
    for number in 0..<6 {
      events += clients.next("a", padding: number * 50) + clients.next("b", padding: 10)
    }
    try clients.publish(events)
  }

  @Test(
    "16.2 In a later turn, when some wait for their sockets",
    arguments: ["settling", "settling@3", "beforeCommit@30", "sentUnnoted@200"])
  func fullSockets(step: String) throws {
    try Gateway.run(Gateway.stopping(at: step, ["MAX_UNSENT_BYTES": "16384"])) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let slow = try Form.all.map { form in
        var form = form
        form.receiveBuffer = 4_096
        return try clients.open([form], ["a"])
      }
      for index in slow { clients.idle(index) }
      try clients.pump("a worker stops itself") { clients in
        try clients.publishTogether("a", 5, padding: 4_000)
        return gateway.stoppedWorker != nil
      }
      try gateway.slay(try gateway.awaitStop())
      try clients.publishTogether("a", 5)
      for index in slow { clients.idle(index, false) }
      try clients.pumpToEnd()
      clients.expectWhole(step)
    }
  }

  @Test(
    "16.2 A single piece, here a heartbeat: once, whole",
    arguments: ["intentWritten", "intentSent", "intentNoted", "intentSent@5"])
  func heartbeat(step: String) throws {
    try Gateway.run(Gateway.stopping(at: step, ["HEARTBEAT_S": "1"])) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let worker = try gateway.awaitStop()
      try clients.publish("a")
      try gateway.slay(worker)
      try clients.pump("heartbeats go on") { clients in
        (0..<clients.count).allSatisfy { clients.heartbeats($0) >= 2 }
      }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole(step)
    }
  }

  @Test(
    "16.2 While greetings go out: a connection is greeted whole, or ended before its response's first byte")
  func greeting() throws {
    for step in ["greeting@3", "intentSent@1", "intentWritten@2"] {
      try Gateway.run(Gateway.stopping(at: step)) { gateway in
        let clients = CheckedClients(gateway)
        let asked = try (0..<8).map { try clients.begin($0 % 2 == 0 ? .sse : .resumable, ["a"]) }
        // Not every greeting is a piece of its own.
        try clients.pump("everybody is greeted, or a worker has stopped itself") { clients in
          gateway.stoppedWorker != nil || asked.allSatisfy(clients.isGreeted)
        }
        if let worker = gateway.stoppedWorker { try gateway.slay(worker) }
        try clients.pump("all of them are greeted, or ended") { clients in
          asked.allSatisfy { clients.isGreeted($0) || clients.ended[$0] != nil }
        }
        for (index, end) in clients.ended {
          #expect(!clients.isGreeted(index) && clients.hasNothing(index), "\(step): client \(index) \(end)")
        }
        try clients.publish("a")
        try clients.pumpToEnd()
        clients.expectWhole(but: Set(clients.ended.keys), step)
      }
    }
  }

  @Test("16.2 In the middle of a frame: the other half makes it whole, and it has its effect once")
  func halfAFrame() throws {
    for cut in [1, 3, 7, 40] {
      try Gateway.run(Gateway.stopping(at: "frameHalfRead")) { gateway in
        let clients = CheckedClients(gateway)
        try clients.open(Form.all, ["a"])
        let socket = clients.wire(1)
        let frame = WebSocketFrame.text(clients.next("a")[0]).encoded()
        try socket.send(Array(frame[..<cut]))
        let worker = try gateway.awaitStop("half a frame is read")
        try gateway.slay(worker)
        try socket.send(Array(frame[cut...]))
        try clients.pumpToEnd()
        clients.expectWhole(told: [Self.accepted], "cut at \(cut)")
      }
    }
  }

  @Test(
    "16.2 In the middle of a message of several frames, at the end of one and within the other, twice killed")
  func halfAMessage() throws {
    try Gateway.run(Gateway.stopping(at: "frameHalfRead,frameHalfRead#2")) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Form.all, ["a"])
      let socket = clients.wire(2)
      let bytes = Array(clients.next("a", padding: 5_000)[0].utf8)
      let first = WebSocketFrame(WebSocketFrame.Opcode.text, Array(bytes[..<2_000]), isFinal: false).encoded()
      let last = WebSocketFrame(WebSocketFrame.Opcode.continuation, Array(bytes[2_000...])).encoded()
      try socket.send(first)
      try gateway.slay(try gateway.awaitStop("a frame of the message is read"))
      try socket.send(Array(last[..<100]))
      try gateway.slay(try gateway.awaitStop("a part of the other is read"))
      try socket.send(Array(last[100...]))
      try clients.pumpToEnd()
      clients.expectWhole(told: [Self.accepted])
    }
  }

  @Test(
    "16.2 Input that was read and not noted: the WebSocket is ended with 1012 or goes on, the event isn't doubled"
  )
  func inputRead() throws {
    try Gateway.run(Gateway.stopping(at: "inputRead")) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Form.all, ["a"])
      let sender = 1
      try clients.wire(sender).send(WebSocketFrame.text(clients.next("a")[0]).encoded())
      try gateway.slay(try gateway.awaitStop())
      try clients.pump("the sender is told, or has its event") { clients in
        clients.ended[sender] != nil || clients.received(sender, "a") == [0]
      }
      if let end = clients.ended[sender] { #expect(end == "close 1012") }
      // Whether it had its effect is not known to the sender; the others have it once or not at all.
      let hadEffect = clients.ended[sender] == nil
      try clients.publish("a")
      try clients.pump("the next one arrives") { clients in
        [0, 2, 3].allSatisfy { clients.received($0, "a").last == 1 }
      }
      for index in [0, 2, 3] {
        let seen = clients.received(index, "a")
        #expect(seen == [0, 1] || (seen == [1] && !hadEffect), "client \(index): \(seen)")
      }
    }
  }

  @Test("16.2 While a PUT is applied: whoever asks again gets what he asked for, once")
  func change() throws {
    try Gateway.run(Gateway.stopping(at: "changeApplied")) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Form.all, ["a"])
      let put = try HTTPConnection(port: gateway.inboundPort)
      let body = #"{"subscriptions":\#(Subscriptions.to("a", "b"))}"#
      let path = "/_rig/v1/connection/sse/\(try clients.token(0))/subscriptions"
      let request = HTTPConnection.request(
        "PUT", path, headers: [("content-type", "application/json")], body: body)
      try put.wire.send(request)
      try gateway.slay(try gateway.awaitStop("the PUT is being applied"))
      // The request was being served: 502, or an end.
      if let answer = try? put.answer(to: "PUT") { #expect(answer.status == 502 || answer.status == 204) }
      #expect(
        try gateway.setSubscriptions(Subscriptions.to("a", "b"), of: try clients.token(0)).status == 204)
      clients.follow("b", at: 0)
      try clients.publish("a")
      try clients.publish("b")
      try clients.pumpToEnd()
      clients.expectWhole(told: ["rig.subscriptions_set"])
    }
  }

  @Test("16.2 While a connection closes: nobody gets its socket, and its number is free")
  func closing() throws {
    try Gateway.run(Gateway.stopping(at: "closing")) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      let leaving = try clients.open([.sse], ["left"])
      clients.wire(leaving).endSending()
      try gateway.slay(try gateway.awaitStop("a connection is being closed"))
      try clients.open(Self.forms, ["b"])
      try clients.publish("b")
      try clients.publish("a")
      try clients.pumpToEnd()
      try clients.pump("the one that left is gone") { $0.ended[leaving] != nil }
      clients.expectWhole(but: [leaving])
    }
  }

  @Test("16.2 At another send in each of nine lives")
  func everySend() throws {
    // The heir's heir and so on: each process of the place stops at another send.
    let steps =
      (1...6).map { "sentUnnoted#\($0)@\(2 * $0 - 1)" } + (7...9).map { "betweenSends#\($0)@\($0 - 4)" }
    try Gateway.run(Gateway.stopping(at: steps.joined(separator: ","))) { gateway in
      let clients = CheckedClients(gateway)
      try clients.open(Self.forms, ["a"])
      for step in steps {
        try clients.publishTogether("a", 3)
        try gateway.slay(try gateway.awaitStop(step))
      }
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }
}
