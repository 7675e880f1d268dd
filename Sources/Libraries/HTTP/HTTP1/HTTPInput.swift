// From bytes to request parts: first handler behind InputPacer and TLS.
//
//   bytes ──▶ held ──▶ RequestHeadParser, BodyDecoder ──▶ parts ──▶ HTTPConnection
//
// It pulls one part after the other for as long as the connection takes them. The connection says "not now" while a request waits for its
// response, and bytes behind an upgrade request stay bytes: they go to whoever takes the channel over, or are parsed if the upgrade is
// declined. `held` is empty on an idle connection; while a line is split over reads it is that line, at most a head. A connection that
// begins with the preface of HTTP/2 is given away before anything is parsed.

import NIOCore
import TLS

final class HTTPInput: ChannelInboundHandler, RemovableChannelHandler, ConnectionInput {
  typealias InboundIn = ByteBuffer

  private enum State {
    /// Nothing has been parsed yet; it may turn out to be HTTP/2.
    case preface
    case head
    case body(BodyDecoder)
    /// Nothing behind this point can be understood.
    case defect
  }

  private let connection: HTTPConnection
  private let limits: HTTPLimits
  private var context: ChannelHandlerContext?
  private var state: State
  private var heads: RequestHeadParser
  private var held = ByteBuffer()
  /// Some of what is held hasn't been looked at.
  private(set) var isBehind = false
  private(set) var isDecoding = false
  /// Whoever calls `resume` meanwhile finds the bytes parsed when it returns to the loop.
  private var isRunning = false

  /// - Parameter isFirst: nothing has come on the connection before: what it speaks shows.
  init(connection: HTTPConnection, limits: HTTPLimits, isFirst: Bool = true) {
    self.connection = connection
    self.limits = limits
    heads = RequestHeadParser(limits: limits.head)
    state = isFirst && limits.http2.maxStreams > 0 && connection.server.tls == nil ? .preface : .head
  }

  var isStream: Bool { false }

  var heldBytes: Int { held.readableBytes }

  func take(_ head: ByteBuffer) {
    held = head
    isBehind = true
    resume()
  }

  func takeHeldBytes() -> ByteBuffer {
    let bytes = held
    held = ByteBuffer()
    isBehind = false
    return bytes
  }

  func resume() {
    guard !isRunning else { return }
    isRunning = true
    repeat {
      isDecoding = true
      while isBehind, takePart() {}
      // An empty buffer that kept its storage would hold a whole read.
      if held.readableBytes == 0 { held = ByteBuffer() }
      isDecoding = false
      connection.decoded()
    } while isBehind && connection.mayDecode
    isRunning = false
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

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

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
    if case .preface = state {
      switch HTTP2Preface.match(held.readableBytesView) {
      case .absent: state = .head
      case .begun: return
      case .whole: return leaveToHTTP2(context)
      }
    }
    isBehind = true
    if connection.mayDecode {
      resume()
    } else {
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
    connection.wire?.leavePipeline()
    do {
      try server.addHTTP2(to: channel)
    } catch {
      return channel.close(promise: nil)
    }
    pipeline.fireChannelRead(bytes)
    pipeline.fireChannelReadComplete()
  }

  /// Gives the connection the next part if it may have it, and the end with what it ends. False: there is none for now.
  private func takePart() -> Bool {
    do throws(MessageDefect) {
      switch state {
      case .preface, .defect: isBehind = false
      case .head: return try takeHead()
      case .body(let decoder): return try takeBody(decoder)
      }
    } catch {
      state = .defect
      isBehind = false
      connection.refused(Refusal(error))
    }
    return false
  }

  private func takeHead() throws(MessageDefect) -> Bool {
    guard connection.mayDecode else { return false }
    guard let head = try heads.next(&held) else {
      isBehind = false
      return false
    }
    isBehind = held.readableBytes > 0
    connection.receive(.head(head))
    if head.framing == .none {
      connection.receive(.end([:]))
    } else {
      state = .body(BodyDecoder(head.framing, of: .request, limits: limits.head))
    }
    return true
  }

  /// What has been read of a body is given, wanted or not: it is at most one read, and whether the body is whole counts.
  private func takeBody(_ body: BodyDecoder) throws(MessageDefect) -> Bool {
    guard connection.isListening else { return false }
    var decoder = body
    let step = try decoder.next(&held)
    state = .body(decoder)
    isBehind = held.readableBytes > 0
    switch step {
    case .needsInput, .held:
      isBehind = false
      return false
    case .content(let bytes):
      connection.receive(.body(bytes))
      if decoder.isCountedOut { endBody([:]) }
    case .end(let trailers):
      endBody(trailers)
    }
    return true
  }

  private func endBody(_ trailers: HTTPFields) {
    state = .head
    connection.receive(.end(trailers))
  }
}
