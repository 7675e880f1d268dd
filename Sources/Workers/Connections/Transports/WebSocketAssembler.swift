// The receiving side of RFC 6455 as a server: bytes in, however they are cut, actions out. It does no I/O, never holds
// more than one message and one control frame, and fails at the first byte that no valid peer can have sent: the
// limits and rules of a frame are checked on its header, before any of its payload is taken.
//
//   FIN|RSV|opcode (1)   MASK|length (1)   extended length (0, 2, 8)   mask (4)   payload, XOR mask
//
// RSV1 on the first frame tells that a message is compressed, where that was agreed on (RFC 7692 §6.2): such a message is kept as
// it comes and expanded when it is whole, to no more than a message may have. One read may hold many that are small and become
// large: when enough has been expanded, the rest of it is left to whoever gave it.
//
// After `.close` or `.fail` everything else that arrives is ignored (§5.5.1, §7.1.7).

import Kit

/// What the connection has to do about what came in, in this order.
enum WebSocketAction: Equatable, Sendable {
  /// A whole text message, valid UTF-8.
  case text([UInt8])
  /// A whole binary message.
  case binary([UInt8])
  /// Answer with a pong of the same payload.
  case ping([UInt8])
  case pong([UInt8])
  /// The peer closes: answer `WebSocketFrame.close(code)`, then close the connection. nil: it gave no code.
  case close(WebSocketCloseCode?, reason: String)
  /// The peer broke the protocol or a limit: send a close frame with this code and reason, then close the connection.
  case fail(WebSocketCloseCode, reason: String)

  /// Whether a message has become whole.
  var isMessage: Bool {
    switch self {
    case .text, .binary: true
    case .ping, .pong, .close, .fail: false
    }
  }
}

struct WebSocketAssembler {
  private enum Step: Equatable {
    case first
    case second
    case length(bytesLeft: UInt8)
    case mask(bytesLeft: UInt8)
    case payload
    case over
  }

  private struct Violation: Error {
    let code: WebSocketCloseCode
    let reason: String
  }

  /// Of what is given at once so much is expanded, and the message that gets there.
  static let expandedAtOnce = 64 << 10

  private let maximumMessageBytes: Int
  /// nil: compression wasn't agreed on.
  private let inflater: MessageInflater?
  private var step = Step.first
  private var opcode = WebSocketOpcode.continuation
  private var isFinal = false
  /// Announced length while the header is read, then bytes of payload still to come.
  private var remaining: UInt64 = 0
  /// The shortest payload that may be announced in the length's present form (§5.2: the shortest form is a must).
  private var shortestLength: UInt64 = 0
  /// Next byte of the mask in the lowest place; rotated as bytes are unmasked.
  private var mask: UInt32 = 0
  /// The kind of the message that has begun, until its final frame.
  private var messageKind: WebSocketOpcode?
  private var isCompressed = false
  private var message: [UInt8] = []
  private var control: [UInt8] = []
  private var validator = UTF8Validator()
  /// What compressed messages have become, of what was given last.
  private(set) var expandedBytes = 0

  /// - Parameters:
  ///   - maximumMessageBytes: longest message over all its fragments, and when it is expanded; more is failed with 1009.
  ///   - inflater: expands compressed messages; nil: there may be none.
  init(maximumMessageBytes: Int, inflater: MessageInflater? = nil) {
    self.maximumMessageBytes = maximumMessageBytes
    self.inflater = inflater
  }

  /// Whether nothing more is taken.
  var isOver: Bool { step == .over }

  /// Whether a message, or a frame, has begun and isn't whole.
  var isUnfinished: Bool { !isOver && (step != .first || messageKind != nil) }

  /// Bytes kept of what isn't whole.
  var keptBytes: Int { message.count + control.count }

  /// Takes nothing more, and forgets what isn't whole.
  mutating func stop() { end() }

