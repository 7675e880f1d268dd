// What WebSocket clients say, and what they are told.

import Foundation
import Kit
import NIOCore
import Testing

@testable import Connections

@Suite("Client messages")
struct ClientMessagesTests {
  private let worker: TestWorker
  private let client: TestClient
  private let connection: Connection

  init() throws {
    worker = try TestGateway().worker { $0.maxEventBytes = 1000 }
    client = try TestClient()
    connection = try worker.openWebSocket(client, [.to("greeting")])
  }

  /// The JSON of every text frame that has come.
  private func frames() throws -> [[String: Any]] {
    let bytes = client.takeBytes()
    var frames: [[String: Any]] = []
    var position = 0
    while position + 2 <= bytes.count {
      try #require(bytes[position] == 0x81, "a whole text frame")
      var length = Int(bytes[position + 1])
      position += 2
      if length == 126 {
        length = Int(bytes[position]) << 8 | Int(bytes[position + 1])
        position += 2
      }
      let object = try JSONSerialization.jsonObject(with: Data(bytes[position..<position + length]))
      frames.append(try #require(object as? [String: Any]))
      position += length
    }
    return frames
  }

  private func say(_ text: String, isText: Bool = true) throws -> [[String: Any]] {
    worker.messages.received(Array(text.utf8), isText: isText, on: connection)
    worker.run()
    return try frames()
  }

  private func errors(_ frames: [[String: Any]]) -> [(id: String?, status: Int?, detail: String?)] {
    frames.filter { $0["type"] as? String == "rig.error" }.map { frame in
      let data = frame["data"] as? [String: Any]
      return (data?["id"] as? String, data?["status"] as? Int, data?["detail"] as? String)
    }
  }

  @Test("subscriptions are set and confirmed")
  func set() throws {
    let told = try say(
      #"{"type":"rig.subscriptions.set","id":"1","data":{"subscriptions":[{"eventType":"a"},{"eventType":"b"}]}}"#
    )
    #expect(told.map { $0["type"] as? String } == ["rig.subscriptions_set"])
    #expect((told.first?["data"] as? [Any])?.count == 2)
    #expect(worker.subscriptions.index.subscriptions(of: connection.index) == [.to("a"), .to("b")])
    client.disconnect()
  }

  @Test(
    "subscriptions that are wrong leave the old ones, and the error names the message",
    arguments: [
      (
        #""data":{"subscriptions":[{}]}"#, "subscription 0: eventType is missing, expected a non-empty string"
      ),
      (#""data":{}"#, "the member subscriptions is missing, expected a list of subscriptions"),
      (#""data":[]"#, #"found a list, expected an object {"subscriptions":[…]}"#),
      (#""data":null"#, #"data is missing, expected {"subscriptions":[…]}"#),
      (#""x":1"#, #"data is missing, expected {"subscriptions":[…]}"#),
    ])
  func badSet(member: String, detail: String) throws {
    let told = try errors(say(#"{"type":"rig.subscriptions.set","id":"m1",\#(member)}"#))
    #expect(told.map(\.id) == ["m1"])
    #expect(told.map(\.status) == [400])
    #expect(told.map(\.detail) == [detail])
    #expect(worker.subscriptions.index.subscriptions(of: connection.index) == [.to("greeting")])
    client.disconnect()
  }

  @Test("an event is accepted, and delivered like any other")
  func submission() throws {
    let told = try say(#"{"specversion":"1.0","type":"greeting","source":"s","id":"e1","data":{"x":1}}"#)
    #expect(told.map { $0["type"] as? String } == ["rig.accepted", "greeting"])
    #expect((told.first?["data"] as? [String: Any])?["id"] as? String == "e1")
    #expect(TraceContext.isValid(told.last?["traceparent"] as? String ?? ""))
    client.disconnect()
  }

  @Test(
    "anything else is answered by an error, and the connection stays",
    arguments: [
      ("nonsense", nil, 400), ("[]", nil, 400), ("{}", nil, 400), (#"{"type":7,"id":"x"}"#, nil, 400),
      (#"{"type":"greeting","id":"x"}"#, "x", 400), (#"{"user":"Ann","id":"x"}"#, "x", 400),
      (#"{"specversion":"1.0","type":"a\nb","source":"s","id":"x"}"#, "x", 400),
      (
        #"{"specversion":"1.0","type":"t","source":"s","id":"x","data":"\#(String(repeating: "d", count: 1000))"}"#,
        "x", 413
      ),
    ] as [(String, String?, Int)])
  func others(text: String, id: String?, status: Int) throws {
    let told = try errors(say(text))
    #expect(told.map(\.id) == [id])
    #expect(told.map(\.status) == [status])
    #expect(told.allSatisfy { !($0.detail ?? "").isEmpty })
    #expect(!connection.isClosing)
    client.disconnect()
  }

  @Test("binary messages are refused")
  func binary() throws {
    let told = try errors(
      say(#"{"specversion":"1.0","type":"greeting","source":"s","id":"e1"}"#, isText: false))
    #expect(told.map(\.detail) == ["binary message, expected a CloudEvent as JSON in a text message"])
    client.disconnect()
  }

  @Test("a full log is answered by 503, and nothing is delivered")
  func full() throws {
    let gateway = try TestGateway(eventRingBytes: 4096)
    let worker = try gateway.worker()
    let client = try TestClient()
    let connection = try worker.openWebSocket(client, [])
    let event = Array(#"{"specversion":"1.0","type":"greeting","source":"s","id":"e1"}"#.utf8)
    for _ in 0..<60 { worker.messages.received(event, isText: true, on: connection) }
    client.readAll()
    let text = client.take()
    #expect(text.contains(#""status":503"#))
    #expect(text.contains("rig.accepted"))
    client.disconnect()
  }

  /// `count` compressed messages that are no events, each 100 KB when it is expanded.
  private static func largeMessages(_ count: Int) throws -> ByteBuffer {
    let padding = String(repeating: "a", count: 100_000)
    var bytes = ByteBuffer()
    for number in 0..<count {
      let message = Array(#"{"id":"\#(number)","padding":"\#(padding)"}"#.utf8)
      let payload = try #require(message.withUnsafeBytes { MessageDeflater().deflate([$0]) })
      bytes.writeBytes(ClientFrame(opcode: 1, payload: payload, reserved: 4).bytes)
    }
    return bytes
  }

  @Test("14.C17 Messages that become large are read a few in each turn, in order, and an end waits")
  func expanding() throws {
    let worker = try TestGateway().worker()
    let client = try TestClient()
    try worker.openWebSocket(client, [], isDeflated: true)
    let messages = try Self.largeMessages(40)
    try client.channel.writeInbound(messages)
    var told = webSocketTexts(client.takeBytes())
    #expect((1..<20).contains(told.count), "\(told.count) at once")
    worker.run()
    told += webSocketTexts(client.takeBytes())
    #expect(try errors(told.map(Self.object)).map(\.id) == (0..<40).map { "\($0)" })
    try client.channel.writeInbound(messages)
    client.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    client.channel.embeddedEventLoop.run()
    #expect(client.channel.isActive, "most of what the client has said is unread")
    worker.run()
    client.channel.embeddedEventLoop.run()
    #expect(!client.channel.isActive && worker.connections.table.count == 0)
  }

  private static func object(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test("masked frames on the wire arrive as messages, and a close is answered")
  func wire() throws {
    func frame(_ opcode: UInt8, _ payload: [UInt8]) -> ByteBuffer {
      let mask: [UInt8] = [1, 2, 3, 4]
      let masked = payload.enumerated().map { $1 ^ mask[$0 % 4] }
      return ByteBuffer(bytes: [0x80 | opcode, 0x80 | UInt8(payload.count)] + mask + masked)
    }
    try client.channel.writeInbound(frame(1, Array(#"{"type":"x"}"#.utf8)))
    worker.run()
    #expect(try errors(frames()).map(\.status) == [400])
    try client.channel.writeInbound(frame(9, [7]))
    #expect(client.takeBytes() == [0x8A, 1, 7])
    try client.channel.writeInbound(frame(8, [0x03, 0xE8]))
    client.readAll()
    #expect(client.received == [0x88, 2, 0x03, 0xE8])
    #expect(client.socket.isOutputClosed)
    #expect(connection.isClosing)
    client.disconnect()
    #expect(worker.connections.table.count == 0)
  }
}
