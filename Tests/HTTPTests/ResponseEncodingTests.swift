// Responses as text and as frames: the same parts, status × method × version × framing.

import NIOCore
import NIOHPACK
import NIOHTTP1
import Testing

@testable import HTTP

/// A response as it is given, and what both encoders have to make of it.
struct ResponseCase: CustomTestStringConvertible, Sendable {
  enum Body: Sendable {
    /// All at once, with or without a known length.
    case whole(String)
    case headOfStream
    /// In pieces, behind a head with or without content-length.
    case pieces([String], length: String?)
  }

  let status: Int
  let body: Body
  var isHead = false
  var isHTTP10 = false
  /// Value of content-length.
  let length: String?
  /// What stands behind the head in HTTP/1.x.
  let text: String
  /// ...and the data of HTTP/2; nil: its head is the end.
  let data: String?

  var testDescription: String { "\(status) \(body) \(isHead ? "HEAD" : "GET") 1.\(isHTTP10 ? 0 : 1)" }

  static let all: [ResponseCase] = [
    // A whole response has its length, whatever the version.
    ResponseCase(status: 200, body: .whole("hello"), length: "5", text: "hello", data: "hello"),
    ResponseCase(
      status: 200, body: .whole("hello"), isHTTP10: true, length: "5", text: "hello", data: "hello"),
    ResponseCase(status: 404, body: .whole(""), length: "0", text: "", data: nil),
    ResponseCase(status: 200, body: .whole("hello"), isHead: true, length: "5", text: "", data: nil),
    ResponseCase(status: 204, body: .whole("hello"), length: nil, text: "", data: nil),
    ResponseCase(status: 304, body: .whole("hello"), length: nil, text: "", data: nil),
    ResponseCase(status: 200, body: .headOfStream, isHead: true, length: nil, text: "", data: nil),
    // One in pieces is counted, chunked, or ends with the connection.
    ResponseCase(
      status: 200, body: .pieces(["he", "llo"], length: "5"), length: "5", text: "hello", data: "hello"),
    ResponseCase(
      status: 200, body: .pieces(["he", "llo"], length: "5"), isHTTP10: true, length: "5", text: "hello",
      data: "hello"),
    ResponseCase(
      status: 200, body: .pieces(["he", "llo"], length: nil), length: nil,
      text: "2\r\nhe\r\n3\r\nllo\r\n0\r\nx-sum: 1\r\n\r\n", data: "hello"),
    ResponseCase(
      status: 200, body: .pieces(["he", "llo"], length: nil), isHTTP10: true, length: nil, text: "hello",
      data: "hello"),
    ResponseCase(
      status: 200, body: .pieces([], length: nil), length: nil, text: "0\r\nx-sum: 1\r\n\r\n", data: ""),
    ResponseCase(status: 200, body: .pieces([], length: "0"), length: "0", text: "", data: nil),
    ResponseCase(
      status: 200, body: .pieces(["hello"], length: "5"), isHead: true, length: "5", text: "", data: nil),
    ResponseCase(
      status: 200, body: .pieces(["hello"], length: nil), isHead: true, length: nil, text: "", data: nil),
    ResponseCase(status: 204, body: .pieces(["hello"], length: "5"), length: nil, text: "", data: nil),
    ResponseCase(status: 304, body: .pieces(["hello"], length: "5"), length: "5", text: "", data: nil),
    // Lengths that disagree or are none don't count; what is written past one is dropped.
    ResponseCase(
      status: 200, body: .pieces(["hi"], length: "2, 2"), length: nil,
      text: "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n", data: "hi"),
    ResponseCase(
      status: 200, body: .pieces(["hi"], length: "+2"), length: nil, text: "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n",
      data: "hi"),
    ResponseCase(status: 200, body: .pieces(["hello"], length: "2"), length: "2", text: "he", data: "he"),
  ]

  func context(keepAlive: Bool = true) -> ResponseContext {
    ResponseContext(isHead: isHead, isHTTP10: isHTTP10, keepAlive: keepAlive, traceparent: "tp")
  }

