// Responses as HTTP/1.1 text (RFC 9112 §4, §7.1).
//
//   HTTP/1.1 202 Accepted␍␊
//   connection, date, traceparent        ours
//   …                                    the response's own fields
//   transfer-encoding | content-length   by its framing
//   ␍␊ body | chunks, trailers
//
// Fields go out byte for byte as they came, in one copy where none of them is dropped: HTTPFields has none that could begin a field or a
// message of its own.

import Kit
import NIOCore
import NIOHTTP1

/// Writes parts as text. Pure: values in, bytes out.
struct HTTP1Encoder {
  private var isChunked = false

  /// Appends a part; of a body only what stands around it if `withBody` is false, up to where its bytes belong.
  mutating func append(_ part: ResponsePart, to out: inout ByteBuffer) {
    switch part {
    case .interim(let status, let fields):
      out.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.ownBytes + status.reasonPhrase.utf8.count) {
        var text = TextWriter($0)
        text.append(statusLine: status)
        return text.count
      }
      for field in fields where OutgoingHead.interimKeeps(field) { out.writeBytes(field.line) }
      out.writeStaticString("\r\n")
    case .head(let head):
      append(head, to: &out)
    case .body(let bytes, _):
      appendBodyStart(bytes.readableBytes, to: &out)
      out.writeImmutableBuffer(bytes)
      appendBodyEnd(to: &out)
    case .end(let trailers):
      guard isChunked else { return }
      out.writeStaticString("0\r\n")
      out.writeFields(trailers)
      out.writeStaticString("\r\n")
    }
  }

  /// Appends what stands before `count` bytes of a body.
  func appendBodyStart(_ count: Int, to out: inout ByteBuffer) {
    guard isChunked else { return }
    out.writeString(String(count, radix: 16))
    out.writeStaticString("\r\n")
  }

  /// Appends what stands behind them.
  func appendBodyEnd(to out: inout ByteBuffer) {
    if isChunked { out.writeStaticString("\r\n") }
  }

  private mutating func append(_ head: OutgoingHead, to out: inout ByteBuffer) {
    let length = head.framing?.announced
    isChunked = head.framing?.rest == .chunked
    var bytes = Self.ownBytes + head.status.reasonPhrase.utf8.count + head.date.utf8.count
    bytes += head.request.traceparent.utf8.count + head.fields.bytes
    if case .upgrade(let name) = head.kind { bytes += name.utf8.count }
    // A body that is copied behind it has room at once.
    out.reserveCapacity(minimumWritableBytes: bytes + min(length ?? 0, HTTP1Output.copiedBytes))
    out.writeWithUnsafeMutableBytes(minimumWritableBytes: bytes) { memory in
      var text = TextWriter(memory)
      text.append(statusLine: head.status)
      if case .upgrade(let name) = head.kind {
        text.append("connection: upgrade\r\nupgrade: ")
        text.append(line: name)
      } else if !head.request.keepAlive {
        text.append("connection: close\r\n")
      } else if head.request.isHTTP10 {
        text.append("connection: keep-alive\r\n")
      }
      if head.needsDate {
        text.append("date: ")
        text.append(line: head.date)
      }
      if !head.request.traceparent.isEmpty {
        text.append("traceparent: ")
        text.append(line: head.request.traceparent)
      }
      head.forEachStretch { text.append($0) }
      if isChunked {
        text.append("transfer-encoding: chunked\r\n")
      } else if let length {
        text.append("content-length: ")
        text.append(line: String(length))
      }
      text.append("\r\n")
      return text.count
    }
  }

  /// More than all that is ours in a head, texts of any length apart.
  private static let ownBytes = 256
}

/// Appends to memory that has room for all of it.
private struct TextWriter {
  private let memory: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  init(_ memory: UnsafeMutableRawBufferPointer) { self.memory = memory }

  mutating func append(_ octets: UnsafeBufferPointer<UInt8>) {
    precondition(octets.count <= memory.count - count, "no room for a head's text")
    UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: UnsafeRawBufferPointer(octets))
    count += octets.count
  }

  mutating func append(_ text: StaticString) {
    append(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// Appends a text and the end of its line, which it can't bring itself.
  mutating func append(line text: String) {
    let start = count
    var text = text
    text.withUTF8 { append($0) }
    for position in start..<count { memory[position] = max(memory[position], UInt8(ascii: " ")) }
    append("\r\n")
  }

  mutating func append(statusLine status: HTTPResponseStatus) {
    append("HTTP/1.1 ")
    var code = String(status.code)
    code.withUTF8 { append($0) }
    append(" ")
    append(line: status.reasonPhrase)
  }
}

/// Gathers the text of a turn, pipelined responses too, in one buffer, and writes it; large pieces of bodies are written as they are.
final class HTTP1Output: ResponseOutput {
  /// Pieces up to this size are copied behind what stands before them: cheaper than a buffer of their own.
  static let copiedBytes = 1024

  private let context: ChannelHandlerContext
  private let limits: HTTPLimits
  private var encoder = HTTP1Encoder()
  private var gathered: ByteBuffer?
  /// Something was written past `gathered` and not flushed.
  private var hasUnflushed = false
  private(set) var writtenBytes = 0

  /// - Parameter context: of the handler whose output it is.
  init(_ context: ChannelHandlerContext, limits: HTTPLimits) {
    self.context = context
    self.limits = limits
  }

  var gatheredBytes: Int { gathered?.readableBytes ?? 0 }
  var untakenBytes: Int? { nil }
  /// The kernel takes more when half of what it may have unsent has gone.
  var stepBytes: Int { ResponseStream.maxUnsentBytes / 2 }

  func send(_ part: ResponsePart) {
    guard case .body(let bytes, _) = part, bytes.readableBytes > Self.copiedBytes else {
      gather { encoder.append(part, to: &$0) }
      if gatheredBytes >= limits.maxUnflushedBytes { writeGathered(nil) }
      return
    }
    gather { encoder.appendBodyStart(bytes.readableBytes, to: &$0) }
    writeGathered(nil)
    write(bytes, nil)
    gather { encoder.appendBodyEnd(to: &$0) }
  }

  func flush(_ taken: EventLoopPromise<Void>?) {
    writeGathered(taken)
    guard hasUnflushed else { return }
    hasUnflushed = false
    context.flush()
  }

  func settle(_ taken: EventLoopPromise<Void>) { writeGathered(taken) }

  func leave(behind head: OutgoingHead) -> ByteBuffer {
    var bytes = context.channel.allocator.buffer(capacity: 0)
    encoder.append(.head(head), to: &bytes)
    return bytes
  }

  /// Writing may come back here, so the buffer is never in use meanwhile.
  private func gather(_ append: (inout ByteBuffer) -> Void) {
    var buffer = gathered ?? context.channel.allocator.buffer(capacity: 0)
    gathered = nil
    append(&buffer)
    gathered = buffer.readableBytes > 0 ? buffer : nil
  }

  /// - Parameter taken: has to be settled by a write, if there is one or not.
  private func writeGathered(_ taken: EventLoopPromise<Void>?) {
    guard gathered != nil || taken != nil else { return }
    let bytes = gathered ?? ByteBuffer()
    gathered = nil
    write(bytes, taken)
  }

  private func write(_ bytes: ByteBuffer, _ taken: EventLoopPromise<Void>?) {
    writtenBytes += bytes.readableBytes
    hasUnflushed = true
    context.write(NIOAny(bytes), promise: taken)
  }
}
