// One request and its answer, from `begin` to the last call of its receiver. The caller's handle.
//
//   waiting ──▶ connecting ──▶ active ──▶ over        cancel: over at once, without another call of the receiver
//                   ▲            │
//                   └────────────┘  closed before a byte of the answer: once, see `mayStartAgain`
//
// Body bytes written before there is a connection wait here, at most as many as a connection takes (`highWater`). Those given to a
// connection whose upstream may have left it are kept until the answer begins (`UpstreamLimits.maximumKeptBytes`).

import NIOCore
import NIOHTTP1

/// Belongs to the client's loop.
final class UpstreamExchange {
  enum State {
    case waiting
    case connecting(UpstreamConnection)
    case active(any UpstreamTransport)
    case over
  }

  /// Bytes that a caller may write although it is to wait.
  private static let maximumExcessBytes = 4 * UpstreamConnection.highWaterBytes

  let request: UpstreamRequest
  let client: UpstreamClient
  /// A silence of any length is no failure of this answer, as of an event stream. Set at any time.
  var mayBeSilent = false
  private(set) var state = State.waiting
  private var receiver: (any UpstreamReceiver)?
  /// Body bytes until there is a connection.
  private var early: ByteBuffer?
  /// Of a chunked body that is whole.
  private(set) var trailers: HTTPHeaders = [:]
  /// Of a counted body: bytes that are still to come.
  private var rest: Int
  private var hasWritten = false
  /// All of the body that its connection was given, to be given to another one if that turns out closed; nil: it can't be.
  private var kept: ByteBuffer?
  private var hasAnswerBegun = false
  /// Bytes written although the receiver was to wait.
  private var excess = 0
  /// The receiver waits for `upstreamWantsBody`.
  private(set) var owesInvitation: Bool
  /// The request is whole, as far as the caller is concerned.
  private(set) var isRequestEnded: Bool
  /// One piece of the body has been asked for.
  private(set) var isWanted = false
  /// When the last thing happened to it.
  private(set) var movedNs: UInt64
  /// Number of connections it had.
  private(set) var attempts = 0
  /// A byte of the answer has come.
  private(set) var hasReceived = false

  init(_ request: UpstreamRequest, _ receiver: any UpstreamReceiver, client: UpstreamClient) {
    self.request = request
    self.receiver = receiver
    self.client = client
    rest = if case .counted(let count) = request.body { count } else { 0 }
    isRequestEnded = !request.hasBody
    owesInvitation = request.hasBody
    movedNs = client.nowNs()
  }

  var isOver: Bool { if case .over = state { true } else { false } }
  private var connection: (any UpstreamTransport)? {
    if case .active(let connection) = state { connection } else { nil }
  }

  // MARK: For the caller

  /// Writes a piece of the body, which may begin as soon as `begin` has returned. The bytes are always taken; false: no more until
  /// `upstreamWantsBody` is called. After the end of the exchange they are thrown away, and it is false.
  func write(_ bytes: ByteBuffer) -> Bool {
    guard !isOver, admits(bytes.readableBytes) else { return false }
    guard bytes.readableBytes > 0 else { return true }
    hasWritten = true
    movedNs = client.nowNs()
    let isChunk = request.body == .chunked && !isTunnel
    let hasRoom: Bool
    if let connection {
      keep(bytes)
      hasRoom = connection.write(bytes, asChunk: isChunk)
    } else {
      UpstreamConnection.append(bytes, asChunk: false, to: &early)
      hasRoom = hasEarlyRoom
    }
    if !hasRoom { owesInvitation = true }
    return hasRoom
  }

  /// The body is complete. In a tunnel: nothing more will be written. Trailers are sent only behind a chunked body.
  func end(trailers: HTTPHeaders = [:]) {
    guard !isOver else { return }
    if let connection, connection.isTunnel { return connection.endTunnel() }
    guard !isRequestEnded else { return }
    guard rest == 0 else { return fail(.badRequest("fewer body bytes than its content-length")) }
    if let defect = UpstreamRequest.defect(of: trailers) { return fail(.badRequest("trailers: \(defect)")) }
    isRequestEnded = true
    owesInvitation = false
    movedNs = client.nowNs()
    if request.body == .chunked { self.trailers = trailers }
    connection?.requestEnded()
  }

  /// Asks for one piece of the answer's body, which may come before this returns.
  func readMore() {
    guard !isOver, !isWanted else { return }
    isWanted = true
    movedNs = client.nowNs()
    connection?.pump()
  }

  /// Gives it up: the connection is closed and the receiver isn't called any more.
  func cancel() {
    guard !isOver else { return }
    let before = state
    finish()
    switch before {
    case .connecting(let connection): connection.abandon()
    case .active(let connection): connection.abandon()
    case .waiting, .over: client.abandoned(self)
    }
  }

  private var isTunnel: Bool { connection?.isTunnel ?? false }
  private var hasEarlyRoom: Bool { (early?.readableBytes ?? 0) < UpstreamConnection.highWaterBytes }

  /// Whether so many bytes may be written now; if not, it has failed.
  private func admits(_ count: Int) -> Bool {
    if !isTunnel {
      guard !isRequestEnded || count == 0 else { return refuse("body bytes behind its end") }
      if case .counted = request.body {
        rest -= count
        guard rest >= 0 else { return refuse("more body bytes than its content-length") }
      }
    }
    // A caller that doesn't wait fills the memory; one that has the body at hand needn't wait for the first invitation.
    excess = connection?.hasRoom ?? hasEarlyRoom ? 0 : excess + count
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
    case .connecting(let connection): connection.fail(reason)
    case .active(let connection): connection.fail(reason)
    case .waiting, .over: if client.abandoned(self) { failed(reason) }
    }
  }

  // MARK: For the client and the connection

  /// A connection takes it up; the result is what was written so far.
  func activate(_ connection: any UpstreamTransport) -> ByteBuffer? {
    state = .active(connection)
    attempts += 1
    movedNs = client.nowNs()
    if attempts == 1, isShort, connection.mayRefuseUnheard || connection.isReused && request.isRepeatable {
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

  /// Some of the answer has come: it is this connection's, whatever happens.
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
  func isConnecting(by connection: UpstreamConnection) {
    beginAgain()
    state = .connecting(connection)
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
    guard kept != nil else { return }
    let count = bytes.readableBytes
    guard (kept?.readableBytes ?? 0) + count <= client.limits.maximumKeptBytes, client.mayKeep(count) else {
      return forget()
    }
    client.keptBytes += count
    kept?.writeImmutableBuffer(bytes)
  }

  private func forget() {
    client.keptBytes -= kept?.readableBytes ?? 0
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

  func informed(_ head: HTTPResponseHead) { receiver?.upstreamInformed(head) }

  func answered(_ head: HTTPResponseHead) {
    hasAnswerBegun = true
    receiver?.upstreamAnswered(head)
  }

  func upgraded(_ head: HTTPResponseHead) {
    hasAnswerBegun = true
    receiver?.upstreamUpgraded(head)
  }

  func sent(_ bytes: ByteBuffer) {
    isWanted = false
    receiver?.upstreamSent(bytes)
  }

  func ended(_ trailers: HTTPHeaders) {
    finish()?.upstreamEnded(trailers)
  }

  func failed(_ reason: UpstreamFailure.Reason) {
    finish()?.upstreamFailed(UpstreamFailure(reason: reason, hasAnswerBegun: hasAnswerBegun))
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
