// TLS of one connection, as the first handler of its channel: records outside, plain bytes inside. For both sides.
//
//   server  silent ─first byte▶ shaking ─────▶ open ─────────────▶ ended
//             │                  ├─ failed ──────────────────────▶   │   alert, then closed
//             │                  └─ too late ────────────────────▶   │   closed
//             └─ no TLS: 400 in plain text ─▶ refused ────────────▶ closed by the client, or when it is too late
//   client  silent ─connected▶ shaking ──────▶ open ─────────────▶ ended
//                                └─ failed ───────────────────────▶      TLSFailure, alert, then closed
//
// In: what one read of the channel brings is decrypted at once and goes on as one buffer, so nothing is kept here but a record
// that isn't whole; not reading is therefore holding the peer back. Out: what is written until a flush shares records;
// more than `eagerBytes` is encrypted without waiting for the flush, so that the channel's writability says the truth.
// A connection ends with a closing alert (RFC 8446 §6.1), so that the peer can tell an end from an accident, unless it is to
// look like one. A client that has said nothing yet costs a server no memory of OpenSSL's.

import NIOCore

public final class TLSHandler: ChannelDuplexHandler {
  public typealias InboundIn = ByteBuffer
  public typealias InboundOut = ByteBuffer
  public typealias OutboundIn = ByteBuffer
  public typealias OutboundOut = ByteBuffer

  private enum Role {
    case server(ServerTLSContext, timeout: TimeAmount)
    case client(ClientTLSContext, TLSTarget, protocols: [String])
  }

  private enum State {
    case silent, shaking, open, refused, ended
  }

  /// What a client has for its handshake, unless a server is told otherwise.
  public static let handshakeTimeout = TimeAmount.seconds(10)
  /// What a client that doesn't speak TLS has for reading why it is refused.
  static let refusalTimeout = TimeAmount.seconds(2)
  /// Plain bytes that wait for a flush at most: some records' worth.
  static let eagerBytes = 4 * TLSSession.recordBytes
  /// How long a connection that ends waits at most until its closing alert is on its way.
  static let goodbyeTimeout = TimeAmount.seconds(2)
  /// The first byte of every handshake, and of every record that may come during one (RFC 8446 §5.1).
  private static let handshakeRecord: UInt8 = 22
  private static let records: ClosedRange<UInt8> = 20...23
  private static let plainAnswer: StaticString = """
    HTTP/1.1 400 Bad Request\r
    content-type: text/plain; charset=utf-8\r
    content-length: 47\r
    connection: close\r
    \r
    this port speaks TLS: begin the URL with https\n
    """

  private let role: Role
  private var onHandshake: ((TLSHandshakeResult) -> Void)?
  private var timer: Scheduled<Void>?
  private var session: TLSSession?
  private var state = State.silent
  /// Written, not yet encrypted.
  private var pending: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
  private(set) var pendingBytes = 0
  /// Something has come from the peer.
  private var hasHeard = false
  private var hasOutputEnded = false
  private var hasInputEnded = false
  /// The end is to look like an accident.
  private var isAborted = false
  /// Of answers to changes of keys, which wait for room in the socket.
  private var untakenAnswerBytes = 0
  private static let mostUntakenAnswerBytes = 64 * 1024

  /// The server's side.
  ///
  /// - Parameters:
  ///   - tls: of the same event loop's thread as the channel.
  ///   - timeout: until the handshake must be done.
  ///   - onHandshake: called once, if the client sends anything.
  public init(
    _ tls: ServerTLSContext, timeout: TimeAmount = TLSHandler.handshakeTimeout,
    onHandshake: @escaping (TLSHandshakeResult) -> Void = { _ in }
  ) {
    role = .server(tls, timeout: timeout)
    self.onHandshake = onHandshake
  }

  /// The client's side: begins when the channel is active, and leaves it to others how long they wait. A handshake that fails is
  /// a `TLSFailure` in the pipeline, and a connection that ends without the peer's closing alert a `TLSTruncation`. Reads nothing by
  /// itself.
  ///
  /// - Parameters:
  ///   - tls: of the same event loop's thread as the channel.
  ///   - target: whom the peer's certificate must be for.
  ///   - protocols: names for ALPN (RFC 7301), the preferred one first; empty: none are offered.
  ///   - onHandshake: called once, unless the connection is given up from here before.
  public init(
    _ tls: ClientTLSContext, to target: TLSTarget, protocols: [String] = [],
    onHandshake: @escaping (TLSHandshakeResult) -> Void = { _ in }
  ) {
    role = .client(tls, target, protocols: protocols)
    self.onHandshake = onHandshake
  }

  /// Records that were fed to the session and not read.
  var unreadRecordBytes: Int { session?.inputBytes ?? 0 }

  private var isClient: Bool { if case .client = role { true } else { false } }

  // MARK: Life

