// permessage-deflate (RFC 7692) without context takeover in either direction: each message is compressed by itself, so that
// one compressed event serves every connection that gets it, and nothing is kept for a connection between its messages.
//
//   offer    …; server_max_window_bits=N; client_max_window_bits ─► accepted if N ≥ 12
//   out      raw DEFLATE, window of 4 KiB, up to the 00 00 FF FF of an empty stored block, which are left out
//   in       a whole message with 00 00 FF FF behind it ─► inflated, to at most what a message may have
//
// One deflater and one inflater serve a worker, on its loop only. Not every message must be compressed: the bit RSV1 tells.

import CZlib
import HTTP
import Kit

enum MessageDeflate {
  /// Of what is sent (§7.1.2.1). Some clients offer to keep no more than this, for the sake of their own memory.
  static let windowBits = 12
  private static let allowedWindowBits = 8...15
  private static let name = "permessage-deflate"

  /// Value of `sec-websocket-extensions` for the answer: the first offer that can be accepted; nil: there is none.
  ///
  /// - Parameter offers: values of that field in the request, as they came.
  /// - Throws: 400 for what isn't a list of extensions (RFC 6455 §9.1).
  static func accept(_ offers: [String]) throws(WebSocketHandshake.Refusal) -> String? {
    for offer in offers.flatMap({ $0.split(separator: ",") }) {
      let parts = offer.split(separator: ";", omittingEmptySubsequences: false)
        .map { HTTPOctets.trimmed($0) }
      guard let extensionName = parts.first else { continue }
      // Empty elements of a list mean nothing (RFC 9110 §5.6.1.2).
      if extensionName.isEmpty, parts.count == 1 { continue }
      guard HTTPOctets.isToken(extensionName.utf8) else { throw malformed(offer) }
      var parameters: [(name: Substring, value: Substring?)] = []
      for part in parts.dropFirst() { parameters.append(try parameter(part)) }
      if extensionName == name, let answer = answer(to: parameters) { return answer }
    }
    return nil
  }

  /// nil: what is offered can't be accepted (§7.1).
  private static func answer(to parameters: [(name: Substring, value: Substring?)]) -> String? {
    var answer = "\(name); server_no_context_takeover; client_no_context_takeover"
    var names: Set<Substring> = []
    for (name, value) in parameters {
      guard names.insert(name).inserted else { return nil }
      switch name {
      case "server_no_context_takeover", "client_no_context_takeover":
        guard value == nil else { return nil }
      case "server_max_window_bits":
        guard let bits = value.flatMap(windowBits), bits >= Self.windowBits else { return nil }
        answer += "; server_max_window_bits=\(Self.windowBits)"
      case "client_max_window_bits":
        // Any window of the client's can be inflated.
        guard value == nil || value.flatMap(windowBits) != nil else { return nil }
      default: return nil
      }
    }
    return answer
  }

  private static func windowBits(_ text: Substring) -> Int? {
    let isNumber = text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard isNumber, text.utf8.first != UInt8(ascii: "0"), let bits = Int(text),
      allowedWindowBits.contains(bits)
    else { return nil }
    return bits
  }

  private static func parameter(
    _ text: Substring
  ) throws(WebSocketHandshake.Refusal) -> (name: Substring, value: Substring?) {
    let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      .map { HTTPOctets.trimmed($0) }
    guard let name = sides.first, HTTPOctets.isToken(name.utf8) else {
      throw malformed(text)
    }
    guard sides.count == 2 else { return (name, nil) }
    var value = sides[1]
    if value.count >= 2, value.hasPrefix("\""), value.hasSuffix("\"") { value = value.dropFirst().dropLast() }
    guard HTTPOctets.isToken(value.utf8) else { throw malformed(text) }
    return (name, value)
  }

  private static func malformed(_ text: Substring) -> WebSocketHandshake.Refusal {
    WebSocketHandshake.Refusal(
      status: 400,
      detail:
        "sec-websocket-extensions: '\(text.prefix(64))' is no extension; expected a name with parameters")
  }
}

/// What became of messages in one direction.
struct DeflateCounts: Equatable {
  /// Compressed, or expanded.
  var messages = 0
  var plainBytes = 0
  var compressedBytes = 0
  /// Refused: more than a message may have.
  var tooBig = 0
  /// Refused: no DEFLATE, or not whole.
  var malformed = 0

  /// What was counted since the last call.
  mutating func take() -> DeflateCounts {
    defer { self = DeflateCounts() }
    return self
  }

  fileprivate mutating func add(plainBytes: Int, compressedBytes: Int) {
    messages += 1
    self.plainBytes += plainBytes
    self.compressedBytes += compressedBytes
  }
}

/// Compresses messages that go out.
final class MessageDeflater {
  /// What is shorter goes as it is: it would hardly become shorter still.
  static let minimumBytes = 64
  /// Little memory, which is quickly forgotten between messages: of the size of the window.
  private static let memoryLevel: CInt = 5
  /// The empty stored block behind a flush, without its first bits (§7.2.1).
  fileprivate static let tail: [UInt8] = [0x00, 0x00, 0xFF, 0xFF]

