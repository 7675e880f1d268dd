// What both directions of RFC 6455 share, and the encoding of frames as a server sends them: final, unmasked.
//
//   0x80 | opcode | length < 126
//   0x80 | opcode | 126 | length, 2 bytes
//   0x80 | opcode | 127 | length, 8 bytes        all lengths big endian, in the shortest form (§5.2)

enum WebSocketOpcode: UInt8, Sendable {
  case continuation = 0x0
  case text = 0x1
  case binary = 0x2
  case close = 0x8
  case ping = 0x9
  case pong = 0xA

  var isControl: Bool { rawValue >= 0x8 }
}

/// Close codes (RFC 6455 §7.4 and the IANA registry).
struct WebSocketCloseCode: RawRepresentable, Hashable, Sendable {
  let rawValue: UInt16

  static let goingAway = WebSocketCloseCode(rawValue: 1001)
  static let protocolError = WebSocketCloseCode(rawValue: 1002)
  static let invalidPayload = WebSocketCloseCode(rawValue: 1007)
  static let policyViolation = WebSocketCloseCode(rawValue: 1008)
  static let tooBig = WebSocketCloseCode(rawValue: 1009)
  static let serviceRestart = WebSocketCloseCode(rawValue: 1012)
  static let tryAgainLater = WebSocketCloseCode(rawValue: 1013)

  /// Whether a close frame may carry it: not the codes that only mean "no code was sent" (1005, 1006, 1015), nor any
  /// that nobody has defined.
  var mayBeSent: Bool {
    switch rawValue {
    case 1000...1003, 1007...1014, 3000...4999: true
    default: false
    }
  }
}

enum WebSocketFrame {
  /// Longest payload of a control frame (§5.5).
  static let maximumControlPayload = 125
  /// Longest reason in a close frame: two bytes are the code's.
  static let maximumReasonBytes = maximumControlPayload - 2
  /// Longest header that a server sends.
  static let maximumHeaderBytes = 10

  /// RSV1, which tells that a message is compressed (RFC 7692 §6).
  static let compressedBit: UInt8 = 0x40

  /// Appends the header of a final frame with `length` bytes of payload to follow.
  static func appendHeader(
    _ opcode: WebSocketOpcode, length: Int, isCompressed: Bool = false, to bytes: inout [UInt8]
  ) {
    bytes.append(0x80 | (isCompressed ? compressedBit : 0) | opcode.rawValue)
    switch length {
    case ..<126: bytes.append(UInt8(length))
    case ..<0x1_0000:
      bytes.append(126)
      withUnsafeBytes(of: UInt16(length).bigEndian) { bytes.append(contentsOf: $0) }
    default:
      bytes.append(127)
      withUnsafeBytes(of: UInt64(length).bigEndian) { bytes.append(contentsOf: $0) }
    }
  }

  static func encode(_ opcode: WebSocketOpcode, _ payload: some Collection<UInt8>) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(maximumHeaderBytes + payload.count)
    appendHeader(opcode, length: payload.count, to: &bytes)
    bytes.append(contentsOf: payload)
    return bytes
  }

  /// A close frame; a reason that is too long is cut between two characters. Without a code the frame is empty.
  static func close(_ code: WebSocketCloseCode?, reason: String = "") -> [UInt8] {
    guard let code else { return encode(.close, EmptyCollection()) }
    var payload = withUnsafeBytes(of: code.rawValue.bigEndian) { Array($0) }
    for character in reason {
      guard payload.count + character.utf8.count <= 2 + maximumReasonBytes else { break }
      payload.append(contentsOf: character.utf8)
    }
    return encode(.close, payload)
  }
}