  /// What is sent for it.
  func parts(keepAlive: Bool = true) -> [ResponsePart] {
    let context = context(keepAlive: keepAlive)
    let status = HTTPResponseStatus(statusCode: status)
    func whole(_ response: HTTPResponse) -> [ResponsePart] {
      let framing = ResponseFraming(response, for: context)
      let head = Self.head(response.status, response.headers, .own(framing), context)
      return [head] + (framing.isWhole ? [] : [.body(response.body, isLast: true)])
    }
    switch body {
    case .whole(let text):
      return whole(HTTPResponse(status: status, headers: ["x-a": "1"], body: ByteBuffer(string: text)))
    case .headOfStream: return whole(.headOfStream(["x-a": "1"]))
    case .pieces(let pieces, let length):
      var fields: HTTPFields = ["x-a": "1"]
      if let length { fields.add(name: "content-length", value: length) }
      var framing = ResponseFraming(status: status, headers: fields, for: context)
      var parts = [Self.head(status, fields, .passedOn(framing), context)]
      for piece in pieces {
        let taken = framing.take(ByteBuffer(string: piece))
        if taken.readableBytes > 0 { parts.append(.body(taken, isLast: framing.isWhole)) }
      }
      return parts + (framing.rest == .chunked ? [.end(trailers: ["x-sum": "1"])] : [])
    }
  }

  static func head(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind, _ request: ResponseContext
  ) -> ResponsePart {
    .head(OutgoingHead(status: status, fields: fields, kind: kind, request: request, date: "now"))
  }
}

@Suite("15.5 Responses as HTTP/1.1 text")
struct HTTP1EncoderTests {
  private static let context = ResponseContext(
    isHead: false, isHTTP10: false, keepAlive: true, traceparent: "tp")

  private static func text(_ parts: [ResponsePart]) -> String {
    var encoder = HTTP1Encoder()
    var out = ByteBuffer()
    for part in parts { encoder.append(part, to: &out) }
    return String(buffer: out)
  }

  private static func own(_ response: HTTPResponse, keepAlive: Bool = true) -> String {
    var context = context
    context.keepAlive = keepAlive
    let framing = ResponseFraming(response, for: context)
    return text([ResponseCase.head(response.status, response.headers, .own(framing), context)])
  }

  @Test("15.5 The body is delimited as method, status and version say", arguments: ResponseCase.all)
  func framing(_ response: ResponseCase) {
    let text = Self.text(response.parts())
    #expect(text.hasPrefix("HTTP/1.1 \(response.status) "))
    #expect(body(text) == response.text)
    #expect(header("content-length", in: text) == response.length)
    let isChunked = response.text.hasSuffix("\r\n\r\n")
    #expect(header("transfer-encoding", in: text) == (isChunked ? "chunked" : nil))
    #expect(header("connection", in: text) == (response.isHTTP10 ? "keep-alive" : nil))
    #expect(header("connection", in: Self.text(response.parts(keepAlive: false))) == "close")
    #expect(header("date", in: text) == "now" && header("traceparent", in: text) == "tp")
    #expect(header("x-a", in: text) == "1")
  }

  @Test("15.5 A whole response, octet by octet")
  func whole() {
    let expected =
      "HTTP/1.1 202 Accepted\r\ndate: now\r\ntraceparent: tp\r\n"
      + "content-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\n"
    #expect(Self.own(.text("hello", status: .accepted)) == expected)
  }

  @Test("15.5 Of our own fields those of connection and framing are the front's")
  func ownFields() {
    let fields: HTTPFields = [
      "Content-Length": "99", "transfer-encoding": "chunked", "Connection": "close", "date": "then",
      "traceparent": "theirs", "upgrade": "websocket",
    ]
    let text = Self.own(.empty(.upgradeRequired, headers: fields))
    let expected =
      "HTTP/1.1 426 Upgrade Required\r\ndate: now\r\ntraceparent: tp\r\nupgrade: websocket\r\n"
      + "content-length: 0\r\n\r\n"
    #expect(text == expected)
  }

