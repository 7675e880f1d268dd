// An upstream that speaks HTTP/2 behind TLS: NIO's server, whose streams do what the test says.

import HTTP
import NIOCore
import NIOHPACK
import NIOHTTP1
import NIOHTTP2
import NIOPosix
import Synchronization
import TLS

@testable import Proxies

final class HTTP2Upstream: @unchecked Sendable {
  /// Called on the loop for everything that comes on a stream.
  typealias Serving = @Sendable (ServedStream, ServedStream.Event) -> Void

  private(set) var port = 0
  let connections = TLSUpstream.Counter()
  let streams = TLSUpstream.Counter()
  /// Streams that the client has reset.
  let resets = TLSUpstream.Counter()
  let http1Requests = TLSUpstream.Counter()
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  var loop: EventLoop { group.next() }
  // Touched on the loop only.
  var open: [ServedStream] = []
  var mostOpen = 0
  var seen: [ServedStream] = []
  let serve: Serving

  private init(_ serve: @escaping Serving) { self.serve = serve }

  /// - Parameter protocols: what it chooses from, its first choice first; without HTTP/2 it answers as HTTP/1.1.
  static func run(
    protocols: [String] = ["h2", "http/1.1"], maximumStreams: Int = 100, window: Int = 65_535,
    table: Int = 4096,
    serve: @escaping Serving = ServedStream.greet,
    _ body: (HTTP2Upstream) async throws -> Void
  ) async throws {
    let tls = ServedTLS(protocols: protocols)
    let upstream = HTTP2Upstream(serve)
    let listening = try await ServerBootstrap(group: upstream.group)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          upstream.connections.add()
          try channel.pipeline.syncOperations.addHandlers([
            try tls.handler(),
            Choosing(upstream, maximumStreams: maximumStreams, window: window, table: table),
          ])
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    upstream.port = listening.localAddress?.port ?? 0
    let result: Result<Void, any Error>
    do { result = .success(try await body(upstream)) } catch { result = .failure(error) }
    try await listening.close()
    try await upstream.group.shutdownGracefully()
    try result.get()
  }

  func onLoop<Value: Sendable>(_ body: @escaping @Sendable (HTTP2Upstream) -> Value) async throws -> Value {
    try await loop.submit { body(self) }.get()
  }

  func request(
    _ method: HTTPMethod = .GET, _ target: String = "/", body: UpstreamRequest.Body = .none,
    headers: HTTPFields = ["host": "u.test"]
  ) -> UpstreamRequest {
    UpstreamRequest(
      origin: UpstreamOrigin(scheme: .https, host: "localhost", port: port), method: method.rawValue,
      target: target,
      headers: headers, body: body)
  }

  /// Puts in what the handshake has chosen.
  private final class Choosing: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let upstream: HTTP2Upstream
    private let maximumStreams: Int
    private let window: Int
    private var isHTTP1 = false

    private let table: Int

    init(_ upstream: HTTP2Upstream, maximumStreams: Int, window: Int, table: Int) {
      self.table = table
      self.upstream = upstream
      self.maximumStreams = maximumStreams
      self.window = window
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
      guard let event = event as? TLSEstablished else { return }
      guard event.alpn == "h2" else {
        isHTTP1 = true
        return
      }
      var configuration = NIOHTTP2Handler.Configuration()
      configuration.connection.headerBlockValidation = .disabled
      configuration.connection.contentLengthValidation = .disabled
      configuration.connection.initialSettings = [
        HTTP2Setting(parameter: .maxConcurrentStreams, value: maximumStreams),
        HTTP2Setting(parameter: .initialWindowSize, value: window),
        HTTP2Setting(parameter: .headerTableSize, value: table),
      ]
      configuration.stream.targetWindowSize = window
      let upstream = upstream
      let frames = NIOHTTP2Handler(
        mode: .server, eventLoop: context.eventLoop, connectionConfiguration: configuration.connection,
        streamConfiguration: configuration.stream
      ) { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(ServedStream(upstream))
        }
      }
      try? context.pipeline.syncOperations.addHandlers([frames, Silent()])
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      guard isHTTP1 else { return context.fireChannelRead(data) }
      let text = String(buffer: unwrapInboundIn(data))
      guard text.contains("\r\n\r\n") else { return }
      upstream.http1Requests.add()
      let answer =
        text.lowercased().contains("upgrade: websocket")
        ? "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        : "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1"
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer)), promise: nil)
    }
  }

  private final class Silent: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame

    func errorCaught(context: ChannelHandlerContext, error: any Error) {}
  }
}

/// One stream as the upstream has it. Touched on the upstream's loop only.
final class ServedStream: ChannelInboundHandler, @unchecked Sendable {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  enum Event {
    case head, data, end
  }

