// What a client of HTTP/2 can't do to the gateway: floods, hoards, and staying for ever. And how connections end.

import NIOCore
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("Bounds of HTTP/2")
struct HTTP2BoundTests {
  /// Sends what `frames` makes until the connection ends, at most `count` times. The number of times.
  private static func flood(_ peer: HTTP2Peer, _ count: Int, _ frames: (UInt32) -> [Frame]) throws -> Int {
    for index in 0..<count {
      guard peer.goAway == nil, peer.isOpen else { return index }
      try peer.send(bytes: frames(UInt32(index)).flatMap(\.encoded))
    }
    return count
  }

  struct Flood: CustomTestStringConvertible {
    let testDescription: String
    let most: Int
    let frames: @Sendable (UInt32) -> [Frame]
  }

  static let floods = [
    Flood(testDescription: "rapid reset", most: 513) { index in
      [
        HTTP2Peer.headers(2 * index + 1, HTTP2Peer.head()),
        Frame(kind: .reset, stream: 2 * index + 1, payload: Frame.bytes(Code.cancel)),
      ]
    },
    Flood(testDescription: "settings", most: 251) { _ in [Frame(kind: .settings)] },
    Flood(testDescription: "pings", most: 251) { _ in
      [Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8))]
    },
    Flood(testDescription: "priorities", most: 251) { index in
      [Frame(kind: .priority, stream: 2 * index + 1, payload: [0, 0, 0, 0, 1])]
    },
    Flood(testDescription: "malformed requests", most: 102) { index in
      [HTTP2Peer.headers(2 * index + 1, HTTP2Peer.head("GET", "bad"))]
    },
    Flood(testDescription: "window updates that make the server reset streams", most: 102) { index in
      [
        HTTP2Peer.headers(2 * index + 1, HTTP2Peer.head("POST"), isEnd: false),
        Frame(kind: .windowUpdate, stream: 2 * index + 1, payload: [0, 0, 0, 0]),
      ]
    },
    Flood(testDescription: "empty data", most: 12) { index in
      (index == 0 ? [HTTP2Peer.headers(1, HTTP2Peer.head("POST"), isEnd: false)] : []) + [
        HTTP2Peer.data(1, "")
      ]
    },
    Flood(testDescription: "continuations", most: 24) { index in
      let part: [UInt8] = HTTP2Peer.block([("x-\(index)", "1")])
      guard index > 0 else {
        return [Frame(kind: .headers, stream: 1, payload: HTTP2Peer.block(HTTP2Peer.head()))]
      }
      return [Frame(kind: .continuation, stream: 1, payload: part)]
    },
  ]

  @Test("A flood ends its connection", arguments: floods)
  func endsConnection(flood: Flood) throws {
    let peer = try HTTP2Peer()
    let sent = try Self.flood(peer, 3000, flood.frames)
    #expect(sent <= flood.most && peer.goAway?.goAwayCode == Code.enhanceYourCalm, "\(sent)")
    // The client is let go, and cut off if it doesn't go.
    peer.front.sweep(at: 1)
    peer.front.sweep(at: 10)
    #expect(!peer.isOpen)
  }

  @Test("A head above the bound is answered 431, one above all reason ends the connection")
  func largeHeads() throws {
    let peer = try HTTP2Peer()
    let large = HTTP2Peer.block(
      HTTP2Peer.head("GET", "/", [("x-large", String(repeating: "a", count: 17_000))]))
    try peer.send(
      Frame(kind: .headers, flags: Frame.endStream, stream: 1, payload: Array(large.prefix(16_000))),
      Frame(kind: .continuation, flags: Frame.endHeaders, stream: 1, payload: Array(large.dropFirst(16_000))))
    #expect(peer.answer(1).status == "431" && peer.answer(1).isEnded)
    try peer.request(3, "GET", "/", (0..<200).map { ("x-\($0)", "1") })
    #expect(peer.answer(3).status == "431" && peer.goAway == nil)
    // What stands behind a body has the same bounds.
    try peer.send(
      HTTP2Peer.headers(5, HTTP2Peer.head("POST", "/"), isEnd: false), HTTP2Peer.data(5, "body"),
      HTTP2Peer.headers(5, (0..<201).map { ("x-\($0)", "1") }))
    #expect(peer.answer(5).status == "431" && peer.answer(5).isEnded && peer.goAway == nil, "14.C14")
    #expect(peer.front.responder.requests.isEmpty)
    // One entry of the table, referred to again and again (an HPACK bomb).
    let entry = HTTP2Peer.block([("x-bomb", String(repeating: "c", count: 4000))])
    let bomb =
      HTTP2Peer.block(HTTP2Peer.head()) + [0x40] + entry.dropFirst() + [UInt8](repeating: 0xbe, count: 4000)
    try peer.send(Frame(kind: .headers, flags: Frame.endHeaders | Frame.endStream, stream: 7, payload: bomb))
    #expect(peer.goAway.map { $0.goAwayCode != 0 } == true && peer.front.responder.requests.isEmpty)
  }

  /// A head in as many frames as it takes.
  private static func frames(_ stream: UInt32, _ fields: [(String, String)]) -> [Frame] {
    let block = HTTP2Peer.block(HTTP2Peer.head("GET", "/", fields))
    return stride(from: 0, to: block.count, by: 16_384).map { start in
      let end = min(block.count, start + 16_384)
      return Frame(
        kind: start == 0 ? .headers : .continuation,
        flags: (start == 0 ? Frame.endStream : 0) | (end == block.count ? Frame.endHeaders : 0),
        stream: stream,
        payload: Array(block[start..<end]))
    }
  }

  @Test(
    "14.C14 A large head is answered 431 before the client has acknowledged anything, however its bytes come")
  func firstFlight() throws {
    for (pieceBytes, cookieBytes) in [(1 << 20, 200_000), (4096, 100_000), (13, 40_000), (1, 17_000)] {
      let peer = try HTTP2Peer(isGreeted: false)
      let flight =
        Array(HTTP2Peer.preface.utf8) + Frame(kind: .settings, payload: [0, 4, 0, 1, 0, 0]).encoded
        + Self.frames(1, [("cookie", String(repeating: "c", count: cookieBytes))]).flatMap(\.encoded)
        + HTTP2Peer.headers(3, HTTP2Peer.head()).encoded
        + Frame(kind: .settings, flags: Frame.ack).encoded + Frame(kind: .settings, flags: Frame.ack).encoded
        + HTTP2Peer.headers(5, HTTP2Peer.head()).encoded
      for start in stride(from: 0, to: flight.count, by: pieceBytes) {
        try peer.send(bytes: Array(flight[start..<min(flight.count, start + pieceBytes)]))
      }
      #expect(peer.answer(1).status == "431" && peer.answer(1).isEnded, "\(pieceBytes)")
      #expect(peer.answer(3).status == "200" && peer.answer(5).status == "200", "\(pieceBytes)")
      #expect(peer.goAway == nil && peer.isOpen)
    }
  }

  @Test("14.C14 Acknowledgements that nothing was sent for end the connection")
  func acknowledgements() throws {
    let peer = try HTTP2Peer()
    for _ in 0..<3 { try peer.send(Frame(kind: .settings, flags: Frame.ack)) }
    #expect(peer.goAway.map { $0.goAwayCode != 0 } == true)
  }

  @Test("14.C14 Heads that are no end of are bounded by the budget, by time and by their number")
  func hoards() throws {
    // Of the budget: what is kept of heads that aren't whole.
    let budget = AssemblyBudget(connectionBytes: 1 << 20, workerBytes: 1 << 20, largestBytes: 4096)
    let front = EmbeddedFront(budget: budget)
    var peers: [HTTP2Peer] = []
    while peers.last?.goAway == nil {
      try #require(peers.count < 20)
      let peer = try HTTP2Peer(front)
      let frames = Self.frames(1, [("cookie", String(repeating: "c", count: 200_000))])
      try peer.send(bytes: frames.dropLast().flatMap(\.encoded))
      peers.append(peer)
    }
    #expect(peers.last?.goAway?.goAwayCode == Code.enhanceYourCalm && budget.usedBytes <= 1 << 20)
    #expect(peers.count > 2)
    for peer in peers { peer.channel.close(promise: nil) }
    for peer in peers { try peer.settle() }
    #expect(budget.usedBytes == 0)
    // Of time.
    let slow = try HTTP2Peer()
    try slow.request(1)
    try slow.send(Frame(kind: .headers, stream: 3, payload: HTTP2Peer.block(HTTP2Peer.head())))
    for second in [29, 31] as [Int64] {
      #expect(slow.goAway == nil)
      slow.front.sweep(at: second)
      try slow.settle()
    }
    #expect(slow.goAway?.goAwayCode == Code.enhanceYourCalm)
    // Of their number.
    let often = try HTTP2Peer()
    var stream: UInt32 = 1
    while often.goAway == nil, stream < 1_000 {
      let frames = Self.frames(stream, [("cookie", String(repeating: "c", count: 17_000))])
      try often.send(bytes: frames.flatMap(\.encoded))
      stream += 2
    }
    #expect(stream == 2 * 101 + 1 && often.goAway?.goAwayCode == Code.enhanceYourCalm, "\(stream)")
  }

  @Test("A request that its head has refused is answered, though its body and trailers follow at once")
  func refusedBodies() throws {
    let peer = try HTTP2Peer()
    let fields = (0..<250).map { ("x-\($0)", "1") }
    for stream in [1, 3] as [UInt32] {
      let head = HTTP2Peer.headers(stream, HTTP2Peer.head("POST", "/", fields), isEnd: false)
      let end =
        stream == 1 ? HTTP2Peer.data(stream, "", isEnd: true) : HTTP2Peer.headers(stream, [("x", "y")])
      try peer.send(head, HTTP2Peer.data(stream, "body"), end)
      #expect(peer.answer(stream).status == "431" && peer.answer(stream).isEnded)
    }
    #expect(peer.goAway == nil && peer.front.responder.requests.isEmpty)
  }

  @Test("More streams than allowed are refused, whatever the client says of settings")
  func streams() throws {
    var limits = HTTPLimits()
    limits.http2.maxStreams = 3
    let front = StreamFront(limits: limits)
    let peer = try HTTP2Peer(front.front)
    for stream in [1, 3, 5, 7] as [UInt32] { try peer.request(stream, "GET", "/s") }
    #expect(front.exchanges.count == 3)
    #expect(peer.answer(7).reset == Code.refusedStream || peer.goAway != nil)
    // Before the settings are acknowledged NIO would take more.
    let other = StreamFront(limits: limits)
    let silent = try HTTP2Peer(other.front, isGreeted: false)
    try silent.send(bytes: Array(HTTP2Peer.preface.utf8))
    try silent.send(Frame(kind: .settings))
    for index in 0..<300 as Range<UInt32> { try silent.request(2 * index + 1, "GET", "/s") }
    #expect(other.exchanges.count == 3 && silent.answer(7).reset == Code.refusedStream)
  }

  @Test("An answer that nobody takes is given up, on its stream alone")
  func windowOfNothing() throws {
    let body = String(repeating: "a", count: 10 * 16_384)
    let peer = try HTTP2Peer(EmbeddedFront(ScriptedResponder { _ in .response(.text(body)) }), window: 0)
    try peer.request(1)
    #expect(peer.answer(1).status == "200" && peer.answer(1).body.isEmpty)
    for second in [1, 75] as [Int64] {
      peer.front.sweep(at: second)
      try peer.settle()
      #expect(peer.answer(1).reset == nil)
    }
    peer.front.sweep(at: 77)
    try peer.settle()
    #expect(peer.answer(1).reset == Code.cancel && peer.isOpen)
    // Whoever takes a little now and then is served.
    try peer.request(3)
    try peer.send(HTTP2Peer.window(0, 1 << 20))
    for index in 0..<10 as Range<Int64> {
      try peer.send(HTTP2Peer.window(3, 16_384))
      #expect(peer.answer(3).body.count == Int(index + 1) * 16_384 && peer.answer(3).reset == nil)
      peer.front.sweep(at: 100 + index * 50)
      try peer.settle()
    }
    #expect(peer.answer(3).isEnded && peer.answer(3).reset == nil)
  }

  @Test("An upload that stalls is answered 408, and idle connections are let go")
  func times() throws {
    let peer = try HTTP2Peer()
    try peer.send(HTTP2Peer.headers(1, HTTP2Peer.head("POST"), isEnd: false))
    peer.front.sweep(at: 31)
    try peer.settle()
    #expect(peer.answer(1).status == "408" && peer.answer(1).reset == Code.none)
    peer.front.sweep(at: 105)
    try peer.settle()
    #expect(peer.goAway == nil)
    peer.front.sweep(at: 107)
    try peer.settle()
    #expect(peer.goAway?.goAwayCode == Code.none && peer.goAway?.payload.prefix(4) == [0, 0, 0, 1])
    peer.front.sweep(at: 113)
    #expect(!peer.isOpen)
  }

  @Test("A preface that isn't completed times out, and so does a client that says nothing behind it")
  func silence() throws {
    let half = try HTTP2Peer(isGreeted: false)
    try half.send(bytes: Array(HTTP2Peer.preface.utf8.prefix(20)))
    half.front.sweep(at: 31)
    half.front.sweep(at: 60)
    #expect(!half.isOpen)
    let silent = try HTTP2Peer(isGreeted: false)
    try silent.send(bytes: Array(HTTP2Peer.preface.utf8))
    silent.front.sweep(at: 31)
    silent.front.sweep(at: 37)
    #expect(!silent.isOpen)
  }

  @Test("Nonsense behind the preface ends the connection")
  func nonsense() throws {
    let peer = try HTTP2Peer(isGreeted: false)
    try peer.send(bytes: Array((HTTP2Peer.preface + "GET / HTTP/1.1\r\n\r\n").utf8))
    #expect(peer.goAway.map { $0.goAwayCode != 0 } == true)
    peer.front.sweep(at: 1)
    peer.front.sweep(at: 7)
    #expect(!peer.isOpen && peer.front.responder.requests.isEmpty)
  }

  @Test("When the server drains, open streams end in peace, and then the connection does")
  func drain() throws {
    let front = StreamFront { ScriptedExchange(onBegin: { $0.head(.ok) }) }
    let peer = try HTTP2Peer(front.front)
    try peer.request(1, "GET", "/s")
    front.front.server.drain()
    try peer.settle()
    #expect(peer.goAway?.payload.prefix(4) == [0x7f, 0xff, 0xff, 0xff])
    // Begun before the client knew.
    try peer.request(3)
    #expect(peer.answer(3).status == "503")
    let ping = try #require(peer.frames.last { $0.kind == .ping })
    try peer.send(Frame(kind: .ping, flags: Frame.ack, payload: ping.payload))
    #expect(peer.isOpen)
    front.exchanges[0].stream?.write(ByteBuffer(string: "the rest"))
    front.exchanges[0].stream?.end()
    try peer.settle()
    #expect(peer.answer(1).text == "the rest" && peer.answer(1).isEnded)
    #expect(peer.goAway?.payload.prefix(4) == [0, 0, 0, 3] && peer.goAway?.goAwayCode == Code.none)
    front.front.sweep(at: 6)
    #expect(!peer.isOpen)
    // One that says nothing more, and one that came too late to be asked with the others.
    let idle = try HTTP2Peer()
    idle.front.server.drain()
    let late = try HTTP2Peer(idle.front)
    for second in [1, 3, 4, 9] as [Int64] { idle.front.sweep(at: second) }
    try late.settle()
    #expect(!idle.isOpen && !late.isOpen && late.goAway?.goAwayCode == Code.none)
  }

  @Test("Streams count for the bound on open connections, and what is counted comes back")
  func counting() throws {
    var limits = HTTPLimits()
    limits.maxOpenConnections = 3
    let front = StreamFront(limits: limits)
    let peer = try HTTP2Peer(front.front)
    for stream in [1, 3, 5] as [UInt32] { try peer.request(stream, "GET", "/s") }
    #expect(peer.answer(5).reset == Code.refusedStream && front.exchanges.count == 2)
    #expect(throws: HTTPServer.Full.self) { _ = try front.front.connect() }
    front.exchanges[0].stream?.respond(.text("done"))
    try peer.settle()
    try peer.request(7, "GET", "/s")
    #expect(front.exchanges.count == 3 && front.front.server.openConnections == 1)
    peer.channel.close(promise: nil)
    try peer.settle()
    #expect(front.front.server.openConnections == 0 && front.front.server.hasRoomForStream)
    #expect(front.exchanges[2].calls.last == "gone")
  }

  @Test("closeAll ends connections and their streams")
  func closeAll() throws {
    let front = StreamFront()
    let peer = try HTTP2Peer(front.front)
    try peer.request(1, "GET", "/s")
    front.front.server.closeAll()
    try peer.settle()
    #expect(!peer.isOpen && front.exchanges[0].calls.last == "gone")
  }
}