  @Test("15.5 Fields go out byte for byte, and none can begin another one")
  func octets() {
    var fields: HTTPFields = ["location": "/a\r\nset-cookie: b\0c"]
    fields.add(name: "x-latin", value: [0x63, 0xe9, 0x09, 0xff] as [UInt8])
    let context = Self.context
    var encoder = HTTP1Encoder()
    var out = ByteBuffer()
    let framing = ResponseFraming(status: .ok, headers: fields, for: context)
    encoder.append(ResponseCase.head(.ok, fields, .passedOn(framing), context), to: &out)
    let octets = Array(out.readableBytesView)
    let expected = Array("x-latin: ".utf8) + [0x63, 0xe9, 0x09, 0xff] + Array("\r\ntransfer".utf8)
    #expect(octets.firstRange(of: expected) != nil)
    let text = String(decoding: octets, as: UTF8.self)
    #expect(header("location", in: text) == "/a  set-cookie: b c" && header("set-cookie", in: text) == nil)
  }

  @Test("15.5 What is dropped of fields that were passed on leaves the rest as it is, wherever it stands")
  func dropped() {
    let kept = [("X-A", "1"), ("Server", "one"), ("date", "then"), ("x-b", "2"), ("set-cookie", "c")]
    let gone = [
      ("connection", "x-b"), ("te", "x"), ("server", "two"), ("Date", "now"), ("content_length", "1"),
      ("traceparent", "theirs"), ("keep-alive", "1"),
    ]
    let context = ResponseContext(isHead: false, isHTTP10: false, keepAlive: true, traceparent: "")
    // Each of those that go, at each place behind the first of its name.
    for (index, field) in gone.enumerated() {
      for place in 3...kept.count {
        var pairs = kept
        pairs.insert(field, at: place)
        let head = ResponseCase.head(
          .ok, HTTPFields(pairs), .passedOn(.stream(for: context)), context)
        let expected =
          "HTTP/1.1 200 OK\r\n" + kept.map { "\($0): \($1)\r\n" }.joined()
          + "transfer-encoding: chunked\r\n\r\n"
        #expect(Self.text([head]) == expected, "\(index) at \(place)")
      }
    }
    let all = ResponseCase.head(.ok, HTTPFields(gone), .own(.stream(for: context)), context)
    #expect(
      Self.text([all])
        == "HTTP/1.1 200 OK\r\ndate: now\r\nte: x\r\nserver: two\r\ntransfer-encoding: chunked\r\n\r\n")
  }

  @Test("15.5 Interim heads have neither date nor framing; 101 has the protocol's name")
  func heads() {
    let early = ResponsePart.interim(.custom(code: 103, reasonPhrase: "Early Hints"), ["link": "</a>"])
    #expect(
      Self.text([.interim(.continue, [:]), early])
        == "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    let upgrade = ResponseCase.head(
      .switchingProtocols, ["sec-websocket-accept": "x", "upgrade": "h2c"], .upgrade(to: "websocket"),
      Self.context)
    #expect(
      Self.text([upgrade])
        == "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\ntraceparent: tp\r\n"
        + "sec-websocket-accept: x\r\n\r\n")
  }

  @Test("15.5 A response that its channel's new owner writes says how it will end", arguments: [false, true])
  func stream(isHTTP10: Bool) {
    let context = ResponseContext(isHead: false, isHTTP10: isHTTP10, keepAlive: false, traceparent: "")
    let text = Self.text([ResponseCase.head(.ok, [:], .own(.stream(for: context)), context)])
    let framing = isHTTP10 ? "" : "transfer-encoding: chunked\r\n"
    #expect(text == "HTTP/1.1 200 OK\r\nconnection: close\r\ndate: now\r\n\(framing)\r\n")
  }
}

@Suite("15.5 Responses as HTTP/2 fields")
struct HTTP2EncoderTests {
  private static let context = ResponseContext(
    isHead: false, isHTTP10: false, keepAlive: true, traceparent: "tp")

