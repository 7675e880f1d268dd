// The gateway's WebSocket with echo in place of the gateway's messages: a real front on a port of its own, a real hub over
// real rings that stay empty, the real frame handling.
//
//   client ══ HTTPServer ── any path: openWebSocket(greets: false) ── Connection ── Echo
//
// One worker on one loop. A timer of the loop is the hub's second, as in the worker.

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
  private static let ringBytes = 65_536
  private static let keyBytes = 32
  private static let second = TimeAmount.seconds(1)

  private let loop: EventLoop
  private let hub: Hub
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
        echo.hub.tick()
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
    let page = try StatusPage.create(name: "echo")
    let status = try StatusPage(attaching: page.rawValue)
    status.beginGeneration(pid: getpid())
    hub = try Self.hub(settings, status: status, loop: loop)
    server = HTTPServer(
      listening: listening, loop: loop,
      responder: EchoResponder(
        StreamRoutes(
          hub: hub, admission: Admission(hub: hub, own: status, others: []),
          cors: CORS(settings.cors), application: Echo())))
  }

  /// The hub of the only connection worker, with one event ring that nobody writes to.
  private static func hub(_ settings: Settings, status: StatusPage, loop: EventLoop) throws -> Hub {
    let generation = status.generation
    let events = try Ring.create(name: "events.echo", capacity: ringBytes, readers: 1)
    let requests = try Ring.create(name: "requests.echo", capacity: ringBytes, readers: 1)
    let worker = WorkerIdentity.connections(0)
    let eventGrant = RingGrant(
      id: 0, purpose: .events, writer: .streams, readers: [.init(worker, slot: 0)], cursorPosition: 0,
      fd: events.rawValue)
    let requestGrant = RingGrant(
      id: 1, purpose: .requests, writer: worker, readers: [.init(worker, slot: 0)], fd: requests.rawValue)
    let again = Again(loop)
    let hub = Hub(
      HubParts(
        slot: 0, generation: generation, incarnation: generation, settings: settings,
        tokens: try TokenCipher(key: [UInt8](repeating: 7, count: keyBytes)),
        events: try EventRings([eventGrant], worker: worker, status: status, epoch: 1),
        exchange: try RequestExchange(
          grants: [requestGrant], worker: worker, peers: [status], status: status, later: { _ in }),
        authority: try TokenAuthority(
          settings: settings, log: Logger(label: "echo") { _ in SwiftLogNoOpLogHandler() }),
        metrics: WorkerMetrics(status, worker: "connections.0"), budget: AssemblyBudget(settings),
        log: Logger(label: "echo") { _ in SwiftLogNoOpLogHandler() },
        environment: HubEnvironment(
          schedule: { turn in loop.assumeIsolated().execute(turn) }, wakeAgain: { again.call() }, beat: {},
          reportCorrupt: { _ in })))
    again.hub = hub
    return hub
  }
}

/// What an eventfd does in the worker: another turn behind everything that the loop has to do now.
private final class Again {
  private let loop: EventLoop
  weak var hub: Hub?

  init(_ loop: EventLoop) {
    self.loop = loop
  }

  func call() {
    loop.assumeIsolated().execute { [weak hub] in hub?.scheduleTurn() }
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
