// One HTTP/1.1 connection to an upstream as a value: what has been said and heard, and what follows from each event. No channel, no
// clock, no receiver: `UpstreamConnection` tells it what has happened, and asks for the next action until that is `wait`.
//
//            begin            101, request whole
//     idle ────────▶ exchanging ────────▶ tunnel
//      ▲               │      │              │
//      └─ both sides ──┘      │              │
//         are done, and       ▼              ▼
//         nothing is left   closed ◀─────────┘      also: idle ─ bytes, or the end, of the input ─▶ closed
//
// Nothing is read ahead of what is asked for. A connection is idle again only when the response has ended, the whole request has gone, no
// byte is left over on either side, and neither side has said that it closes: the next request's response can be nobody else's.
// The end of the input ends no exchange by itself: what came before it may still be asked for.

import HTTP
import NIOCore

struct UpstreamConnectionState {
  /// What of a request its response, or the connection, depends on.
  struct Request {
    /// The response has no body whatever it says.
    var isHead = false
    /// 101 is an answer to it.
    var mayUpgrade = false
    var closesConnection = false
    var body = UpstreamRequest.Body.none
    /// A response that is there at once, with so many bytes behind its head, comes in one action and needn't be asked for; 0: none does.
    var maximumWholeBytes = 0
  }

  enum Action {
    /// Nothing before the next event.
    case wait
    /// Ask the channel for more, once.
    case read
    case inform(ResponseHead)
    case respond(ResponseHead)
    /// The exchange is a tunnel from here.
    case upgrade(ResponseHead)
    /// A piece of the body, or of what came through the tunnel: what was asked for.
    case deliver(ByteBuffer)
    /// The exchange is done. The connection is idle, or is to be closed.
    case finish(trailers: HTTPFields, isReusable: Bool)
    /// The same with the whole response.
    case finishWhole(ResponseHead, ByteBuffer, isReusable: Bool)
    /// The upstream has ended the connection in the middle of the exchange. Close it.
    case lose(error: String?)
    /// What came is no response. Close the connection.
    case refuse(defect: String)
  }

  /// What the input ended with, apart from its bytes.
  private enum InputFault {
    /// TLS didn't say that it ended: an end of the input proves nothing.
    case truncated
    case error(String)
  }

  private enum Input {
    case open(InputFault?)
    case ended(InputFault?)
  }

  private enum Response {
    case head(interim: Int)
    case body(BodyDecoder, keepsAlive: Bool)
  }

  private struct Exchange {
    let request: Request
    /// The request is whole.
    var isSent: Bool
    var response = Response.head(interim: 0)
  }

  private enum State {
    case idle
    case exchanging(Exchange)
    case tunnel(isOutputOpen: Bool)
    case closed
  }

  /// `a:` and a line end.
  private static let shortestFieldBytes = 4

  private let limits: HeadLimits
  private let maximumInterim: Int
  private var state = State.idle
  private var heads: ResponseHeadParser
  /// Bytes that haven't been understood, or asked for.
  private var bytes = ByteBuffer()
  private var input = Input.open(nil)
  private var isReading = false
  /// An exchange before this one has ended as it should: the upstream may have closed the connection without knowing of this one.
  private(set) var isReused = false

  init(_ limits: UpstreamLimits) {
    self.limits = HeadLimits(
      maxBytes: limits.maximumHeadBytes, maxFields: limits.maximumHeadBytes / Self.shortestFieldBytes)
    maximumInterim = limits.maximumInterimAnswers
    heads = ResponseHeadParser(limits: self.limits)
  }

  var isIdle: Bool { if case .idle = state { true } else { false } }

  var isTunnel: Bool { if case .tunnel = state { true } else { false } }

  /// The response's own head hasn't come.
  var isAwaitingHead: Bool {
    if case .exchanging(let exchange) = state, case .head = exchange.response { true } else { false }
  }

  /// How body bytes are written now: framed as chunks or as they are.
  var writesChunks: Bool {
    if case .exchanging(let exchange) = state { exchange.request.body == .chunked } else { false }
  }

  // MARK: Events

  /// A request is about to be written. False: the connection isn't idle.
  mutating func begin(_ request: Request) -> Bool {
    guard case .idle = state else { return false }
    state = .exchanging(Exchange(request: request, isSent: request.body == .none))
    return true
  }

  /// The body's last byte is written.
  mutating func endRequest() {
    guard case .exchanging(var exchange) = state else { return }
    exchange.isSent = true
    state = .exchanging(exchange)
  }

  /// No more is written into the tunnel. False: there is none, or that has been said.
  mutating func endTunnel() -> Bool {
    guard case .tunnel(isOutputOpen: true) = state else { return false }
    state = .tunnel(isOutputOpen: false)
    return true
  }

  /// False: nobody has asked for this. Close the connection.
  mutating func receive(_ more: ByteBuffer) -> Bool {
    guard more.readableBytes > 0 else { return true }
    switch state {
    case .idle:
      state = .closed
      return false
    case .exchanging, .tunnel:
      if bytes.readableBytes == 0 {
        bytes = more
      } else {
        bytes.discardReadBytes()
        bytes.writeImmutableBuffer(more)
      }
      return true
    case .closed: return true
    }
  }

  /// What a `read` was for has come.
  mutating func readCompleted() { isReading = false }

  /// TLS has ended without saying so; the end of the input follows.
  mutating func inputTruncated() {
    if case .open(nil) = input { input = .open(.truncated) }
  }

  /// The channel has failed; the end of the input follows.
  mutating func inputFailed(_ error: String) {
    if case .open = input { input = .open(.error(error)) }
  }