  fileprivate unowned let upstream: HTTP2Upstream
  private(set) var context: ChannelHandlerContext?
  private(set) var fields: HPACKHeaders = [:]
  private(set) var trailers: HPACKHeaders = [:]
  private(set) var received = 0
  /// Body bytes of the answer that the client's window has let go.
  private(set) var sent = 0
  private(set) var resetCode: HTTP2ErrorCode?
  private var hasHead = false

  init(_ upstream: HTTP2Upstream) { self.upstream = upstream }

  var path: String { fields.first(name: ":path") ?? "" }

  /// Says what was asked, when it was.
  static let greet: @Sendable (ServedStream, Event) -> Void = { stream, event in
    guard event == .end else { return }
    stream.answer("hello \(stream.path)")
  }

  func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    upstream.streams.add()
    upstream.seen.append(self)
    upstream.open.append(self)
    upstream.mostOpen = max(upstream.mostOpen, upstream.open.count)
  }

  func channelInactive(context: ChannelHandlerContext) {
    self.context = nil
    upstream.open.removeAll { $0 === self }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .headers(let headers):
      if hasHead { trailers = headers.headers } else { fields = headers.headers }
      let isHead = !hasHead
      hasHead = true
      if isHead { upstream.serve(self, .head) }
      if headers.endStream { upstream.serve(self, .end) }
    case .data(let data):
      received += data.data.readableBytes
      upstream.serve(self, .data)
      if data.endStream { upstream.serve(self, .end) }
    default: break
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    guard let closed = error as? NIOHTTP2Errors.StreamClosed else { return }
    resetCode = closed.errorCode
    upstream.resets.add()
  }

  /// A whole answer.
  func answer(_ body: String, _ fields: HPACKHeaders = [:], status: String = "200") {
    head(status, fields)
    data(body.utf8.count, body, isEnd: true)
  }

  func head(_ status: String, _ fields: HPACKHeaders = [:], isEnd: Bool = false) {
    var all: HPACKHeaders = [":status": status]
    all.add(contentsOf: fields)
    raw(all, isEnd: isEnd)
  }

  func raw(_ fields: HPACKHeaders, isEnd: Bool = false) {
    send(.headers(.init(headers: fields, endStream: isEnd)))
  }

  func data(_ count: Int, _ text: String? = nil, isEnd: Bool = false) {
    guard let context else { return }
    let bytes = text.map { ByteBuffer(string: $0) } ?? ByteBuffer(repeating: 0x78, count: count)
    let promise = context.eventLoop.makePromise(of: Void.self)
    promise.futureResult.assumeIsolated().whenSuccess { [self] in sent += count }
    context.writeAndFlush(
      wrapOutboundOut(.data(.init(data: .byteBuffer(bytes), endStream: isEnd))), promise: promise)
  }

  func reset(_ code: HTTP2ErrorCode) { send(.rstStream(code)) }

  /// Says that streams behind this one are not looked at.
  func goAway(last: HTTP2StreamID) {
    guard let connection = context?.channel.parent else { return }
    connection.writeAndFlush(
      HTTP2Frame(
        streamID: .rootStream, payload: .goAway(lastStreamID: last, errorCode: .noError, opaqueData: nil)),
      promise: nil)
  }

  var id: HTTP2StreamID {
    (try? context?.channel.syncOptions?.getOption(HTTP2StreamChannelOptions.streamID)) ?? .rootStream
  }

  /// Ends the connection.
  func hangUp() { context?.channel.parent?.close(promise: nil) }

  private func send(_ payload: HTTP2Frame.FramePayload) {
    context?.writeAndFlush(wrapOutboundOut(payload), promise: nil)
  }
}

extension ServedStream {
  /// Calls `body` with all when so many are open.
  func whenOpen(_ count: Int, _ body: ([ServedStream]) -> Void) {
    if upstream.open.count == count { body(upstream.open) }
  }

  /// No stream before this one had its path.
  var isFirstOfItsPath: Bool { upstream.seen.first { $0.path == path } === self }

  /// Behind what NIO has to do with the stream's beginning.
  func later(_ body: @escaping @Sendable (ServedStream) -> Void) {
    context?.eventLoop.execute { body(self) }
  }

  /// Whether what comes on any stream of the connection is heard, and answered.
  func setConnectionReading(_ reads: Bool) {
    // A stream that wants to read makes its connection read.
    for stream in upstream.open { stream.setReading(reads) }
    try? context?.channel.parent?.syncOptions?.setOption(.autoRead, value: reads)
  }

  func setReading(_ reads: Bool) {
    guard let context else { return }
    try? context.channel.syncOptions?.setOption(.autoRead, value: reads)
    if reads { context.read() }
  }
}

extension HTTP2StreamID {
  /// The client's stream before this one.
  var before: HTTP2StreamID { HTTP2StreamID(max(0, Int(self) - 2)) }
}
