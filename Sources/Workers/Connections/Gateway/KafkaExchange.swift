// One request that goes to Kafka: its body is an event, which is produced to the endpoint's topic.
//
//   count ─► body ─► event ─► publish ─► acknowledged ─┬─ nothing to wait for ─► 202 "Accepted."
//    │ 429      │ 400, 413          │ 502, 503         └─ wait ─► the service's response, or 504
//
// A response that is faster than the acknowledgement is taken as it comes. It must never answer before the brokers have the event.

import HTTP
import Kit
import NIOCore
import NIOHTTP1

final class KafkaExchange: RequestCarrier {
  /// Of what was read and asked for, what it takes to produce it and to wait.
  struct Plan {
    let topic: String
    let holder: PlaceHolder
    /// nil: no response is waited for.
    let responseTimeoutMs: Int?
    let maximumBytes: Int
    /// That the client has for its whole body.
    let bodySeconds: Int
    /// Asks whether the rate limit allows the request; nil: it isn't limited.
    let question: RateLimitQuestion?
    /// Reads the body as an event.
    let parse: (ByteBuffer) throws(EventError) -> [UInt8]
    /// What goes into the event about the request with this id.
    let origin: (_ correlation: String) -> ProducedEvent.Origin
  }

  private let plan: Plan
  private let publications: PublicationClient
  private let waiting: WaitingRequests
  private let account: RequestAccount
  private var answer: AnswerStream?
  private var ticket: WaitingRequests.Ticket?
  private var body = ByteBuffer()
  private var hold: AssemblyHold?
  /// The event is on its way to the brokers.
  private var isHandedOver = false
  private var stopBodyClock: (() -> Void)?
  /// The rate limit allows it.
  private var isAdmitted = false
  private var hasWholeBody = false

  init(
    _ plan: Plan, publications: PublicationClient, waiting: WaitingRequests, account: RequestAccount
  ) {
    self.plan = plan
    self.publications = publications
    self.waiting = waiting
    self.account = account
  }

  // MARK: From the client

  func begin(_ answer: AnswerStream) {
    self.answer = answer
    do throws(EventError) {
      try HeaderFields.requireNoContentCoding(answer.request.fields)
    } catch {
      return refuse(.unsupportedMediaType, error.detail)
    }
    if case .counted(let bytes) = answer.request.announcedBody, bytes > plan.maximumBytes {
      return tooLarge()
    }
    guard let question = plan.question else { return proceed() }
    question.ask { [weak self] verdict in
      guard let self, self.answer != nil else { return }
      switch verdict {
      case .admitted: proceed()
      case .limited(let seconds):
        respond(
          .problem(
            .tooManyRequests, "too many requests to topic \(plan.topic)",
            headers: ["retry-after": String(seconds)]))
      case .unknown(let reason):
        refuse(.serviceUnavailable, "whether the rate limit allows the request can't be told now: \(reason)")
      }
    }
  }

  /// The request counts, and may go on.
  private func proceed() {
    isAdmitted = true
    if hasWholeBody { return complete() }
    hold = answer?.hold()
    if case .counted(let bytes)? = answer?.request.announcedBody, let refusal = hold?.announce(bytes) {
      return respond(HTTPResponse(refusal))
    }
    // The front's own time-outs are between two pieces: this one keeps all of them.
    stopBodyClock = waiting.after(ms: plan.bodySeconds * 1000) { [weak self] in
      guard let self else { return }
      refuse(.requestTimeout, "request body didn't come within \(plan.bodySeconds) s")
    }
    answer?.readBody()
  }

  func received(_ bytes: ByteBuffer) {
    account.received(bytes.readableBytes)
    guard body.readableBytes + bytes.readableBytes <= plan.maximumBytes else { return tooLarge() }
    if let refusal = hold?.resize(to: body.readableBytes + bytes.readableBytes) {
      return respond(HTTPResponse(refusal))
    }
    body.writeImmutableBuffer(bytes)
    answer?.readBody()
  }

  func receivedEnd(trailers: HTTPHeaders) {
    hasWholeBody = true
    if isAdmitted { complete() }
  }

  private func complete() {
    stopBodyClock?()
    stopBodyClock = nil
    guard answer != nil else { return }
    do throws(EventError) {
      try produce()
    } catch {
      // Whoever sends what is no event has sent a bad request, whatever else could be said of its media type.
      refuse(HTTPResponseStatus(statusCode: error.status == 415 ? 400 : error.status), error.detail)
    }
    body = ByteBuffer()
    hold = nil
  }

