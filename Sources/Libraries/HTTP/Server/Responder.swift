// What a worker gives to the HTTP front: one object that answers requests.
//
// Everything here happens on the server's event loop; a responder never blocks. Requests of one connection are
// given one after the other: the next one is not given before the previous one is answered.

import NIOCore
import NIOHTTP1

/// How a request is answered.
public enum Reply {
  /// At once.
  case response(HTTPResponse)
  /// Later, on any loop. A failed future is answered 500. If the client goes first, `onClientGone` is called once, on the
  /// loop, and the future's result is dropped; its promise must be settled all the same (NIO traps in debug builds when
  /// one is let go unsettled).
  case later(EventLoopFuture<HTTPResponse>, onClientGone: (() -> Void)? = nil)
  /// When the future, which must be of the server's loop, has a reply: that is then done as if it had been returned at once. A
  /// failed future is answered 500. If the client goes first, the same holds as for `later`: `onClientGone` is called
  /// once, the reply is dropped, and the promise must be settled all the same.
  case eventually(EventLoopFuture<Reply>, onClientGone: (() -> Void)? = nil)
  /// The closure gets the channel without any HTTP handler (responses to earlier requests have been flushed), adds its own
  /// handlers, and writes `TakenChannel.head` and then its own raw bytes. Bytes that came behind an upgrade request (RFC 9110 §7.8)
  /// and are not parsed are then fired through the pipeline as an inbound ByteBuffer; what comes behind any other
  /// request in the same read is dropped. From here on the channel has autoRead, allowRemoteHalfClosure off and one
  /// receive buffer of 2 KiB, and the server only counts it as open.
  case takeOver(TakeOverHead, (TakenChannel) -> Void)
}

/// The head of a response behind which a channel leaves HTTP. `connection`, `upgrade`, date and framing are the front's.
public enum TakeOverHead: Sendable {
  /// 200, whose body goes on until the channel ends.
  case stream(HTTPFields)
  /// 101 (RFC 9110 §15.2.2), over HTTP/2 200 (RFC 8441 §5); `to`: name of the protocol, for the field `upgrade`.
  case upgrade(to: String, HTTPFields)
}

/// A channel that has left HTTP.
public struct TakenChannel {
  public let channel: Channel
  public let request: HTTPRequest
  /// To be written before anything else. Empty over HTTP/2, where the head goes out with whatever is flushed first.
  public let head: ByteBuffer
  /// The channel's socket, borrowed; nil: it has none (HTTP/2), or the channel has to be asked.
  public let socket: CInt?
  /// Earlier responses may wait in the channel for their way out: nothing may be written to the socket past it yet.
  public let mayHoldOutput: Bool
  /// Bytes read from the socket since it was accepted, up to the end of the request. 0 without a journal.
  public let bytesRead: UInt64
  /// Bytes written to the socket since it was accepted; nil: only the kernel knows.
  public let bytesWritten: UInt64?

  /// Whether what is written behind the head of a stream must be chunks (RFC 9112 §7.1).
  public var isChunked: Bool { !request.isHTTP2 && request.version != .http1_0 }
}

/// Answers the requests of an HTTPServer.
public protocol Responder: AnyObject {
  /// Called on `loop` for each complete request.
  func respond(to request: HTTPRequest, on loop: EventLoop) -> Reply

  /// Asked on `loop` once per request, when its head is complete and it is its turn, before any of its body is given away; the
  /// request's `body` is empty. An exchange handles the request as it comes, and `respond` isn't called; nil (the default) has the
  /// request assembled for `respond`. Only decides: nothing is written or read before the exchange's `begin`.
  func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)?

  /// Whether a request that comes while the server drains is told so (503). If not, its connection ends without an answer: for
  /// clients that come back after an end, and never again after an answer, as an `EventSource` does. true by default.
  func answersWhenDraining(_ request: HTTPRequest) -> Bool

  /// Cross-origin fields (CORS) of answers that no responder makes, or whose maker doesn't care: refusals by the front, and whole
  /// answers of exchanges that have none of their own. None by default.
  func crossOriginHeaders(for request: HTTPRequest) -> HTTPFields

  /// Called on the loop once per turn in which requests were answered, before any of these answers is written.
  /// What the answers promise is made true here for all of them together (rings are published).
  func turnWillFlush()
}

extension Responder {
  public func exchange(for request: HTTPRequest, on loop: EventLoop) -> (any StreamedExchange)? { nil }

  public func answersWhenDraining(_ request: HTTPRequest) -> Bool { true }

  public func crossOriginHeaders(for request: HTTPRequest) -> HTTPFields { [:] }

  public func turnWillFlush() {}
}

/// What a responder gives for a request that it wants to handle as it comes, instead of getting it whole.
///
///     exchange(for:) ─▶ begin ─▶ ( readBody ▶ received )… ─▶ receivedEnd          the request, as fast as it is asked for
///                          └──▶ informational… head ( write )… end                the response, whenever the exchange likes
///     at any time:  clientGone                                                    the last call, unless the response has ended
///
/// None of these functions is called from within a function of ResponseStream, so an exchange may call that one from anywhere without
/// being entered twice. It lives until its answer has ended or the client has gone; nothing is called after that.
public protocol StreamedExchange: AnyObject {
  /// The first call. `answer` is how the exchange asks for the body and answers; keep it.
  func begin(_ answer: ResponseStream)

  /// Some of the body, not empty and at most `ResponseStream.maxPieceBytes`: one call for one `readBody()`.
  func received(_ bytes: ByteBuffer)

  /// The body is complete, or there was none. Comes by itself as soon as it is known and everything before it was received, with a
  /// `readBody()` outstanding or without. Trailer fields that must not be trailers (RFC 9110 §6.5.1) are gone.
  func receivedEnd(trailers: HTTPFields)

  /// The client has taken what was written: go on. Only after `write` has said false, once for each time.
  func canWrite()

  /// The client has gone, or broke the protocol or was too slow in the middle of its body, or the server gives up. Nothing more
  /// is called, nothing more can be written. An exchange that has not begun is let go without this call.
  func clientGone()
}

extension StreamedExchange {
  func receive(_ delivery: StreamedBody.Delivery) {
    switch delivery {
    case .bytes(let bytes): received(bytes)
    case .end(let trailers): receivedEnd(trailers: trailers)
    }
  }
}
