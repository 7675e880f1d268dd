// What comes in beyond a turn's share of time waits for later turns, in order and without loss.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("14.C14 Input in turns") struct InputTurnsTests {
  /// A clock that only moves when something is taken in.
  private final class Costs {
    var nowNs: UInt64 = 1
    var taken: [String] = []
    let loop = EmbeddedEventLoop()
    private(set) lazy var turns = InputTurns { [unowned self] in nowNs }

    /// A channel on which each piece costs so much of a share.
    func channel(_ name: String, share: Double = 0.6) throws -> EmbeddedChannel {
      let sink = Sink { [unowned self] text in
        taken.append(name + text)
        nowNs += UInt64(share * Double(InputTurns.shareNs))
      }
      let channel = EmbeddedChannel(loop: loop)
      try channel.pipeline.syncOperations.addHandlers([InputPacer(turns), sink])
      return channel
    }

    /// The tasks of this turn, and a next one.
    func turn() {
      loop.run()
      loop.advanceTime(by: InputTurns.pause)
    }
  }

  private final class Sink: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = Never
    private let take: (String) -> Void

    init(_ take: @escaping (String) -> Void) {
      self.take = take
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      take(String(buffer: unwrapInboundIn(data)))
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
      if let event = event as? ChannelEvent, event == .inputClosed { take("end") }
    }
  }

  @Test("14.C14 What comes when the turn's share is spent is taken in by later turns, in order")
  func share() throws {
    let costs = Costs()
    let channels = try ["a", "b", "c", "d", "e"].map { try costs.channel($0) }
    for channel in channels { try channel.writeInbound(ByteBuffer(string: "1")) }
    #expect(costs.taken == ["a1", "b1"])
    // Behind what has come before, though it is of one whose turn it was.
    try channels[0].writeInbound(ByteBuffer(string: "2"))
    try channels[2].writeInbound(ByteBuffer(string: "2"))
    #expect(costs.taken == ["a1", "b1"])
    costs.turn()
    #expect(costs.taken == ["a1", "b1", "c12", "d1"])
    costs.turn()
    #expect(costs.taken == ["a1", "b1", "c12", "d1", "e1", "a2"])
    costs.turn()
    try channels[1].writeInbound(ByteBuffer(string: "2"))
    #expect(costs.taken.last == "b2")
  }

  @Test("14.C14 Of a client that closes its side while it waits everything is taken in first")
  func ends() throws {
    let costs = Costs()
    let first = try costs.channel("a", share: 2)
    let half = try costs.channel("b")
    let gone = try costs.channel("c")
    try first.writeInbound(ByteBuffer(string: "1"))
    try half.writeInbound(ByteBuffer(string: "1"))
    half.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    try gone.writeInbound(ByteBuffer(string: "1"))
    gone.close(promise: nil)
    #expect(costs.taken == ["a1"])
    costs.turn()
    costs.turn()
    #expect(costs.taken == ["a1", "b1", "bend"])
  }

  @Test("14.C14 Requests for which the turn has no time are answered in later ones, in order")
  func requests() throws {
    let costs = Costs()
    let room = ConnectionRoom(costs.turns)
    let responder = ScriptedResponder { request in
      costs.nowNs += 2 * InputTurns.shareNs
      return .response(.text(request.path))
    }
    let server = HTTPServer(listening: -1, loop: costs.loop, responder: responder, room: room)
    let channel = EmbeddedChannel(loop: costs.loop)
    try channel.pipeline.syncOperations.addHandler(InputPacer(costs.turns))
    try server.install(on: channel)
    channel.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 1), promise: nil)
    let pipelined = ["/1", "/2", "/3"].map { "GET \($0) HTTP/1.1\r\nhost: x\r\n\r\n" }.joined()
    try channel.writeInbound(ByteBuffer(string: pipelined))
    #expect(responder.requests.map(\.path) == ["/1"])
    for count in 2...3 {
      costs.turn()
      #expect(responder.requests.count == count)
    }
    costs.turn()
    #expect(responder.requests.map(\.path) == ["/1", "/2", "/3"])
  }
}