  /// Takes bytes as they came and appends what they lead to.
  ///
  /// - Returns: how many it has taken. What it leaves, which is some only behind a compressed message, is to be given once more,
  ///   together with what comes behind it.
  mutating func receive(_ bytes: UnsafeRawBufferPointer, into actions: inout [WebSocketAction]) -> Int {
    var rest = bytes[...]
    expandedBytes = 0
    do {
      while !isOver, !rest.isEmpty, expandedBytes < Self.expandedAtOnce {
        if step == .payload {
          let count = Int(min(remaining, UInt64(rest.count)))
          try takePayload(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
          rest = rest.dropFirst(count)
        } else {
          try takeHeader(rest[rest.startIndex])
          rest = rest.dropFirst()
        }
        if step == .payload, remaining == 0 { try finishFrame(&actions) }
      }
    } catch {
      end()
      actions.append(.fail(error.code, reason: error.reason))
    }
    return isOver ? bytes.count : bytes.count - rest.count
  }

  // MARK: Header

  private mutating func takeHeader(_ byte: UInt8) throws(Violation) {
    switch step {
    case .first:
      try takeFirst(byte)
      step = .second
    case .second:
      try takeSecond(byte)
    case .length(let bytesLeft):
      remaining = remaining << 8 | UInt64(byte)
      step = bytesLeft > 1 ? .length(bytesLeft: bytesLeft - 1) : .mask(bytesLeft: 4)
      if bytesLeft == 1 { try checkLength() }
    case .mask(let bytesLeft):
      mask = mask >> 8 | UInt32(byte) << 24
      step = bytesLeft > 1 ? .mask(bytesLeft: bytesLeft - 1) : .payload
    case .payload, .over:
      break
    }
  }

  private mutating func takeFirst(_ byte: UInt8) throws(Violation) {
    guard let opcode = WebSocketOpcode(rawValue: byte & 0x0F) else {
      throw Self.broken("opcode \(byte & 0x0F) is reserved")
    }
    let reserved = byte & 0x70
    let beginsCompressed = reserved == WebSocketFrame.compressedBit && inflater != nil
    guard reserved == 0 || (beginsCompressed && (opcode == .text || opcode == .binary)) else {
      throw Self.broken("a reserved bit is set that no extension has agreed on for such a frame")
    }
    self.opcode = opcode
    isFinal = byte & 0x80 != 0
    switch opcode {
    case .continuation:
      guard messageKind != nil else {
        throw Self.broken("a continuation frame without a message to continue")
      }
    case .text, .binary:
      guard messageKind == nil else { throw Self.broken("a new message inside a fragmented one") }
      messageKind = opcode
      isCompressed = beginsCompressed
    case .close, .ping, .pong:
      guard isFinal else { throw Self.broken("a fragmented control frame") }
    }
  }

  private mutating func takeSecond(_ byte: UInt8) throws(Violation) {
    guard byte & 0x80 != 0 else { throw Self.broken("a frame without mask") }
    remaining = 0
    switch byte & 0x7F {
    case 126: (step, shortestLength) = (.length(bytesLeft: 2), 126)
    case 127: (step, shortestLength) = (.length(bytesLeft: 8), 0x1_0000)
    case let length:
      remaining = UInt64(length)
      step = .mask(bytesLeft: 4)
      try checkLimits()
      return
    }
    if opcode.isControl {
      throw Self.broken("a control frame of more than \(WebSocketFrame.maximumControlPayload) bytes")
    }
  }

  private func checkLength() throws(Violation) {
    guard remaining >> 63 == 0 else { throw Self.broken("a frame length beyond 63 bits") }
    guard remaining >= shortestLength else {
      throw Self.broken("a frame length that isn't in its shortest form")
    }
    try checkLimits()
  }

  private func checkLimits() throws(Violation) {
    guard !opcode.isControl else { return }
    guard remaining <= UInt64(max(0, maximumPayloadBytes - message.count)) else {
      throw Violation(code: .tooBig, reason: "a message may have at most \(maximumMessageBytes) bytes")
    }
  }

  /// What can't be compressed becomes a little longer by being stored.
  private var maximumPayloadBytes: Int {
    isCompressed ? maximumMessageBytes + maximumMessageBytes >> 8 + 64 : maximumMessageBytes
  }

  // MARK: Payload

  private mutating func takePayload(_ bytes: UnsafeRawBufferPointer) throws(Violation) {
    remaining -= UInt64(bytes.count)
    if opcode.isControl {
      Self.unmask(bytes, with: &mask, into: &control)
    } else {
      let start = message.count
      Self.unmask(bytes, with: &mask, into: &message)
      guard messageKind == .text, !isCompressed else { return }
      let isValid = message.withUnsafeBytes {
        validator.accept(UnsafeRawBufferPointer(rebasing: $0[start...]))
      }
      guard isValid else {
        throw Violation(code: .invalidPayload, reason: "a text message isn't valid UTF-8")
      }
    }
  }

  private static func unmask(
    _ bytes: UnsafeRawBufferPointer, with mask: inout UInt32, into buffer: inout [UInt8]
  ) {
    let start = buffer.count
    buffer.append(contentsOf: bytes)
    buffer.withUnsafeMutableBytes { all in
      let payload = UnsafeMutableRawBufferPointer(rebasing: all[start...])
      let wide = UInt64(mask) << 32 | UInt64(mask)
      var index = 0
      while index + 8 <= payload.count {
        let masked = UInt64(littleEndian: payload.loadUnaligned(fromByteOffset: index, as: UInt64.self))
        payload.storeBytes(of: (masked ^ wide).littleEndian, toByteOffset: index, as: UInt64.self)
        index += 8
      }
      while index < payload.count {
        payload[index] ^= UInt8(truncatingIfNeeded: mask)
        mask = mask >> 8 | mask << 24
        index += 1
      }
    }
  }

  private mutating func finishFrame(_ actions: inout [WebSocketAction]) throws(Violation) {
    step = .first
    switch opcode {
    case .ping: actions.append(.ping(takeControl()))
    case .pong: actions.append(.pong(takeControl()))
    case .close:
      let (code, reason) = try Self.parseClose(takeControl())
      end()
      actions.append(.close(code, reason: reason))
    case .continuation, .text, .binary:
      guard isFinal else { return }
      if isCompressed { try expand() }
      guard validator.isComplete else {
        throw Violation(code: .invalidPayload, reason: "a text message ends inside a UTF-8 character")
      }
      actions.append(messageKind == .text ? .text(message) : .binary(message))
      messageKind = nil
      message = []
    }
  }

  private mutating func expand() throws(Violation) {
    isCompressed = false
    guard let inflater else { return }
    do throws(MessageInflater.Failure) {
      message = try inflater.inflate(message, atMost: maximumMessageBytes)
      expandedBytes += message.count
    } catch {
      switch error {
      case .tooLong:
        throw Violation(code: .tooBig, reason: "a message may have at most \(maximumMessageBytes) bytes")
      case .malformed:
        throw Violation(code: .invalidPayload, reason: "a compressed message isn't DEFLATE, or isn't whole")
      }
    }
    guard messageKind == .text else { return }
    guard message.withUnsafeBytes({ validator.accept($0) }) else {
      throw Violation(code: .invalidPayload, reason: "a text message isn't valid UTF-8")
    }
  }

  private mutating func takeControl() -> [UInt8] {
    defer { control = [] }
    return control
  }

  private mutating func end() {
    step = .over
    message = []
    control = []
  }

  private static func parseClose(_ payload: [UInt8]) throws(Violation) -> (WebSocketCloseCode?, String) {
    if payload.isEmpty { return (nil, "") }
    guard payload.count >= 2 else { throw broken("a close frame with half a code") }
    let code = WebSocketCloseCode(rawValue: UInt16(payload[0]) << 8 | UInt16(payload[1]))
    guard code.mayBeSent else { throw broken("close code \(code.rawValue) may not be sent") }
    var validator = UTF8Validator()
    let isValid = payload.withUnsafeBytes { validator.accept(UnsafeRawBufferPointer(rebasing: $0[2...])) }
    guard isValid, validator.isComplete else {
      throw Violation(code: .invalidPayload, reason: "the reason of a close frame isn't valid UTF-8")
    }
    return (code, String(decoding: payload[2...], as: UTF8.self))
  }

  private static func broken(_ reason: String) -> Violation {
    Violation(code: .protocolError, reason: reason)
  }
}

// MARK: Encoding

//   step, 1 | of length or mask: bytes left, 1 | first byte of the frame, 1 | remaining, 8 | shortest length, 8 | mask, 4
//   | kind of the message, 1 | is compressed, 1 | message | control

extension WebSocketAssembler {
  private static let longestLength: UInt8 = 8
  private static let maskBytes: UInt8 = 4

