// WebSocket frames as a client builds them, right and wrong (RFC 6455 §5.2).

struct WebSocketFrame: Equatable {
  enum Opcode {
    static let continuation: UInt8 = 0
    static let text: UInt8 = 1
    static let binary: UInt8 = 2
    static let close: UInt8 = 8
    static let ping: UInt8 = 9
    static let pong: UInt8 = 10
  }

  var isFinal = true
  var reservedBits: UInt8 = 0
  var opcode: UInt8
  var payload: [UInt8]

  init(_ opcode: UInt8, _ payload: [UInt8] = [], isFinal: Bool = true, reservedBits: UInt8 = 0) {
    self.opcode = opcode
    self.payload = payload
    self.isFinal = isFinal
    self.reservedBits = reservedBits
  }

  static func text(_ text: String) -> WebSocketFrame {
    WebSocketFrame(Opcode.text, Array(text.utf8))
  }

  static func close(_ code: Int, _ reason: String = "") -> WebSocketFrame {
    WebSocketFrame(Opcode.close, [UInt8(code >> 8), UInt8(code & 0xff)] + Array(reason.utf8))
  }

  /// The bytes on the line. `announcing`: a length to claim instead of the true one.
  func encoded(mask: [UInt8]? = [0x11, 0x22, 0x33, 0x44], announcing: Int? = nil) -> [UInt8] {
    let length = announcing ?? payload.count
    let maskBit: UInt8 = mask == nil ? 0 : 0x80
    var bytes: [UInt8] = [(isFinal ? 0x80 : 0) | reservedBits << 4 | opcode]
    if length < 126 {
      bytes.append(maskBit | UInt8(length))
    } else if length <= 0xffff {
      bytes += [maskBit | 126, UInt8(length >> 8), UInt8(length & 0xff)]
    } else {
      bytes.append(maskBit | 127)
      bytes += (0..<8).map { UInt8(truncatingIfNeeded: length >> ((7 - $0) * 8)) }
    }
    guard let mask else { return bytes + payload }
    return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 % 4] }
  }

  /// Takes one frame from the front of `queue`; nil while it isn't complete. Servers must not mask.
  static func take(from queue: inout ByteQueue) throws -> WebSocketFrame? {
    var look = queue
    let head = look.take(2)
    guard head.count == 2 else { return nil }
    guard head[1] & 0x80 == 0 else { throw TestFailure("a masked frame from the server") }
    var length = Int(head[1] & 0x7f)
    if length >= 126 {
      let size = length == 126 ? 2 : 8
      let bytes = look.take(size)
      guard bytes.count == size else { return nil }
      length = bytes.reduce(0) { $0 << 8 | Int($1) }
    }
    guard look.count >= length else { return nil }
    let payload = look.take(length)
    queue = look
    return WebSocketFrame(
      head[0] & 0x0f, payload, isFinal: head[0] & 0x80 != 0, reservedBits: (head[0] >> 4) & 7)
  }
}