  public func handlerAdded(context: ChannelHandlerContext) {
    switch role {
    case .server(_, let timeout):
      setTimer(timeout, context) { [self] in
        if state == .shaking { report(.timedOut) }
        end(context)
      }
    case .client: if context.channel.isActive { call(context) }
    }
  }

  public func handlerRemoved(context: ChannelHandlerContext) { leave() }

  public func channelActive(context: ChannelHandlerContext) {
    context.fireChannelActive()
    if isClient, state == .silent { call(context) }
  }

  public func channelInactive(context: ChannelHandlerContext) {
    switch (state, isClient) {
    case (.shaking, false): report(.failed("the client went in the middle"))
    case (.shaking, true): fail(context, "the peer ended the connection in the middle")
    case (.open, true) where !hasInputEnded: context.fireErrorCaught(TLSTruncation())
    default: break
    }
    leave()
    context.fireChannelInactive()
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

  private func report(_ result: TLSHandshakeResult) {
    let onHandshake = self.onHandshake
    self.onHandshake = nil
    onHandshake?(result)
  }

  private func setTimer(_ time: TimeAmount, _ context: ChannelHandlerContext, _ body: @escaping () -> Void) {
    timer?.cancel()
    timer = context.eventLoop.assumeIsolated().scheduleTask(in: time, body)
  }

  private func end(_ context: ChannelHandlerContext) {
    guard state != .ended else { return }
    close(context: context, mode: .all, promise: nil)
  }

  // MARK: Handshake

  /// A server has heard its client's first bytes.
  private func answerCall(_ tls: ServerTLSContext, _ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
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

  private func call(_ context: ChannelHandlerContext) {
    guard case .client(let tls, let target, let protocols) = role else { return }
    state = .shaking
    guard
      let session = TLSSession(tls, to: target, protocols: protocols, allocator: context.channel.allocator)
    else {
      fail(context, "'\(target.host)' is no name that a certificate can be for")
      return end(context)
    }
    self.session = session
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
      isAborted = true
      fail(context, reason, session.refusedCertificate)
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

  /// The handshake has failed. What a peer's certificate says is told to who counts handshakes, and to nobody else.
  private func fail(_ context: ChannelHandlerContext, _ reason: String, _ detail: String? = nil) {
    report(.failed(detail.map { "\(reason) (\($0))" } ?? reason))
    if isClient { context.fireErrorCaught(TLSFailure(description: reason)) }
  }

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

  // MARK: In

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let bytes = unwrapInboundIn(data)
    switch state {
    case .silent:
      if case .server(let tls, _) = role { answerCall(tls, bytes, context) }
    case .shaking:
      if isClient, !hasHeard, let first = bytes.readableBytesView.first, !Self.records.contains(first) {
        fail(context, "the peer doesn't speak TLS")
        return end(context)
      }
      hasHeard = true
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
      hasInputEnded = true
      // Cut off or merely impolite: what a request's end is, HTTP knows by itself. An answer's may be nothing but this.
      if isClient { context.fireErrorCaught(TLSTruncation()) }
      context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    case .open: break
    case .silent, .shaking, .refused, .ended: end(context)
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

  // MARK: Out

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

  private func failPending(_ error: any Error) {
    let writes = pending
    pending = []
    pendingBytes = 0
    for write in writes { write.promise?.fail(error) }
  }

  // MARK: Ends

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

  /// Whether the peer hasn't taken what was written: an alert behind that would come too late, as the rest does.
  private func isBehind(_ context: ChannelHandlerContext) -> Bool {
    let untaken = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
    return untaken ?? 0 > 0
  }

  private func sayGoodbye(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
    hasOutputEnded = true
    session?.shutdown()
    context.writeAndFlush(wrapOutboundOut(session?.takeOutput() ?? ByteBuffer()), promise: promise)
  }
}

/// Inbound user event: the handshake is done, plain bytes follow.
public struct TLSEstablished: Equatable, Sendable {
  /// The protocol that was agreed on; nil: the client doesn't ask for one, or the server chooses none.
  public let alpn: String?
  /// The name that the client wants to reach; nil: it doesn't say.
  public let serverName: String?
}

/// Outbound user event: the connection's next end is to look like an accident to the peer. No closing alert will be sent.
public struct TLSAbort: Sendable {
  public init() {}
}

/// A server's connection has ended without its closing alert: whether that was all can't be told. The end itself follows.
public struct TLSTruncation: Error, Equatable, CustomStringConvertible {
  public let description = "the connection ended without TLS's farewell"

  init() {}
}

/// How a handshake ended.
public enum TLSHandshakeResult: Equatable, Sendable {
  case done
  /// With a ticket: no signature was made.
  case resumed
  /// In OpenSSL's words, with what a certificate says that isn't believed; also when the peer went in the middle.
  case failed(String)
  case timedOut
  /// The client doesn't speak TLS.
  case notTLS
}

/// The peer broke TLS, or a client's handshake has failed; says nothing of what stands in certificates.
public struct TLSFailure: Error, Equatable, CustomStringConvertible {
  public let description: String
}
