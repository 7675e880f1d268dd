// One proxied request from its service's side: the body goes to the service as fast as that takes it, the answer comes as fast as
// the client takes it.
//
//   request   credit ──► connection worker, as the service takes what was written
//   answer    readMore ◄── credit from the connection worker

import HTTP
import Kit
import Links
import NIOCore

final class ServiceExchange: UpstreamReceiver {
  private let key: ExchangeDesk.Key
  private unowned let desk: ExchangeDesk
  private let hasBody: Bool
  let mayUpgrade: Bool
  private var isTunnel = false
  private var upstream: UpstreamExchange?
  /// Of the request's body.
  private var given = CreditGiven()
  private var isServiceSlow = false
  /// Of the answer's body that may be sent.
  private var credit = CreditToSend(CreditWindow.bytes)
  private var isReading = false
  private var hasAnswerBegun = false

  init(_ key: ExchangeDesk.Key, _ desk: ExchangeDesk, hasBody: Bool, mayUpgrade: Bool) {
    self.mayUpgrade = mayUpgrade
    self.key = key
    self.desk = desk
    self.hasBody = hasBody
  }

  func begin(_ upstream: UpstreamExchange) { self.upstream = upstream }

  func cancel() {
    upstream?.cancel()
    upstream = nil
  }

  // MARK: From the connection worker

  /// False: it has sent more than it may.
  func receivedBody(_ bytes: ByteBuffer) -> Bool {
    guard given.received(bytes.readableBytes) else { return false }
    if upstream?.write(bytes) == false { isServiceSlow = true }
    giveCredit()
    return true
  }

  func receivedEnd(_ trailers: [String]) { upstream?.end(trailers: HTTPFields(alternating: trailers)) }

  func receivedCredit(_ bytes: UInt32) {
    credit.received(bytes)
    readOn()
  }

  func ringHasRoom() { readOn() }

  private func giveCredit(atLeast least: UInt32 = CreditWindow.lumpBytes) {
    guard !isServiceSlow, let bytes = given.give(atLeast: least) else { return }
    desk.send(.credit(bytes), key)
  }

  private func readOn() {
    guard hasAnswerBegun, !isReading, credit.isOpen, !desk.isStalled(key) else { return }
    isReading = true
    upstream?.readMore()
  }

  // MARK: From the service

  func upstreamWantsBody() {
    guard hasBody || isTunnel else { return }
    guard !given.isNothing else { return desk.send(.credit(given.open()), key) }
    isServiceSlow = false
    giveCredit(atLeast: 1)
  }

  func upstreamInformed(_ head: ResponseHead) {
    desk.send(.informed(status: UInt16(clamping: head.status), headers: head.fields.alternating), key)
  }

  func upstreamAnswered(_ head: ResponseHead) {
    hasAnswerBegun = true
    let type = head.fields.first(name: "content-type")?.lowercased() ?? ""
    upstream?.mayBeSilent = type.hasPrefix("text/event-stream")
    desk.send(.answered(status: UInt16(clamping: head.status), headers: head.fields.alternating), key)
    readOn()
  }

  func upstreamAnswered(_ head: ResponseHead, whole body: ByteBuffer) {
    desk.send(.answered(status: UInt16(clamping: head.status), headers: head.fields.alternating), key)
    if body.readableBytes > 0 { desk.send(body, key) }
    upstreamEnded([:])
  }

  func upstreamSent(_ bytes: ByteBuffer) {
    isReading = false
    credit.sent(bytes.readableBytes)
    desk.send(bytes, key)
    readOn()
  }

  func upstreamEnded(_ trailers: HTTPFields) {
    upstream = nil
    desk.send(.end(trailers: trailers.alternating), key)
    desk.end(key)
  }

  func upstreamFailed(_ failure: UpstreamFailure) {
    let isSecond = upstream?.hasBegunAgain ?? false
    upstream = nil
    let (kind, reason): (ExchangeFailure, String) =
      switch failure.reason {
      case .noAnswer, .stalled: (.timeout, failure.description)
      case .busy: (.busy, failure.description)
      case .badRequest: (.badRequest, failure.description)
      case .unreachable, .connectTimeout, .closedEarly, .malformed, .closing:
        (isSecond ? .badGatewayTwice : .badGateway, failure.description)
      }
    desk.send(.failed(kind, reason: reason), key)
    desk.end(key)
  }

  func upstreamUpgraded(_ head: ResponseHead) {
    guard mayUpgrade, head.fields["upgrade"].map({ $0.lowercased() }) == ["websocket"] else {
      cancel()
      desk.send(
        .failed(.badGateway, reason: "the service has changed to a protocol that nobody asked for"), key)
      return desk.end(key)
    }
    isTunnel = true
    hasAnswerBegun = true
    desk.send(.upgraded(headers: head.fields.alternating), key)
    desk.send(.credit(given.open()), key)
    readOn()
  }
}
