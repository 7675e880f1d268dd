// Proxied requests and their answers on their way between a connection worker and a proxy worker, in the same rings as calls. All that
// is said about one request is an exchange: its messages have one correlation.
//
//   kind            value      payload                                         direction
//   open            flags      ProxiedRequest                                  request
//   body            –          bytes                                           both
//   end             –          trailers                                        both
//   cancelExchange  –          –                                               request
//   credit          bytes      –                                               both
//   informed        status     fields                                          answer
//   answered        status     fields                                          answer
//   responded       status     fields, body: a whole answer                    answer
//   failed          reason     text                                            answer
//   limited         seconds    –                                               answer
//   count           –          a rate limit's key                              request
//   admitted        –          –                                               answer
//   upgraded        101        fields                                          answer
//
// `count` is answered by `limited` or `admitted`, and that is all of this exchange. Behind `upgraded` an exchange is a tunnel: body
// carries raw bytes, end ends one side of it. A body's bytes are no fields: they are a stream (Outbox.stream) with credit (Credit);
// those of `responded` are none of it. Fields of HTTP and trailers travel as one block of octets, the lines "name: value" CRLF as
// HTTP/1.1 has them (HTTPFields.wireBlock), which whoever reads them validates.

import Kit

/// Why there is no answer, or no whole one.
public enum ExchangeFailure: UInt32, Sendable, CaseIterable {
  /// The service can't be reached, or closed too early, or answered what isn't HTTP.
  case badGateway = 1
  /// It didn't answer in time.
  case timeout = 2
  /// There are too many requests already.
  case busy = 3
  /// It can't be sent as it is.
  case badRequest = 4
  /// As `badGateway`, of a request that the proxy worker has sent twice.
  case badGatewayTwice = 5
}

/// Where a request is sent.
public struct ServiceOrigin: Hashable, Sendable {
  public var isTLS: Bool
  /// A name, or an address; IPv6 without brackets.
  public var host: String
  public var port: UInt16

  public init(isTLS: Bool, host: String, port: UInt16) {
    self.isTLS = isTLS
    self.host = host
    self.port = port
  }
}

/// What is known of a request's body before it comes.
public enum BodyForm: Equatable, Sendable {
  case none
  case counted(UInt64)
  case chunked
}

/// A request's head, as the service gets it.
public struct ProxiedRequest: Equatable, Sendable {
  /// Of the key of a rate limit.
  public static let mostKeyBytes = 1024

  public var origin: ServiceOrigin
  public var method: String
  /// Path and query, sent byte for byte.
  public var target: String
  /// Lines; complete but for the framing of the body.
  public var fields: [UInt8]
  public var body: BodyForm
  /// Milliseconds that the service has to begin its answer.
  public var timeoutMs: UInt32
  /// Whether the service may answer 101 and make a tunnel of the exchange; the headers ask for it.
  public var isUpgrade: Bool
  /// It was sent before: it isn't sent a third time.
  public private(set) var isSecondTry = false
  /// Whose tokens it takes if requests are limited; nil: none.
  public var limitKey: String?

  public init(
    origin: ServiceOrigin, method: String, target: String, fields: [UInt8], body: BodyForm,
    timeoutMs: UInt32, isUpgrade: Bool = false, limitKey: String? = nil
  ) {
    self.origin = origin
    self.method = method
    self.target = target
    self.fields = fields
    self.body = body
    self.timeoutMs = timeoutMs
    self.isUpgrade = isUpgrade
    self.limitKey = limitKey
  }

  /// Whether nothing comes behind the head, whether or not it says so.
  public var hasEmptyBody: Bool { body == .none || body == .counted(0) }

  /// The same request, sent once more: one request takes one token, however often it is tried.
  public var secondTry: ProxiedRequest {
    var again = self
    again.limitKey = nil
    again.isSecondTry = true
    return again
  }
}