  func encode(into fields: inout FieldWriter) {
    let (number, bytesLeft): (UInt8, UInt8) =
      switch step {
      case .first: (0, 0)
      case .second: (1, 0)
      case .length(let left): (2, left)
      case .mask(let left): (3, left)
      case .payload: (4, 0)
      case .over: (5, 0)
      }
    fields.append(number)
    fields.append(bytesLeft)
    fields.append(opcode.rawValue | (isFinal ? 0x80 : 0))
    fields.append(remaining)
    fields.append(shortestLength)
    fields.append(mask)
    fields.append(messageKind?.rawValue ?? 0)
    fields.append(UInt8(isCompressed ? 1 : 0))
    fields.append(message)
    fields.append(control)
  }

  /// nil: it is none.
  init?(_ fields: inout FieldReader, maximumMessageBytes: Int, inflater: MessageInflater?) {
    guard let number = fields.number(UInt8.self), let bytesLeft = fields.number(UInt8.self),
      let first = fields.number(UInt8.self), let opcode = WebSocketOpcode(rawValue: first & 0x7F),
      let remaining = fields.number(UInt64.self), let shortest = fields.number(UInt64.self),
      let mask = fields.number(UInt32.self), let kind = fields.number(UInt8.self),
      let isCompressed = fields.flag(), let message = fields.data(), let control = fields.data(),
      let step = Self.step(number, bytesLeft)
    else { return nil }
    self.init(maximumMessageBytes: maximumMessageBytes, inflater: inflater)
    self.step = step
    self.opcode = opcode
    isFinal = first & 0x80 != 0
    self.remaining = remaining
    shortestLength = shortest
    self.mask = mask
    if kind != 0 {
      guard kind == WebSocketOpcode.text.rawValue || kind == WebSocketOpcode.binary.rawValue else {
        return nil
      }
      messageKind = WebSocketOpcode(rawValue: kind)
    }
    self.isCompressed = isCompressed
    self.message = message
    self.control = control
    guard isPossible else { return nil }
    // What has been taken of a text was valid: where it stands in a character is found again.
    if messageKind == .text, !isCompressed, !message.withUnsafeBytes({ validator.accept($0) }) { return nil }
  }

