// Waits for the end of a TLS handshake and says which protocol the upstream has chosen (ALPN, RFC 7301). Reads for itself, as nobody else
// does yet; whoever is told puts its handlers behind this one before it returns, so that nothing that came with the end of the
// handshake is missed.

import NIOCore
import TLS

final class ProtocolChoice: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  enum Outcome {
    case http1, http2
    case failed(any Error)
  }

  static let http1 = "http/1.1"
  static let http2 = "h2"

  private var context: ChannelHandlerContext?
  private var report: ((Outcome) -> Void)?
  private var lastError: (any Error)?
  private var hasEnded = false

  /// Nothing is read, and so nothing is chosen, before this is called.
  func whenMade(_ report: @escaping (Outcome) -> Void) {
    self.report = report
    if hasEnded { return finish(.failed(lastError ?? ChannelError.eof)) }
    context?.read()
  }

  private func finish(_ outcome: Outcome) {
    let report = report
    self.report = nil
    report?(outcome)
  }

  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) {
    self.context = nil
    report = nil
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if report != nil { context.read() }
    context.fireChannelReadComplete()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let event = event as? TLSEstablished { finish(event.alpn == Self.http2 ? .http2 : .http1) }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if lastError == nil { lastError = error }
    context.fireErrorCaught(error)
    if report != nil { context.close(promise: nil) }
  }

  func channelInactive(context: ChannelHandlerContext) {
    hasEnded = true
    finish(.failed(lastError ?? ChannelError.eof))
    context.fireChannelInactive()
  }
}
