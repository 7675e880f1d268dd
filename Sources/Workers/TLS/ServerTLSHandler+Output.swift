// What goes out, and how a connection ends: with a closing alert (RFC 8446 §6.1), so that the peer can tell an end from an
// accident, unless it is to look like one.

import NIOCore

extension ServerTLSHandler {
  /// Plain bytes that wait for a flush at most: some records' worth.
  static let eagerBytes = 4 * ServerTLSContext.recordBytes
  /// How long a connection that ends waits at most until its closing alert is on its way.
  static let goodbyeTimeout = TimeAmount.seconds(2)

  public func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard state == .open, !hasOutputEnded else {
      promise?.fail(state == .ended ? ChannelError.ioOnClosedChannel : ChannelError.outputClosed)
      return
    }
    let bytes = unwrapOutboundIn(data)
    pending.append((bytes, promise))
    pendingBytes += bytes.readableBytes
    if pendingBytes >= Self.eagerBytes { encryptPending(context) }
  }

  public func flush(context: ChannelHandlerContext) {
    encryptPending(context)
    context.flush()
  }

  public func triggerUserOutboundEvent(
    context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?
  ) {
    guard event is TLSAbort else { return context.triggerUserOutboundEvent(event, promise: promise) }
    isAborted = true
    promise?.succeed(())
  }

  public func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    switch mode {
    case .output:
      guard state == .open, !hasOutputEnded else { return context.close(mode: .output, promise: promise) }
      encryptPending(context)
      let written = context.eventLoop.makePromise(of: Void.self)
      written.futureResult.assumeIsolated().whenComplete { [self] _ in
        if state == .ended {
          promise?.fail(ChannelError.alreadyClosed)
        } else {
          context.close(mode: .output, promise: promise)
        }
      }
      sayGoodbye(context, written)
    case .all:
      let isGoodbyeOwed = state == .open && !hasOutputEnded && !isAborted && !isBehind(context)
      failPending(ChannelError.ioOnClosedChannel)
      state = .ended
      guard isGoodbyeOwed else { return context.close(mode: .all, promise: promise) }
      // Who closes when its last write is done is called from within a flush, where another one is only noted.
      let written = context.eventLoop.makePromise(of: Void.self)
      written.futureResult.assumeIsolated().whenComplete { _ in context.close(mode: .all, promise: promise) }
      setTimer(Self.goodbyeTimeout, context) { context.close(mode: .all, promise: nil) }
      sayGoodbye(context, written)
    case .input:
      context.close(mode: .input, promise: promise)
    }
  }

  /// Whether the client hasn't taken what was written: an alert behind that would come too late, as the rest does.
  private func isBehind(_ context: ChannelHandlerContext) -> Bool {
    let untaken = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
    return untaken ?? 0 > 0
  }

  /// Puts what waits into records and gives them to the channel.
  private func encryptPending(_ context: ChannelHandlerContext) {
    guard !pending.isEmpty, let session else { return }
    let writes = pending
    // Keeps no memory with a connection that has become idle.
    pending = []
    pendingBytes = 0
    let promise = Self.one(of: writes.lazy.compactMap(\.promise))
    guard session.write(writes.lazy.map(\.bytes)) else {
      promise?.fail(ChannelError.ioOnClosedChannel)
      return context.close(mode: .all, promise: nil)
    }
    context.write(wrapOutboundOut(session.takeOutput() ?? ByteBuffer()), promise: promise)
  }

  /// The promise that stands for all of them.
  private static func one(of promises: some Sequence<EventLoopPromise<Void>>) -> EventLoopPromise<Void>? {
    var first: EventLoopPromise<Void>?
    for promise in promises {
      if let first { first.futureResult.cascade(to: promise) } else { first = promise }
    }
    return first
  }

  private func sayGoodbye(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
    hasOutputEnded = true
    session?.shutdown()
    context.writeAndFlush(wrapOutboundOut(session?.takeOutput() ?? ByteBuffer()), promise: promise)
  }

  func failPending(_ error: any Error) {
    let writes = pending
    pending = []
    pendingBytes = 0
    for write in writes { write.promise?.fail(error) }
  }
}
