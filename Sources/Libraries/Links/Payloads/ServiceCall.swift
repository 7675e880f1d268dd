// What workers let proxy workers call, and what came of it. Fields (FieldCoding), little endian:
//
//   call      purpose, 1 byte   index, 2 bytes   fields, data   body, data
//   cancel    –
//   outcome   outcome, 1 byte   status, 2 bytes   reason, text   body, data

import Kit

/// What a service is called for; its address is in the settings.
public enum CallPurpose: UInt8, Sendable, CaseIterable {
  case subscriptionCheck = 1
  case submissionCheck = 2
  case keySet = 3

  /// The value of the label `purpose`.
  public var label: String {
    switch self {
    case .subscriptionCheck: "subscription_check"
    case .submissionCheck: "submission_check"
    case .keySet: "key_set"
    }
  }
}

public struct ServiceCall: Equatable, Sendable {
  public var purpose: CallPurpose
  /// Which of several services of the purpose is called, such as of the key sets; 0 where there is one.
  public var index: UInt16
  /// Of the request besides those that all have: lines "name: value" CRLF.
  public var fields: [UInt8]
  /// JSON; empty: the call is a GET.
  public var body: [UInt8]

  public init(_ purpose: CallPurpose, index: UInt16 = 0, fields: [UInt8] = [], body: [UInt8] = []) {
    self.purpose = purpose
    self.index = index
    self.fields = fields
    self.body = body
  }
}

public enum CallOutcome: Equatable, Sendable {
  /// The service has answered with this HTTP status.
  case answered(status: UInt16, body: [UInt8])
  /// It has been reached, and didn't answer in time.
  case timedOut
  /// It can't be reached, or answered what isn't HTTP.
  case unreachable(String)
  /// There are too many calls already: nothing was asked.
  case busy(String)
}

public enum CallMessage: Equatable, Sendable {
  case call(ServiceCall)
  /// Nobody waits for its outcome.
  case cancel
  case outcome(CallOutcome)

  /// Bytes of the largest message under these bounds of events and heads: an event may be written longer than it came (base64 and
  /// escapes).
  public static func maximumBytes(eventBytes: Int, headBytes: Int) -> Int {
    min(8 * eventBytes + 8 * headBytes + (64 << 10), Int(UInt32.max))
  }
}

// MARK: Wire format

extension CallMessage: LinkPayload {
  private enum Outcome: UInt8 {
    case answered = 1
    case timedOut, unreachable, busy
  }

  public var kind: PayloadKind {
    switch self {
    case .call: .call
    case .cancel: .cancelCall
    case .outcome: .callOutcome
    }
  }

  public func append(to fields: inout FieldWriter) {
    switch self {
    case .call(let call):
      fields.append(call.purpose.rawValue)
      fields.append(call.index)
      fields.append(call.fields)
      fields.append(call.body)
    case .cancel: break
    case .outcome(let outcome):
      let (code, status, reason, body): (Outcome, UInt16, String, [UInt8]) =
        switch outcome {
        case .answered(let status, let body): (.answered, status, "", body)
        case .timedOut: (.timedOut, 0, "", [])
        case .unreachable(let reason): (.unreachable, 0, reason, [])
        case .busy(let reason): (.busy, 0, reason, [])
        }
      fields.append(code.rawValue)
      fields.append(status)
      fields.append(reason)
      fields.append(body)
    }
  }

  public init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    switch envelope.kind {
    case .call: self = .call(try Self.call(&fields))
    case .cancelCall: self = .cancel
    case .callOutcome: self = .outcome(try Self.outcome(&fields))
    default: throw envelope.unknownKind
    }
  }

  private static func call(_ fields: inout FieldReader) throws(RecordFault) -> ServiceCall {
    guard let code = fields.number(UInt8.self), let index = fields.number(UInt16.self),
      let lines = fields.fieldLines(), let body = fields.data()
    else { throw .malformed }
    guard let purpose = CallPurpose(rawValue: code) else { throw .unknown(kind: "call for \(code)") }
    return ServiceCall(purpose, index: index, fields: lines, body: body)
  }

  private static func outcome(_ fields: inout FieldReader) throws(RecordFault) -> CallOutcome {
    guard let code = fields.number(UInt8.self), let status = fields.number(UInt16.self),
      let reason = fields.text(), let body = fields.data()
    else { throw .malformed }
    // What another release calls otherwise is no answer either.
    switch Outcome(rawValue: code) ?? .unreachable {
    case .answered:
      guard (100...999).contains(status) else { throw .malformed }
      return .answered(status: status, body: body)
    case .timedOut: return .timedOut
    case .unreachable: return .unreachable(reason)
    case .busy: return .busy(reason)
    }
  }
}
