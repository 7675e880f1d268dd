// What a server must make of the frames of a client (RFC 6455), whatever the pieces in which they arrive.

import Kit
import TestSupport
import Testing

@testable import Connections

/// A frame as a client sends it; every part can be wrong.
struct ClientFrame {
  var opcode: UInt8
  var payload: [UInt8] = []
  var fin = true
  var reserved: UInt8 = 0
  var mask: [UInt8]? = [0x37, 0xFA, 0x21, 0x3D]
  /// Announced instead of the payload's own length, in the given form.
  var length: [UInt8]?

  var bytes: [UInt8] {
    var bytes = [(fin ? 0x80 : 0) | reserved << 4 | opcode]
    let maskBit: UInt8 = mask == nil ? 0 : 0x80
    if let length {
      bytes.append(maskBit | length[0])
      bytes += length.dropFirst()
    } else if payload.count < 126 {
      bytes.append(maskBit | UInt8(payload.count))
    } else if payload.count < 0x1_0000 {
      bytes.append(maskBit | 126)
      bytes += withUnsafeBytes(of: UInt16(payload.count).bigEndian) { Array($0) }
    } else {
      bytes.append(maskBit | 127)
      bytes += withUnsafeBytes(of: UInt64(payload.count).bigEndian) { Array($0) }
    }
    guard let mask else { return bytes + payload }
    return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 % 4] }
  }
}

/// What an assembler makes of bytes that come in pieces of the given size.
func actions(_ bytes: [UInt8], pieces size: Int = .max, limit: Int = 1 << 20) -> [WebSocketAction] {
  var assembler = WebSocketAssembler(maximumMessageBytes: limit)
  var actions: [WebSocketAction] = []
  var start = 0
  while start < bytes.count {
    let end = size >= bytes.count - start ? bytes.count : start + size
    _ = bytes[start..<end].withUnsafeBytes { assembler.receive($0, into: &actions) }
    start = end
  }
  return actions
}

private func code(of actions: [WebSocketAction]) -> UInt16? {
  guard case .fail(let code, let reason) = actions.last else { return nil }
  #expect(!reason.isEmpty && reason.utf8.count <= WebSocketFrame.maximumReasonBytes)
  return code.rawValue
}

@Suite("WebSocket assembler")
struct WebSocketAssemblerTests {
  static let hello = Array("Hello".utf8)