  func canWrite() {}

  func clientGone() {
    guard answer != nil else { return }
    account.finish(.clientGone, status: 0, isComplete: false)
    end()
  }

  func breakOff(_ refusal: RefusedRequest) {
    let hint = isHandedOver ? "; the event may have been produced" : ""
    respond(RefusedRequest(status: refusal.status, detail: refusal.detail + hint).response)
  }

  private func tooLarge() {
    refuse(.payloadTooLarge, "the event has more than \(plan.maximumBytes) bytes, the limit")
  }

  // MARK: To Kafka

  private func produce() throws(EventError) {
    let event = try plan.parse(body)
    guard let id = correlation() else { return }
    let produced = try ProducedEvent(event, plan.origin(id))
    isHandedOver = true
    publications.publish(
      topic: plan.topic, key: produced.key, headers: ["content-type", "application/cloudevents+json"],
      value: produced.json, nowNs: MonotonicTime.now()
    ) { [self] in published($0) }
  }

  /// nil: too many requests wait already, and this one is answered.
  private func correlation() -> String? {
    if plan.responseTimeoutMs == nil, let id = waiting.unusedID() { return id }
    do throws(PlaceRefusal) {
      ticket = try waiting.begin(for: plan.holder) { [weak self] in self?.received($0) }
    } catch {
      respond(waiting.refusal(error))
    }
    return ticket?.id
  }

  private func published(_ outcome: PublicationOutcome) {
    // Its client may have gone, or its response have come.
    guard answer != nil else { return }
    switch outcome {
    case .acknowledged:
      if let ticket, let ms = plan.responseTimeoutMs { return waiting.startClock(ticket, ms: ms) }
      respond(.text("Accepted.", status: .accepted, contentType: "text/plain"))
    case .unavailable(let reason):
      refuse(.serviceUnavailable, "the event can't be produced to topic \(plan.topic) now: \(reason)")
    case .unknown(let reason):
      refuse(.serviceUnavailable, "the event may be in topic \(plan.topic), or not: \(reason)")
    case .refused(let reason):
      refuse(.badGateway, "the event can't be produced to topic \(plan.topic): \(reason)")
    case .tooLarge(let reason): refuse(.payloadTooLarge, "the event is too large for Kafka: \(reason)")
    }
  }

  /// From the service; nil: not in time.
  private func received(_ response: ServiceResponse?) {
    let place = ticket
    ticket = nil
    guard let response else {
      return respond(
        .problem(.gatewayTimeout, "the event was produced, and no response has come in time"),
        .responseTimeout)
    }
    respond(HTTPResponse(response), .ok) { [waiting] in if let place { waiting.end(place) } }
  }

  // MARK: Ends

  private func refuse(_ status: HTTPResponseStatus, _ detail: String) {
    respond(
      status == .serviceUnavailable
        ? .unavailable(retryAfterSeconds: 1, detail) : .problem(status, detail))
  }

  /// - Parameters:
  ///   - outcome: nil: what the gateway's own answer says.
  ///   - whenTaken: called once, when the client has taken the answer, or has gone.
  private func respond(
    _ response: HTTPResponse, _ outcome: RequestOutcome? = nil, whenTaken: (() -> Void)? = nil
  ) {
    guard let answer else {
      whenTaken?()
      return
    }
    account.sent(response.body.readableBytes)
    let status = Int(response.status.code)
    account.finish(
      outcome ?? RequestOutcome(answeredHereWith: status), status: status, isComplete: true)
    answer.respond(response, whenTaken: whenTaken)
    end()
  }

  private func end() {
    guard answer != nil else { return }
    answer = nil
    hold = nil
    stopBodyClock?()
    stopBodyClock = nil
    plan.question?.cancel()
    if let ticket { waiting.end(ticket) }
    ticket = nil
  }
}

extension HTTPResponse {
  /// A service's response as the client gets it.
  init(_ response: ServiceResponse) {
    self.init(
      status: HTTPResponseStatus(statusCode: Int(response.status)),
      headers: ForwardedHead.toClient(response.headers), body: ByteBuffer(bytes: response.body))
  }
}
