// TLS of one connection, as the first handler of its channel: records outside, plain bytes inside.
//
//   silent ─first byte▶ shaking ─────▶ open ─────────────▶ ended
//     │                  ├─ failed ──────────────────────▶   │   alert, then closed
//     │                  └─ too late ────────────────────▶   │   closed
//     └─ no TLS: 400 in plain text ─▶ refused ────────────▶ closed by the client, or when it is too late
//
// In: what one read of the channel brings is decrypted at once and goes on as one buffer, so nothing is kept here but a record
// that isn't whole; not reading is therefore holding the peer back. Out: what is written until a flush shares records;
// more than `eagerBytes` is encrypted without waiting for the flush, so that the channel's writability says the truth.
// A client that has said nothing yet costs no memory of OpenSSL's.
//
// This file: state and what comes in. ServerTLSHandler+Output: what goes out, and the ends.

import NIOCore

public final class ServerTLSHandler: ChannelDuplexHandler {
  public typealias InboundIn = ByteBuffer
  public typealias InboundOut = ByteBuffer
  public typealias OutboundIn = ByteBuffer
  public typealias OutboundOut = ByteBuffer

  enum State {
    case silent, shaking, open, refused, ended
  }

  /// What a client has for its handshake, unless it is told otherwise.
  public static let handshakeTimeout = TimeAmount.seconds(10)
  /// What a client that doesn't speak TLS has for reading why it is refused.
  static let refusalTimeout = TimeAmount.seconds(2)
  /// The first byte of every handshake (RFC 8446 §5.1).
  private static let handshakeRecord: UInt8 = 22
  private static let plainAnswer: StaticString = """
    HTTP/1.1 400 Bad Request\r
    content-type: text/plain; charset=utf-8\r
    content-length: 47\r
    connection: close\r
    \r
    this port speaks TLS: begin the URL with https\n
    """

  private let tls: ServerTLSContext
  private let timeout: TimeAmount
  private var onHandshake: ((TLSHandshakeResult) -> Void)?
  private var timer: Scheduled<Void>?
  var session: TLSSession?
  var state = State.silent
  /// Written, not yet encrypted.
  var pending: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
  var pendingBytes = 0
  /// We have said that we send no more.
  var hasOutputEnded = false
  /// The peer has said that it sends no more.
  private var hasInputEnded = false
  /// The end is to look like an accident.
  var isAborted = false
  /// Of answers to changes of keys, which wait for room in the socket.
  private var untakenAnswerBytes = 0
  private static let mostUntakenAnswerBytes = 64 * 1024

  /// - Parameters:
  ///   - tls: of the same event loop's thread as the channel.
  ///   - timeout: until the handshake must be done.
  ///   - onHandshake: called once, if the client sends anything.
  public init(
    _ tls: ServerTLSContext, timeout: TimeAmount = ServerTLSHandler.handshakeTimeout,
    onHandshake: @escaping (TLSHandshakeResult) -> Void = { _ in }
  ) {
    self.tls = tls
    self.timeout = timeout
    self.onHandshake = onHandshake
  }

  public func handlerAdded(context: ChannelHandlerContext) {
    setTimer(timeout, context) { [self] in
      if state == .shaking { report(.timedOut) }
      end(context)
    }
  }

  public func handlerRemoved(context: ChannelHandlerContext) { leave() }

  public func channelInactive(context: ChannelHandlerContext) {
    if state == .shaking { report(.failed("the client went in the middle")) }
    leave()
    context.fireChannelInactive()
  }