  @Test("reads the examples of RFC 6455 §5.7", arguments: [1, 2, 3, 7, 1000])
  func examples(pieces: Int) {
    #expect(
      actions([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58], pieces: pieces)
        == [.text(Self.hello)])
    #expect(
      actions([0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58], pieces: pieces)
        == [.pong(Self.hello)])
    let fragmented =
      ClientFrame(opcode: 1, payload: Array("Hel".utf8), fin: false).bytes
      + ClientFrame(opcode: 0, payload: Array("lo".utf8)).bytes
    #expect(actions(fragmented, pieces: pieces) == [.text(Self.hello)])
  }

  @Test("gives the same actions for every way to cut a conversation into pieces")
  func anyPieces() {
    let long = (0..<70_000).map { UInt8(truncatingIfNeeded: $0) }
    let conversation: [ClientFrame] = [
      ClientFrame(opcode: 1, payload: Array("grüße 🐟".utf8)),
      ClientFrame(opcode: 2, payload: Array(long[..<126])),
      ClientFrame(opcode: 1, payload: [0xF0, 0x9F], fin: false),
      ClientFrame(opcode: 9, payload: Array("ping".utf8)),
      ClientFrame(opcode: 0, payload: [], fin: false),
      ClientFrame(opcode: 0, payload: [0x90, 0x9F]),
      ClientFrame(opcode: 1),
      ClientFrame(opcode: 2, payload: long, mask: [0, 1, 2, 255]),
      ClientFrame(opcode: 8, payload: [0x03, 0xE8] + Array("bye".utf8)),
      ClientFrame(opcode: 1, payload: Self.hello),
    ]
    let expected: [WebSocketAction] = [
      .text(Array("grüße 🐟".utf8)), .binary(Array(long[..<126])), .ping(Array("ping".utf8)),
      .text(Array("🐟".utf8)), .text([]), .binary(long), .close(.normal, reason: "bye"),
    ]
    let bytes = conversation.flatMap(\.bytes)
    for pieces in [1, 2, 3, 5, 13, 127, 4096, Int.max] {
      #expect(actions(bytes, pieces: pieces) == expected, "pieces of \(pieces)")
    }
  }

  @Test(
    "reads payloads of every length form at its edges",
    arguments: [0, 1, 7, 8, 9, 124, 125, 126, 127, 65_535, 65_536, 1 << 20])
  func lengths(count: Int) {
    let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    #expect(actions(ClientFrame(opcode: 2, payload: payload).bytes) == [.binary(payload)])
  }

  @Test(
    "fails with 1002 on the first byte that shows a broken frame",
    arguments: [
      ("reserved bit 1", ClientFrame(opcode: 1, reserved: 4), 1),
      ("reserved bit 2", ClientFrame(opcode: 2, reserved: 2), 1),
      ("reserved bit 3", ClientFrame(opcode: 9, reserved: 1), 1),
      ("opcode 3", ClientFrame(opcode: 3), 1), ("opcode 7", ClientFrame(opcode: 7), 1),
      ("opcode 11", ClientFrame(opcode: 11), 1), ("opcode 15", ClientFrame(opcode: 15), 1),
      ("no mask", ClientFrame(opcode: 1, payload: hello, mask: nil), 2),
      ("continuation of nothing", ClientFrame(opcode: 0, payload: hello), 1),
      ("unfinished ping", ClientFrame(opcode: 9, fin: false), 1),
      ("unfinished close", ClientFrame(opcode: 8, fin: false), 1),
      ("ping of 126 bytes", ClientFrame(opcode: 9, payload: Array(repeating: 0, count: 126)), 2),
      ("close of 65536 bytes", ClientFrame(opcode: 8, payload: Array(repeating: 0, count: 65_536)), 2),
      ("length 125 in 2 bytes", ClientFrame(opcode: 1, length: [126, 0, 125]), 4),
      ("length 65535 in 8 bytes", ClientFrame(opcode: 1, length: [127, 0, 0, 0, 0, 0, 0, 255, 255]), 10),
      ("length of 64 bits", ClientFrame(opcode: 1, length: [127, 128, 0, 0, 0, 0, 0, 0, 0]), 10),
    ] as [(String, ClientFrame, Int)])
  func protocolErrors(name: String, frame: ClientFrame, shownBy count: Int) {
    let bytes = frame.bytes
    #expect(actions(Array(bytes[..<(count - 1)])) == [], "\(name): too early")
    #expect(code(of: actions(Array(bytes[..<count]))) == 1002, "\(name)")
    #expect(code(of: actions(bytes, pieces: 1)) == 1002, "\(name)")
  }

  @Test("fails with 1002 on a new message inside a fragmented one", arguments: [1, 2] as [UInt8])
  func interleaved(opcode: UInt8) {
    let bytes =
      ClientFrame(opcode: 1, payload: Self.hello, fin: false).bytes + ClientFrame(opcode: opcode).bytes
    #expect(code(of: actions(bytes)) == 1002)
  }

  @Test("fails with 1009 on the header of a message that gets too long")
  func tooBig() {
    let frame = ClientFrame(opcode: 2, payload: Array(repeating: 0, count: 101))
    #expect(code(of: actions(Array(frame.bytes[..<2]), limit: 100)) == 1009)
    #expect(actions(frame.bytes, limit: 101) == [.binary(Array(repeating: 0, count: 101))])
    let huge = ClientFrame(opcode: 2, length: [127, 127, 255, 255, 255, 255, 255, 255, 255])
    #expect(code(of: actions(huge.bytes)) == 1009)
    let fragments =
      ClientFrame(opcode: 2, payload: Array(repeating: 0, count: 60), fin: false).bytes
      + ClientFrame(opcode: 9, payload: Array(repeating: 0, count: 60)).bytes
      + ClientFrame(opcode: 0, payload: Array(repeating: 0, count: 41)).bytes
    #expect(actions(fragments, limit: 101).count == 2)
    #expect(code(of: actions(fragments, limit: 100)) == 1009)
  }

  @Test("fails with 1007 on the first byte that can't be UTF-8, before the frame is complete")
  func invalidUTF8() {
    let payload = Array("κόσμε".utf8) + [0xED, 0xA0, 0x80] + Array("edited".utf8)
    let bytes = ClientFrame(opcode: 1, payload: payload).bytes
    let header = bytes.count - payload.count
    let surrogate = header + "κόσμε".utf8.count + 2
    #expect(actions(Array(bytes[..<(surrogate - 1)])) == [])
    #expect(code(of: actions(Array(bytes[..<surrogate]))) == 1007)
    #expect(code(of: actions(Array(bytes[..<surrogate]), pieces: 1)) == 1007)
  }

  @Test("fails with 1007 on a text that ends inside a character")
  func incompleteUTF8() {
    let half = ClientFrame(opcode: 1, payload: [0x61, 0xC3])
    #expect(code(of: actions(half.bytes)) == 1007)
    var open = half
    open.fin = false
    #expect(actions(open.bytes) == [])
    #expect(
      actions(open.bytes + ClientFrame(opcode: 0, payload: [0xBC]).bytes) == [.text([0x61, 0xC3, 0xBC])])
    #expect(code(of: actions(open.bytes + ClientFrame(opcode: 0).bytes)) == 1007)
  }

  @Test("doesn't look for UTF-8 in binary messages")
  func binaryIsFree() {
    #expect(actions(ClientFrame(opcode: 2, payload: [0xFF, 0xC0]).bytes) == [.binary([0xFF, 0xC0])])
  }

  @Test(
    "takes the close codes that may be sent",
    arguments: [
      1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ]
      as [UInt16])
  func closeCodes(number: UInt16) {
    let frame = ClientFrame(opcode: 8, payload: [UInt8(number >> 8), UInt8(number & 255)])
    #expect(actions(frame.bytes) == [.close(WebSocketCloseCode(rawValue: number), reason: "")])
  }

  @Test(
    "fails with 1002 on the others",
    arguments: [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] as [UInt16])
  func badCloseCodes(number: UInt16) {
    let frame = ClientFrame(opcode: 8, payload: [UInt8(number >> 8), UInt8(number & 255)])
    #expect(code(of: actions(frame.bytes)) == 1002)
  }

  @Test("takes a close without code, and fails on half a code and on a reason that isn't UTF-8")
  func closePayloads() {
    #expect(actions(ClientFrame(opcode: 8).bytes) == [.close(nil, reason: "")])
    #expect(code(of: actions(ClientFrame(opcode: 8, payload: [3]).bytes)) == 1002)
    #expect(code(of: actions(ClientFrame(opcode: 8, payload: [3, 0xE8, 0xFF]).bytes)) == 1007)
    #expect(code(of: actions(ClientFrame(opcode: 8, payload: [3, 0xE8, 0xC3]).bytes)) == 1007)
    let longest = Array(repeating: UInt8(ascii: "x"), count: 123)
    #expect(
      actions(ClientFrame(opcode: 8, payload: [3, 0xE8] + longest).bytes)
        == [.close(.normal, reason: String(decoding: longest, as: UTF8.self))])
  }

  @Test("ignores everything after a close and after a failure")
  func over() {
    let after = ClientFrame(opcode: 1, payload: Self.hello).bytes
    #expect(actions(ClientFrame(opcode: 8).bytes + after).count == 1)
    #expect(actions(ClientFrame(opcode: 3).bytes + after, pieces: 1).count == 1)
    var assembler = WebSocketAssembler(maximumMessageBytes: 10)
    var taken: [WebSocketAction] = []
    _ = ClientFrame(opcode: 8).bytes.withUnsafeBytes { assembler.receive($0, into: &taken) }
    #expect(assembler.isOver)
  }

  @Test("gives the messages before a failure first")
  func orderBeforeFailure() {
    let bytes = ClientFrame(opcode: 1, payload: Self.hello).bytes + ClientFrame(opcode: 9).bytes + [0xFF]
    let result = actions(bytes)
    #expect(result.count == 3)
    #expect(Array(result.prefix(2)) == [.text(Self.hello), .ping([])])
    #expect(code(of: result) == 1002)
  }

  @Test("answers random bytes with nothing worse than a failure, the same for all pieces")
  func randomBytes() {
    var random = SeededRandom(seed: 4)
    for _ in 0..<3000 {
      var bytes = (0..<Int.random(in: 1...40, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) {
        bytes =
          ClientFrame(opcode: [0, 1, 2, 8, 9, 10].randomElement(using: &random) ?? 1, payload: bytes).bytes
        bytes[Int.random(in: bytes.indices, using: &random)] ^= 1 << UInt8.random(in: 0...7, using: &random)
      }
      let whole = actions(bytes, limit: 1000)
      #expect(actions(bytes, pieces: 1, limit: 1000) == whole)
    }
  }
}

