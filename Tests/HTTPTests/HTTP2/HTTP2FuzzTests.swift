// Frames at random: whatever a client sends, the process lives, nobody gets a request that wasn't sent, and everything that was
// opened is closed in the end. The seeds are fixed, so that a failure can be looked at.

import NIOCore
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("HTTP/2 at random")
struct HTTP2FuzzTests {
  /// The generator of Knuth's MMIX: enough to choose frames.
  private struct Dice {
    var state: UInt64

    mutating func roll(_ sides: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % sides
    }
  }

  private static let connections = 300
  private static let mostFrames = 60

  /// Mostly frames as they should be, for streams that may or may not be open.
  private static func frame(_ dice: inout Dice, _ next: inout UInt32) -> Frame {
    let stream = UInt32(dice.roll(Int(next) + 4))
    let flags = UInt8([0, 1, 4, 5, 5, 5, 8, 0x20, dice.roll(256)][dice.roll(9)])
    let junk = (0..<dice.roll(40)).map { _ in UInt8(dice.roll(256)) }
    switch dice.roll(40) {
    case 0..<18:
      let path = ["/s/echo", "/s/slow", "/s/early", "/plain", "/gone", "/plain", "/plain", "bad"][
        dice.roll(8)]
      let method = ["GET", "POST", "HEAD", "PUT"][dice.roll(4)]
      let length = dice.roll(4) == 0 ? [("content-length", "\(dice.roll(30))")] : []
      next += 2
      return Frame(
        kind: .headers, flags: flags & 5 | 4, stream: dice.roll(20) == 0 ? stream : next,
        payload: HTTP2Peer.block(HTTP2Peer.head(method, path, length)))
    case 18:
      return Frame(kind: .headers, flags: flags, stream: stream, payload: HTTP2Peer.block([("x-sum", "1")]))
    case 19..<26:
      return Frame(kind: .data, flags: flags & 1, stream: next - 2 * UInt32(dice.roll(4)), payload: junk)
    case 26..<28: return Frame(kind: .reset, stream: stream | 1, payload: Frame.bytes(UInt32(dice.roll(14))))
    case 28..<32:
      return HTTP2Peer.window(
        stream, UInt32(dice.roll(10) == 0 ? dice.roll(1 << 31) : 1 + dice.roll(100_000)))
    case 32..<35:
      let value = UInt32(dice.roll(10) == 0 ? dice.roll(1 << 31) : 16_384 + dice.roll(20_000))
      return Frame(kind: .settings, payload: [0, UInt8(1 + dice.roll(8))] + Frame.bytes(value))
    case 35: return Frame(kind: .priority, stream: stream | 1, payload: [0, 0, 0, UInt8(dice.roll(12)), 1])
    case 36, 37: return Frame(kind: .ping, flags: flags & 1, payload: [UInt8](repeating: 1, count: 8))
    case 38: return Frame(kind: .windowUpdate, flags: flags, stream: stream, payload: junk)
    default:
      let kind = Frame.Kind(rawValue: UInt8(dice.roll(10))) ?? .data
      return Frame(kind: kind, flags: flags, stream: stream, payload: junk)
    }
  }

  private static func front() -> StreamFront {
    let front = StreamFront { ScriptedExchange.echo() }
    let echo = front.front.responder.exchanges
    front.front.responder.exchanges = { request in
      switch request.path {
      case "/s/slow": ScriptedExchange()
      case "/s/early": ScriptedExchange(onBegin: { $0.respond(.text("early")) })
      default: echo(request)
      }
    }
    return front
  }

  @Test("Whatever comes, nothing breaks and nothing is left", arguments: 1...4)
  func survives(seed: Int) throws {
    var dice = Dice(state: UInt64(seed))
    var answered = 0
    let front = Self.front()
    for _ in 0..<Self.connections {
      let peer = try HTTP2Peer(front.front, window: UInt32(dice.roll(3) == 0 ? dice.roll(100) : 65_535))
      // None was opened yet; nonsense about streams of the past wraps around.
      var next: UInt32 = 7
      for _ in 0..<dice.roll(Self.mostFrames) {
        let frame = Self.frame(&dice, &next)
        var bytes = frame.encoded
        // Now and then a byte is wrong, or the frame comes in two pieces.
        if dice.roll(60) == 0 { bytes[dice.roll(bytes.count)] = UInt8(dice.roll(256)) }
        let cut = dice.roll(4) == 0 ? dice.roll(bytes.count) : bytes.count
        try peer.send(bytes: Array(bytes[..<cut]))
        try peer.send(bytes: Array(bytes[cut...]))
      }
      answered += peer.answers.values.count { $0.isEnded }
      peer.channel.close(promise: nil)
      try? peer.channel.throwIfErrorCaught()
      try peer.settle()
    }
    #expect(answered > Self.connections / 5, "\(answered)")
    #expect(front.front.server.openConnections == 0 && front.front.server.openStreams == 0)
    // What came without a host, or with two, was never whole.
    #expect(front.front.responder.requests.allSatisfy { $0.headers["host"].count == 1 })
    #expect(front.exchanges.allSatisfy { $0.calls.last != "begin" || $0.stream?.isOver == true })
  }
}
