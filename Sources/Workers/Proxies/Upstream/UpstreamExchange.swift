// One request and its answer, from `begin` to the last call of its receiver. The caller's handle.
//
//   waiting ──▶ connecting ──▶ active ──▶ over        cancel: over at once, without another call of the receiver
//                   ▲            │
//                   └────────────┘  closed before a byte of the answer: once, see `mayStartAgain`
//
// Body bytes written before there is a connection wait here, at most as many as a connection takes (`highWater`). Those given to a
// connection whose upstream may have left it are kept until the answer begins (`UpstreamLimits.maximumKeptBytes`).

import HTTP
import NIOCore
import NIOHPACK

/// Belongs to the client's loop.
final class UpstreamExchange {
  private enum State {
    case waiting
    case connecting(UpstreamAttempt)
    case active(any UpstreamTransport)
    case over
  }

  /// The request, as far as the caller is concerned.
  private enum Upload {
    /// `rest`: of a counted body, bytes that are still to come.
    case open(rest: Int?)
    /// A counted body's last byte is written, and `end` hasn't been called: that isn't the end of a tunnel.
    case whole
    case ended(trailers: HTTPFields)
  }

  /// Bytes that a caller may write although it is to wait.
  private static let maximumExcessBytes = 4 * UpstreamConnection.highWaterBytes

  let request: UpstreamRequest
  /// The request's head as HTTP/2 says it; nil: it must go by HTTP/1.1.
  let http2Head: HPACKHeaders?
  /// A silence of any length is no failure of this response, as of an event stream. Set at any time.
  var mayBeSilent = false
  private let client: UpstreamClient
  private var state = State.waiting
  private var receiver: (any UpstreamReceiver)?
  private var upload: Upload
  /// Body bytes until there is a connection.
  private var early: ByteBuffer?
  private var hasWritten = false
  /// All of the body that its connection was given, to be given to another one if that turns out closed; nil: it can't be.
  private var kept: ByteBuffer?
  private var hasAnswerBegun = false
  /// Bytes written although the receiver was to wait.
  private var excess = 0
  /// The receiver waits for `upstreamWantsBody`.
  private(set) var owesInvitation: Bool
  /// One piece of the body has been asked for.
  private(set) var isWanted = false
  /// When the last thing happened to it.
  private(set) var movedNs: UInt64
  /// Number of connections it had.
  private var attempts = 0
  /// A byte of the response has come.
  private(set) var hasReceived = false

  init(_ request: UpstreamRequest, _ receiver: any UpstreamReceiver, client: UpstreamClient) {
    self.request = request
    self.receiver = receiver
    self.client = client
    http2Head = request.http2Head
    upload =
      switch request.body {
      case .none: .ended(trailers: [:])
      case .counted(0): .whole
      case .counted(let count): .open(rest: count)
      case .chunked: .open(rest: nil)
      }
    owesInvitation = request.hasBody
    movedNs = client.nowNs()
  }

  var isOver: Bool { if case .over = state { true } else { false } }
  var isRequestEnded: Bool { if case .open = upload { false } else { true } }
  /// Of a chunked body that is whole.
  var trailers: HTTPFields { if case .ended(let trailers) = upload { trailers } else { [:] } }
  private var transport: (any UpstreamTransport)? {
    if case .active(let transport) = state { transport } else { nil }
  }

  // MARK: For the caller

  /// Writes a piece of the body, which may begin as soon as `begin` has returned. The bytes are always taken; false: no more until
  /// `upstreamWantsBody` is called. After the end of the exchange they are thrown away, and it is false.
  func write(_ bytes: ByteBuffer) -> Bool {
    guard !isOver, admits(bytes.readableBytes) else { return false }
    guard bytes.readableBytes > 0 else { return true }
    hasWritten = true
    movedNs = client.nowNs()
    let hasRoom: Bool
    if let transport {
      keep(bytes)
      hasRoom = transport.write(bytes)
    } else {
      if early == nil { early = bytes } else { early?.writeImmutableBuffer(bytes) }
      hasRoom = hasEarlyRoom
    }
    if case .open(rest: 0) = upload, !isOver {
      upload = .whole
      owesInvitation = false
      transport?.requestEnded()
      return true
    }
    if !hasRoom { owesInvitation = true }
    return hasRoom
  }

