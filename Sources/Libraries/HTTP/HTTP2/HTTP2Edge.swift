// Between a socket and NIO's HTTP/2 handler: gathers what many streams write into one system call, and keeps the end of a connection
// in order.
//
//   stream, stream, stream ──flush, flush, flush──▶ NIOHTTP2Handler ──▶ edge: one flush at the end of the turn ──▶ socket
//
// NIO's handler doesn't say whether an error has ended the connection or only a stream. It has ended the connection exactly if
// a GOAWAY with an error went out, which can be seen here.

import NIOCore

/// Towards services it only gathers.
public final class HTTP2Edge: ChannelDuplexHandler {
  public typealias InboundIn = ByteBuffer
  public typealias InboundOut = ByteBuffer
  public typealias OutboundIn = IOData
  public typealias OutboundOut = IOData

  /// Bytes that wait for the end of the turn; more are flushed at once.
  private static let gatheredBytes = 48 * 1024
  /// Types of frames, and where in a GOAWAY the type and the error code are (RFC 9113 §4.1, §6.8).
  private static let dataType: UInt8 = 0
  private static let goAwayType: UInt8 = 7
  private static let typeOffset = 3
  private static let errorOffset = 13

  /// Whether a GOAWAY with an error was written.
  public private(set) var hasWrittenError = false
  /// The next write is the payload of a DATA frame, which NIO writes apart from its head; all other frames come whole.
  private var isPayloadNext = false
  /// What still comes in is thrown away: the client has been told that nobody listens.
  var isDeaf = false
  private var context: ChannelHandlerContext?
  private var gathered = 0
  private var isScheduled = false
  private lazy var endOfTurn: () -> Void = { [weak self] in
    self?.isScheduled = false
    self?.flushNow()
  }

  public init() {}

  public func handlerAdded(context: ChannelHandlerContext) { self.context = context }

  public func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if !isDeaf { context.fireChannelRead(data) }
  }

  public func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    let bytes = unwrapOutboundIn(data)
    gathered += bytes.readableBytes
    if isPayloadNext {
      isPayloadNext = false
    } else if case .byteBuffer(let frame) = bytes {
      look(at: frame)
    }
    context.write(data, promise: promise)
  }

  public func flush(context: ChannelHandlerContext) {
    guard gathered < Self.gatheredBytes else { return flushNow() }
    guard !isScheduled else { return }
    isScheduled = true
    context.eventLoop.assumeIsolated().execute(endOfTurn)
  }

  public func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    flushNow()
    context.close(mode: mode, promise: promise)
  }

  /// Asks for no more streams by a GOAWAY that refuses none yet (RFC 9113 §6.8). NIO's handler would refuse those that the client
  /// began before it knew, so it isn't told.
  func announceEnd() {
    guard let context else { return }
    var frame = context.channel.allocator.buffer(capacity: Self.endAnnouncement.count)
    frame.writeBytes(Self.endAnnouncement)
    write(context: context, data: NIOAny(IOData.byteBuffer(frame)), promise: nil)
  }

  /// Length 8, GOAWAY, no flags, stream 0; the last of all possible streams, no error.
  private static let endAnnouncement: [UInt8] = [
    0, 0, 8, goAwayType, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0,
  ]

  private func flushNow() {
    gathered = 0
    context?.flush()
  }

  private func look(at frame: ByteBuffer) {
    let start = frame.readerIndex
    switch frame.getInteger(at: start + Self.typeOffset, as: UInt8.self) {
    case Self.dataType: isPayloadNext = true
    case Self.goAwayType:
      if frame.getInteger(at: start + Self.errorOffset, as: UInt32.self) != 0 { hasWrittenError = true }
    default: break
    }
  }
}