  mutating func inputEnded() {
    guard case .open(let fault) = input else { return }
    input = .ended(fault)
    if case .idle = state { state = .closed }
  }

  /// The connection is given up. False: that is no news.
  mutating func close() -> Bool {
    if case .closed = state { return false }
    state = .closed
    bytes = ByteBuffer()
    return true
  }

  // MARK: What follows

  /// The next thing to do. Ask again until it is `wait`.
  ///
  /// - Parameters:
  ///   - isWanted: whether a piece of the body may come.
  ///   - hasUnsent: whether bytes of the request haven't left the channel.
  mutating func next(isWanted: Bool, hasUnsent: @autoclosure () -> Bool) -> Action {
    do throws(MessageDefect) {
      switch state {
      case .closed: return .wait
      case .idle: return read()
      case .tunnel: return nextOfTunnel(isWanted)
      case .exchanging(let exchange):
        switch exchange.response {
        case .head(let interim): return try nextHead(exchange, interim, hasUnsent)
        case .body(let body, let keepsAlive):
          return try nextOfBody(exchange, body, keepsAlive, isWanted, hasUnsent)
        }
      }
    } catch {
      return refuse(error.detail)
    }
  }

  private mutating func nextHead(
    _ exchange: Exchange, _ interim: Int, _ hasUnsent: () -> Bool
  ) throws(MessageDefect) -> Action {
    guard let head = try heads.next(&bytes) else { return hasInputEnded ? lose() : read() }
    var exchange = exchange
    if head.status == 101 {
      guard exchange.request.mayUpgrade else { return refuse("101 to a request without upgrade") }
      guard exchange.isSent else { return refuse("101 before the request has ended") }
      state = .tunnel(isOutputOpen: true)
      return .upgrade(head)
    }
    if head.status < 200 {
      guard interim < maximumInterim else { return refuse("more than \(maximumInterim) interim answers") }
      exchange.response = .head(interim: interim + 1)
      state = .exchanging(exchange)
      return .inform(head)
    }
    let framing = head.framing(isToHead: exchange.request.isHead)
    let body = BodyDecoder(framing, of: .response, limits: limits)
    let keepsAlive = head.keepsAlive && framing != .untilClose
    if let content = takeWhole(body, exchange.request.maximumWholeBytes) {
      return .finishWhole(head, content, isReusable: finish(exchange, keepsAlive, hasUnsent))
    }
    exchange.response = .body(body, keepsAlive: keepsAlive)
    state = .exchanging(exchange)
    return .respond(head)
  }

  private mutating func nextOfBody(
    _ exchange: Exchange, _ body: BodyDecoder, _ keepsAlive: Bool, _ isWanted: Bool, _ hasUnsent: () -> Bool
  ) throws(MessageDefect) -> Action {
    var (exchange, body) = (exchange, body)
    let step = try body.next(&bytes, isWanted: isWanted)
    exchange.response = .body(body, keepsAlive: keepsAlive)
    state = .exchanging(exchange)
    switch step {
    case .content(let piece): return .deliver(piece)
    case .held: return .wait
    case .end(let trailers):
      return .finish(trailers: trailers, isReusable: finish(exchange, keepsAlive, hasUnsent))
    case .needsInput:
      guard hasInputEnded else { return isWanted ? read() : .wait }
      guard case .ended(nil) = input, body.mayEndHere else { return lose() }
      return .finish(trailers: [:], isReusable: finish(exchange, false, hasUnsent))
    }
  }

  private mutating func nextOfTunnel(_ isWanted: Bool) -> Action {
    guard bytes.readableBytes == 0 else {
      guard isWanted else { return .wait }
      defer { bytes = ByteBuffer() }
      return .deliver(bytes)
    }
    guard hasInputEnded else { return isWanted ? read() : .wait }
    state = .closed
    return .finish(trailers: [:], isReusable: false)
  }

  /// The whole body, if it is there, without trailers, and so small. A defect is found by who reads on.
  private mutating func takeWhole(_ body: BodyDecoder, _ maximumBytes: Int) -> ByteBuffer? {
    guard maximumBytes > 0, bytes.readableBytes <= maximumBytes else { return nil }
    var (body, rest, content) = (body, bytes, ByteBuffer())
    while let step = try? body.next(&rest) {
      switch step {
      case .content(var piece):
        if content.readableBytes == 0 { content = piece } else { content.writeBuffer(&piece) }
      case .end(let trailers):
        guard trailers.isEmpty else { return nil }
        bytes = rest
        return content
      case .needsInput, .held: return nil
      }
    }
    return nil
  }

  /// Whether the connection may be used again.
  private mutating func finish(_ exchange: Exchange, _ keepsAlive: Bool, _ hasUnsent: () -> Bool) -> Bool {
    let isReusable =
      keepsAlive && exchange.isSent && !hasInputEnded && bytes.readableBytes == 0
      && !exchange.request.closesConnection && !hasUnsent()
    state = isReusable ? .idle : .closed
    bytes = ByteBuffer()
    isReused = true
    return isReusable
  }

  private mutating func lose() -> Action {
    let error: String? = if case .ended(.error(let error)) = input { error } else { nil }
    state = .closed
    bytes = ByteBuffer()
    return .lose(error: error)
  }

  private mutating func refuse(_ defect: String) -> Action {
    state = .closed
    bytes = ByteBuffer()
    return .refuse(defect: defect)
  }

  private mutating func read() -> Action {
    guard !isReading, !hasInputEnded else { return .wait }
    isReading = true
    return .read
  }

  private var hasInputEnded: Bool { if case .ended = input { true } else { false } }
}