  /// The body is complete, of which a counted one's last byte has told already. In a tunnel: nothing more will be written. Trailers are
  /// sent only behind a chunked body.
  func end(trailers: HTTPFields = [:]) {
    guard !isOver else { return }
    switch upload {
    case .open(rest: .some): fail(.badRequest("fewer body bytes than its content-length"))
    case .open(nil):
      if let defect = UpstreamRequest.defect(of: trailers) {
        return fail(.badRequest("trailers: \(defect)"))
      }
      upload = .ended(trailers: trailers)
      owesInvitation = false
      movedNs = client.nowNs()
      transport?.requestEnded()
    case .whole:
      upload = .ended(trailers: [:])
      owesInvitation = false
    case .ended: transport?.endTunnel()
    }
  }

  /// Asks for one piece of the answer's body, which may come before this returns.
  func readMore() {
    guard !isOver, !isWanted else { return }
    isWanted = true
    movedNs = client.nowNs()
    transport?.run()
  }

  /// Gives it up: the connection is closed and the receiver isn't called any more.
  func cancel() {
    guard !isOver else { return }
    let before = state
    finish()
    switch before {
    case .connecting(let attempt): attempt.giveUp()
    case .active(let transport): transport.abandon()
    case .waiting, .over: client.abandoned(self)
    }
  }

  private var hasEarlyRoom: Bool { (early?.readableBytes ?? 0) < UpstreamConnection.highWaterBytes }

  /// Whether so many bytes may be written now; if not, it has failed.
  private func admits(_ count: Int) -> Bool {
    if transport?.isTunnel != true {
      switch upload {
      case .whole: guard count == 0 else { return refuse("more body bytes than its content-length") }
      case .ended: guard count == 0 else { return refuse("body bytes behind its end") }
      case .open(let rest?):
        guard count <= rest else { return refuse("more body bytes than its content-length") }
        upload = .open(rest: rest - count)
      case .open(nil): break
      }
    }
    // A caller that doesn't wait fills the memory; one that has the body at hand needn't wait for the first invitation.
    excess = transport?.hasRoom ?? hasEarlyRoom ? 0 : excess + count
    guard excess <= Self.maximumExcessBytes else {
      return refuse("body written faster than the upstream takes it")
    }
    return true
  }

  private func refuse(_ detail: String) -> Bool {
    fail(.badRequest(detail))
    return false
  }

  private func fail(_ reason: UpstreamFailure.Reason) {
    switch state {
    case .connecting(let attempt): attempt.fail(reason)
    case .active(let transport): transport.fail(reason)
    case .waiting, .over: if client.abandoned(self) { failed(reason) }
    }
  }

  // MARK: For the client and the transport

  /// A transport takes it up; the result is what was written so far.
  func activate(_ transport: any UpstreamTransport) -> ByteBuffer? {
    state = .active(transport)
    attempts += 1
    movedNs = client.nowNs()
    if attempts == 1, isShort, transport.mayRefuseUnheard || transport.isReused && request.isRepeatable {
      kept = ByteBuffer()
      if let early { keep(early) }
    }
    defer { early = nil }
    return early
  }

  /// Whoever has taken it up has sent nothing of it, and gives back what was written.
  func wasNotBegun(early bytes: ByteBuffer) {
    attempts -= 1
    forget()
    early = bytes.readableBytes > 0 ? bytes : nil
  }

  /// Some of the response has come: it is this transport's, whatever happens.
  func receivedBytes(at nowNs: UInt64) {
    hasReceived = true
    movedNs = nowNs
    if kept != nil { forget() }
  }

