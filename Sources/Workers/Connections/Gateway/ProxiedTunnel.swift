// An exchange that has become a tunnel, from its client's side: bytes both ways, neither faster than the other end takes them. No time
// passes here: a tunnel may be quiet for days, and the kernel finds clients that have died.
//
//   client ── channelRead ─▶ unsent ── as far as there is credit ─▶ proxy worker ─▶ service
//   client ◀── write ◀──────────────── credit goes back as the client takes it ◀── service
//
//   client ends its side     what it had sent, then `end`: the service may still speak
//   service ends             what it had sent, then our side ends, and the client has a moment to end its own; the request is over, and
//                            needs nothing to authorise it any more, only when the client's connection has ended
//   anything goes wrong      the connection is closed
//
// What is read and not sent is at most one piece, unless the client has ended its side: NIO reads all that the kernel has then.

import Glibc
import HTTP
import Kit
import Links
import NIOCore

/// Belongs to the worker's loop.
final class ProxiedTunnel: ChannelInboundHandler, ExchangeReceiver {
  typealias InboundIn = ByteBuffer

  /// How long a client has to end its side when the service has ended.
  private static let lingerTime = TimeAmount.seconds(5)
  /// When the service has ended, a client that takes nothing of what waits for it between two looks is gone.
  private static let stallTime = TimeAmount.seconds(75)
  /// Read buffers grow and shrink between these with what comes.
  private static let readBytes = (minimum: 1 << 10, initial: 2 << 10, maximum: CreditWindow.pieceBytes)
  private static let switchingProtocols = 101

  private let exchanges: ProxyExchanges
  private let account: RequestAccount
  /// Taken as long as there is anything of the tunnel, be it only what its client hasn't taken yet.
  private let place: ProxyExchanges.Key
  /// nil: the service is told nothing more, and says nothing more.
  private var key: ProxyExchanges.Key?
  private var channel: Channel?
  /// From the service, until there is a channel; at most a window.
  private var early: [ByteBuffer] = []
  /// From the client, until there is credit.
  private var unsent = CircularBuffer<ByteBuffer>(initialCapacity: 0)
  private var credit = CreditToSend(0)
  /// Of what comes from the service.
  private var given = CreditGiven(CreditWindow.bytes)
  private var hasClientEnded = false
  private var hasToldEnd = false
  private var hasServiceEnded = false
  /// Nothing goes either way any more.
  private var isBroken = false
  /// Our side of the client's connection ends behind what waits to be written, and has ended.
  private var isEnding = false
  private var hasOutputEnded = false
  private var isReading = false

  init(_ key: ProxyExchanges.Key, _ exchanges: ProxyExchanges, _ account: RequestAccount) {
    place = key
    self.key = key
    self.exchanges = exchanges
    self.account = account
  }

  // MARK: From the client

  /// The channel has left HTTP; the answer 101 has been written.
  func attach(_ channel: Channel) {
    guard channel.isActive, !isBroken else {
      channel.close(promise: nil)
      return clientGone()
    }
    self.channel = channel
    try? channel.syncOptions?.setOption(.autoRead, value: false)
    if let options = socketOptions(of: channel) {
      try? options.setOption(.allowRemoteHalfClosure, value: true)
      try? options.setOption(
        .recvAllocator,
        value: AdaptiveRecvByteBufferAllocator(
          minimum: Self.readBytes.minimum, initial: Self.readBytes.initial, maximum: Self.readBytes.maximum))
    }
    DeadPeers.find(on: channel)
    do {
      try channel.pipeline.syncOperations.addHandler(self)
    } catch {
      channel.close(promise: nil)
      return clientGone()
    }
    let all = early
    early = []
    for bytes in all { write(bytes) }
    giveCredit()
    if hasServiceEnded { endClient() } else { sendOn() }
  }