  /// zlib keeps its address.
  private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
  private var isBegun = false
  var counts = DeflateCounts()

  init() { stream.initialize(to: z_stream()) }

  deinit {
    if isBegun { deflateEnd(stream) }
    stream.deinitialize(count: 1)
    stream.deallocate()
  }

  /// The message that the parts are together, compressed; nil: it goes as it is, for it wouldn't become shorter.
  func deflate(_ parts: [UnsafeRawBufferPointer]) -> [UInt8]? {
    let count = parts.reduce(0) { $0 + $1.count }
    guard count >= Self.minimumBytes, count <= UInt32.max, begin() else { return nil }
    var isShorter = false
    let message = [UInt8](unsafeUninitializedCapacity: count) { output, length in
      stream.pointee.next_out = output.baseAddress
      stream.pointee.avail_out = UInt32(count)
      for part in parts where !part.isEmpty { take(part, Z_NO_FLUSH) }
      take(UnsafeRawBufferPointer(start: nil, count: 0), Z_SYNC_FLUSH)
      // With room left everything has come out.
      isShorter = stream.pointee.avail_out > 0
      length = isShorter ? count - Int(stream.pointee.avail_out) - Self.tail.count : 0
    }
    guard isShorter else { return nil }
    counts.add(plainBytes: count, compressedBytes: message.count)
    return message
  }

  private func begin() -> Bool {
    guard !isBegun else { return deflateReset(stream) == Z_OK }
    isBegun =
      deflateInit2_(
        stream, Z_BEST_SPEED, Z_DEFLATED, -CInt(MessageDeflate.windowBits), Self.memoryLevel,
        Z_DEFAULT_STRATEGY, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK
    return isBegun
  }

  private func take(_ input: UnsafeRawBufferPointer, _ flush: CInt) {
    stream.pointee.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
    stream.pointee.avail_in = UInt32(input.count)
    _ = CZlib.deflate(stream, flush)
  }
}

/// Expands messages that come in.
final class MessageInflater {
  enum Failure: Error, Equatable {
    case tooLong
    case malformed
  }

  private static let stepBytes = 16 << 10
  /// Of a client's window: the largest there is, negative for DEFLATE without a header.
  private static let anyWindowBits: CInt = -15
  /// In `data_type`: everything up to the end of a block has been taken.
  private static let isAtBlockEnd: CInt = 128

  /// zlib keeps its address.
  private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
  private var isBegun = false
  var counts = DeflateCounts()

  init() { stream.initialize(to: z_stream()) }

  deinit {
    if isBegun { inflateEnd(stream) }
    stream.deinitialize(count: 1)
    stream.deallocate()
  }

  /// What the payload of a whole compressed message expands to. No more than `limit` bytes and one step are made of it, whatever it
  /// would become.
  func inflate(_ payload: [UInt8], atMost limit: Int) throws(Failure) -> [UInt8] {
    guard payload.count <= Int(UInt32.max) - MessageDeflater.tail.count, begin() else { throw .malformed }
    let result = (payload + MessageDeflater.tail).withUnsafeBytes { input in
      withUnsafeTemporaryAllocation(byteCount: Self.stepBytes, alignment: 16) { expand(input, $0, limit) }
    }
    switch result {
    case .success(let message): counts.add(plainBytes: message.count, compressedBytes: payload.count)
    case .failure(.tooLong): counts.tooBig += 1
    case .failure(.malformed): counts.malformed += 1
    }
    return try result.get()
  }

  private func expand(
    _ input: UnsafeRawBufferPointer, _ step: UnsafeMutableRawBufferPointer, _ limit: Int
  ) -> Result<[UInt8], Failure> {
    var message: [UInt8] = []
    stream.pointee.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
    stream.pointee.avail_in = UInt32(input.count)
    var isWhole = false
    while true {
      stream.pointee.next_out = step.bindMemory(to: UInt8.self).baseAddress
      stream.pointee.avail_out = UInt32(step.count)
      let status = CZlib.inflate(stream, Z_SYNC_FLUSH)
      let made = step.count - Int(stream.pointee.avail_out)
      guard message.count + made <= limit else { return .failure(.tooLong) }
      message.append(contentsOf: step[..<made])
      if status == Z_OK {
        isWhole = stream.pointee.avail_in == 0 && stream.pointee.data_type & Self.isAtBlockEnd != 0
      }
      switch status {
      case Z_OK where stream.pointee.avail_out == 0: continue
      // Z_BUF_ERROR: nothing has happened since the call before.
      case Z_OK, Z_BUF_ERROR: return isWhole ? .success(message) : .failure(.malformed)
      case Z_STREAM_END:
        // A block that says it is the last: behind it is padding at most (§7.2.3.4).
        let isLast = Int(stream.pointee.avail_in) <= MessageDeflater.tail.count + 1
        return isLast ? .success(message) : .failure(.malformed)
      default: return .failure(.malformed)
      }
    }
  }

  private func begin() -> Bool {
    guard !isBegun else { return inflateReset(stream) == Z_OK }
    isBegun =
      inflateInit2_(stream, Self.anyWindowBits, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK
    return isBegun
  }
}