  var hasBegunAgain: Bool { attempts > 1 }

  /// Whether it may begin again when its connection, which had been used before, was closed.
  var mayStartAgain: Bool { request.isRepeatable && mayStartAgainUnheard }

  /// Whether it may begin again when the upstream has said that it didn't look at it.
  var mayStartAgainUnheard: Bool { !hasReceived && attempts == 1 && (!hasWritten || kept != nil) }

  /// Another connection is made for it, to which everything is said once more.
  func isConnecting(by attempt: UpstreamAttempt) {
    beginAgain()
    state = .connecting(attempt)
  }

  /// Its connection is made for another one, or not at all.
  func isWaiting() {
    beginAgain()
    state = .waiting
  }

  private func beginAgain() {
    guard let kept else { return }
    forget()
    excess = 0
    if kept.readableBytes > 0 { early = kept }
  }

  /// Whether there is a body, and nothing says that it is too long to be kept.
  private var isShort: Bool {
    switch request.body {
    case .none: false
    case .counted(let count): count <= client.limits.maximumKeptBytes
    case .chunked: true
    }
  }

  private func keep(_ bytes: ByteBuffer) {
    guard let count = kept?.readableBytes else { return }
    guard count + bytes.readableBytes <= client.limits.maximumKeptBytes, client.keep(bytes.readableBytes)
    else {
      return forget()
    }
    kept?.writeImmutableBuffer(bytes)
  }

  private func forget() {
    guard let bytes = kept else { return }
    client.forget(bytes.readableBytes)
    kept = nil
  }

  func moved(at nowNs: UInt64) { movedNs = nowNs }

  /// The receiver may write, if it waits for that.
  func invite() {
    guard owesInvitation, !isOver else { return }
    owesInvitation = false
    excess = 0
    receiver?.upstreamWantsBody()
  }

  func informed(_ head: ResponseHead) { receiver?.upstreamInformed(head) }

  func answered(_ head: ResponseHead) {
    hasAnswerBegun = true
    receiver?.upstreamAnswered(head)
  }

  func upgraded(_ head: ResponseHead) {
    hasAnswerBegun = true
    receiver?.upstreamUpgraded(head)
  }

  func sent(_ bytes: ByteBuffer) {
    isWanted = false
    receiver?.upstreamSent(bytes)
  }

  func ended(_ trailers: HTTPFields) { finish()?.upstreamEnded(trailers) }

  func answered(_ head: ResponseHead, whole body: ByteBuffer) {
    finish()?.upstreamAnswered(head, whole: body)
  }

  func failed(_ reason: UpstreamFailure.Reason) {
    finish()?.upstreamFailed(UpstreamFailure(reason: reason, hasAnswerBegun: hasAnswerBegun))
  }

  /// Why there is no response, or no whole one, when the connection has gone.
  func closedEarly(_ error: String?) -> UpstreamFailure.Reason {
    let place = hasReceived ? "in the middle of an answer" : "before an answer"
    return .closedEarly(error.map { "\(place): \($0)" } ?? place)
  }

  /// Why it is to be given up now; nil: it isn't.
  ///
  /// - Parameters:
  ///   - awaitsHead: the response hasn't begun.
  ///   - awaitsEnd: only its end is missing, which nobody needs to ask for.
  ///   - isBlocked: the upstream doesn't take the request.
  func overdue(
    awaitsHead: Bool, awaitsEnd: Bool, isBlocked: Bool, nowNs: UInt64
  ) -> UpstreamFailure.Reason? {
    let limits = client.limits
    let silentNs = nowNs >= movedNs ? nowNs - movedNs : 0
    guard awaitsHead else {
      let isDue = isWanted && !mayBeSilent || awaitsEnd
      return isDue && silentNs >= limits.idleTimeoutNs ? .stalled : nil
    }
    // A body that is late is the caller's doing, unless it waits for a 100 that never comes.
    let isUpstreamsTurn = isRequestEnded || isBlocked
    let boundNs = isUpstreamsTurn ? limits.answerTimeoutNs : max(limits.idleTimeoutNs, limits.answerTimeoutNs)
    return silentNs >= boundNs ? .noAnswer : nil
  }

