// What clients must not send, and what the gateway does about it: a problem document or the end of the connection, and
// nothing that another client would notice. Contract §1.

import Testing

@Suite("Bad HTTP")
struct BadHTTPTests {
  /// Bytes that are no proper request, and the status that answers them.
  private struct Bad {
    let what: String
    let bytes: [UInt8]
    let statuses: Set<Int>

    init(_ what: String, _ statuses: Int..., text: String) {
      self.init(what, Set(statuses), Array(text.utf8))
    }

    init(_ what: String, _ statuses: Set<Int>, _ bytes: [UInt8]) {
      self.what = what
      self.bytes = bytes
      self.statuses = statuses
    }
  }

  private static let health = "GET /_rig/health HTTP/1.1\r\n"
  private static let events = "POST /_rig/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

  private static let requestLines = [
    Bad(
      "bytes that mean nothing", [400],
      [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0x0d, 0x0a]),
    Bad("text that is no request", 400, text: "hello gateway\r\n\r\n"),
    Bad("only a method", 400, text: "GET\r\nhost: x\r\n\r\n"),
    Bad("14.D20 an unknown method", 405, text: "BREW /_rig/health HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("a method in small letters", 405, text: "get /_rig/health HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("HTTP/3", 400, 505, text: "GET /_rig/health HTTP/3.0\r\nhost: x\r\n\r\n"),
    Bad("no protocol at all", 400, 505, text: "GET /_rig/health HTTX/1.1\r\nhost: x\r\n\r\n"),
    Bad("HTTP/0.9", 400, 505, text: "GET /_rig/health\r\n\r\n"),
    Bad(
      "a NUL in the target", [400],
      Array("GET /_rig/hea".utf8) + [0] + Array("lth HTTP/1.1\r\nhost: x\r\n\r\n".utf8)),
    Bad("a space in the target", 400, 505, text: "GET /_rig /health HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("a target without a slash", 400, 404, text: "GET health HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("CONNECT", 400, 404, 405, text: "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n"),
    Bad("escapes that hide a path", 404, text: "GET /_rig/%68ealth HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("an escaped NUL", 404, text: "GET /_rig/health%00 HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad("dots", 404, text: "GET /_rig/v1/../health HTTP/1.1\r\nhost: x\r\n\r\n"),
    Bad(
      "a huge target", 431, text: "GET /\(String(repeating: "a", count: 20_000)) HTTP/1.1\r\nhost: x\r\n\r\n"),
  ]

  private static let fields = [
    Bad("no host", 400, text: health + "\r\n"),
    Bad("a host with a user and a path", 400, text: health + "host: h@evil/x\r\n\r\n"),
    Bad("two hosts", 400, text: health + "host: x\r\nhost: y\r\n\r\n"),
    Bad("a field without a colon", 400, text: health + "host: x\r\nnonsense\r\n\r\n"),
    Bad("a space before the colon", 400, text: health + "host : x\r\n\r\n"),
    Bad("a field without a name", 400, text: health + "host: x\r\n: y\r\n\r\n"),
    Bad("a NUL in a value", [400], Array("\(health)host: x\r\na: b".utf8) + [0] + Array("c\r\n\r\n".utf8)),
    Bad("a lone carriage return", 400, text: health + "host: x\r\na: b\rc: d\r\n\r\n"),
    Bad("a huge field", 431, text: health + "host: x\r\na: \(String(repeating: "b", count: 20_000))\r\n\r\n"),
    Bad(
      "many large fields", 431,
      text: health + "host: x\r\n"
        + (0..<20).map { "a\($0): \(String(repeating: "b", count: 1_000))\r\n" }.joined() + "\r\n"),
    Bad(
      "too many fields", 431,
      text: health + "host: x\r\n" + (0..<300).map { "a\($0): b\r\n" }.joined() + "\r\n"),
    Bad(
      "an expectation nobody knows", 417, text: events + "expect: a miracle\r\ncontent-length: 2\r\n\r\n{}"),
  ]

  private static let framings = [
    Bad("a length that is no number", 400, text: events + "content-length: ten\r\n\r\n{}"),
    Bad("a negative length", 400, text: events + "content-length: -1\r\n\r\n"),
    Bad("a length with a sign", 400, text: events + "content-length: +2\r\n\r\n{}"),
    Bad(
      "a length beyond all numbers", 400, 413,
      text: events + "content-length: 99999999999999999999999\r\n\r\n"),
    Bad("two lengths", 400, text: events + "content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    Bad(
      "a length and chunks", 400,
      text: events + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    Bad(
      "chunks and a length", 400,
      text: events + "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
    Bad(
      "a coding that isn't chunked last", 400,
      text: events + "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    Bad("a coding nobody knows", 400, 501, text: events + "transfer-encoding: magic\r\n\r\n0\r\n\r\n"),
    Bad(
      "a chunk size that is no number", 400,
      text: events + "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    Bad(
      "a chunk size beyond all numbers", 400, 413,
      text: events + "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
    Bad("a chunk without its end", 400, text: events + "transfer-encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n"),
  ]

  @Test(
    "Each is answered by a problem document, the connection ends, and a bystander on the same worker sees nothing of it"
  )
  func malformed() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let bystander = try SSEClient.open(gateway, Subscriptions.to("a"))
      let worker = try #require(gateway.workers(.connections).first)
      for (index, bad) in (Self.requestLines + Self.fields + Self.framings).enumerated() {
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(bad.bytes)
        http.wire.endSending()
        let answer = try http.answer()
        #expect(bad.statuses.contains(answer.status), "\(bad.what): \(answer.status) \(answer.text)")
        try expectProblem(answer, answer.status)
        #expect(try http.wire.receiveToEnd().isEmpty, "\(bad.what): something behind the answer")
        try gateway.publish(CloudEvent.json("a", id: "\(index)"))
        #expect(try bystander.event(named: "a").json["id"]?.string == "\(index)")
      }
      #expect(gateway.workers(.connections) == [worker])
    }
  }

  @Test("A line feed alone ends no line")
  func bareLineFeeds() throws {
    try Gateway.run { gateway in
      for text in ["GET /_rig/health HTTP/1.1\nhost: x\n\n", "GET /_rig/health HTTP/1.1\r\nhost: x\n\r\n"] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(text)
        http.wire.endSending()
        let answer = try http.answer()
        #expect([400, 505].contains(answer.status), "\(answer.text)")
        try expectProblem(answer, answer.status)
      }
    }
  }

  @Test("What is refused in the middle of pipelined requests leaves the answers before it alone")
  func refusedBehindOthers() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(
        Self.health + "host: x\r\n\r\n" + Self.health + "\r\n" + Self.health + "host: x\r\n\r\n")
      #expect(try http.answer().status == 200)
      try expectProblem(try http.answer(), 400, naming: "host")
      #expect(try http.wire.receiveToEnd().isEmpty)
    }
  }

  @Test("What a client says on its event stream means nothing, however much it is")
  func talkative() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      let talk = [UInt8](Self.events.utf8) + [UInt8](repeating: 0x20, count: 1 << 20)
      for round in 0..<4 {
        #expect(try client.wire.send(talk) == talk.count)
        try gateway.publish(CloudEvent.json("a", id: "\(round)"))
        #expect(try client.event(named: "a").json["id"]?.string == "\(round)")
      }
    }
  }

  @Test("A smuggled request behind a refused one is never answered")
  func smuggling() throws {
    try Gateway.run { gateway in
      let watcher = try SSEClient.open(gateway, Subscriptions.to("*"))
      let inner = HTTPConnection.request(
        "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("smuggled"))
      for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "content-length: 0\r\ncontent-length: 4\r\n", "transfer-encoding: xchunked\r\n",
      ] {
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(Self.events + framing + "\r\n0\r\n\r\n" + inner)
        try expectProblem(try http.answer(), 400)
        #expect(try http.wire.receiveToEnd().isEmpty)
      }
      try gateway.publish(CloudEvent.json("end"))
      #expect(try watcher.events(until: "end").isEmpty)
    }
  }
}
