// Requests over HTTP/2: what the responder sees, what the client gets, and that neither goes faster than the other takes it.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("HTTP/2 streams")
struct HTTP2StreamTests {
  /// Requests below /s are streamed.
  private static func streamed(
    _ make: @escaping () -> ScriptedExchange, window: UInt32? = nil
  ) throws -> (StreamFront, HTTP2Peer) {
    let front = StreamFront(make)
    let peer = try HTTP2Peer(front.front, window: window)
    peer.keptAlive = front
    return (front, peer)
  }

  @Test("Requests are answered side by side, and look like HTTP/1.1 to the responder")
  func answers() throws {
    let peer = try HTTP2Peer()
    try peer.send(
      HTTP2Peer.headers(1, HTTP2Peer.head("GET", "/a?b=1", [("x-a", "1")])),
      HTTP2Peer.headers(3, HTTP2Peer.head("POST", "/c"), isEnd: false),
      HTTP2Peer.headers(5, HTTP2Peer.head("HEAD", "/e")),
      HTTP2Peer.data(3, "hel"), HTTP2Peer.data(3, "lo", isEnd: true))
    for (stream, text) in [(1, "answer to /a"), (3, "answer to /c"), (5, "")] as [(UInt32, String)] {
      let answer = peer.answer(stream)
      #expect(
        answer.status == "200" && answer.text == text && answer.isEnded && answer.reset == nil, "\(stream)")
      #expect(answer.value("content-length") == "12" && answer.value("traceparent") != nil)
      #expect(answer.value("connection") == nil)
    }
    let requests = peer.front.responder.requests
    #expect(Set(requests.map(\.path)) == ["/a", "/c", "/e"] && requests.first?.rawQuery == "b=1")
    #expect(requests.first?.header("host") == "gateway" && requests.first?.peer.text == "192.0.2.1")
    #expect(requests.first { $0.path == "/c" }.map { String(buffer: $0.body) } == "hello")
    #expect(peer.isOpen && peer.goAway == nil)
  }

  /// Sends back what comes, and ends when the client does.
  private final class Echo: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      context.writeAndFlush(wrapOutboundOut(unwrapInboundIn(data)), promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
      if let event = event as? ChannelEvent, event == .inputClosed {
        context.close(mode: .output, promise: nil)
      }
    }
  }

  private static func connect(_ stream: UInt32, _ path: String) -> Frame {
    let fields = [("sec-websocket-version", "13")]
    return HTTP2Peer.headers(
      stream, [(":protocol", "websocket")] + HTTP2Peer.head("CONNECT", path, fields), isEnd: false)
  }

  @Test("14.C13 A stream that CONNECT opens (RFC 8441) is given away as a channel that has left HTTP")
  func tunnel() throws {
    let accepted: HTTPFields = ["sec-websocket-accept": "x", "sec-websocket-protocol": "p"]
    let front = EmbeddedFront(
      ScriptedResponder { request in
        guard request.path == "/ws" else { return .response(.text("page")) }
        return .takeOver(.upgrade(to: "websocket", accepted)) { taken in
          try? taken.channel.pipeline.syncOperations.addHandler(Echo())
          #expect(taken.head.readableBytes == 0)
          taken.channel.writeAndFlush(ByteBuffer(string: "hi;"), promise: nil)
        }
      })
    let peer = try HTTP2Peer(front)
    let offers = peer.frames.contains { frame in
      frame.kind == .settings
        && stride(from: 0, to: frame.payload.count, by: 6).contains {
          frame.payload[$0...].prefix(6) == [0, 8, 0, 0, 0, 1]
        }
    }
    #expect(offers, "SETTINGS_ENABLE_CONNECT_PROTOCOL")
    try peer.send(Self.connect(1, "/ws"), HTTP2Peer.data(1, "early;"))
    try peer.send(HTTP2Peer.data(1, "late;"))
    let answer = peer.answer(1)
    #expect(answer.status == "200" && answer.value("sec-websocket-protocol") == "p")
    #expect(answer.value("sec-websocket-accept") == nil && answer.value("upgrade") == nil)
    #expect(answer.text == "hi;early;late;" && !answer.isEnded && answer.reset == nil)
    front.sweep(at: 100_000)
    try peer.send(HTTP2Peer.data(1, "last", isEnd: true))
    #expect(
      peer.answer(1).text == "hi;early;late;last" && peer.answer(1).isEnded && peer.answer(1).reset == nil)
    // What isn't opened isn't answered as if it were.
    try peer.send(Self.connect(3, "/page"), HTTP2Peer.data(3, "early"))
    #expect(peer.answer(3).status == "501" && peer.answer(3).isEnded && peer.answer(3).reset == Code.none)
    // A head in the middle of it.
    try peer.send(Self.connect(5, "/ws"))
    try peer.send(HTTP2Peer.headers(5, [("x", "y")]))
    #expect(peer.answer(5).reset == Code.protocolError && peer.goAway == nil)
    // The client goes before the answer.
    try peer.send(Self.connect(7, "/ws"), Frame(kind: .reset, stream: 7, payload: Frame.bytes(Code.cancel)))
    #expect(front.server.openStreams == 0 && peer.isOpen)
  }

  @Test("The preface may come in pieces; what only begins like it is HTTP/1.1")
  func preface() throws {
    let peer = try HTTP2Peer(isGreeted: false)
    for byte in Array(HTTP2Peer.preface.utf8) { try peer.send(bytes: [byte]) }
    try peer.send(Frame(kind: .settings))
    try peer.request(1)
    #expect(peer.answer(1).status == "200")
    let client = try EmbeddedFront().connect()
    #expect(try client.send("P") == "")
    #expect(statusLines(try client.send("UT / HTTP/1.1\r\nhost: a\r\n\r\n")) == ["HTTP/1.1 200 OK"])
    // Only at the beginning of a connection.
    #expect(statusLines(try client.send(HTTP2Peer.preface)) == ["HTTP/1.1 505 HTTP Version Not Supported"])
  }

  @Test("A channel whose client is known to speak it gets HTTP/2 at once")
  func known() throws {
    let front = EmbeddedFront()
    let channel = EmbeddedChannel(loop: front.loop)
    try front.server.count(channel)
    try front.server.addHTTP2(to: channel)
    channel.connect(to: try SocketAddress(unixDomainSocketPath: "/client"), promise: nil)
    let peer = try HTTP2Peer(front, on: channel)
    try peer.request(1)
    #expect(peer.answer(1).status == "200" && front.server.openConnections == 1)
    channel.close(promise: nil)
    try peer.settle()
    #expect(front.server.openConnections == 0)
  }

  @Test("An upgrade to h2c is ignored, and HTTP/2 can be turned off")
  func notSpoken() throws {
    let fields =
      "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    #expect(statusLines(try EmbeddedFront().connect().send(get("/", fields))) == ["HTTP/1.1 200 OK"])
    var limits = HTTPLimits()
    limits.http2.maxStreams = 0
    let client = try EmbeddedFront(limits: limits).connect()
    #expect(statusLines(try client.send(HTTP2Peer.preface)) == ["HTTP/1.1 505 HTTP Version Not Supported"])
  }

  @Test("A malformed request resets its stream, reaches nobody, and harms no other stream")
  func malformed() throws {
    // HPACK has no name without a letter: that ends the connection, as its tables may differ then.
    for (what, fields) in HTTP2RequestHeadTests.malformed where !fields.contains(where: { $0.0.isEmpty }) {
      let peer = try HTTP2Peer()
      try peer.send(HTTP2Peer.headers(1, fields))
      #expect(peer.answer(1).reset == Code.protocolError && peer.answer(1).heads.isEmpty, "\(what)")
      #expect(peer.front.responder.requests.isEmpty && peer.front.responder.offered.isEmpty, "\(what)")
      try peer.request(3)
      #expect(peer.answer(3).status == "200", "\(what)")
    }
  }

  @Test("A body that isn't as long as announced resets its stream, before anybody takes it for whole")
  func lengths() throws {
    let announced = { (length: Int) in HTTP2Peer.head("POST", "/x", [("content-length", "\(length)")]) }
    let cases: [[Frame]] = [
      [HTTP2Peer.headers(1, announced(3), isEnd: false), HTTP2Peer.data(1, "four", isEnd: true)],
      [HTTP2Peer.headers(1, announced(5), isEnd: false), HTTP2Peer.data(1, "four", isEnd: true)],
      [
        HTTP2Peer.headers(1, announced(5), isEnd: false), HTTP2Peer.data(1, "four"),
        HTTP2Peer.headers(1, [("x-a", "1")]),
      ],
      [HTTP2Peer.headers(1, announced(0), isEnd: false), HTTP2Peer.data(1, "x", isEnd: true)],
    ]
    for frames in cases {
      for path in ["/x", "/s"] {
        let (front, peer) = try Self.streamed {
          ScriptedExchange(onBegin: { $0.readBody() }, onReceived: { answer, _ in answer.readBody() })
        }
        for frame in frames {
          var frame = frame
          if frame == frames[0] {
            frame.payload = HTTP2Peer.block(HTTP2Peer.head("POST", path) + Self.length(frames[0]))
          }
          try peer.send(frame)
        }
        #expect(peer.answer(1).reset == Code.protocolError)
        #expect(front.front.responder.requests.isEmpty)
        #expect(front.exchanges.allSatisfy { !$0.calls.contains("end") && $0.calls.last == "gone" })
      }
    }
  }

  private static func length(_ frame: Frame) -> [(String, String)] {
    let text = String(decoding: frame.payload, as: UTF8.self)
    guard let digit = text.last else { return [] }
    return [("content-length", String(digit))]
  }

  @Test("Trailers go both ways, those that must not be trailers don't")
  func trailers() throws {
    let (front, peer) = try Self.streamed {
      ScriptedExchange(
        onBegin: { $0.readBody() }, onReceived: { answer, _ in answer.readBody() },
        onEnd: { answer in
          answer.head(.ok)
          answer.write(ByteBuffer(string: "body"))
          answer.end(trailers: ["x-sum": "2", "content-length": "9"])
        })
    }
    try peer.send(
      HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s"), isEnd: false), HTTP2Peer.data(1, "hello"))
    try peer.send(HTTP2Peer.headers(1, [("x-sum", "1"), ("host", "other")]))
    #expect(front.exchanges[0].body == "hello" && front.exchanges[0].trailers?.map(\.name) == ["x-sum"])
    let answer = peer.answer(1)
    #expect(answer.text == "body" && answer.isEnded && answer.heads.count == 2)
    #expect(answer.heads.last?.map(\.name) == ["x-sum"] && answer.value("transfer-encoding") == nil)
  }

  @Test("Interim answers come before the answer, and 100 only when the body is asked for")
  func interim() throws {
    let (_, peer) = try Self.streamed {
      ScriptedExchange(
        onBegin: { answer in
          answer.informational(.custom(code: 103, reasonPhrase: "Early Hints"), ["link": "</a>"])
          answer.readBody()
        }, onEnd: { $0.respond(.text("done")) })
    }
    try peer.send(
      HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s", [("expect", "100-continue")]), isEnd: false))
    #expect(peer.answer(1).statuses == ["103", "100"] && !peer.answer(1).isEnded)
    try peer.send(HTTP2Peer.data(1, "x", isEnd: true))
    #expect(peer.answer(1).statuses == ["103", "100", "200"] && peer.answer(1).text == "done")
  }

  @Test("An upload waits until it is asked for: the window of its stream stays shut, others go on")
  func uploadPushBack() throws {
    let (front, peer) = try Self.streamed { ScriptedExchange() }
    let piece = String(repeating: "x", count: 16_000)
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s"), isEnd: false))
    for _ in 0..<4 { try peer.send(HTTP2Peer.data(1, piece)) }
    func updates() -> Int {
      peer.frames.filter { $0.kind == .windowUpdate && $0.stream == 1 }.reduce(0) { $0 + Int($1.number) }
    }
    #expect(front.exchanges[0].bodyBytes == 0)
    let unasked = updates()
    // The one read that was under way when the exchange began.
    #expect(unasked <= 32_000)
    try peer.request(3)
    #expect(peer.answer(3).status == "200")
    let stream = try #require(front.exchanges[0].stream)
    for _ in 0..<8 {
      stream.readBody()
      try peer.settle()
    }
    #expect(front.exchanges[0].bodyBytes == 64_000 && updates() > 32_000)
    #expect(front.exchanges[0].largestPiece <= ResponseStream.maxPieceBytes)
  }

  @Test("More than the window resets the stream: nobody can make the gateway hold it")
  func windowIsKept() throws {
    let (front, peer) = try Self.streamed { ScriptedExchange() }
    let piece = String(repeating: "x", count: 16_000)
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s"), isEnd: false))
    for _ in 0..<12 { try peer.send(HTTP2Peer.data(1, piece)) }
    #expect(peer.answer(1).reset != nil || peer.goAway != nil)
    #expect(front.exchanges[0].calls.last == "gone")
  }

  @Test("A download waits for its client's window, and goes on when that grows")
  func downloadPushBack() throws {
    let chunk = ByteBuffer(repeating: UInt8(ascii: "a"), count: 16 * 1024)
    var written = 0
    func fill(_ answer: ResponseStream) {
      repeat { written += chunk.readableBytes } while answer.write(chunk) && written < 4 << 20
    }
    let (front, peer) = try Self.streamed(
      {
        ScriptedExchange(
          onBegin: { answer in
            answer.head(.ok)
            fill(answer)
          }, onCanWrite: { fill($0) })
      }, window: 1000)
    try peer.request(1, "GET", "/s")
    #expect(peer.answer(1).body.count == 1000)
    let held = written
    #expect(held <= HTTP2Limits.maxUntakenBytes + chunk.readableBytes)
    try peer.send(HTTP2Peer.window(0, 1 << 20), HTTP2Peer.window(1, 100))
    #expect(peer.answer(1).body.count == 1100 && written == held)
    try peer.send(HTTP2Peer.window(1, 1 << 20))
    #expect(written > held && front.exchanges[0].calls.contains("canWrite"))
    #expect(peer.answer(1).body.count > 200_000)
    try peer.request(3, "GET", "/other")
    #expect(peer.answer(3).status == "200")
  }

  @Test("An answer before the end of the upload is whole, and then the stream is reset without an error")
  func earlyAnswer() throws {
    let (_, peer) = try Self.streamed {
      ScriptedExchange(onBegin: { $0.respond(.text("no", status: .unauthorized)) })
    }
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s"), isEnd: false), HTTP2Peer.data(1, "x"))
    let answer = peer.answer(1)
    #expect(answer.status == "401" && answer.text == "no" && answer.isEnded && answer.reset == Code.none)
    // In flight when the client didn't know.
    try peer.send(HTTP2Peer.data(1, "more", isEnd: true))
    try peer.request(3)
    #expect(peer.answer(3).status == "200" && peer.goAway == nil)
  }

  @Test("An answer that is cut short resets the stream")
  func abort() throws {
    for length in [nil, "10"] as [String?] {
      let (_, peer) = try Self.streamed {
        ScriptedExchange(onBegin: { answer in
          answer.head(.ok, length.map { ["content-length": $0] } ?? [:])
          answer.write(ByteBuffer(string: "hal"))
          answer.abort()
        })
      }
      try peer.request(1, "GET", "/s")
      #expect(!peer.answer(1).isEnded && peer.answer(1).reset == Code.internalError)
      try peer.request(3, "GET", "/other")
      #expect(peer.answer(3).status == "200")
    }
  }

  @Test("A head too large for a frame is replaced, and the compression of all others stays right")
  func largeAnswerHeads() throws {
    let values = ["a": 16_300, "b": 12_000, "\u{80}": 5_000, "\u{80}x": 2_000, "~": 9_000, "<": 8_000]
    for (text, count) in values {
      let large = String(repeating: text, count: count / text.utf8.count)
      let peer = try HTTP2Peer(
        EmbeddedFront(
          ScriptedResponder { request in
            var answer = HTTPResponse.text("done")
            answer.headers.add(name: "x-large", value: request.path == "/large" ? large : "small")
            return .response(answer)
          }))
      for (index, path) in ["/small", "/large", "/small", "/small"].enumerated() {
        let stream = UInt32(2 * index + 1)
        try peer.request(stream, "GET", path)
        let answer = peer.answer(stream)
        let isWhole = answer.status == "200" && answer.text == "done"
        #expect(isWhole || (path == "/large" && answer.status == "502"), "\(text.debugDescription) \(path)")
        if isWhole { #expect(answer.value("x-large") == (path == "/large" ? large : "small")) }
        #expect(answer.isEnded && peer.goAway == nil)
      }
    }
  }

  @Test("Frames of unknown kinds are ignored, and so are priorities")
  func unknownFrames() throws {
    let peer = try HTTP2Peer()
    try peer.send(bytes: [
      0, 0, 5, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x75, 0, 0, 3, 0xfe, 9, 0, 0, 0, 1, 1, 2, 3,
    ])
    try peer.send(Frame(kind: .priority, stream: 1, payload: [0, 0, 0, 0, 16]))
    try peer.request(3, "GET", "/", [("priority", "u=1, i")])
    #expect(peer.answer(3).status == "200" && peer.goAway == nil)
  }

  @Test("A client that resets its stream is gone for the exchange, and for a later answer")
  func clientReset() throws {
    let (front, peer) = try Self.streamed { ScriptedExchange(onBegin: { $0.readBody() }) }
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/s"), isEnd: false))
    try peer.send(Frame(kind: .reset, stream: 1, payload: Frame.bytes(Code.cancel)))
    #expect(front.exchanges[0].calls == ["begin", "gone"] && peer.isOpen)
    var isGone = false
    let loop = front.front.loop
    let promise = loop.makePromise(of: HTTPResponse.self)
    let later = try HTTP2Peer(
      EmbeddedFront(ScriptedResponder { _ in .later(promise.futureResult, onClientGone: { isGone = true }) }))
    try later.request(1)
    try later.send(Frame(kind: .reset, stream: 1, payload: Frame.bytes(Code.cancel)))
    #expect(isGone)
    promise.fail(ChannelError.eof)
  }

  @Test("A channel that is taken over sends raw bytes as data until it ends")
  func takeOver() throws {
    var taken: Channel?
    let peer = try HTTP2Peer(
      EmbeddedFront(ScriptedResponder { _ in .takeOver(.stream(["x-a": "1"])) { taken = $0.channel } }))
    try peer.request(1)
    let channel = try #require(taken)
    channel.writeAndFlush(ByteBuffer(string: "data: 1\n\n"), promise: nil)
    try peer.settle()
    #expect(
      peer.answer(1).value("x-a") == "1" && peer.answer(1).text == "data: 1\n\n" && !peer.answer(1).isEnded)
    channel.writeAndFlush(ByteBuffer(string: "data: 2\n\n"), promise: nil)
    channel.close(mode: .output, promise: nil)
    try peer.settle()
    #expect(
      peer.answer(1).text == "data: 1\n\ndata: 2\n\n" && peer.answer(1).isEnded && peer.answer(1).reset == nil
    )
    #expect(!channel.isActive)
  }
}
