// permessage-deflate (RFC 7692): what is agreed on, and what becomes of messages.

import TestSupport
import Testing

@testable import Connections

@Suite("14.C17 Compressed messages")
struct MessageDeflateTests {
  private static let accepted =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

  @Test(
    "14.C17 The first offer that can be kept is accepted, and with it nothing that would need a memory between messages",
    arguments: [
      ("permessage-deflate", accepted), ("permessage-deflate; client_max_window_bits", accepted),
      ("permessage-deflate;client_max_window_bits=9;server_no_context_takeover", accepted),
      ("permessage-deflate; server_max_window_bits=15", accepted + "; server_max_window_bits=12"),
      ("permessage-deflate; server_max_window_bits=\"12\"", accepted + "; server_max_window_bits=12"),
      ("x-webkit-deflate-frame, , permessage-deflate", accepted),
      ("permessage-deflate; server_max_window_bits=9, permessage-deflate", accepted),
      ("permessage-deflate; server_max_window_bits=11", nil),
      ("permessage-deflate; server_max_window_bits", nil),
      ("permessage-deflate; server_max_window_bits=16", nil),
      ("permessage-deflate; server_max_window_bits=012", nil),
      ("permessage-deflate; server_max_window_bits=+12", nil),
      ("permessage-deflate; client_max_window_bits=7", nil),
      ("permessage-deflate; client_max_window_bits=x", nil),
      ("permessage-deflate; client_no_context_takeover=1", nil), ("permessage-deflate; unknown", nil),
      ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", nil),
      ("permessage-bzip2", nil), ("", nil),
    ])
  func offers(offer: String, answer: String?) throws {
    #expect(try MessageDeflate.accept([offer]) == answer)
    #expect(try MessageDeflate.accept(["foo", offer]) == answer)
  }

  @Test(
    "14.C17 What is no list of extensions is refused by name",
    arguments: ["permessage deflate", "permessage-deflate; =1", "a; b=\"c", "; a", "a; b=", "a;;b"])
  func malformedOffers(offer: String) throws {
    let refusal = #expect(throws: WebSocketHandshake.Refusal.self) { try MessageDeflate.accept([offer]) }
    #expect(refusal?.status == 400 && refusal?.detail.contains("sec-websocket-extensions") == true)
  }

