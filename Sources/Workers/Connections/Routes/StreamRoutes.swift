// GET …/sse and GET …/ws: checks a request, and turns its channel into a stream.
//
// Everything that can be refused is refused by an HTTP answer, before anything is opened. The first bytes of a stream
// are its head and its greeting, in one write.

import Glibc
import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class StreamRoutes {
  private let hub: Hub
  private let admission: Admission
  private let cors: CORS
  private let application: any WebSocketApplication

  init(hub: Hub, admission: Admission, cors: CORS, application: any WebSocketApplication) {
    self.hub = hub
    self.admission = admission
    self.cors = cors
    self.application = application
  }

  /// Server-Sent Events.
  func sse(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    hub.whenThereIsTime(ConnectRequest.units(request), on: loop) { [self] in judgeSSE(request, on: loop) }
  }

  private func judgeSSE(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    do throws(RefusedRequest) {
      let wanted = try hub.connectRequest(request)
      return admission.admit(wanted, on: loop) { [self] in
        var headers = Self.eventStreamHeaders
        cors.apply(to: &headers, for: request)
        return .takeOver(.stream(headers)) { [self] in openSSE($0, wanted) }
      }
    } catch {
      return hub.refusal(error, on: loop) { [self] in sse(request, on: loop) }
    }
  }

  /// What describes an event stream, as a HEAD request is answered too.
  static let eventStreamHeaders = HTTPFields([
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
  ])

  /// Over HTTP/1.1 each event is one chunk, so that an orderly end is told from a cut one and clients that read in blocks get each
  /// event at once.
  private func openSSE(_ taken: TakenChannel, _ wanted: ConnectRequest) {
    let channel = taken.channel
    guard let descriptor = descriptor(of: taken) else {
      return channel.close(promise: nil)
    }
    let isChunked = taken.isChunked
    let connection = hub.table.insert(second: hub.clock.second) { [hub] index, serial in
      Connection(
        ConnectionState(serial: serial, .eventStream(isChunked: isChunked)), at: index, of: hub, on: channel,
        descriptor: descriptor)
    }
    let resumption = hub.resumption(lastEventID: wanted.lastEventID)
    var stream = TurnBuffer(encoding: isChunked ? .chunkedServerSentEvents : .serverSentEvents)
    stream.append(block: ServerSentEvents.preamble(retryMs: hub.retryMs()))
    for event in hub.greeting(connection, wanted, resumption) { stream.append(event) }
    open(connection, taken, stream.bytes, wanted, resumption)
  }

  /// WebSocket.
  func webSocket(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    hub.whenThereIsTime(ConnectRequest.units(request), on: loop) { [self] in
      judgeWebSocket(request, on: loop)
    }
  }

  private func judgeWebSocket(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    do throws(RefusedRequest) {
      let accept = try Self.handshake(request)
      if let refusal = cors.handshakeRefusal(request) { throw RefusedRequest(status: 403, detail: refusal) }
      let wanted = try hub.connectRequest(request)
      let deflate = hub.settings.websocketDeflate ? try Self.deflate(request) : nil
      let head = Self.handshakeHead(
        accept: accept, extensions: deflate,
        subprotocol: WebSocketHandshake.subprotocol(offered: request.headers["sec-websocket-protocol"]))
      return admission.admit(wanted, on: loop) { [self] in
        .takeOver(head) { [self] in openWebSocket($0, wanted, isDeflated: deflate != nil) }
      }
    } catch {
      return hub.refusal(error, on: loop) { [self] in webSocket(request, on: loop) }
    }
  }

  /// Opens a WebSocket on a channel that HTTP has left. `greets`: with the two events that ours begin with.
  func openWebSocket(
    _ taken: TakenChannel, _ wanted: ConnectRequest, isDeflated: Bool = false, greets: Bool = true
  ) {
    let channel = taken.channel
    guard let descriptor = descriptor(of: taken) else {
      return channel.close(promise: nil)
    }
    let state = hub.webSocketState(wanted, isDeflated: isDeflated)
    let connection = hub.table.insert(second: hub.clock.second) { [hub, application] index, serial in
      Connection(
        ConnectionState(serial: serial, state), at: index, of: hub, on: channel, descriptor: descriptor,
        application: application)
    }
    let resumption = hub.resumption(lastEventID: wanted.lastEventID)
    var frames = TurnBuffer(encoding: state.kind.encoding ?? .webSocket)
    if greets {
      for event in hub.greeting(connection, wanted, resumption) { frames.append(event) }
      connection.webSocket?.told(resumption.beginning(own: hub.events.own))
    }
    open(connection, taken, frames.bytes, wanted, resumption)
  }

  private func open(
    _ connection: Connection, _ taken: TakenChannel, _ greeting: [UInt8], _ wanted: ConnectRequest,
    _ resumption: Resumption
  ) {
    guard let outlet = connection.outlet else { return }
    do {
      try outlet.channel.pipeline.syncOperations.addHandler(connection)
    } catch {
      hub.closed(connection)
      return outlet.channel.close(promise: nil)
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(taken.head.readableBytes + greeting.count)
    bytes.append(contentsOf: taken.head.readableBytesView)
    bytes.append(contentsOf: greeting)
    outlet.open(with: bytes, mayHoldOutput: taken.mayHoldOutput)
    connection.outletDidChange()
    hub.begin(connection, wanted, resumption)
  }

  /// The channel's socket, with the options of a stream; -1: nothing may be sent past the channel, which speaks TLS or is a stream of
  /// an HTTP/2 connection. nil if the channel has closed meanwhile.
  private func descriptor(of taken: TakenChannel) -> CInt? {
    let channel = taken.channel
    guard channel.isActive else { return nil }
    let asked = { try? channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: CInt.self) { $0 } }
    guard let descriptor = taken.socket ?? asked() else { return channel.parent == nil ? nil : -1 }
    StreamOptions.apply(to: descriptor, userTimeoutSeconds: hub.settings.tcpUserTimeoutSeconds)
    return taken.request.isTLS ? -1 : descriptor
  }

  /// The value of `sec-websocket-accept`.
  static func handshake(_ request: HTTPRequest) throws(RefusedRequest) -> String {
    guard request.version.major > 1 || request.version.minor >= 1 else {
      throw RefusedRequest(status: 400, detail: "a WebSocket needs HTTP/1.1, found \(request.version)")
    }
    do throws(WebSocketHandshake.Refusal) {
      return try WebSocketHandshake.accept(isGET: request.method == .GET) { request.headers[$0] }
    } catch {
      throw RefusedRequest(status: error.status, detail: error.detail)
    }
  }

  /// What is agreed on of the extensions that the client offers; nil: nothing.
  static func deflate(_ request: HTTPRequest) throws(RefusedRequest) -> String? {
    do throws(WebSocketHandshake.Refusal) {
      return try MessageDeflate.accept(request.headers["sec-websocket-extensions"])
    } catch {
      throw RefusedRequest(status: error.status, detail: error.detail)
    }
  }

  /// Head of the response that opens a WebSocket.
  static func handshakeHead(
    accept: String, extensions: String? = nil, subprotocol: String? = nil
  ) -> TakeOverHead {
    var headers: HTTPFields = ["sec-websocket-accept": accept]
    if let extensions { headers.add(name: "sec-websocket-extensions", value: extensions) }
    if let subprotocol { headers.add(name: "sec-websocket-protocol", value: subprotocol) }
    return .upgrade(to: "websocket", headers)
  }
}

extension Hub {
  /// A WebSocket that is opened.
  func webSocketState(_ wanted: ConnectRequest, isDeflated: Bool) -> TransportState {
    let assembler = WebSocketAssembler(
      maximumMessageBytes: settings.maxEventBytes, inflater: isDeflated ? inflater : nil)
    return .webSocket(
      Boxed(
        WebSocketState(
          hasCursors: wanted.wantsCursors, isDeflated: isDeflated, assembler: assembler,
          authorization: wanted.credentials.authorization)))
  }
}
