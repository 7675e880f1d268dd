// What workers let proxy workers call, and what came of it. One record of a call ring (type 5) or an answer ring (type 6),
// little endian:
//
//    0  version = 2, 1 byte   kind, 1 byte   target slot, 2 bytes   correlation, 8 bytes
//   12  fields of the kind (FieldCoding), and of later releases:
//
//   call     purpose, 1 byte   index, 2 bytes   flags (1: more parts follow), 1 byte   deadline, 8 bytes
//            traceparent, text   tracestate, list   authorization, list   body, data
//   part     flags, 1 byte   offset, 8 bytes   body, data
//   cancel   –
//   answer   outcome, 1 byte   flags, 1 byte   status, 2 bytes   offset, 8 bytes   reason, text   body, data
//
// A body larger than a record goes in parts, each with its place in the whole, so that a part that is missing is noticed.
// Who sent a record is known by its ring. Either side may have gone mad: nothing in a record is trusted. What another release
// may have added is passed over (RecordFault).

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

/// What a service is asked.
public struct ServiceCall: Equatable, Sendable {
  public var purpose: CallPurpose
  /// Which of several services of the purpose is called, such as of the key sets; 0 where there is one.
  public var index: UInt16
  /// Values of the `Authorization` fields to send.
  public var authorization: [String]
  public var traceparent: String
  public var tracestate: String?
  /// JSON; empty: the call is a GET.
  public var body: [UInt8]

  public init(
    _ purpose: CallPurpose, index: UInt16 = 0, authorization: [String] = [], traceparent: String = "",
    tracestate: String? = nil, body: [UInt8] = []
  ) {
    self.purpose = purpose
    self.index = index
    self.authorization = authorization
    self.traceparent = traceparent
    self.tracestate = tracestate
    self.body = body
  }
}

/// What came of a call.
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

public struct CallRecord: Equatable, Sendable {
  public static let callType: UInt16 = 5
  public static let answerType: UInt16 = 6

  public enum Message: Equatable, Sendable {
    /// With the first part of the body. `deadlineNs`: of the monotonic clock.
    case call(ServiceCall, deadlineNs: UInt64, hasMore: Bool)
    /// A further part of the body, which begins at `offset` of the whole.
    case part([UInt8], offset: UInt64, hasMore: Bool)
    /// Nobody waits for the answer.
    case cancel
    /// What came of it, or a further part of its body.
    case answer(CallOutcome, offset: UInt64, hasMore: Bool)
  }

  /// Slot of the proxy worker, or of the reader of the answer ring, that it is for; the others skip the record.
  public let target: UInt16
  /// Joins an answer to its call; of the caller's choosing.
  public let correlation: UInt64
  public let message: Message

  public init(target: UInt16, correlation: UInt64, message: Message) {
    self.target = target
    self.correlation = correlation
    self.message = message
  }
}

// MARK: Wire format

extension CallRecord {
  private static let version: UInt8 = 2
  private static let headerBytes = 12

  private enum Kind: UInt8 {
    case call = 1
    case part, cancel, answer
  }
  private enum Outcome: UInt8 {
    case answered = 1
    case timedOut, unreachable, busy
  }

