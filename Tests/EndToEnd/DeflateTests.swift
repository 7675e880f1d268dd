// permessage-deflate as frontends see it: contract §2.2, RFC 7692.

import Foundation
import Testing

@Suite("14.C17 permessage-deflate")
struct DeflateTests {
  private typealias Opcode = WebSocketFrame.Opcode
  private static let compressed: UInt8 = 4
  private static let messages = "rig_websocket_deflate_messages_total"
  private static let bytes = "rig_websocket_deflate_bytes_total"
  private static let data = #"{"text":"\#(String(repeating: "again and ", count: 100))"}"#

  private static func open(
    _ gateway: Gateway, query: String = "", offer: String = "permessage-deflate; client_max_window_bits"
  ) throws -> WebSocketClient {
    let subscriptions = "subscriptions=" + HTTP.encoded(Subscriptions.to("a"))
    let client = try WebSocketClient(
      gateway, query: query.isEmpty ? subscriptions : "\(subscriptions)&\(query)",
      headers: WebSocketClient.upgrade + [("sec-websocket-extensions", offer)])
    #expect(client.head.status == 101)
    try client.event("rig.connection.create")
    try client.event("rig.subscriptions_set")
    return client
  }

  @Test(
    "14.C17 An event is compressed once for all of a worker that agreed on it, and goes as it is to the others"
  )
  func events() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let clients = try [Self.open(gateway), Self.open(gateway)]
      let resuming = try Self.open(gateway, query: "cursors=true")
      let plain = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      let answer = try #require(clients[0].head["sec-websocket-extensions"])
      #expect(answer.hasPrefix("permessage-deflate;") && answer.contains("server_no_context_takeover"))
      #expect(answer.contains("client_no_context_takeover") && plain.head["sec-websocket-extensions"] == nil)
      try eventually("all of them are counted as WebSockets") {
        try gateway.metric("rig_connections", ["transport": "ws"]) == 4
      }
      for id in ["1", "2"] {
        try gateway.publish(CloudEvent.json("a", id: id, data: Self.data))
        let frames = try clients.map { try $0.frame() }
        #expect(frames[0] == frames[1] && frames[0].reservedBits == Self.compressed)
        #expect(frames[0].payload.count < Self.data.utf8.count / 2)
        let frame = try plain.frame()
        #expect(frame.reservedBits == 0)
        #expect(try Deflate.text(frames[0].payload) == String(decoding: frame.payload, as: UTF8.self))
        let withCursor = try resuming.frame()
        #expect(withCursor.reservedBits == Self.compressed)
        let json = try JSON(parsing: try Deflate.text(withCursor.payload))
        #expect(json["id"] == .string(id) && json["rigcursor"]?.string?.isEmpty == false)
      }
      // Two events in two encodings, whoever got them.
      try eventually("what was compressed is counted") {
        try gateway.metric(Self.messages, ["direction": "sent"]) == 4
      }
      let before = try gateway.metric(Self.bytes, ["direction": "sent", "form": "plain"])
      let after = try gateway.metric(Self.bytes, ["direction": "sent", "form": "compressed"])
      #expect(before > Double(4 * Self.data.utf8.count) && after > 0 && after < before / 2)
      #expect(try gateway.metric("rig_websocket_deflate_connections") == 3)
      #expect(try gateway.metric(Self.messages, ["direction": "received"]) == 0)
    }
  }

  @Test("14.C17 What clients send compressed is counted, and what is refused of it by reason")
  func received() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1", "MAX_EVENT_BYTES": "65536"]) { gateway in
      let event = CloudEvent.json("a", id: "1", data: Self.data)
      let client = try Self.open(gateway)
      let message = try Deflate.message(Array(event.utf8))
      try client.send(WebSocketFrame(Opcode.text, message, reservedBits: Self.compressed))
      _ = try client.frame()
      let bomb = try Deflate.message([UInt8](repeating: 32, count: 65_537))
      for (payload, code) in [(bomb, 1009), ([0xFF], 1007)] as [([UInt8], Int)] {
        let other = try Self.open(gateway)
        try other.send(WebSocketFrame(Opcode.text, payload, reservedBits: Self.compressed))
        #expect(try other.awaitClose().code == code)
      }
      let refused = "rig_websocket_deflate_refused_total"
      try eventually("both are counted") {
        let tooBig = try gateway.metric(refused, ["reason": "too_big"])
        return try tooBig == 1 && gateway.metric(refused, ["reason": "malformed"]) == 1
      }
      #expect(try gateway.metric(Self.messages, ["direction": "received"]) == 1)
      let bytes = try ["plain", "compressed"].map { form in
        try gateway.metric(Self.bytes, ["direction": "received", "form": form])
      }
      #expect(bytes == [Double(event.utf8.count), Double(message.count)])
    }
  }

  @Test("14.C17 An independent client with a small window gets and submits compressed messages of all sizes")
  func independent() throws {
    let directory = try TestDirectory()
    try Gateway.run { gateway in
      try Self.client.write(toFile: directory.file("client.py"), atomically: true, encoding: .utf8)
      let client = try ChildProcess(
        Tools.python("python"), ["client.py", String(gateway.inboundPort)], environment: [:],
        directory: directory.path)
      let ending = try client.wait()
      let output = (try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)) ?? ""
      #expect(ending == .exited(0), "\(output.suffix(2000))")
      #expect(output.contains("all is well"))
    }
  }

  /// The package `websockets` offers a window of 4 KiB in both directions by itself.
  private static let client = """
    import asyncio, json, random, sys
    from websockets.asyncio.client import connect

    url = f"ws://127.0.0.1:{sys.argv[1]}/_rig/v1/connection/ws?subscriptions=%5B%7B%22eventType%22%3A%22a%22%7D%5D"

    async def main():
        async with connect(url, max_size=None) as ws:
            assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"]
            await ws.recv()
            await ws.recv()
            words = [str(random.random()) for _ in range(50)]
            for size in [0, 1, 10, 100, 1_000, 10_000, 40_000]:
                data = " ".join(random.choice(words) for _ in range(size))
                event = {"specversion": "1.0", "type": "a", "source": "/test", "id": str(size), "data": data}
                await ws.send(json.dumps(event))
                came = [json.loads(await ws.recv()) for _ in range(2)]
                assert {one["type"] for one in came} == {"rig.accepted", "a"}, came
                assert [one["data"] for one in came if one["type"] == "a"] == [data]
        print("all is well")

    asyncio.run(asyncio.wait_for(main(), 110))
    """

  @Test("14.C17 Bombs are broken off with 1009, and hold nobody up")
  func bombs() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let witness = try Self.open(gateway)
      let bomb = try Deflate.message([UInt8](repeating: 32, count: 64 << 20))
      #expect(bomb.count < 1 << 17)
      for id in 0..<10 {
        let client = try Self.open(gateway)
        try client.send(WebSocketFrame(Opcode.text, bomb, reservedBits: Self.compressed))
        #expect(try client.awaitClose().code == 1009)
        try gateway.publish(CloudEvent.json("a", id: "\(id)", data: Self.data))
        #expect(try Deflate.text(witness.frame().payload).contains(#""id":"\#(id)""#))
      }
    }
  }

  @Test("14.C17 What isn't agreed on isn't done: not offered, not to be kept, or switched off")
  func without() throws {
    for (value, offer) in [
      ("on", "permessage-deflate; server_max_window_bits=9"), ("on", "x-other"),
      ("off", "permessage-deflate"),
    ] {
      try Gateway.run(["WEBSOCKET_DEFLATE": value]) { gateway in
        let client = try Self.open(gateway, offer: offer)
        #expect(client.head["sec-websocket-extensions"] == nil)
        try gateway.publish(CloudEvent.json("a", data: Self.data))
        #expect(try client.frame().reservedBits == 0)
        try client.send(WebSocketFrame(Opcode.text, [0xF2], reservedBits: Self.compressed))
        #expect(try client.awaitClose().code == 1002)
      }
    }
  }

  @Test("14.C17 What is no list of extensions is refused before anything is opened")
  func malformed() throws {
    try Gateway.run { gateway in
      let answer = try gateway.inbound(
        "GET", "/_rig/v1/connection/ws",
        headers: WebSocketClient.upgrade + [("sec-websocket-extensions", "permessage deflate")])
      try expectProblem(answer, 400, naming: "sec-websocket-extensions")
    }
  }
}