/// As fields (FieldCoding):
///
///     scheme, 1 byte   host, text   port, 2 bytes   method, text   target, text   fields, data
///     form of the body, 1 byte   bytes of a counted body, 8 bytes   time-out, 4 bytes   key of its rate limit, text, if flag 2 is set
///
/// Flag 1: it may become a tunnel. Flag 4: it is sent for the second time. Other flags are of later releases: what they bring stands
/// behind all this.
extension ProxiedRequest {
  private enum Flag {
    static let upgrade: UInt32 = 1
    static let limitKey: UInt32 = 2
    static let secondTry: UInt32 = 4
  }

  var flags: UInt32 {
    (isUpgrade ? Flag.upgrade : 0) | (limitKey == nil ? 0 : Flag.limitKey)
      | (isSecondTry ? Flag.secondTry : 0)
  }

  func append(to fields: inout FieldWriter) {
    fields.append(UInt8(origin.isTLS ? 1 : 0))
    fields.append(origin.host)
    fields.append(origin.port)
    fields.append(method)
    fields.append(target)
    fields.append(self.fields)
    switch body {
    case .none: fields.append(UInt8(0))
    case .counted(let bytes):
      fields.append(UInt8(1))
      fields.append(bytes)
    case .chunked: fields.append(UInt8(2))
    }
    fields.append(timeoutMs)
    if let limitKey { fields.append(limitKey) }
  }

  /// - Throws: what is wrong with one that isn't as this format has it.
  init(_ fields: inout FieldReader, flags: UInt32) throws(RecordFault) {
    guard let scheme = fields.number(UInt8.self), let host = fields.text(),
      let port = fields.number(UInt16.self), let method = fields.text(),
      let target = fields.text(), let lines = fields.data(), let form = fields.number(UInt8.self)
    else { throw .malformed }
    guard scheme <= 1 else { throw .unknown(kind: "scheme \(scheme)") }
    let body: BodyForm
    switch form {
    case 0: body = .none
    case 1:
      guard let bytes = fields.number(UInt64.self) else { throw .malformed }
      body = .counted(bytes)
    case 2: body = .chunked
    default: throw .unknown(kind: "form \(form) of a body")
    }
    guard let timeoutMs = fields.number(UInt32.self) else { throw .malformed }
    var limitKey: String?
    if flags & Flag.limitKey != 0 {
      guard let key = fields.text(), key.utf8.count <= Self.mostKeyBytes else { throw .malformed }
      limitKey = key
    }
    self.init(
      origin: ServiceOrigin(isTLS: scheme == 1, host: host, port: port), method: method, target: target,
      fields: lines, body: body, timeoutMs: timeoutMs, isUpgrade: flags & Flag.upgrade != 0,
      limitKey: limitKey)
    isSecondTry = flags & Flag.secondTry != 0
  }
}

/// What is said in an exchange by its client's side, but the bodies.
public enum ClientSideMessage: Equatable, Sendable {
  case open(ProxiedRequest)
  case cancel
  case credit(UInt32)
  case end(trailers: [UInt8])
  /// A request that goes another way than through this worker, which counts those with its key.
  case count(key: String)
}

/// What is said in an exchange by its service's side, but the bodies.
public enum ServiceSideMessage: Equatable, Sendable {
  case credit(UInt32)
  case informed(status: UInt16, fields: [UInt8])
  case answered(status: UInt16, fields: [UInt8])
  /// The whole answer, without trailers, in one.
  case responded(status: UInt16, fields: [UInt8], body: [UInt8])
  /// The service has changed the protocol (101), as it was asked to.
  case upgraded(fields: [UInt8])
  case end(trailers: [UInt8])
  case failed(ExchangeFailure, reason: String)
  /// There were too many requests with this one's key: nothing was asked. Another may come after so many seconds.
  case limited(seconds: UInt32)
  /// A request that was counted may go on.
  case admitted
}

// MARK: Wire format

extension ClientSideMessage: LinkPayload {
  public var kind: PayloadKind {
    switch self {
    case .open: .open
    case .cancel: .cancelExchange
    case .credit: .credit
    case .end: .end
    case .count: .count
    }
  }

