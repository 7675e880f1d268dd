// What the tests of the HTTP front share: a responder that does what a test says, and an embedded front.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Settings

@testable import HTTP

/// Answers with a closure and writes down what it was asked.
final class ScriptedResponder: Responder {
  private(set) var requests: [HTTPRequest] = []
  private(set) var turns = 0
  var willFlush: () -> Void = {}
  /// Which requests are streamed.
  var exchanges: (HTTPRequest) -> (any StreamedExchange)? = { _ in nil }
  /// The requests for which was asked whether they are streamed.
  private(set) var offered: [HTTPRequest] = []
  /// Which requests that come while the server drains are answered.
  var answeredWhenDraining: (HTTPRequest) -> Bool = { _ in true }
  private let script: (HTTPRequest) -> Reply

  init(_ script: @escaping (HTTPRequest) -> Reply = { .response(.text("answer to \($0.path)")) }) {
    self.script = script
  }

  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply {
    requests.append(request)
    return script(request)
  }

  func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? {
    offered.append(request)
    return exchanges(request)
  }

  func answersWhenDraining(_ request: HTTPRequest) -> Bool { answeredWhenDraining(request) }

  func turnWillFlush() {
    turns += 1
    willFlush()
  }
}

/// A server on an embedded loop, with virtual time.
final class EmbeddedFront {
  let loop = EmbeddedEventLoop()
  let responder: ScriptedResponder
  let server: HTTPServer

  init(
    _ responder: ScriptedResponder = ScriptedResponder(), limits: HTTPLimits = HTTPLimits(),
    budget: AssemblyBudget = AssemblyBudget(Settings()), journal: (any ConnectionJournal)? = nil
  ) {
    self.responder = responder
    server = HTTPServer(
      listening: -1, loop: loop, limits: limits, responder: responder, budget: budget, journal: journal,
      now: .uptimeNanoseconds(0))
  }

  /// A connected client's channel.
  ///
  /// - Parameter socket: number under which it is noted.
  func connect(socket: CInt? = nil, _ origin: AdoptedSocket = .untouched) throws -> EmbeddedClient {
    let channel = EmbeddedChannel(loop: loop)
    try server.install(on: channel, socket: socket, origin: origin)
    channel.connect(to: try SocketAddress(ipAddress: "192.0.2.1", port: 1), promise: nil)
    return EmbeddedClient(channel: channel)
  }

  /// Lets the server see that `seconds` have passed since it was made.
  func sweep(at seconds: Int64) {
    server.sweep(now: .uptimeNanoseconds(UInt64(seconds) * 1_000_000_000))
    loop.run()
  }
}

struct EmbeddedClient {
  let channel: EmbeddedChannel

  /// Sends without ending the turn.
  func post(_ text: String) throws {
    try channel.writeInbound(ByteBuffer(string: text))
  }

  /// Sends, ends the turn, and returns everything that came back.
  func send(_ text: String) throws -> String {
    try post(text)
    channel.embeddedEventLoop.run()
    return try received()
  }

  /// Everything that has come back since the last time.
  func received() throws -> String {
    var text = ""
    while let bytes = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
    return text
  }

  /// What the handlers behind the HTTP front got.
  func firedThrough() throws -> String {
    var text = ""
    while let bytes = try channel.readInbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
    return text
  }

  var isOpen: Bool { channel.isActive }

  /// The client closes its side.
  func endInput() {
    channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    channel.embeddedEventLoop.run()
  }
}

/// The status lines of the answers in `text`, whose bodies need no line end.
func statusLines(_ text: String) -> [String] {
  let parts = text.split(separator: "HTTP/1.1 ", omittingEmptySubsequences: false).dropFirst()
  return parts.filter { $0.first?.isNumber == true }.map { "HTTP/1.1 " + $0.prefix { !$0.isNewline } }
}

func body(_ answer: String) -> String {
  answer.components(after: "\r\n\r\n")
}

/// Value of the first header of that name in an answer; nil: it has none.
func header(_ name: String, in answer: String) -> String? {
  for line in answer.split(separator: "\r\n", omittingEmptySubsequences: false) {
    if line.isEmpty { return nil }
    if line.lowercased().hasPrefix(name + ": ") { return String(line.dropFirst(name.count + 2)) }
  }
  return nil
}

extension String {
  /// What stands behind the first `separator`; empty if there is none.
  fileprivate func components(after separator: String) -> String {
    var rest = Substring(self)
    while !rest.isEmpty {
      if rest.hasPrefix(separator) { return String(rest.dropFirst(separator.count)) }
      rest = rest.dropFirst()
    }
    return ""
  }
}

func get(_ path: String, _ fields: String = "") -> String {
  "GET \(path) HTTP/1.1\r\nhost: gateway\r\n\(fields)\r\n"
}

func post(_ path: String, _ body: String, _ fields: String = "") -> String {
  "POST \(path) HTTP/1.1\r\nhost: gateway\r\ncontent-length: \(body.utf8.count)\r\n\(fields)\r\n\(body)"
}
