// The other end of a streamed exchange: how it asks for the request's body and how it answers.
//
//   head ──▶ write… ──▶ end          or    respond    or    switchProtocols   abort: at any time
//    └─ informational… before it
//
// Frames by itself: what goes out is always a well-formed message, or one that its receiver notices to be cut short. Never
// copies a body that is worth sharing, never calls the exchange, and does nothing once the exchange is over.

import NIOCore
import NIOHTTP1

/// Answers one request of a `StreamedExchange`. Use it on the server's loop only.
public final class ResponseStream: StreamedRequest {
  /// The most that one `received` brings.
  public static let maxPieceBytes = 64 * 1024
  /// Written but not taken by the client: above this `write` says false.
  public static let maxUntakenBytes = 256 * 1024
  /// ...until no more than this are left.
  static let resumeUntakenBytes = 64 * 1024
  /// Given to the kernel and not on its way: the kernel takes no more.
  static let maxUnsentBytes = 128 * 1024

  /// The request, without its body.
  public let request: HTTPRequest

  /// nil once it is over: the exchange keeps this object, and neither shall keep the other for ever.
  private(set) var exchange: (any StreamedExchange)?
  var body: StreamedBody
  /// Whether the exchange knows of this.
  private(set) var isBegun = false
  /// `write` has said false and nobody has said `canWrite` since.
  private var owesCanWrite = false
  private var connection: HTTPConnection?
  private var context: ResponseContext
  /// Set with the head.
  private var framing: ResponseFraming?

  init(
    _ exchange: any StreamedExchange, request: HTTPRequest, body: StreamedBody, connection: HTTPConnection
  ) {
    self.exchange = exchange
    self.request = request
    self.body = body
    self.connection = connection
    context = ResponseContext(request)
  }

  /// Whether the head of the answer has been given.
  public var hasBegun: Bool { framing != nil }

  /// Whether nothing of the answer is missing for its client: a counted body that was written whole is, before `end`.
  public var isWhole: Bool {
    framing?.isWhole ?? false
  }

  /// Whether the exchange is over: the answer has ended, or the client has gone. Everything is ignored then.
  public var isOver: Bool { connection == nil }

  /// Whether the client has sent its whole body, received or not.
  public var hasWholeBody: Bool { body.hasEnd }

  /// Asks for some of the body; asking twice is asking once. The first call invites a client that waits for `100 Continue`
  /// (RFC 9110 §10.1.1), unless the answer has begun. While nobody asks, the socket isn't read: the client's upload stalls.
  public func readBody() {
    guard let connection, body.ask() else { return }
    if !hasBegun { invite() }
    connection.bodyAsked()
  }

  /// For an exchange that keeps the body until it is whole: what that holds of the budget. nil: the exchange is over.
  public func hold() -> AssemblyHold? { connection.map { AssemblyHold($0.share) } }

  /// An interim answer, before the head. Not sent to clients of HTTP/1.0, which know none. 100 is sent only to a client that still
  /// waits for it; 101 never: see `switchProtocols`.
  public func informational(_ status: HTTPResponseStatus, _ headers: HTTPFields = [:]) {
    guard let connection, !hasBegun, !context.isHTTP10 else { return }
    switch status.code {
    case 100: invite()
    case 102...199: connection.wire?.send(.interim(status, headers))
    default: break
    }
  }

  /// The head of the answer. With one valid content-length the body is counted; without, it is chunked, or ends with the
  /// connection for a client of HTTP/1.0. HEAD, 204 and 304 have no body: what is written is dropped. `connection: close` closes the
  /// connection after the answer; otherwise connection, keep-alive, transfer-encoding and traceparent are the front's.
  public func head(_ status: HTTPResponseStatus, _ headers: HTTPFields = [:]) {
    guard let connection, !hasBegun else { return }
    guard status.code >= 200 else { return informational(status, headers) }
    let framing = ResponseFraming(status: status, headers: headers, for: context)
    self.framing = framing
    let isLast = connection.closesAfterResponse || headers.closesConnection || framing.rest == .untilClose
    // Nobody knows whether a client that was never invited will send its body after all.
    if isLast || body.isInvitationOwed { context.keepAlive = false }
    connection.wire?.sendHead(status, headers, .passedOn(framing), for: context)
  }