  public var value: UInt32 {
    switch self {
    case .open(let request): request.flags
    case .credit(let bytes): bytes
    case .cancel, .end, .count: 0
    }
  }

  public func append(to fields: inout FieldWriter) {
    switch self {
    case .open(let request): request.append(to: &fields)
    case .end(let trailers): fields.append(trailers)
    case .count(let key): fields.append(key)
    case .cancel, .credit: break
    }
  }

  public init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    switch envelope.kind {
    case .open: self = .open(try ProxiedRequest(&fields, flags: envelope.value))
    case .cancelExchange: self = .cancel
    case .credit: self = .credit(envelope.value)
    case .end: self = .end(trailers: try fields.requiredData())
    case .count:
      guard let key = fields.text() else { throw .malformed }
      self = .count(key: key)
    case .informed, .answered, .responded, .upgraded, .failed, .limited, .admitted: throw .malformed
    default: throw envelope.unknownKind
    }
  }
}

extension ServiceSideMessage: LinkPayload {
  private static let switchingProtocols: UInt32 = 101

  public var kind: PayloadKind {
    switch self {
    case .credit: .credit
    case .informed: .informed
    case .answered: .answered
    case .responded: .responded
    case .upgraded: .upgraded
    case .end: .end
    case .failed: .failed
    case .limited: .limited
    case .admitted: .admitted
    }
  }

  public var value: UInt32 {
    switch self {
    case .credit(let bytes): bytes
    case .informed(let status, _), .answered(let status, _), .responded(let status, _, _): UInt32(status)
    case .upgraded: Self.switchingProtocols
    case .failed(let failure, _): failure.rawValue
    case .limited(let seconds): seconds
    case .end, .admitted: 0
    }
  }

  public func append(to fields: inout FieldWriter) {
    switch self {
    case .informed(_, let lines), .answered(_, let lines), .upgraded(let lines): fields.append(lines)
    case .responded(_, let lines, let body):
      fields.append(lines)
      fields.append(body)
    case .end(let trailers): fields.append(trailers)
    case .failed(_, let reason): fields.append(reason)
    case .credit, .limited, .admitted: break
    }
  }

  public init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    let value = envelope.value
    switch envelope.kind {
    case .credit: self = .credit(value)
    case .informed:
      self = .informed(status: try Self.status(value, 100...199), fields: try fields.requiredData())
    case .answered:
      self = .answered(status: try Self.status(value, 101...999), fields: try fields.requiredData())
    case .responded:
      self = .responded(
        status: try Self.status(value, 200...999), fields: try fields.requiredData(),
        body: try fields.requiredData())
    case .upgraded:
      _ = try Self.status(value, Self.switchingProtocols...Self.switchingProtocols)
      self = .upgraded(fields: try fields.requiredData())
    case .end: self = .end(trailers: try fields.requiredData())
    case .failed:
      guard let reason = fields.text() else { throw .malformed }
      // What another release calls otherwise is a failure all the same.
      self = .failed(ExchangeFailure(rawValue: value) ?? .badGateway, reason: reason)
    case .limited: self = .limited(seconds: value)
    case .admitted: self = .admitted
    case .open, .cancelExchange, .count: throw .malformed
    default: throw envelope.unknownKind
    }
  }

  private static func status(_ value: UInt32, _ range: ClosedRange<UInt32>) throws(RecordFault) -> UInt16 {
    guard range.contains(value) else { throw .malformed }
    return UInt16(value)
  }
}

extension FieldReader {
  /// Names and values, alternately.
  mutating func pairs() -> [String]? { list().flatMap { $0.count.isMultiple(of: 2) ? $0 : nil } }

  mutating func requiredData() throws(RecordFault) -> [UInt8] {
    guard let data = data() else { throw .malformed }
    return data
  }

  /// Fields of HTTP as lines: those that `HTTPFields.init(wireBlock:)` takes.
  mutating func fieldLines() -> [UInt8]? {
    guard let lines = data(),
      lines.withUnsafeBufferPointer({ HTTPOctets.forEachFieldLine(of: $0) { _, _ in } })
    else { return nil }
    return lines
  }
}
