// GET …/sse and GET …/ws: checks a request, and turns its channel into a stream.
//
// Everything that can be refused is refused by an HTTP answer, before anything is opened. The first bytes of a stream
// are its head and its greeting, in one write.

import Glibc
import HTTP
import Kit
import NIOCore
import NIOHTTP1
import Settings

final class StreamRoutes {
  private let connections: OpenConnections
  private let admission: Admission
  private let intake: MessageIntake
  private let advice: ReconnectAdvice
  private let cors: CORS
  private let deflates: Bool
  private let tcpUserTimeoutSeconds: Int

  init(
    _ connections: OpenConnections, _ admission: Admission, _ intake: MessageIntake,
    _ advice: ReconnectAdvice, _ cors: CORS, _ settings: Settings
  ) {
    self.connections = connections
    self.admission = admission
    self.intake = intake
    self.advice = advice
    self.cors = cors
    deflates = settings.websocketDeflate
    tcpUserTimeoutSeconds = settings.tcpUserTimeoutSeconds
  }

  /// Server-Sent Events.
  func sse(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    admission.admit(request, on: loop) { [self] wanted in
      { [self, wanted] in
        var headers = Self.eventStreamHeaders
        cors.apply(to: &headers, for: request)
        return .takeOver(.stream(headers)) { [self] in openSSE($0, wanted) }
      }
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
    let connection = connections.table.insert(second: connections.clock.second) {
      [connections] index, serial in
      Connection(
        ConnectionState(serial: serial, .eventStream(isChunked: isChunked)), at: index, of: connections,
        on: channel, descriptor: descriptor)
    }
    let resumption = connections.events.resumption(lastEventID: wanted.lastEventID)
    var stream = TurnBuffer(encoding: isChunked ? .chunkedServerSentEvents : .serverSentEvents)
    stream.append(block: ServerSentEvents.preamble(retryMs: advice.retryMs()))
    for event in connections.greeting(connection, wanted, resumption) { stream.append(event) }
    open(connection, taken, stream.bytes, wanted, resumption)
  }

  /// WebSocket.
  func webSocket(_ request: HTTPRequest, on loop: EventLoop) -> Reply {
    let accept: String
    do throws(RefusedRequest) {
      accept = try Self.handshake(request)
      if let refusal = cors.handshakeRefusal(request) { throw RefusedRequest(status: 403, detail: refusal) }
    } catch {
      return .response(error.response)
    }
    return admission.admit(request, on: loop) { [self] (wanted) throws(RefusedRequest) in
      let deflate = deflates ? try Self.deflate(request) : nil
      let head = Self.handshakeHead(
        accept: accept, extensions: deflate,
        subprotocol: WebSocketHandshake.subprotocol(offered: request.headers["sec-websocket-protocol"]))
      return { [self, wanted] in
        .takeOver(head) { [self] in openWebSocket($0, wanted, isDeflated: deflate != nil) }
      }
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
    let state = intake.state(wanted, isDeflated: isDeflated)
    let connection = connections.table.insert(second: connections.clock.second) {
      [connections, intake] index, serial in
      Connection(
        ConnectionState(serial: serial, state), at: index, of: connections, on: channel,
        descriptor: descriptor, intake: intake)
    }
    let resumption = connections.events.resumption(lastEventID: wanted.lastEventID)
    var frames = TurnBuffer(encoding: state.kind.encoding ?? .webSocket)
    if greets {
      for event in connections.greeting(connection, wanted, resumption) { frames.append(event) }
      connection.webSocket?.told(resumption.beginning(own: connections.events.own))
    }
    open(connection, taken, frames.bytes, wanted, resumption)
  }

  private func open(
    _ connection: Connection, _ taken: TakenChannel, _ greeting: [UInt8], _ wanted: ConnectRequest,
    _ resumption: Resumption
  ) {
    do {
      try taken.channel.pipeline.syncOperations.addHandler(connection)
    } catch {
      connections.closed(connection)
      return taken.channel.close(promise: nil)
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(taken.head.readableBytes + greeting.count)
    bytes.append(contentsOf: taken.head.readableBytesView)
    bytes.append(contentsOf: greeting)
    connection.webSocket?.begin(after: taken.bytesRead)
    connection.open(with: bytes, mayHoldOutput: taken.mayHoldOutput, written: taken.bytesWritten) {
      [connections] in
      connections.begin(connection, wanted, resumption)
    }
  }

  /// The channel's socket, with the options of a stream; -1: nothing may be sent past the channel, which speaks TLS or is a stream of
  /// an HTTP/2 connection. nil if the channel has closed meanwhile.
  private func descriptor(of taken: TakenChannel) -> CInt? {
    let channel = taken.channel
    guard channel.isActive else { return nil }
    let asked = { try? channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: CInt.self) { $0 } }
    guard let descriptor = taken.socket ?? asked() else { return channel.parent == nil ? nil : -1 }
    StreamOptions.apply(to: descriptor, userTimeoutSeconds: tcpUserTimeoutSeconds)
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
