// An attempt to connect for one exchange: name, TCP, and for https the handshake with the certificate and the name checked, in which the
// upstream chooses between HTTP/2 and HTTP/1.1, unless the request must go by the latter.
//
//   http    TCP ─────────────▶ HTTP/1.1
//   https   TCP ─▶ handshake ┬▶ HTTP/1.1
//                            └▶ HTTP/2
//
// It may be given up at any time, and is there until what it began has ended. Reports once.

import Kit
import NIOCore
import NIOPosix
import TLS

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamAttempt: TableMember, @unchecked Sendable {
  enum Outcome {
    /// The exchange that it was made for goes first. Whoever is told puts its handlers into the channel before it returns, so that
    /// nothing that came with the end of the handshake is missed.
    case http1(Channel, UpstreamExchange)
    case http2(Channel, UpstreamExchange)
    /// It was given up, or the exchange has been told why there is no connection.
    case nothing
  }

  private enum State {
    /// `channels`: to each address that is tried.
    case wanted(UpstreamExchange, channels: [Channel])
    case givenUp
  }

  /// Receive buffers grow and shrink between these with what comes.
  /// At most a whole credit window: what wakes this worker up, and whoever gets the piece, costs more than the read.
  private static let receiveBytes = (minimum: 1 << 10, initial: 4 << 10, maximum: 256 << 10)

  let pool: UpstreamPool
  /// The upstream may choose HTTP/2.
  let offersHTTP2: Bool
  /// The client's.
  var tableIndex = -1
  private let sinceNs: UInt64
  private var state: State
  private var report: ((Outcome) -> Void)?

  init(for exchange: UpstreamExchange, _ pool: UpstreamPool, nowNs: UInt64) {
    self.pool = pool
    offersHTTP2 = exchange.http2Head != nil
    sinceNs = nowNs
    state = .wanted(exchange, channels: [])
  }

  var isWanted: Bool { if case .wanted = state { true } else { false } }

  /// Whether the connection may turn out to be one that many exchanges share.
  var isForming: Bool { offersHTTP2 && isWanted }

  /// Its exchange has gone.
  func giveUp() {
    guard case .wanted(_, let channels) = state else { return }
    state = .givenUp
    for channel in channels { channel.close(promise: nil) }
  }

  func fail(_ reason: UpstreamFailure.Reason) {
    guard case .wanted(let exchange, _) = state else { return }
    giveUp()
    exchange.failed(reason)
  }

  /// Fails if it has lasted longer than that.
  func sweep(nowNs: UInt64, timeoutNs: UInt64) {
    if nowNs >= sinceNs + timeoutNs { fail(.connectTimeout) }
  }

  /// Begins, unless it has been given up.
  func begin(
    on loop: EventLoop, _ tls: UpstreamTLS, timeoutNs: UInt64, _ report: @escaping (Outcome) -> Void
  ) {
    self.report = report
    let origin = pool.origin
    guard isWanted else { return end() }
    guard (1...65535).contains(origin.port), !origin.host.isEmpty else {
      return end(.unreachable("\(origin) is no address"))
    }
    let bootstrap = bootstrap(loop, tls, timeoutNs)
    let future =
      if let address = origin.literalAddress {
        bootstrap.connect(to: address)
      } else {
        bootstrap.connect(host: origin.host, port: origin.port)
      }
    future.assumeIsolated().whenComplete { self.connected($0) }
  }

  private func connected(_ result: Result<Channel, any Error>) {
    switch result {
    case .failure(let error): end(Self.reason(error))
    case .success(let channel):
      guard pool.origin.scheme == .https else { return end(channel, isHTTP2: false) }
      guard let choice = try? channel.pipeline.syncOperations.handler(type: ProtocolChoice.self) else {
        return end(.unreachable("the connection ended at once"))
      }
      choice.whenMade { outcome in
        switch outcome {
        case .http1: self.end(channel, isHTTP2: false)
        case .http2: self.end(channel, isHTTP2: true)
        case .failed(let error): self.end(.unreachable("TLS handshake failed: \(error)"))
        }
      }
      if !isWanted { channel.close(promise: nil) }
    }
  }

  private func end(_ channel: Channel, isHTTP2: Bool) {
    guard case .wanted(let exchange, _) = state else {
      channel.close(promise: nil)
      return end()
    }
    state = .givenUp
    end(isHTTP2 ? .http2(channel, exchange) : .http1(channel, exchange))
  }

  private func end(_ reason: UpstreamFailure.Reason) {
    let exchange: UpstreamExchange? = if case .wanted(let exchange, _) = state { exchange } else { nil }
    state = .givenUp
    end()
    exchange?.failed(reason)
  }

  private func end(_ outcome: Outcome = .nothing) {
    let report = report
    self.report = nil
    report?(outcome)
  }

  private func bootstrap(_ loop: EventLoop, _ tls: UpstreamTLS, _ timeoutNs: UInt64) -> ClientBootstrap {
    ClientBootstrap(group: loop)
      .connectTimeout(.nanoseconds(Int64(clamping: timeoutNs)))
      .channelOption(.autoRead, value: false)
      .channelOption(.maxMessagesPerRead, value: 1)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelOption(
        .writeBufferWaterMark,
        value: .init(low: UpstreamConnection.lowWaterBytes, high: UpstreamConnection.highWaterBytes)
      )
      .channelOption(
        .recvAllocator,
        value: AdaptiveRecvByteBufferAllocator(
          minimum: Self.receiveBytes.minimum, initial: Self.receiveBytes.initial,
          maximum: Self.receiveBytes.maximum)
      )
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture { try self.prepare(channel, tls) }
      }
  }

  private func prepare(_ channel: Channel, _ tls: UpstreamTLS) throws {
    guard case .wanted(let exchange, let channels) = state else { throw ChannelError.ioOnClosedChannel }
    state = .wanted(exchange, channels: channels + [channel])
    guard pool.origin.scheme == .https else { return }
    let protocols = offersHTTP2 ? [ProtocolChoice.http2, ProtocolChoice.http1] : [ProtocolChoice.http1]
    try channel.pipeline.syncOperations.addHandlers([
      tls.handler(to: pool.origin, protocols: protocols), ProtocolChoice(),
    ])
  }

  private static func reason(_ error: any Error) -> UpstreamFailure.Reason {
    if case .connectTimeout? = error as? ChannelError { return .connectTimeout }
    if let failure = error as? NIOConnectionError, failure.dnsAError == nil || failure.dnsAAAAError == nil,
      let last = failure.connectionErrors.last
    {
      if case .connectTimeout? = last.error as? ChannelError { return .connectTimeout }
      return .unreachable("\(last.error)")
    }
    return .unreachable("\(error)")
  }
}

/// Waits for the end of a TLS handshake and says which protocol the upstream has chosen (ALPN, RFC 7301). Reads for itself, as nobody
/// else does yet.
private final class ProtocolChoice: ChannelInboundHandler {
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