  @Test(
    "14.C17 Messages come out as they went in, one after the other, whatever their parts", arguments: 1...8)
  func roundTrip(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let deflater = MessageDeflater()
    let inflater = MessageInflater()
    for _ in 0..<50 {
      let words = (0..<Int.random(in: 8...4_000, using: &random)).map { _ in
        ["alpha", "beta", "gamma", "\u{1F98A}"].randomElement(using: &random) ?? ""
      }
      let message = Array(words.joined(separator: " ").utf8)
      let cut = Int.random(in: 0...message.count, using: &random)
      let deflated = message.withUnsafeBytes {
        deflater.deflate([
          UnsafeRawBufferPointer(rebasing: $0[..<cut]), UnsafeRawBufferPointer(rebasing: $0[cut...]),
        ])
      }
      guard message.count >= MessageDeflater.minimumBytes else {
        #expect(deflated == nil)
        continue
      }
      let payload = try #require(deflated)
      #expect(payload.count < message.count)
      #expect(try inflater.inflate(payload, atMost: message.count) == message)
      #expect(throws: MessageInflater.Failure.tooLong) {
        try inflater.inflate(payload, atMost: message.count - 1)
      }
    }
  }

  @Test("14.C17 What wouldn't become shorter goes as it is")
  func incompressible() {
    var random = SeededRandom(seed: 1)
    let noise = (0..<10_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    let deflater = MessageDeflater()
    #expect(noise.withUnsafeBytes { deflater.deflate([$0]) } == nil)
    #expect(Array("short".utf8).withUnsafeBytes { deflater.deflate([$0]) } == nil)
    let zeros = [UInt8](repeating: 0, count: 10_000)
    let count = zeros.withUnsafeBytes { deflater.deflate([$0]) }?.count ?? .max
    #expect(count < 100, "and the next one is compressed")
    #expect(
      deflater.counts == DeflateCounts(messages: 1, plainBytes: 10_000, compressedBytes: count),
      "it alone is counted")
  }

  @Test(
    "14.C17 The examples of RFC 7692 §7.2.3 are read",
    arguments: [
      [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
      [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
      [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
      [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
    ] as [[UInt8]])
  func examples(payload: [UInt8]) throws {
    let inflater = MessageInflater()
    for _ in 0..<2 { #expect(try inflater.inflate(payload, atMost: 5) == Array("Hello".utf8)) }
  }

  @Test("14.C17 What is no DEFLATE, or isn't whole, is refused, and the next message is read")
  func malformed() throws {
    let inflater = MessageInflater()
    let whole: [UInt8] = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]
    for payload in [
      [0xFF, 0xFF], [0x06], [], Array(whole.dropLast(3)), [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0, 0, 1, 2],
    ] {
      #expect(throws: MessageInflater.Failure.malformed, "\(payload)") {
        try inflater.inflate(payload, atMost: 1 << 20)
      }
      #expect(try inflater.inflate(whole, atMost: 1 << 20) == Array("Hello".utf8))
    }
    #expect(throws: MessageInflater.Failure.tooLong) { try inflater.inflate(whole, atMost: 4) }
    let counts = inflater.counts.take()
    let all = DeflateCounts(messages: 5, plainBytes: 25, compressedBytes: 35, tooBig: 1, malformed: 5)
    #expect(counts == all && inflater.counts == DeflateCounts())
  }

  @Test(
    "14.C17 Whatever comes is refused or expanded within its bound", arguments: 1...4 as ClosedRange<UInt64>)
  func fuzz(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let inflater = MessageInflater()
    let text = Array(String(repeating: "the same again and again ", count: 100).utf8)
    let whole = try #require(text.withUnsafeBytes { MessageDeflater().deflate([$0]) })
    for _ in 0..<2_000 {
      var payload = whole
      for _ in 0..<Int.random(in: 1...8, using: &random) {
        payload[Int.random(in: 0..<payload.count, using: &random)] = .random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { payload.removeLast(Int.random(in: 0..<payload.count, using: &random)) }
      if let message = try? inflater.inflate(payload, atMost: 3_000) { #expect(message.count <= 3_000) }
    }
  }

  // MARK: Frames

  private static func actions(
    _ bytes: [UInt8], pieces: Int = .max, limit: Int = 1 << 20
  ) -> [WebSocketAction] {
    var assembler = WebSocketAssembler(maximumMessageBytes: limit, inflater: MessageInflater())
    var actions: [WebSocketAction] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.prefix(pieces).withUnsafeBytes { assembler.receive($0, into: &actions) }
      rest = rest.dropFirst(count)
    }
    return actions
  }

  private static func deflated(_ message: [UInt8]) throws -> [UInt8] {
    try #require(message.withUnsafeBytes { MessageDeflater().deflate([$0]) })
  }

  private static func code(_ actions: [WebSocketAction]) -> UInt16? {
    guard case .fail(let code, let reason) = actions.last else { return nil }
    #expect(!reason.isEmpty && reason.utf8.count <= WebSocketFrame.maximumReasonBytes)
    return code.rawValue
  }

  @Test(
    "14.C17 A compressed message is read whole or in fragments, beside others that aren't compressed",
    arguments: [1, 3, 1000])
  func messages(pieces: Int) throws {
    let message = Array(String(repeating: "many foxes \u{1F98A} ", count: 20).utf8)
    let payload = try Self.deflated(message)
    let bytes =
      ClientFrame(opcode: 1, payload: payload, reserved: 4).bytes
      + ClientFrame(opcode: 2, payload: message).bytes
      + ClientFrame(opcode: 2, payload: Array(payload[..<10]), fin: false, reserved: 4).bytes
      + ClientFrame(opcode: 9, payload: [1]).bytes
      + ClientFrame(opcode: 0, payload: Array(payload[10...])).bytes
      + ClientFrame(opcode: 1, payload: message).bytes
    #expect(
      Self.actions(bytes, pieces: pieces)
        == [.text(message), .binary(message), .ping([1]), .binary(message), .text(message)])
  }

  @Test("14.C17 RSV1 stands on the first frame of a message only, and no other bit of these anywhere")
  func reservedBits() {
    for frame in [
      ClientFrame(opcode: 1, payload: [], reserved: 2), ClientFrame(opcode: 1, payload: [], reserved: 5),
      ClientFrame(opcode: 9, payload: [], reserved: 4), ClientFrame(opcode: 8, payload: [], reserved: 4),
    ] {
      #expect(Self.code(Self.actions(frame.bytes)) == 1002)
    }
    let continued =
      ClientFrame(opcode: 1, payload: [0xF2], fin: false, reserved: 4).bytes
      + ClientFrame(opcode: 0, payload: [0x48], reserved: 4).bytes
    #expect(Self.code(Self.actions(continued)) == 1002)
  }

  @Test(
    "14.C17 A bomb is broken off at the longest message that may be, and takes no more than that to find out")
  func bomb() throws {
    let payload = try Self.deflated([UInt8](repeating: 0, count: 100 << 20))
    #expect(payload.count < 1 << 20)
    #expect(Self.code(Self.actions(ClientFrame(opcode: 2, payload: payload, reserved: 4).bytes)) == 1009)
    let longest = try Self.deflated([UInt8](repeating: 32, count: 1 << 20))
    #expect(Self.code(Self.actions(ClientFrame(opcode: 2, payload: longest, reserved: 4).bytes)) == nil)
    let announced = ClientFrame(
      opcode: 2, reserved: 4, length: [127] + withUnsafeBytes(of: UInt64(2 << 20).bigEndian) { Array($0) })
    #expect(Self.code(Self.actions(announced.bytes)) == 1009)
  }

  @Test("14.C17 Of messages that become large a few are expanded at once, and none is lost")
  func share() throws {
    let message = [UInt8](repeating: 32, count: WebSocketAssembler.expandedAtOnce)
    let frame = ClientFrame(opcode: 2, payload: try Self.deflated(message), reserved: 4).bytes
    var assembler = WebSocketAssembler(maximumMessageBytes: 1 << 20, inflater: MessageInflater())
    var rest = (0..<5).flatMap { _ in frame }[...]
    for left in (0..<5).reversed() {
      var actions: [WebSocketAction] = []
      let count = rest.withUnsafeBytes { assembler.receive($0, into: &actions) }
      rest = rest.dropFirst(count)
      #expect(actions == [.binary(message)] && rest.count == left * frame.count, "\(left) are left")
      #expect(assembler.expandedBytes == message.count)
    }
  }

  @Test("14.C17 Compressed text must be valid UTF-8, and what is compressed whole", arguments: [1, 1000])
  func invalid(pieces: Int) throws {
    let notText = try Self.deflated([UInt8](repeating: 0xC3, count: 100))
    #expect(
      Self.code(Self.actions(ClientFrame(opcode: 1, payload: notText, reserved: 4).bytes, pieces: pieces))
        == 1007)
    let cutText = try Self.deflated(Array(String(repeating: "x", count: 99).utf8) + [0xC3])
    #expect(
      Self.code(Self.actions(ClientFrame(opcode: 1, payload: cutText, reserved: 4).bytes, pieces: pieces))
        == 1007)
    #expect(
      Self.code(Self.actions(ClientFrame(opcode: 2, payload: [0xFF], reserved: 4).bytes, pieces: pieces))
        == 1007)
  }

  // MARK: Events

  @Test("14.C17 An event is compressed once, whoever gets it, and alone it goes as it is")
  func events() throws {
    let json = #"{"specversion":"1.0","type":"t","data":"\#(String(repeating: "again ", count: 50))"}"#
    let event = TestEvent(type: "t", json: Array(json.utf8))
    let cursor = Cursor(epoch: 36, positions: [1, 2])
    let withCursor = json.dropLast() + #","rigcursor":"10-1-2"}"#
    for (encoding, text) in [
      (EventEncoding.deflatedWebSocket, json), (.deflatedWebSocketWithCursor, String(withCursor)),
    ] {
      let ledger = try TestGateway.ledger()
      defer { withExtendedLifetime(ledger) {} }
      let plan = ledger.plan
      var encodings = TurnEncodings(on: plan)
      encodings.beginEvent()
      let (first, second) = event.withRecord { record in
        (
          encodings.range(of: record, cursor: cursor, in: encoding),
          encodings.range(of: record, cursor: cursor, in: encoding)
        )
      }
      let shared = try #require(first)
      #expect(first == second && encodings.ends(encoding.rawValue) == [shared.upperBound])
      let frame = Array(plan.buffer(encoding.rawValue)[shared])
      #expect(frame[0] == 0xC1 && Int(frame[1]) == frame.count - 2 && frame.count < json.utf8.count / 2)
      #expect(try MessageInflater().inflate(Array(frame[2...]), atMost: 10_000) == Array(text.utf8))
      var alone = TurnBuffer(encoding: encoding)
      let range = event.withRecord { alone.append($0, cursor: cursor) }
      #expect(Array(alone.bytes[range]) == WebSocketFrame.encode(.text, text.utf8))
    }
  }
}