  @discardableResult
  private func finish() -> (any UpstreamReceiver)? {
    defer { receiver = nil }
    state = .over
    early = nil
    forget()
    return receiver
  }
}

/// Learns what becomes of a request, on the client's loop, never before `begin` has returned. Any method of the exchange may
/// be called from here; all but `begin` may call back before they return.
///
///   upstreamWantsBody*  upstreamInformed*  ( upstreamAnswered(whole:)
///                                          | upstreamAnswered upstreamSent* upstreamEnded
///                                          | upstreamUpgraded upstreamSent* upstreamEnded )      or, at any point, upstreamFailed
protocol UpstreamReceiver: AnyObject {
  /// The head is on its way: the body may be written. Called again when, after a `write` that said false, there is room.
  func upstreamWantsBody()
  /// An interim answer (1xx), but not 101.
  func upstreamInformed(_ head: ResponseHead)
  /// The answer has begun; its fields are as they came, hop-by-hop ones included. An answer without a body ends
  /// without a further call; for any other `readMore` is called.
  func upstreamAnswered(_ head: ResponseHead)
  /// The whole answer, where the request lets it come so (`maximumWholeBytes`): the last call.
  func upstreamAnswered(_ head: ResponseHead, whole body: ByteBuffer)
  /// One piece of the body, or of what comes through a tunnel: the answer to one `readMore`.
  func upstreamSent(_ bytes: ByteBuffer)
  /// The whole answer has come, or the upstream has ended its side of a tunnel: the last call.
  func upstreamEnded(_ trailers: HTTPFields)
  /// It went wrong: the last call.
  func upstreamFailed(_ failure: UpstreamFailure)
  /// 101: from here the exchange is a tunnel. `write`, `readMore`, `upstreamWantsBody` and `upstreamSent` carry raw bytes with the
  /// same push-back; `end` ends our side and `upstreamEnded` tells that the upstream has ended its; no time-out.
  func upstreamUpgraded(_ head: ResponseHead)
}

/// Why there is no answer, or no whole one.
struct UpstreamFailure: Error, Equatable, CustomStringConvertible {
  enum Reason: Equatable {
    /// Name not found, connection refused, handshake failed.
    case unreachable(String)
    /// No connection in `connectTimeoutNs`.
    case connectTimeout
    /// No head of an answer in `answerTimeoutNs`.
    case noAnswer
    /// Nothing came in the middle of an answer for `idleTimeoutNs`.
    case stalled
    /// The upstream closed before or in the middle of an answer.
    case closedEarly(String)
    /// The answer breaks a rule of HTTP/1.1 or a bound.
    case malformed(String)
    /// The request can't be sent as it is, or its body isn't what was announced: the caller's fault.
    case badRequest(String)
    /// `maximumPerOrigin` connections are in use, and the queue is full or didn't move in `connectTimeoutNs`.
    case busy
    /// The client is closed.
    case closing
  }

  let reason: Reason
  /// Whether `upstreamAnswered` or `upstreamUpgraded` was called: it is too late for another answer to the client.
  let hasAnswerBegun: Bool

  var description: String {
    switch reason {
    case .unreachable(let detail): "the upstream can't be reached: \(detail)"
    case .connectTimeout: "no connection to the upstream in time"
    case .noAnswer: "no answer in time"
    case .stalled: "the answer stopped in the middle"
    case .closedEarly(let detail): "the upstream closed the connection \(detail)"
    case .malformed(let detail): "malformed answer: \(detail)"
    case .badRequest(let detail): "the request can't be sent: \(detail)"
    case .busy: "too many requests of the upstream are in progress"
    case .closing: "the client is closing"
    }
  }
}