  /// Some of the answer's body. Returns whether the client keeps up; after false wait for `canWrite`. What was given is always
  /// taken. Large buffers are shared, not copied; all that is written in one turn of the loop goes out together.
  @discardableResult
  public func write(_ bytes: ByteBuffer) -> Bool {
    guard let connection else { return false }
    guard let taken = framing?.take(bytes) else { return true }
    if taken.readableBytes > 0 { connection.wire?.send(.body(taken, isLast: isWhole)) }
    if !connection.isWritable { owesCanWrite = true }
    return connection.isWritable
  }

  /// Ends the answer. Trailers go out only when it is chunked. The connection is closed afterwards when the client has not sent
  /// its whole body yet: nobody will read the rest. A counted body that is too short is an `abort`.
  ///
  /// - Parameter whenTaken: called once, when the client, or the kernel for it, has taken all of the answer, or has gone.
  public func end(trailers: HTTPFields = [:], whenTaken: (() -> Void)? = nil) {
    over(whenTaken) { endOutput(trailers) }
  }

  /// Ends the exchange by `end`.
  private func over(_ whenTaken: (() -> Void)?, by end: () -> Void) {
    let connection = connection
    end()
    guard let whenTaken else { return }
    if let wire = connection?.wire { wire.whenTaken(whenTaken) } else { whenTaken() }
  }

  private func endOutput(_ trailers: HTTPFields) {
    guard let connection else { return }
    guard let framing else {
      return respond(.problem(.internalServerError, "the request could not be answered"))
    }
    guard framing.mayEnd else { return abort() }
    if framing.rest == .chunked { connection.wire?.send(.end(trailers: trailers.allowedTrailers)) }
    let keepAlive = context.keepAlive && body.hasEnd && !framing.isOverrun
    connection.streamEnded(keepAlive: keepAlive && !connection.closesAfterResponse, linger: !body.hasEnd)
  }

  /// A whole answer at once, instead of head, write and end. It gets the front's cross-origin fields unless it has its own; what is
  /// passed on by `head` doesn't. `whenTaken`: see `end`.
  public func respond(_ response: HTTPResponse, whenTaken: (() -> Void)? = nil) {
    over(whenTaken) { answerWhole(response) }
  }

  private func answerWhole(_ response: HTTPResponse) {
    guard let connection else { return }
    guard !hasBegun, !connection.server.endsSilently(request, response.status) else { return abort() }
    var response = response
    if !response.headers.contains(name: "access-control-allow-origin") {
      response.headers.add(contentsOf: connection.server.responder.crossOriginHeaders(for: request))
    }
    context.keepAlive = context.keepAlive && body.hasEnd
    connection.streamAnswered(response, for: context, linger: !body.hasEnd)
  }

  /// The answer can't be completed: what was written goes out, and then the connection ends so that the client notices.
  ///
  /// - Parameters:
  ///   - byReset: the connection ends at once, and what was written and hasn't arrived is dropped.
  ///   - whenTaken: see `end`.
  public func abort(byReset: Bool = false, whenTaken: (() -> Void)? = nil) {
    over(whenTaken) { connection?.streamAborted(byReset: byReset || framing?.rest == .untilClose) }
  }

  /// Answers 101 and leaves HTTP, as `Reply.takeOver` does (see there), before the head and when the client's body has been
  /// received. Otherwise it is an `abort`.
  ///
  /// - Parameters:
  ///   - name: of the protocol, for the field `upgrade`.
  ///   - headers: `connection`, `upgrade` and framing among them are ours.
  ///   - onGone: called instead of `body` when the client has gone before it could be.
  public func switchProtocols(
    to name: String, _ headers: HTTPFields, onGone: @escaping () -> Void,
    _ body: @escaping (Channel, HTTPRequest) -> Void
  ) {
    guard let connection, !hasBegun, self.body.hasEnd else {
      abort()
      return onGone()
    }
    connection.server.counters?.answered(HTTPResponseStatus.switchingProtocols.code)
    connection.streamTakenOver(.upgrade(to: name, headers), request, onGone: onGone) { taken in
      taken.channel.writeAndFlush(taken.head, promise: nil)
      body(taken.channel, taken.request)
    }
  }

  /// The exchange is told of this.
  func begin() {
    isBegun = true
    exchange?.begin(self)
  }

  /// The client has taken what was written.
  func canWrite() {
    guard owesCanWrite else { return }
    owesCanWrite = false
    exchange?.canWrite()
  }

  /// The exchange is over.
  func detach() {
    connection = nil
    exchange = nil
  }

  private func invite() {
    guard body.isInvitationOwed, let connection else { return }
    body.isInvitationOwed = false
    connection.wire?.send(.interim(.continue, [:]))
  }
}
