// The gateway's WebSocket with echo in place of the gateway's messages: a real front on a port of its own, a connection worker as the
// process has it over rings that stay empty, the real frame handling.
//
//   client ══ HTTPServer ── any path: openWebSocket(greets: false) ── Connection ── Echo
//
// One worker on one loop. A timer of the loop is its second, as in the worker.

import Glibc
import IPC
import Kit
import Logging
import NIOCore
import NIOPosix
import Settings
import TestSupport

@testable import Connections
@testable import HTTP

/// `@unchecked Sendable`: everything is touched on the loop only.
final class EchoServer: @unchecked Sendable {
  private static let second = TimeAmount.seconds(1)

  private let loop: EventLoop
  private let gateway: TestGateway
  private let wiring: Wiring
  private let server: HTTPServer

  /// Serves during `body`, which gets the port.
  ///
  /// - Parameter maximumMessageBytes: longest message that is taken.
  static func serve(maximumMessageBytes: Int, _ body: (UInt16) async throws -> Void) async throws {
    let listener = try LocalListener()
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let descriptor = listener.descriptor
    let (echo, second) = try await loop.submit {
      let echo = try EchoServer(listening: descriptor, loop: loop, maximumMessageBytes: maximumMessageBytes)
      try echo.server.start()
      let second = loop.scheduleRepeatedTask(initialDelay: Self.second, delay: Self.second) { _ in
        echo.server.sweep()
        echo.wiring.tick()
      }
      return (echo, second)
    }.get()
    let result: Result<Void, any Error>
    do { result = .success(try await body(listener.port)) } catch { result = .failure(error) }
    second.cancel()
    try await loop.flatSubmit { echo.server.stopAccepting() }.get()
    try await loop.submit { echo.server.closeAll() }.get()
    try await group.shutdownGracefully()
    try result.get()
  }

  private init(listening: CInt, loop: EventLoop, maximumMessageBytes: Int) throws {
    self.loop = loop
    var settings = Settings()
    settings.maxEventBytes = maximumMessageBytes
    // An echo of the longest message waits whole while its client is busy sending.
    settings.maxUnsentBytes = 2 * maximumMessageBytes
    gateway = try TestGateway()
    let again = Again(loop)
    wiring = try gateway.wiring(
      settings,
      LoopTasks(
        run: { turn in loop.assumeIsolated().execute(turn) }, wakeAgain: { again.call() }, soon: { _ in },
        after: { _, _ in {} }),
      Echo())
    again.turn = wiring.turn
    server = HTTPServer(listening: listening, loop: loop, responder: EchoResponder(wiring.streams))
  }
}

/// What an eventfd does in the worker: another turn behind everything that the loop has to do now.
private final class Again {
  private let loop: EventLoop
  weak var turn: Turn?

  init(_ loop: EventLoop) {
    self.loop = loop
  }

  func call() {
    loop.assumeIsolated().execute { [weak turn] in turn?.schedule() }
  }
}

/// Sends every message back as what it came: text as text, binary as binary; compressed where that was agreed on.
private final class Echo: WebSocketApplication {
  private let deflater = MessageDeflater()

  func received(_ message: [UInt8], isText: Bool, on connection: Connection) {
    let opcode = isText ? WebSocketOpcode.text : .binary
    let isDeflated = connection.encoding == .deflatedWebSocket
    guard isDeflated, let deflated = message.withUnsafeBytes({ deflater.deflate([$0]) }) else {
      return connection.send(WebSocketFrame.encode(opcode, message))
    }
    var frame: [UInt8] = []
    WebSocketFrame.appendHeader(opcode, length: deflated.count, isCompressed: true, to: &frame)
    connection.send(frame + deflated)
  }
}

/// Opens a WebSocket for every handshake, whatever its path.
private final class EchoResponder: Responder {
  private let streams: StreamRoutes

  init(_ streams: StreamRoutes) {
    self.streams = streams
  }

  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply {
    do throws(RefusedRequest) {
      let accept = try StreamRoutes.handshake(request)
      let deflate = try StreamRoutes.deflate(request)
      let head = StreamRoutes.handshakeHead(accept: accept, extensions: deflate)
      return .takeOver(head) { [streams] in
        streams.openWebSocket($0, ConnectRequest(), isDeflated: deflate != nil, greets: false)
      }
    } catch {
      return .response(error.response)
    }
  }
}