  private static func step(_ number: UInt8, _ bytesLeft: UInt8) -> Step? {
    switch (number, bytesLeft) {
    case (0, 0): .first
    case (1, 0): .second
    case (2, 1...longestLength): .length(bytesLeft: bytesLeft)
    case (3, 1...maskBytes): .mask(bytesLeft: bytesLeft)
    case (4, 0): .payload
    case (5, 0): .over
    default: nil
    }
  }

  /// Whether bytes of a client can have led here.
  private var isPossible: Bool {
    guard !isCompressed || (inflater != nil && messageKind != nil), messageKind != nil || message.isEmpty,
      message.count <= maximumPayloadBytes, control.count <= WebSocketFrame.maximumControlPayload
    else { return false }
    switch step {
    case .first: return control.isEmpty
    case .over: return message.isEmpty && control.isEmpty
    case .length where opcode.isControl: return false
    case .second, .length, .mask, .payload: break
    }
    let isMeasured =
      switch step {
      case .mask, .payload: true
      case .first, .second, .length, .over: false
      }
    if opcode.isControl {
      return isFinal
        && (!isMeasured || remaining <= UInt64(WebSocketFrame.maximumControlPayload - control.count))
    }
    // A frame of a message has begun one, or goes on with it.
    return messageKind != nil && control.isEmpty
      && (!isMeasured || remaining <= UInt64(maximumPayloadBytes - message.count))
  }
}
