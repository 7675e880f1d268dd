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

  /// Towards the service.
  private enum Service {
    case open(isToldEnd: Bool)
    /// It has ended its side: it is told nothing more, and says nothing more.
    case ended
    /// The tunnel was cut off, or ended by its client.
    case gone
  }

  /// Towards the client.
  private enum Client {
    /// There is no channel yet; what came from the service until then, at most a window.
    case coming([ByteBuffer])
    case here(Channel, Output)
    case gone
  }

  /// Our side of the client's connection: ends behind what waits to be written, and has ended.
  private enum Output {
    case open, ending, ended
  }

  /// The client's side of its connection.
  private enum Input {
    case idle, reading, ended
  }

  private let exchanges: ExchangeClient
  private let account: RequestAccount
  /// Taken as long as there is anything of the tunnel, be it only what its client hasn't taken yet.
  private let key: ExchangeClient.Key
  private var service = Service.open(isToldEnd: false)
  private var client = Client.coming([])
  private var input = Input.idle
  /// From the client, until there is credit.
  private var unsent = CircularBuffer<ByteBuffer>(initialCapacity: 0)
  private var credit = CreditToSend(0)
  /// Of what comes from the service.
  private var given = CreditGiven(CreditWindow.bytes)

  init(_ key: ExchangeClient.Key, _ exchanges: ExchangeClient, _ account: RequestAccount) {
    self.key = key
    self.exchanges = exchanges
    self.account = account
  }

  private var isServiceOpen: Bool { if case .open = service { true } else { false } }
  private var channel: Channel? { if case .here(let channel, _) = client { channel } else { nil } }
  private var output: Output? { if case .here(_, let output) = client { output } else { nil } }

  // MARK: From the client

  /// The channel has left HTTP; the answer 101 has been written.
  func attach(_ channel: Channel) {
    guard case .coming(let early) = client, channel.isActive else {
      channel.close(promise: nil)
      return clientGone()
    }
    client = .here(channel, .open)
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
    for bytes in early { write(bytes) }
    giveCredit()
    if isServiceOpen { sendOn() } else { endClient() }
  }

  /// nil: the channel is a stream of HTTP/2, which has no socket and traps when it is asked for options that it doesn't know.
  private func socketOptions(of channel: Channel) -> (any NIOSynchronousChannelOptions)? {
    channel.parent == nil ? channel.syncOptions : nil
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    notReading()
    guard isServiceOpen else { return }
    var bytes = unwrapInboundIn(data)
    account.received(bytes.readableBytes)
    while let piece = bytes.readSlice(length: min(bytes.readableBytes, CreditWindow.pieceBytes)),
      piece.readableBytes > 0
    {
      unsent.append(piece)
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    notReading()
    sendOn()
  }

  private func notReading() { if input == .reading { input = .idle } }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? ChannelEvent, event == .inputClosed else { return }
    input = .ended
    if output == .ended { context.close(promise: nil) } else { sendOn() }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) { giveCredit() }

  func channelInactive(context: ChannelHandlerContext) { clientGone() }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  /// There is no client any more, or never was.
  func clientGone() {
    if isServiceOpen { _ = exchanges.send(.cancel, key) }
    let isComplete = if case .ended = service { output == .ended } else { false }
    over(isComplete: isComplete)
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
    guard case .open(let isToldEnd) = service, let channel else { return }
    while credit.isOpen, let piece = unsent.first {
      guard !exchanges.isStalled(key) else { return }
      unsent.removeFirst()
      credit.sent(piece.readableBytes)
      guard exchanges.send(piece, key) else { return fail() }
    }
    guard unsent.isEmpty else { return }
    switch input {
    case .ended where !isToldEnd:
      service = .open(isToldEnd: true)
      if !exchanges.send(.end(trailers: []), key) { fail() }
    case .idle where credit.isOpen:
      input = .reading
      channel.read()
    case .ended, .idle, .reading: break
    }
  }

  // MARK: From the service

  private func received(_ bytes: ByteBuffer) {
    account.sent(bytes.readableBytes)
    given.received(bytes.readableBytes)
    if case .coming(let early) = client { client = .coming(early + [bytes]) } else { write(bytes) }
    giveCredit()
  }

  func received(_ message: ServiceMessage) {
    // That its proxy worker has ended is nothing to a client that still takes what was sent.
    guard isServiceOpen else { return }
    switch message {
    case .credit(let bytes):
      credit.received(bytes)
      sendOn()
    case .body(let bytes): received(bytes)
    case .end:
      service = .ended
      unsent.removeAll()
      endClient()
    case .failed, .limited, .informed, .answered, .responded, .upgraded: fail()
    }
  }

  private func write(_ bytes: ByteBuffer) { channel?.writeAndFlush(bytes, promise: nil) }

  /// Only what the client has taken is credited.
  private func giveCredit() {
    guard isServiceOpen, channel?.isWritable == true, let bytes = given.give() else { return }
    if !exchanges.send(.credit(bytes), key) { fail() }
  }

  // MARK: Ends

  /// Ends our side behind all that was written.
  private func endClient() {
    guard case .here(let channel, .open) = client else { return }
    client = .here(channel, .ending)
    // What the client still sends is read and dropped: closed on top of it, the connection would be reset, and what the client
    // hasn't read yet would be lost.
    try? channel.syncOptions?.setOption(.autoRead, value: true)
    endIfStalled(channel, untaken: Int.max)
    let ended = channel.eventLoop.makePromise(of: Void.self)
    ended.futureResult.assumeIsolated().whenComplete { result in
      if case .success = result { self.outputEnded(channel) } else { channel.close(promise: nil) }
    }
    if input == .ended, socketOptions(of: channel) != nil {
      channel.writeAndFlush(ByteBuffer(), promise: ended)
    } else {
      channel.close(mode: .output, promise: ended)
    }
  }

  private func endIfStalled(_ channel: Channel, untaken: Int) {
    guard channel.isActive, output == .ending else { return }
    let left = (try? socketOptions(of: channel)?.getOption(.bufferedWritableBytes)) ?? 0
    guard left < untaken else { return channel.close(promise: nil) }
    channel.eventLoop.assumeIsolated().scheduleTask(in: Self.stallTime) {
      self.endIfStalled(channel, untaken: left)
    }
  }

  private func outputEnded(_ channel: Channel) {
    if case .here = client { client = .here(channel, .ended) }
    guard input != .ended else { return channel.close(promise: nil) }
    channel.eventLoop.assumeIsolated().scheduleTask(in: Self.lingerTime) { channel.close(promise: nil) }
  }

  private func fail() {
    if isServiceOpen { _ = exchanges.send(.cancel, key) }
    let channel = channel
    over(isComplete: false)
    channel?.close(promise: nil)
  }

  private func over(isComplete: Bool) {
    service = .gone
    client = .gone
    unsent.removeAll()
    exchanges.end(key)
    account.finish(.ok, status: Self.switchingProtocols, isComplete: isComplete)
  }
}
