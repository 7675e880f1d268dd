// One connection to an upstream, last handler of its pipeline; one pipeline serves many exchanges. HTTP/1.1: where an upstream behind
// TLS chooses HTTP/2, it is only the attempt to connect, and an UpstreamSession takes the channel.
//
//   connecting ──▶ busy(exchange) ◀──▶ idle                    (https: [TLSHandler][this])
//        └──────────────┴───────────────┴──▶ closing ──▶ gone
//
//   in:  bytes ──▶ input ──AnswerParser──▶ exchange, one piece for each `readMore`
//   out: head and body ──▶ output ──▶ flushed at the end of the turn, or when the request has ended
//
// Reads are asked for one by one (auto read is off), except that a peer that closes is read to its end by NIO, which is at
// most what the kernel held. An idle connection has a read outstanding: any byte that nobody asked for closes it. Goes back
// to the pool only when nothing is left over on either side. A connection that is gone may still hold the rest of an answer.
//
// This file: state and channel events. +Request: what goes out. +Answer: what comes in.

import NIOCore
import NIOHTTP1
import TLS

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamConnection: ChannelInboundHandler, UpstreamTransport, @unchecked Sendable {
  typealias InboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  enum Phase {
    case connecting, idle, busy, closing, gone
  }

  /// Bytes that wait to be sent: above the first a writer is told to wait, below the second to go on.
  static let highWaterBytes = 256 << 10
  static let lowWaterBytes = 64 << 10

  let client: UpstreamClient
  let pool: UpstreamPool
  /// Position in the client's table; the client's.
  var tableIndex = -1
  var phase = Phase.connecting
  var current: UpstreamExchange?
  var context: ChannelHandlerContext?
  private var look: SocketLook?
  /// Channels that are being connected, until one is.
  var candidates: [Channel] = []
  let sinceNs: UInt64
  var idleSinceNs: UInt64 = 0
  /// Whether it counts among the connections of its origin.
  var isPooled = true
  /// Exchanges that have begun here.
  var exchanges = 0

  var parser: AnswerParser
  var input = ByteBuffer()
  var hasInputEnded = false
  /// TLS ended without saying so: an end of the input proves nothing.
  var isTruncated = false
  var lastError: (any Error)?
  var isPumping = false

  var output: ByteBuffer?
  var isScheduled = false
  var isWritable = true
  /// The exchange's tunnel has been ended by the caller.
  var hasOutputEnded = false
  /// Bytes that waited to be sent when the clock was last looked at.
  var unsentBytes = 0

  /// The upstream may choose HTTP/2; this is nothing but the attempt to connect then.
  let offersHTTP2: Bool
  private var isForming: Bool

  init(client: UpstreamClient, pool: UpstreamPool, offersHTTP2: Bool) {
    self.client = client
    self.pool = pool
    self.offersHTTP2 = offersHTTP2
    isForming = offersHTTP2
    if offersHTTP2 { pool.forming += 1 }
    sinceNs = client.nowNs()
    parser = AnswerParser(limits: client.limits, method: .GET, mayUpgrade: false)
  }

  var isTunnel: Bool { phase == .busy && parser.isTunnel }
  var isReused: Bool { exchanges > 1 }
  var mayRefuseUnheard: Bool { false }
  /// Whether the upstream has ended it, or sent what nobody asked for, and the loop hasn't come to it yet.
  var hasEndedUnseen: Bool {
    guard let channel = context?.channel, channel.isActive else { return true }
    let look = look ?? SocketLook(channel)
    self.look = look
    return look.hasEnded(mayHaveInput: pool.origin.scheme == .https)
  }

  // MARK: Life

  /// The channel is connected. Its handler is added by the connector.
  func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  func handlerRemoved(context: ChannelHandlerContext) { leave() }

  func channelInactive(context: ChannelHandlerContext) {
    hasInputEnded = true
    leave()
    pump()
    client.freed(pool)
    context.fireChannelInactive()
  }

  /// The attempt to connect has failed.
  func unreachable(_ reason: UpstreamFailure.Reason) {
    leave()
    take()?.failed(reason)
    client.freed(pool)
  }

  /// It is known what becomes of it: nobody needs to wait for a connection that it could share.
  func endForming() {
    guard isForming else { return }
    isForming = false
    pool.forming -= 1
  }

  /// The upstream has chosen HTTP/2: a session takes the channel, and the exchange.
  func giveWay() -> UpstreamExchange? {
    leave()
    return take()
  }

  /// It was given up before anything was done.
  func neverConnected() {
    leave()
    client.freed(pool)
  }

  /// Ends the connection, whatever it does.
  func close() {
    guard phase != .closing, phase != .gone else { return }
    if phase == .idle { client.removeIdle(self) }
    endForming()
    phase = .closing
    output = nil
    input = ByteBuffer()
    for channel in candidates { channel.close(promise: nil) }
    context?.close(promise: nil)
  }

  /// The caller has given its exchange up.
  func abandon() {
    current = nil
    close()
  }

  func fail(_ reason: UpstreamFailure.Reason) {
    let exchange = take()
    close()
    exchange?.failed(reason)
  }

  /// The exchange, which is no longer this connection's.
  func take() -> UpstreamExchange? {
    defer { current = nil }
    return current
  }

  private func leave() {
    guard phase != .gone else { return }
    if phase == .idle { client.removeIdle(self) }
    endForming()
    phase = .gone
    context = nil
    output = nil
    candidates = []
    client.remove(self)
  }

  // MARK: Channel events

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard phase == .busy, let current else {
      // Nobody has asked for this.
      if phase == .idle { close() }
      return
    }
    var bytes = unwrapInboundIn(data)
    guard bytes.readableBytes > 0 else { return }
    current.receivedBytes(at: client.nowNs())
    if input.readableBytes == 0 {
      input = bytes
    } else {
      input.discardReadBytes()
      input.writeBuffer(&bytes)
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if phase == .busy { pump() } else { context.read() }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    if isWritable, phase == .busy { current?.invite() }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if error is TLSTruncation {
      isTruncated = true
      return
    }
    lastError = error
    // NIO closes by itself after an error of the socket; TLS doesn't always.
    guard !(error is IOError), !(error is ChannelError) else { return }
    hasInputEnded = true
    pump()
    close()
  }

  // MARK: Time

  /// What has to be given up now?
  func sweep(nowNs: UInt64) {
    let limits = client.limits
    switch phase {
    case .connecting:
      if nowNs >= sinceNs + limits.connectTimeoutNs { fail(.connectTimeout) }
    case .idle:
      if nowNs >= idleSinceNs + limits.keepAliveNs { close() }
    case .busy:
      if let current { sweep(current, limits, nowNs: nowNs) }
    case .closing, .gone: break
    }
  }

  private func sweep(_ exchange: UpstreamExchange, _ limits: UpstreamLimits, nowNs: UInt64) {
    if parser.isTunnel { return }
    let unsent = queuedBytes
    if unsent < unsentBytes { exchange.moved(at: nowNs) }
    unsentBytes = unsent
    let silentNs = nowNs >= exchange.movedNs ? nowNs - exchange.movedNs : 0
    if !parser.isAwaitingHead {
      if exchange.isWanted, !exchange.mayBeSilent, silentNs >= limits.idleTimeoutNs { fail(.stalled) }
    } else if exchange.isRequestEnded || !isWritable {
      if silentNs >= limits.answerTimeoutNs { fail(.noAnswer) }
    } else if silentNs >= max(limits.idleTimeoutNs, limits.answerTimeoutNs) {
      // The body is late, which is the caller's doing, unless it waits for a 100 that never comes.
      fail(.noAnswer)
    }
  }

  /// Bytes that the channel hasn't got rid of.
  var queuedBytes: Int {
    (try? context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
  }
}