  /// nil: the channel is a stream of HTTP/2, which has no socket and traps when it is asked for options that it doesn't know.
  private func socketOptions(of channel: Channel) -> (any NIOSynchronousChannelOptions)? {
    channel.parent == nil ? channel.syncOptions : nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    isReading = false
    guard key != nil else { return }
    var bytes = unwrapInboundIn(data)
    account.received(bytes.readableBytes)
    while let piece = bytes.readSlice(length: min(bytes.readableBytes, CreditWindow.pieceBytes)),
      piece.readableBytes > 0
    {
      unsent.append(piece)
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    isReading = false
    sendOn()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? ChannelEvent, event == .inputClosed else { return }
    hasClientEnded = true
    if hasOutputEnded { context.close(promise: nil) } else { sendOn() }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) { giveCredit() }

  func channelInactive(context: ChannelHandlerContext) { clientGone() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  /// There is no client any more, or never was.
  func clientGone() {
    if let key { _ = exchanges.send(.cancel, key) }
    over(isComplete: hasServiceEnded && hasOutputEnded)
    channel = nil
  }

  /// What has authorised the tunnel has ended: both sides are cut off, and what waits to be sent is dropped.
  func breakOff() {
    if let socket = channel as? any SocketOptionProvider {
      _ = socket.setSoLinger(Glibc.linger(l_onoff: 1, l_linger: 0))
    }
    fail()
  }

  func ringHasRoom() { sendOn() }

  /// Sends what may be sent, then its end, or reads more.
  private func sendOn() {
    guard let key, let channel else { return }
    while credit.isOpen, let piece = unsent.first {
      guard !exchanges.isStalled(key) else { return }
      unsent.removeFirst()
      credit.sent(piece.readableBytes)
      guard exchanges.send(piece, key) else { return fail() }
    }
    guard unsent.isEmpty else { return }
    if hasClientEnded {
      endService(key)
    } else if credit.isOpen, !isReading {
      isReading = true
      channel.read()
    }
  }

  // MARK: From the service

  func received(fromService bytes: ByteBuffer) {
    guard key != nil else { return }
    account.sent(bytes.readableBytes)
    given.received(bytes.readableBytes)
    if channel == nil { early.append(bytes) } else { write(bytes) }
    giveCredit()
  }

  func received(_ message: ExchangeMessage) {
    // That its proxy worker has ended is nothing to a client that still takes what was sent.
    guard key != nil else { return }
    switch message {
    case .credit(let bytes):
      credit.received(bytes)
      sendOn()
    case .end:
      hasServiceEnded = true
      serviceGone()
      if channel != nil { endClient() }
    case .failed, .limited, .admitted, .informed, .answered, .upgraded: fail()
    case .open, .cancel, .count: break
    }
  }

  private func write(_ bytes: ByteBuffer) { channel?.writeAndFlush(bytes, promise: nil) }

  /// Only what the client has taken is credited.
  private func giveCredit() {
    guard let key, channel?.isWritable == true, let bytes = given.give() else { return }
    if !exchanges.send(.credit(bytes), key) { fail() }
  }

  // MARK: Ends

  private func endService(_ key: ProxyExchanges.Key) {
    guard !hasToldEnd else { return }
    hasToldEnd = true
    if !exchanges.send(.end(trailers: []), key) { fail() }
  }

  /// Ends our side behind all that was written.
  private func endClient() {
    guard let channel, !isEnding else { return }
    isEnding = true
    // What the client still sends is read and dropped: closed on top of it, the connection would be reset, and what the client
    // hasn't read yet would be lost.
    try? channel.syncOptions?.setOption(.autoRead, value: true)
    endIfStalled(channel, untaken: Int.max)
    let ended = channel.eventLoop.makePromise(of: Void.self)
    ended.futureResult.assumeIsolated().whenComplete { result in
      if case .success = result { self.outputEnded(channel) } else { channel.close(promise: nil) }
    }
    if hasClientEnded, socketOptions(of: channel) != nil {
      channel.writeAndFlush(ByteBuffer(), promise: ended)
    } else {
      channel.close(mode: .output, promise: ended)
    }
  }

  private func endIfStalled(_ channel: Channel, untaken: Int) {
    guard channel.isActive, !hasOutputEnded else { return }
    let left = (try? socketOptions(of: channel)?.getOption(.bufferedWritableBytes)) ?? 0
    guard left < untaken else { return channel.close(promise: nil) }
    channel.eventLoop.assumeIsolated().scheduleTask(in: Self.stallTime) {
      self.endIfStalled(channel, untaken: left)
    }
  }

  private func outputEnded(_ channel: Channel) {
    hasOutputEnded = true
    guard !hasClientEnded else { return channel.close(promise: nil) }
    channel.eventLoop.assumeIsolated().scheduleTask(in: Self.lingerTime) { channel.close(promise: nil) }
  }

  private func fail() {
    if let key { _ = exchanges.send(.cancel, key) }
    over(isComplete: false)
    channel?.close(promise: nil)
  }

  private func serviceGone() {
    key = nil
    unsent.removeAll()
  }

  private func over(isComplete: Bool) {
    isBroken = true
    early = []
    serviceGone()
    exchanges.end(place)
    account.finish(.ok, status: Self.switchingProtocols, isComplete: isComplete)
  }
}
