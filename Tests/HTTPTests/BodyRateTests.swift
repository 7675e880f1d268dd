// The least rate of bodies, in seconds that a test makes pass.

import NIOCore
import NIOEmbedded
import Testing

@testable import HTTP

@Suite("Least rate of a body")
struct BodyRateTests {
  private static let least = MinimumBodyRate(bytesPerSecond: 100, windowSeconds: 10)

  /// The second, counted from 1, in which a client is found too slow; nil: in none.
  private static func slowSecond(
    _ seconds: [(bytes: Int, isAwaited: Bool)], _ least: MinimumBodyRate = least
  ) -> Int? {
    var meter = BodyRateMeter()
    for (index, second) in seconds.enumerated() {
      meter.moved(second.bytes)
      if meter.secondPassed(isAwaited: second.isAwaited, least) { return index + 1 }
    }
    return nil
  }

  @Test("13.B11: A client is too slow when a window of seconds in which it was waited for brings too little")
  func meter() {
    let long = 0..<1000
    #expect(Self.slowSecond(long.map { _ in (100, true) }) == nil)
    #expect(
      Self.slowSecond(long.map { _ in (99, true) }) == 21,
      "what comes before the first counted second is for the first window")
    #expect(Self.slowSecond(long.map { _ in (1, true) }) == 11)
    #expect(Self.slowSecond(long.map { _ in (0, true) }) == 11)
    #expect(Self.slowSecond(long.map { _ in (0, false) }) == nil)
    #expect(
      Self.slowSecond(long.map { _ in (0, true) }, MinimumBodyRate(bytesPerSecond: 0, windowSeconds: 10))
        == nil)
    #expect(Self.slowSecond(long.map { (0, $0 % 2 == 0) }) == nil, "others are waited for every other second")
    #expect(
      Self.slowSecond(long.map { ($0 % 10 == 0 ? 1000 : 0, true) }) == nil,
      "an average, not a least of every second")
    // A burst is good for the window that it falls into.
    #expect(Self.slowSecond(long.map { ($0 == 5 ? 1_000_000 : 0, true) }) == 21)
  }

  @Test("Bytes that are seen to move in steps are judged over a time in which there would be a step")
  func steps() {
    #expect(Self.least.seen(inStepsOf: 999).windowSeconds == 10)
    #expect(Self.least.seen(inStepsOf: 16_384).windowSeconds == 164)
    let none = MinimumBodyRate(bytesPerSecond: 0, windowSeconds: 10)
    #expect(none.seen(inStepsOf: 16_384) == none)
  }

  private static var limits: HTTPLimits {
    var limits = HTTPLimits()
    limits.minimumBodyRate = least
    return limits
  }

  @Test(
    "13.B11: An upload that drips is answered 408, or cut off when the answer has begun; the exchange hears of it",
    arguments: [false, true])
  func upload(hasBegun: Bool) throws {
    let front = StreamFront(limits: Self.limits) {
      ScriptedExchange(onBegin: { $0.readBody() }, onReceived: { stream, _ in stream.readBody() })
    }
    let (client, exchange, stream) = try front.open(chunkedHead("/s"))
    if hasBegun { stream.head(.ok) }
    var second: Int64 = 0
    while client.isOpen, second < 100, exchange.calls.last != "gone" {
      second += 1
      try client.post("1\r\na\r\n")
      front.front.sweep(at: second)
    }
    #expect(second == 11 && exchange.calls.last == "gone")
    let answer = try client.received()
    #expect(hasBegun ? !client.isOpen : statusLines(answer) == ["HTTP/1.1 408 Request Timeout"])
    if !hasBegun { #expect(answer.contains("MIN_BODY_RATE") && header("connection", in: answer) == "close") }
  }

  @Test("13.B11: While the exchange doesn't ask, its client isn't slow, however long that takes")
  func unasked() throws {
    let front = StreamFront(limits: Self.limits)
    let (client, exchange, stream) = try front.open(chunkedHead("/s"))
    for second in 1...1000 as ClosedRange<Int64> { front.front.sweep(at: second) }
    #expect(client.isOpen && exchange.calls == ["begin"])
    // Asked once in a while, the client answers at once: that isn't slow either.
    for second in 1001...2000 as ClosedRange<Int64> {
      if second % 20 == 0 {
        stream.readBody()
        _ = try client.send("1\r\na\r\n")
      }
      front.front.sweep(at: second)
    }
    #expect(client.isOpen && exchange.bodyBytes == 50)
  }

  @Test("13.B11: A body that is assembled has the same least rate, over HTTP/1.1 and over HTTP/2")
  func assembled() throws {
    let front = EmbeddedFront(limits: Self.limits)
    let client = try front.connect()
    _ = try client.send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n")
    let peer = try HTTP2Peer(front)
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST", "/a"), isEnd: false))
    try peer.send(HTTP2Peer.headers(3, HTTP2Peer.head("POST", "/b"), isEnd: false))
    for second in 1...11 as ClosedRange<Int64> {
      try client.post("a")
      try peer.send(HTTP2Peer.data(1, "a"), HTTP2Peer.data(3, String(repeating: "b", count: 100)))
      front.sweep(at: second)
    }
    try peer.send(HTTP2Peer.window(0, 1))
    #expect(try statusLines(client.received()) == ["HTTP/1.1 408 Request Timeout"])
    #expect(peer.answer(1).status == "408" && peer.answer(1).text.contains("MIN_BODY_RATE"))
    try peer.send(HTTP2Peer.data(3, "", isEnd: true))
    #expect(peer.answer(3).status == "200" && front.server.budget.usedBytes == 0)
  }

  @Test("13.B11: A client that takes its answer too slowly is cut off; a silent answer isn't slow")
  func download() throws {
    var limits = Self.limits
    limits.minimumBodyRate.bytesPerSecond = 20_000
    let front = StreamFront(limits: limits) { ScriptedExchange(onBegin: { $0.head(.ok) }) }
    let peer = try HTTP2Peer(front.front, window: 1000)
    peer.keptAlive = front
    for stream in [1, 3, 5] as [UInt32] { try peer.request(stream, "GET", "/s") }
    let exchanges = front.exchanges
    // Nothing more than the window, all of which the client takes; more than it takes; nothing at all.
    exchanges[0].stream?.write(ByteBuffer(repeating: 1, count: 1000))
    exchanges[1].stream?.write(ByteBuffer(repeating: 1, count: 50_000))
    for second in 1...10 as ClosedRange<Int64> { front.front.sweep(at: second) }
    #expect(exchanges.allSatisfy { $0.calls == ["begin", "end"] })
    for second in 11...60 as ClosedRange<Int64> { front.front.sweep(at: second) }
    try peer.send(HTTP2Peer.window(0, 1))
    #expect(exchanges.map { $0.calls.last == "gone" } == [false, true, false])
    #expect(peer.answer(3).reset != nil && peer.isOpen)
    for index in [0, 2] { exchanges[index].stream?.end() }
    try peer.send(HTTP2Peer.window(0, 1))
    #expect(peer.answer(1).isEnded && peer.answer(5).isEnded)
  }

  @Test("13.B11: A client that takes its answer fast enough, in lumps, is let be")
  func steadyDownload() throws {
    var limits = Self.limits
    limits.minimumBodyRate.bytesPerSecond = 2000
    let front = StreamFront(limits: limits) { ScriptedExchange(onBegin: { $0.head(.ok) }) }
    let peer = try HTTP2Peer(front.front, window: 0)
    peer.keptAlive = front
    try peer.request(1, "GET", "/s")
    let stream = try #require(front.exchanges[0].stream)
    // 20,000 bytes at every tenth second.
    for second in 1...200 as ClosedRange<Int64> {
      if second % 10 == 1 { stream.write(ByteBuffer(repeating: 1, count: 32_768)) }
      if second % 10 == 9 { try peer.send(HTTP2Peer.window(0, 32_768), HTTP2Peer.window(1, 32_768)) }
      front.front.sweep(at: second)
    }
    #expect(front.exchanges[0].calls.last != "gone" && peer.answer(1).reset == nil)
  }
}
