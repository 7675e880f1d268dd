// From bytes to request parts: drives NIO's llhttp decoder by hand, first handler behind InputPacer and TLS.
//
//   bytes ──▶ held ──▶ HTTPRequestDecoder ──▶ parts ──▶ HTTPConnection
//
// By hand, because the connection must be able to say "not now" (a request is waiting for its answer), and because the
// bytes behind an upgrade request must stay bytes: they go to whoever takes the channel over, or to a
// fresh decoder if the upgrade is declined. `held` is empty on an idle connection; while a field is split over reads it
// is that field, at most a head. A connection that begins with the preface of HTTP/2 is given away before anything is parsed.

import NIOCore
import NIOHTTP1
import TLS

final class HTTPInput: ChannelInboundHandler, RemovableChannelHandler, ConnectionInput {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = HTTPServerRequestPart

  private let connection: HTTPConnection
  private let limits: HTTPLimits
  private(set) var context: ChannelHandlerContext?
  private var decoder: HTTPRequestDecoder?
  private var held = ByteBuffer()
  /// True while the decoder is on the stack; what must not happen then waits for the end of `decodeHeld`.
  private(set) var isDecoding = false
  /// The decoder has seen the end of an upgrade request and parses nothing any more.
  private var isSpent = false
  /// Bytes have come while nothing could be decoded.
  private var isPostponed = false
  /// Nothing has been parsed yet.
  private var mayBeHTTP2: Bool

  init(connection: HTTPConnection, limits: HTTPLimits) {
    self.connection = connection
    self.limits = limits
    mayBeHTTP2 = limits.http2.maxStreams > 0 && connection.server.tls == nil
  }

  var isStream: Bool { false }

  /// Whether there are bytes that the decoder hasn't looked at.
  var isBehind: Bool { isPostponed || (isSpent && held.readableBytes > 0) }

  /// Bytes that wait, which the caller now owns.
  func takeHeldBytes() -> ByteBuffer {
    let bytes = held
    held = ByteBuffer()
    return bytes
  }

  /// The connection got an upgrade request: the decoder has stopped behind it.
  func decoderStopped() { isSpent = true }

  /// The connection takes requests again.
  func resume() {
    if let context, isBehind { decodeHeld(context) }
  }

  func giveWay() {
    guard let context else { return }
    let channel = context.channel
    channel.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    SocketOptions.setTakenOver(on: channel)
  }

  func pass(_ bytes: ByteBuffer, to channel: Channel) {
    let pipeline = channel.pipeline.syncOperations
    if let tls = try? pipeline.context(handlerType: TLSHandler.self) {
      // Behind it: these bytes are decrypted already.
      tls.fireChannelRead(NIOAny(bytes))
      tls.fireChannelReadComplete()
    } else {
      pipeline.fireChannelRead(NIOAny(bytes))
      pipeline.fireChannelReadComplete()
    }
  }

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    install(context)
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    decoder?.decoderRemoved(context: context)
    decoder = nil
    self.context = nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard connection.isListening else { return }
    var bytes = unwrapInboundIn(data)
    connection.received(bytes.readableBytes)
    if held.readableBytes == 0 {
      held = bytes
    } else {
      held.discardReadBytes()
      held.writeBuffer(&bytes)
    }
    if mayBeHTTP2 {
      switch HTTP2Preface.match(held.readableBytesView) {
      case .absent: mayBeHTTP2 = false
      case .begun: return
      case .whole: return leaveToHTTP2(context)
      }
    }
    if connection.mayDecode {
      decodeHeld(context)
    } else {
      isPostponed = true
      // Reading is off by now; only a client that has half-closed gets this far (NIO then reads to the end).
      if held.readableBytes > limits.maxHeldBytes { connection.close() }
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let event = event as? ChannelEvent, event == .inputClosed {
      connection.inputEnded()
    } else {
      context.fireUserInboundEventTriggered(event)
    }
  }

  private func leaveToHTTP2(_ context: ChannelHandlerContext) {
    let bytes = takeHeldBytes()
    let channel = context.channel
    let pipeline = channel.pipeline
    let server = connection.server
    pipeline.syncOperations.removeHandler(context: context, promise: nil)
    connection.leavePipeline()
    do {
      try server.addHTTP2(to: channel)
    } catch {
      return channel.close(promise: nil)
    }
    pipeline.fireChannelRead(bytes)
    pipeline.fireChannelReadComplete()
  }

  private func install(_ context: ChannelHandlerContext) {
    decoder?.decoderRemoved(context: context)
    var configuration = NIOHTTPDecoderLimitConfiguration()
    configuration.maxHeaderFieldSize = limits.maxHeadBytes
    configuration.maxHeaderListSize = limits.maxHeadBytes
    configuration.maxHeaderFieldCount = limits.maxHeaderFields
    let decoder = HTTPRequestDecoder(limitConfiguration: configuration)
    decoder.decoderAdded(context: context)
    self.decoder = decoder
    isSpent = false
  }

  /// Whether what the parser took for an unknown version is a known one before a line feed without carriage return.
  private static func endsLineBadly(_ buffer: ByteBuffer, _ error: any Error) -> Bool {
    guard let error = error as? HTTPParserError, error == .invalidVersion else { return false }
    let bytes = buffer.readableBytesView
    guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return false }
    let line = bytes[..<end]
    return line.suffix(8).elementsEqual("HTTP/1.1".utf8) || line.suffix(8).elementsEqual("HTTP/1.0".utf8)
  }

  /// Whether what the parser took for no method is one that it doesn't know, in the request line of one of the requests that came at
  /// once (RFC 9110 §9.1), and not something else than HTTP.
  private static func hasUnknownMethod(_ buffer: ByteBuffer, _ error: any Error) -> Bool {
    guard let error = error as? HTTPParserError, error == .invalidMethod else { return false }
    return buffer.readableBytesView.split(separator: UInt8(ascii: "\n")).contains { line in
      guard line.suffix(9).starts(with: "HTTP/1.".utf8),
        let end = line.firstIndex(of: UInt8(ascii: " ")), line[..<end].allSatisfy(isMethodOctet),
        case .RAW(let method) = HTTPMethod(rawValue: String(decoding: line[..<end], as: UTF8.self))
      else { return false }
      return !method.isEmpty
    }
  }

  private static func isMethodOctet(_ octet: UInt8) -> Bool {
    switch octet {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "-"),
      UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private func decodeHeld(_ context: ChannelHandlerContext) {
    guard !isDecoding else { return }
    isDecoding = true
    repeat {
      if isSpent { install(context) }
      isPostponed = false
      var buffer = takeHeldBytes()
      do {
        _ = try decoder?.decode(context: context, buffer: &buffer)
        if buffer.readableBytes > 0 { held = buffer }
      } catch {
        if Self.hasUnknownMethod(buffer, error) {
          connection.methodUnknown()
        } else {
          connection.parserFailed(Self.endsLineBadly(buffer, error) ? HTTPParserError.lfExpected : error)
        }
      }
    } while isBehind && connection.mayDecode
    isDecoding = false
    connection.decoded()
  }
}