@Suite("UTF-8 validator")
struct UTF8ValidatorTests {
  private func accepts(_ bytes: [UInt8], pieces size: Int) -> Bool {
    var validator = UTF8Validator()
    var start = 0
    while start < bytes.count {
      let end = min(start + size, bytes.count)
      guard bytes[start..<end].withUnsafeBytes({ validator.accept($0) }) else { return false }
      start = end
    }
    return validator.isComplete
  }

  @Test("agrees with the standard library on every sequence of edge bytes")
  func edges() {
    let edges: [UInt8] = [
      0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
      0xEF, 0xF0,
      0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
    ]
    for a in edges {
      for b in edges {
        for c in edges {
          for d in edges {
            let bytes = [a, b, c, d]
            let expected = String(validating: bytes, as: UTF8.self) != nil
            #expect(accepts(bytes, pieces: 4) == expected, "\(bytes)")
            #expect(accepts(bytes, pieces: 1) == expected, "\(bytes)")
          }
        }
      }
    }
  }

  @Test("agrees with the standard library on long damaged texts")
  func damaged() {
    var random = SeededRandom(seed: 5)
    let text = Array(String(repeating: "plain ASCII text, then grüße κόσμε 🐟 ", count: 4).utf8)
    for _ in 0..<2000 {
      var bytes = text
      bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
      let expected = String(validating: bytes, as: UTF8.self) != nil
      #expect(accepts(bytes, pieces: .random(in: 1...20, using: &random)) == expected)
    }
  }
}
