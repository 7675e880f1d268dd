// One request that goes to Kafka: its body is an event, which is produced to the endpoint's topic.
//
//   new ─► asking ─► reading ─► producing ─► acknowledged ─┬─ nothing to wait for ─► 202 "Accepted."
//             │ 429     │ 400, 413    │ 502, 503           └─ wait ─► the service's response, or 504
//
// Asked is whether the rate limit allows it. A response that is faster than the acknowledgement is taken as it comes. It must never
// answer before the brokers have the event.

import HTTP
import Kit
import Links
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
    /// Whose tokens it takes; nil: it isn't limited.
    let limitKey: String?
    /// Reads the body as an event.
    let parse: (ByteBuffer) throws(EventError) -> [UInt8]
    /// What goes into the event about the request with this id.
    let origin: (_ correlation: String) -> ProducedEvent.Origin
  }

  private enum State {
    case new
    case asking(ResponseStream, question: ExchangeClient.Key?, hasWholeBody: Bool)
    case reading(ResponseStream, AssemblyHold?, stopClock: () -> Void)
    /// The event is on its way to the brokers, or there. nil: no response is waited for.
    case producing(ResponseStream, WaitingRequests.Ticket?)
    case over
  }

  private let plan: Plan
  private let exchanges: ExchangeClient
  private let services: GatewayResponses
  private let account: RequestAccount
  private var state = State.new
  private var body = ByteBuffer()

  private var waiting: WaitingRequests { services.waiting }

  init(_ plan: Plan, _ exchanges: ExchangeClient, _ services: GatewayResponses, account: RequestAccount) {
    self.plan = plan
    self.exchanges = exchanges
    self.services = services
    self.account = account
  }

  private var answer: ResponseStream? {
    switch state {
    case .asking(let answer, _, _), .reading(let answer, _, _), .producing(let answer, _): answer
    case .new, .over: nil
    }
  }

  // MARK: From the client

  func begin(_ answer: ResponseStream) {
    state = .asking(answer, question: nil, hasWholeBody: false)
    do throws(EventError) {
      try HeaderFields.requireNoContentCoding(answer.request.fields)
    } catch {
      return refuse(.unsupportedMediaType, error.detail)
    }
    if case .counted(let bytes) = answer.request.announcedBody, bytes > plan.maximumBytes {
      return tooLarge()
    }
    guard let limitKey = plan.limitKey else { return read() }
    let question = exchanges.ask(limitKey) { [weak self] in self?.asked($0) }
    if case .asking(_, _, let hasWholeBody) = state {
      state = .asking(answer, question: question, hasWholeBody: hasWholeBody)
    }
  }

  private func asked(_ admission: ExchangeClient.Admission) {
    switch admission {
    case .admitted: read()
    case .limited(let seconds):
      respond(
        .problem(
          .tooManyRequests, "too many requests to topic \(plan.topic)",
          headers: ["retry-after": String(seconds)]))
    case .unknown(let reason):
      refuse(.serviceUnavailable, "whether the rate limit allows the request can't be told now: \(reason)")
    }
  }

  /// The request counts, and may go on.
  private func read() {
    guard case .asking(let answer, _, let hasWholeBody) = state else { return }
    let hold = answer.hold()
    // The front's own time-outs are between two pieces: this one keeps all of them.
    let stopClock = waiting.after(ms: plan.bodySeconds * 1000) { [weak self] in
      guard let self else { return }
      refuse(.requestTimeout, "request body didn't come within \(plan.bodySeconds) s")
    }
    state = .reading(answer, hold, stopClock: stopClock)
    if hasWholeBody { return produce() }
    if case .counted(let bytes) = answer.request.announcedBody, let refusal = hold?.announce(bytes) {
      return respond(HTTPResponse(refusal))
    }
    answer.readBody()
  }

  func received(_ bytes: ByteBuffer) {
    guard case .reading(let answer, let hold, _) = state else { return }
    account.received(bytes.readableBytes)
    let count = body.readableBytes + bytes.readableBytes
    guard count <= plan.maximumBytes else { return tooLarge() }
    if let refusal = hold?.resize(to: count) { return respond(HTTPResponse(refusal)) }
    body.writeImmutableBuffer(bytes)
    answer.readBody()
  }

  func receivedEnd(trailers: HTTPFields) {
    switch state {
    case .asking(let answer, let question, _):
      state = .asking(answer, question: question, hasWholeBody: true)
    case .reading: produce()
    case .new, .producing, .over: break
    }
  }

  func canWrite() {}

  func clientGone() {
    guard answer != nil else { return }
    account.finish(.clientGone, status: 0, isComplete: false)
    end()
  }

  func breakOff(_ refusal: RefusedRequest) {
    let hint = if case .producing = state { "; the event may have been produced" } else { "" }
    respond(RefusedRequest(status: refusal.status, detail: refusal.detail + hint).response)
  }

  private func tooLarge() {
    refuse(.payloadTooLarge, "the event has more than \(plan.maximumBytes) bytes, the limit")
  }

  // MARK: To Kafka

  private func produce() {
    guard case .reading(let answer, _, let stopClock) = state else { return }
    stopClock()
    do throws(EventError) {
      let event = try plan.parse(body)
      guard let (id, ticket) = correlation() else { return }
      state = .producing(answer, ticket)
      body = ByteBuffer()
      let produced = try ProducedEvent(event, plan.origin(id))
      services.publications.publish(
        topic: plan.topic, key: produced.key, headers: ["content-type", "application/cloudevents+json"],
        value: produced.json, nowNs: MonotonicTime.now()
      ) { [self] in published($0) }
    } catch {
      // Whoever sends what is no event has sent a bad request, whatever else could be said of its media type.
      refuse(HTTPResponseStatus(statusCode: error.status == 415 ? 400 : error.status), error.detail)
    }
  }

  /// nil: too many requests wait already, and this one is answered.
  private func correlation() -> (id: String, ticket: WaitingRequests.Ticket?)? {
    if plan.responseTimeoutMs == nil, let id = waiting.unusedID() { return (id, nil) }
    do throws(CountedPlaces.Refusal) {
      let ticket = try waiting.begin(for: plan.holder) { [weak self] in self?.received($0) }
      return (ticket.id, ticket)
    } catch {
      respond(error.response)
      return nil
    }
  }

  private func published(_ outcome: PublicationOutcome) {
    // Its client may have gone, or its response have come.
    guard case .producing(_, let ticket) = state else { return }
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
    guard case .producing(let answer, let ticket?) = state else { return }
    guard let response else {
      return respond(
        .problem(.gatewayTimeout, "the event was produced, and no response has come in time"),
        .responseTimeout)
    }
    // Its place is given back when the client has taken the answer, or has gone.
    state = .producing(answer, nil)
    respond(HTTPResponse(response), .ok) { [waiting] in waiting.end(ticket) }
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
    guard let answer else { return }
    account.sent(response.body.readableBytes)
    let status = Int(response.status.code)
    account.finish(
      outcome ?? RequestOutcome(answeredHereWith: status), status: status, isComplete: true)
    answer.respond(response, whenTaken: whenTaken)
    end()
  }

  private func end() {
    switch state {
    case .asking(_, let question?, _): exchanges.cancel(question: question)
    case .reading(_, _, let stopClock): stopClock()
    case .producing(_, let ticket?): waiting.end(ticket)
    case .new, .asking, .producing, .over: break
    }
    state = .over
    body = ByteBuffer()
  }
}