  /// The record's type in its ring.
  public var type: UInt16 { if case .answer = message { Self.answerType } else { Self.callType } }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    fields.append(Self.version)
    fields.append(kind.rawValue)
    fields.append(target)
    fields.append(correlation)
    switch message {
    case .call(let call, let deadlineNs, let hasMore):
      fields.append(call.purpose.rawValue)
      fields.append(call.index)
      fields.append(UInt8(hasMore ? 1 : 0))
      fields.append(deadlineNs)
      fields.append(call.traceparent)
      fields.append(call.tracestate.map { [$0] } ?? [])
      fields.append(call.authorization)
      fields.append(call.body)
    case .part(let body, let offset, let hasMore):
      fields.append(UInt8(hasMore ? 1 : 0))
      fields.append(offset)
      fields.append(body)
    case .cancel: break
    case .answer(let outcome, let offset, let hasMore):
      Self.append(outcome, offset, hasMore, to: &fields)
    }
    return fields.bytes
  }

  private var kind: Kind {
    switch message {
    case .call: .call
    case .part: .part
    case .cancel: .cancel
    case .answer: .answer
    }
  }

  private static func append(
    _ outcome: CallOutcome, _ offset: UInt64, _ hasMore: Bool, to fields: inout FieldWriter
  ) {
    var status: UInt16 = 0
    var reason = ""
    var body: [UInt8] = []
    let kind: Outcome
    switch outcome {
    case .answered(let code, let bytes): (kind, status, body) = (.answered, code, bytes)
    case .timedOut: kind = .timedOut
    case .unreachable(let text): (kind, reason) = (.unreachable, text)
    case .busy(let text): (kind, reason) = (.busy, text)
    }
    fields.append(kind.rawValue)
    fields.append(UInt8(hasMore ? 1 : 0))
    fields.append(status)
    fields.append(offset)
    fields.append(reason)
    fields.append(body)
  }

  /// The target of a record, without looking at the rest.
  public static func target(of bytes: UnsafeRawBufferPointer) -> UInt16? {
    guard bytes.count >= headerBytes else { return nil }
    return UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
  }

  /// Decodes a record.
  ///
  /// - Throws: what is wrong with a record that isn't as this format has it.
  public init(type: UInt16, _ bytes: UnsafeRawBufferPointer) throws(RecordFault) {
    guard type == Self.callType || type == Self.answerType else { throw .unknown(kind: "\(type)") }
    var fields = FieldReader(bytes)
    guard let version = fields.number(UInt8.self), let code = fields.number(UInt8.self),
      let target = fields.number(UInt16.self), let correlation = fields.number(UInt64.self)
    else { throw .malformed }
    guard version == Self.version else { throw .version(version, of: "\(type)") }
    guard let kind = Kind(rawValue: code) else { throw .unknown(kind: "\(type).\(code)") }
    guard (kind == .answer) == (type == Self.answerType),
      let message = try Self.message(kind, &fields, type), fields.isComplete
    else { throw .malformed }
    self.init(target: target, correlation: correlation, message: message)
  }

  /// nil: malformed.
  private static func message(
    _ kind: Kind, _ fields: inout FieldReader, _ type: UInt16
  ) throws(RecordFault) -> Message? {
    switch kind {
    case .cancel: return .cancel
    case .call:
      guard let code = fields.number(UInt8.self) else { return nil }
      guard let purpose = CallPurpose(rawValue: code) else {
        throw .unknown(kind: "\(type).\(kind.rawValue) purpose \(code)")
      }
      guard let index = fields.number(UInt16.self), let hasMore = flag(&fields),
        let deadlineNs = fields.number(UInt64.self), let traceparent = fields.text(),
        let tracestate = fields.list(), tracestate.count <= 1, let authorization = fields.list(),
        let body = fields.data()
      else { return nil }
      let call = ServiceCall(
        purpose, index: index, authorization: authorization, traceparent: traceparent,
        tracestate: tracestate.first, body: body)
      return .call(call, deadlineNs: deadlineNs, hasMore: hasMore)
    case .part:
      guard let hasMore = flag(&fields), let offset = fields.number(UInt64.self), let body = fields.data()
      else { return nil }
      return .part(body, offset: offset, hasMore: hasMore)
    case .answer:
      guard let code = fields.number(UInt8.self), let hasMore = flag(&fields),
        let status = fields.number(UInt16.self), let offset = fields.number(UInt64.self),
        let reason = fields.text(), let body = fields.data()
      else { return nil }
      // However else it has ended: there is no answer.
      guard let outcome = Outcome(rawValue: code) else {
        return .answer(.unreachable(reason), offset: 0, hasMore: false)
      }
      let isPlain = status == 0 && body.isEmpty && !hasMore && offset == 0
      switch outcome {
      case .answered:
        guard (100...999).contains(status), reason.isEmpty else { return nil }
        return .answer(.answered(status: status, body: body), offset: offset, hasMore: hasMore)
      case .timedOut:
        return isPlain && reason.isEmpty ? .answer(.timedOut, offset: 0, hasMore: false) : nil
      case .unreachable: return isPlain ? .answer(.unreachable(reason), offset: 0, hasMore: false) : nil
      case .busy: return isPlain ? .answer(.busy(reason), offset: 0, hasMore: false) : nil
      }
    }
  }

  /// Whether more parts follow. Other flags are of other releases.
  private static func flag(_ fields: inout FieldReader) -> Bool? {
    fields.number(UInt8.self).map { $0 & 1 == 1 }
  }
}

// MARK: Parts

extension CallRecord {
  /// Of a record besides its body: header, credentials and reasons, all bounded by a request's head.
  private static let bytesBesideBody = 64

  /// A call in records of at most `maximumBytes`; nil if its fields alone don't fit.
  public static func records(
    _ call: ServiceCall, target: UInt16, correlation: UInt64, deadlineNs: UInt64, maximumBytes: Int
  ) -> [CallRecord]? {
    var first = call
    first.body = []
    let head = CallRecord(
      target: target, correlation: correlation,
      message: .call(first, deadlineNs: deadlineNs, hasMore: false))
    let room = maximumBytes - head.encoded.count
    guard room > 0 || (room == 0 && call.body.isEmpty) else { return nil }
    return parts(of: call.body, first: room, then: maximumBytes - bytesBesideBody) { body, offset, hasMore in
      first.body = body
      let message: Message =
        offset == 0
        ? .call(first, deadlineNs: deadlineNs, hasMore: hasMore)
        : .part(body, offset: offset, hasMore: hasMore)
      return CallRecord(target: target, correlation: correlation, message: message)
    }
  }

  /// An answer in records of at most `maximumBytes`.
  public static func records(
    _ outcome: CallOutcome, target: UInt16, correlation: UInt64, maximumBytes: Int
  ) -> [CallRecord] {
    guard case .answered(let status, let body) = outcome else {
      return [
        CallRecord(
          target: target, correlation: correlation, message: .answer(outcome, offset: 0, hasMore: false))
      ]
    }
    let room = maximumBytes - bytesBesideBody
    return parts(of: body, first: room, then: room) { body, offset, hasMore in
      CallRecord(
        target: target, correlation: correlation,
        message: .answer(.answered(status: status, body: body), offset: offset, hasMore: hasMore))
    }
  }

  private static func parts(
    of body: [UInt8], first: Int, then: Int,
    _ make: (_ body: [UInt8], _ offset: UInt64, _ hasMore: Bool) -> CallRecord
  ) -> [CallRecord] {
    var records: [CallRecord] = []
    var start = 0
    repeat {
      let end = min(body.count, start + max(1, records.isEmpty ? first : then))
      records.append(make(Array(body[start..<end]), UInt64(start), end < body.count))
      start = end
    } while start < body.count
    return records
  }
}