  private static func fields(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind? = nil,
    isTunnel: Bool = false
  ) -> HPACKHeaders? {
    let kind = kind ?? .own(ResponseFraming(.empty(status), for: context))
    guard case .head(let head) = ResponseCase.head(status, fields, kind, context) else { return nil }
    return HTTP2Encoder.fields(head, isTunnel: isTunnel)?.fields
  }

  @Test("15.5 The end is where method, status and length say", arguments: ResponseCase.all)
  func framing(_ response: ResponseCase) throws {
    var data: String?
    var hasEnd = false
    for part in response.parts() {
      #expect(!hasEnd, "nothing stands behind the end")
      switch part {
      case .head(let head):
        let (fields, isEnd) = try #require(HTTP2Encoder.fields(head, isTunnel: false))
        #expect(fields.first(name: ":status") == String(response.status))
        #expect(fields.first(name: "content-length") == response.length)
        #expect(fields.first(name: "date") == "now" && fields.first(name: "traceparent") == "tp")
        #expect(fields.first(name: "x-a") == "1")
        for name in ["connection", "transfer-encoding"] { #expect(!fields.contains(name: name)) }
        hasEnd = isEnd
        data = isEnd ? nil : ""
      case .body(let bytes, let isLast):
        data? += String(buffer: bytes)
        hasEnd = isLast
      case .end(let trailers):
        #expect(HTTP2Encoder.trailers(trailers) == ["x-sum": "1"])
        hasEnd = true
      case .interim: Issue.record("none was sent")
      }
    }
    #expect(data == response.data)
    // HTTP/2 has no version 1.0, whose bodies may end with the connection.
    if !response.isHTTP10 { #expect(hasEnd) }
  }

  @Test("15.5 Fields are in lower case, and those that HTTP/2 doesn't have are dropped")
  func names() throws {
    let given: HTTPFields = [
      "X-One": "1", "keep-alive": "1", "upgrade": "x", "proxy-connection": "y", "bad name": "1",
      "http2-settings": "z", "x-two": " a\r\nb\t",
    ]
    let fields = try #require(Self.fields(.ok, given))
    let pairs = fields.map { "\($0.name)=\($0.value)" }
    #expect(
      pairs == [":status=200", "date=now", "traceparent=tp", "x-one=1", "x-two=a  b", "content-length=0"])
  }

  @Test("15.5 Only fields with few values enter the compression table, which the client may let grow")
  func indexing() throws {
    let given: HTTPFields = [
      "content-type": "text/plain", "x-any": "1", "set-cookie": "a=b",
      "access-control-allow-origin": "http://a",
    ]
    let fields = try #require(Self.fields(.ok, given))
    let indexed = fields.filter { $0.indexable == .indexable }.map(\.name)
    #expect(indexed == [":status", "content-type"])
    #expect(fields.filter { $0.indexable == .neverIndexed }.map(\.name) == ["set-cookie"])
  }

  @Test("15.5 Leaving HTTP is 200 where a tunnel was asked for, and impossible elsewhere")
  func tunnels() throws {
    let kind = OutgoingHead.Kind.upgrade(to: "websocket")
    let given: HTTPFields = ["sec-websocket-accept": "x", "sec-websocket-protocol": "p"]
    let opened = try #require(Self.fields(.switchingProtocols, given, kind, isTunnel: true))
    #expect(
      opened.map { "\($0.name)=\($0.value)" } == [
        ":status=200", "traceparent=tp", "sec-websocket-protocol=p",
      ])
    #expect(Self.fields(.switchingProtocols, given, kind) == nil)
    // To the client any success would say that the tunnel is open.
    #expect(try #require(Self.fields(.noContent, [:], isTunnel: true)).first(name: ":status") == "501")
    #expect(try #require(Self.fields(.forbidden, [:], isTunnel: true)).first(name: ":status") == "403")
  }

  @Test("15.5 Interim heads have the fields that they were given, and none of the framing")
  func interim() {
    let fields = HTTP2Encoder.fields(
      interim: .custom(code: 103, reasonPhrase: "Early Hints"), ["Link": "</a>", "content-length": "5"])
    #expect(fields.map { "\($0.name)=\($0.value)" } == [":status=103", "link=</a>"])
  }
}
