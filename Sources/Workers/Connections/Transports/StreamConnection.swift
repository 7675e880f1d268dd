// A connection that is a byte stream on a socket of this worker: the last handler of a channel whose HTTP handlers have
// gone.
//
//   open ──────────► closing: farewell behind what waits ──► output closed ──► inactive
//                       └───────────── at most `lingerSeconds` ─────────────────┘
//
// Ending in this order lets the client read everything, the reason included, before the connection is gone. A client
// that doesn't go along is cut off.

import Glibc
import Kit
import NIOCore

class StreamConnection: Connection, ChannelInboundHandler, OutletOwner {
  typealias InboundIn = ByteBuffer

  /// How long a client has to read the farewell and to go.
  static let lingerSeconds: UInt32 = 5
  /// Past what waits here, or half of the bound on unsent bytes, no more of the past is sent: live events still fit behind.
  private static let congestionBytes = 256 << 10
  /// Bytes of the past that go out together.
  private static let gatheredBytes = 32 << 10

  let channel: Channel
  let outlet: Outlet
  private let congestionBytes: Int
  /// Events of the past that go out together; nil: whatever is sent goes out at once.
  private var gathered: [UInt8]?
  /// Whether it is looked at what waits here, once per second.
  var isWatched = false

  init(
    index: ConnectionIndex, serial: UInt64, _ connections: OpenConnections, channel: Channel, descriptor: CInt
  ) {
    self.channel = channel
    outlet = Outlet(channel: channel, descriptor: descriptor, limitBytes: connections.maxUnsentBytes)
    congestionBytes = min(Self.congestionBytes, connections.maxUnsentBytes / 2)
    super.init(index: index, serial: serial, connections)
    outlet.owner = self
  }

  override var isCongested: Bool { outlet.waitingBytes + (gathered?.count ?? 0) > congestionBytes }

  override var mayBeat: Bool { isOpen && outlet.isIdle }

  // MARK: Sending

  /// How its events are encoded.
  final var encoding: EventEncoding { connections.table.transports[Int(index)].encoding ?? .serverSentEvents }

  override func say(_ event: OwnEvent) {
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(event)
    send(buffer.bytes, hasCursor: event.cursor != nil)
  }

  override func send(replayed event: EventRecord, cursor: Cursor) {
    var buffer = TurnBuffer(encoding: encoding)
    _ = buffer.append(event, cursor: cursor)
    send(buffer.bytes)
  }

  /// Sends a whole piece: an event, a frame.
  ///
  /// - Parameter hasCursor: whether it tells a client that resumes where it stands. What doesn't puts off no heartbeat, which does.
  final func send(_ bytes: [UInt8], hasCursor: Bool = true) {
    guard isOpen else { return }
    if gathered != nil {
      gather(bytes)
    } else {
      send(bytes, isInRing: false, hasCursor: hasCursor)
    }
  }

  private func send(_ bytes: [UInt8], isInRing: Bool, hasCursor: Bool = true) {
    outlet.send(bytes, isInRing: isInRing)
    if hasCursor || !encoding.hasCursors { connections.table.lastTraffic[Int(index)] = connections.clock.second }
    outletDidChange()
  }

  override final func sendTogether(_ replay: () -> Void) {
    gathered = []
    replay()
    let rest = gathered ?? []
    gathered = nil
    if !rest.isEmpty, isOpen { send(rest, isInRing: true) }
  }

  private func gather(_ bytes: [UInt8]) {
    gathered?.append(contentsOf: bytes)
    guard let whole = gathered, whole.count >= Self.gatheredBytes else { return }
    gathered = []
    send(whole, isInRing: true)
  }

  /// Something was given to the outlet: lets the delivery loop send directly or not. A client that doesn't keep up gets events at
  /// its own pace from then on; one that doesn't take what it asked for is ended.
  final func outletDidChange() {
    guard isOpen else { return }
    connections.table.descriptors[Int(index)] = outlet.directDescriptor
    if outlet.isWaiting { connections.watch(self) }
    if outlet.isOverfullOfAnswers {
      connections.close(self, .slowConsumer)
    } else if outlet.isOverfull {
      connections.fallBehind(self)
    }
  }

  /// What a delivery couldn't send directly is in the outlet now.
  final func deliveryWasKept() {
    outlet.resume()
    // Over TLS everything comes this way, and nothing waits unless the client is slow.
    if outlet.waitingBytes == 0 { connections.table.lastTraffic[Int(index)] = connections.clock.second }
    outletDidChange()
  }

  final func outletDidDrain() {
    if isOpen { connections.table.lastTraffic[Int(index)] = connections.clock.second }
    outletDidChange()
    connections.resume(self)
  }

  func outletDidFinish() {
    closeOutput()
  }

  // MARK: Ending

  /// Sends the last bytes and then ends the connection.
  final func finish(with farewell: [UInt8], dropping: Bool) {
    connections.table.deadlines[Int(index)] = connections.clock.second + Self.lingerSeconds
    outlet.finish(with: farewell, dropping: dropping)
  }

  /// Nothing more will be sent: the client sees the end of the stream.
  final func closeOutput() {
    channel.close(mode: .output, promise: nil)
  }

  override func deadlinePassed(second: UInt32) {
    channel.close(promise: nil)
  }

  /// The client sends no more. A socket's channel closes by itself then; a stream of HTTP/2 leaves that to its owner.
  func inputEnded() {
    channel.close(promise: nil)
  }

  private var isOpen: Bool { connections.isOpen(self) }

  // MARK: Channel

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let event = event as? ChannelEvent, event == .inputClosed {
      inputEnded()
    } else {
      context.fireUserInboundEventTriggered(event)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    outlet.close()
    connections.closed(self)
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}

/// Socket options of a stream, set when it is taken over from HTTP.
enum StreamOptions {
  /// Unsent bytes that the kernel takes: what waits beyond is counted here, where the slow-consumer bound is.
  private static let notSentLowWaterBytes: CInt = 128 << 10

  /// - Parameter userTimeoutSeconds: after so long without any acknowledgement the peer is gone: half-open connections end though
  ///   nobody closes them.
  static func apply(to descriptor: CInt, userTimeoutSeconds: Int) {
    set(descriptor, TCP_NODELAY, 1)
    set(descriptor, TCP_NOTSENT_LOWAT, notSentLowWaterBytes)
    set(descriptor, TCP_USER_TIMEOUT, CInt(clamping: userTimeoutSeconds * 1000))
  }

  /// Failure is no reason to refuse a connection: sockets of tests aren't TCP.
  private static func set(_ descriptor: CInt, _ option: CInt, _ value: CInt) {
    var value = value
    setsockopt(descriptor, CInt(IPPROTO_TCP), option, &value, socklen_t(MemoryLayout<CInt>.size))
  }
}
