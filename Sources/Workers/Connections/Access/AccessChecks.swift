// Asks the services that SUBSCRIPTION_CHECK and SUBMISSION_CHECK name (contract §3), through the proxy workers.
//
//   2xx ──► allowed      any other status, or no answer in time ──► 403      not reachable, or too busy ──► 503

import HTTP
import Kit
import Links
import Settings

final class AccessChecks {
  private let calls: CallClient?
  private let settings: Settings

  /// - Parameter calls: nil if no service is configured.
  init(calls: CallClient?, settings: Settings) {
    self.calls = calls
    self.settings = settings
  }

  /// Whether a service is configured.
  var areAsked: Bool { settings.subscriptionCheck.url != nil || settings.submissionCheck.url != nil }

  /// What is to be asked before these subscriptions are granted; nil: nothing.
  func subscription(_ asked: [Subscription], _ credentials: ServiceCredentials) -> ServiceCall? {
    guard settings.subscriptionCheck.url != nil else { return nil }
    // As the body of a request that changes subscriptions, which RIG passes on.
    let body = Array(#"{"subscriptions":"#.utf8) + Subscription.list(asked) + Array("}".utf8)
    return call(.subscriptionCheck, body, credentials)
  }

  /// What is to be asked before this event, or list of events, is taken; nil: nothing.
  func submission(_ json: @autoclosure () -> [UInt8], _ credentials: ServiceCredentials) -> ServiceCall? {
    guard settings.submissionCheck.url != nil else { return nil }
    return call(.submissionCheck, json(), credentials)
  }

  private func call(_ purpose: CallPurpose, _ body: [UInt8], _ credentials: ServiceCredentials) -> ServiceCall
  {
    ServiceCall(purpose, fields: credentials.fields.wireBlock, body: body)
  }

  /// Asks. `body` is called once, with nil if it is allowed; what is returned gives the question up.
  func ask(_ call: ServiceCall, nowNs: UInt64, _ body: @escaping (RefusedRequest?) -> Void) -> (() -> Void)? {
    guard let calls else {
      body(RefusedRequest(status: 503, detail: "\(Self.name(call.purpose)): no proxy worker is there"))
      return nil
    }
    let correlation = calls.call(call, nowNs: nowNs) { body(Self.refusal(call.purpose, $0)) }
    return correlation.map { correlation in { calls.cancel(correlation) } }
  }

  private static func refusal(_ purpose: CallPurpose, _ outcome: CallOutcome) -> RefusedRequest? {
    let name = name(purpose)
    switch outcome {
    case .answered(200...299, _): return nil
    case .answered(let status, _):
      return RefusedRequest(status: 403, detail: "\(name): the service has denied it with status \(status)")
    case .timedOut:
      return RefusedRequest(status: 403, detail: "\(name): the service didn't answer in time")
    case .unreachable(let reason):
      return RefusedRequest(status: 503, detail: "\(name): the service can't be reached: \(reason)")
    case .busy(let reason):
      return RefusedRequest(status: 503, detail: "\(name): the service can't be asked now: \(reason)")
    }
  }

  private static func name(_ purpose: CallPurpose) -> String {
    purpose == .submissionCheck ? "SUBMISSION_CHECK" : "SUBSCRIPTION_CHECK"
  }
}

/// What a request shows that a service may want to see.
struct ServiceCredentials: Equatable {
  /// `Authorization`, as it came; `traceparent` and `tracestate`.
  private(set) var fields = HTTPFields()

  init() {}

  init(authorization: [String], traceparent: String) {
    for value in authorization { fields.add(name: "authorization", value: value) }
    note(traceparent, nil)
  }

  /// - Parameter tokens: given elsewhere than in the fields; sent as bearer tokens.
  /// - Throws: 400 for a token that can't be part of a field.
  init(of request: HTTPRequest, tokens: [(place: String, token: String)] = []) throws(RefusedRequest) {
    for field in request.headers where field.nameIs("authorization") { fields.add(field) }
    try note(tokens)
    note(request.traceparent, request.tracestate)
  }

  /// - Throws: 400 for a token that can't be part of a field.
  init(tokens: [(place: String, token: String)]) throws(RefusedRequest) { try note(tokens) }

  /// Values of the `Authorization` fields.
  var authorization: [String] { fields["authorization"] }

  private mutating func note(_ traceparent: String, _ tracestate: String?) {
    if !traceparent.isEmpty { fields.add(name: "traceparent", value: traceparent) }
    if let tracestate { fields.add(name: "tracestate", value: tracestate) }
  }

  private mutating func note(_ tokens: [(place: String, token: String)]) throws(RefusedRequest) {
    for (place, token) in tokens {
      guard token.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
        throw RefusedRequest(
          status: 400, detail: "\(place) is no token: it has characters besides visible ASCII")
      }
      fields.add(name: "authorization", value: "Bearer \(token)")
    }
  }
}