  // MARK: In

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = unwrapInboundIn(data)
    switch state {
    case .silent: begin(context, bytes)
    case .shaking:
      session?.feed(bytes)
      shakeHands(context)
    // What comes behind the peer's goodbye is nobody's, and isn't kept.
    case .open where hasInputEnded: break
    case .open:
      session?.feed(bytes)
      receive(context)
    case .refused, .ended: break
    }
  }

  public func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? ChannelEvent, event == .inputClosed else {
      return context.fireUserInboundEventTriggered(event)
    }
    switch state {
    case .open where !hasInputEnded:
      // Cut off or merely impolite: what a request's end is, HTTP knows by itself.
      hasInputEnded = true
      context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    case .open: break
    case .silent, .shaking, .refused, .ended: end(context)
    }
  }

  private func begin(_ context: ChannelHandlerContext, _ bytes: ByteBuffer) {
    guard let first = bytes.readableBytesView.first else { return }
    guard first == Self.handshakeRecord else { return refuse(context, first) }
    guard let session = TLSSession(tls, allocator: context.channel.allocator) else {
      report(.failed("OpenSSL has no memory"))
      return end(context)
    }
    self.session = session
    state = .shaking
    session.feed(bytes)
    shakeHands(context)
  }

  private func shakeHands(_ context: ChannelHandlerContext) {
    guard let session else { return }
    let step = session.handshake()
    if let output = session.takeOutput() { context.writeAndFlush(wrapOutboundOut(output), promise: nil) }
    // Writing may have shown that the connection is gone.
    guard state == .shaking else { return }
    switch step {
    case .unfinished: break
    case .failed(let reason):
      report(.failed(reason))
      isAborted = true
      end(context)
    case .done:
      timer?.cancel()
      timer = nil
      state = .open
      report(session.isResumed ? .resumed : .done)
      context.fireUserInboundEventTriggered(
        TLSEstablished(alpn: session.alpn, serverName: session.serverName))
      if state == .open { receive(context) }
    }
  }

  /// Decrypts what has come, and hands it on in one piece.
  private func receive(_ context: ChannelHandlerContext) {
    guard let session, !hasInputEnded else { return }
    var plain: ByteBuffer?
    var failure: String?
    reading: while true {
      switch session.read() {
      case .bytes(let count):
        var buffer = plain ?? context.channel.allocator.buffer(capacity: count)
        plain = nil
        _ = session.withRead(count) { buffer.writeBytes($0) }
        plain = buffer
      case .none: break reading
      case .ended:
        hasInputEnded = true
        session.dropInput()
        break reading
      case .failed(let reason):
        failure = reason
        break reading
      }
    }
    // Answers to changes of keys, alerts.
    if let output = session.takeOutput() { answer(output, context) }
    if let plain, state == .open { context.fireChannelRead(wrapInboundOut(plain)) }
    guard state == .open else { return }
    if let failure {
      isAborted = true
      context.fireErrorCaught(TLSFailure(description: failure))
      end(context)
    } else if hasInputEnded {
      inputEnded(context)
    }
  }

  /// Sends what OpenSSL says by itself. A peer that makes it speak and doesn't listen is sent away.
  private func answer(_ output: ByteBuffer, _ context: ChannelHandlerContext) {
    untakenAnswerBytes += output.readableBytes
    let written = context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenComplete { [self] _ in
      untakenAnswerBytes -= output.readableBytes
    }
    context.writeAndFlush(wrapOutboundOut(output), promise: written)
    guard untakenAnswerBytes > Self.mostUntakenAnswerBytes else { return }
    isAborted = true
    end(context)
  }

  /// The peer's closing alert is what the end of the stream is without TLS, half-closed connections included.
  private func inputEnded(_ context: ChannelHandlerContext) {
    let isHalfClosureAllowed = try? context.channel.syncOptions?.getOption(.allowRemoteHalfClosure)
    if isHalfClosureAllowed ?? false {
      context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    } else {
      end(context)
    }
  }

  // MARK: Refusal

  private func refuse(_ context: ChannelHandlerContext, _ first: UInt8) {
    report(.notTLS)
    state = .refused
    // The first letter of a method.
    guard (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(first) else { return end(context) }
    setTimer(Self.refusalTimeout, context) { [self] in end(context) }
    var answer = context.channel.allocator.buffer(capacity: Self.plainAnswer.utf8CodeUnitCount)
    answer.writeStaticString(Self.plainAnswer)
    let written = context.eventLoop.makePromise(of: Void.self)
    written.futureResult.assumeIsolated().whenSuccess { [self] in
      if state == .refused { context.close(mode: .output, promise: nil) }
    }
    context.writeAndFlush(wrapOutboundOut(answer), promise: written)
  }

  // MARK: Ends

  private func report(_ result: TLSHandshakeResult) {
    let onHandshake = self.onHandshake
    self.onHandshake = nil
    onHandshake?(result)
  }

  func setTimer(_ time: TimeAmount, _ context: ChannelHandlerContext, _ body: @escaping () -> Void) {
    timer?.cancel()
    timer = context.eventLoop.assumeIsolated().scheduleTask(in: time, body)
  }

  /// Closes the connection from here.
  private func end(_ context: ChannelHandlerContext) {
    guard state != .ended else { return }
    close(context: context, mode: .all, promise: nil)
  }

  /// The channel is gone, or isn't ours any more.
  private func leave() {
    state = .ended
    timer?.cancel()
    timer = nil
    onHandshake = nil
    failPending(ChannelError.ioOnClosedChannel)
    session = nil
  }
}
