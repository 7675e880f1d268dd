// Proxied requests and their answers on their way between a connection worker and a proxy worker, in the same rings as calls. All that
// is said about one request is an exchange: its messages have one correlation.
//
//   kind            value      payload                                         direction
//   open            flags      ProxiedRequest                                  request
//   body            –          bytes                                           both
//   end             –          trailers                                        both
//   cancelExchange  –          –                                               request
//   credit          bytes      –                                               both
//   informed        status     headers                                         answer
//   answered        status     headers                                         answer
//   failed          reason     text                                            answer
//   limited         seconds    –                                               answer
//   count           –          a rate limit's key                              request
//   admitted        –          –                                               answer
//   upgraded        101        headers                                         answer
//
// `count` is answered by `limited` or `admitted`, and that is all of this exchange. Behind `upgraded` an exchange is a tunnel: body
// carries raw bytes, end ends one side of it. A body's bytes are no fields: they are a stream (Outbox.stream) with credit (Credit).

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

/// All that is said in an exchange but its bodies.
public enum ExchangeMessage: Equatable, Sendable {
  case open(ProxiedRequest)
  case cancel
  case credit(UInt32)
  case end(trailers: [String])
  case informed(status: UInt16, headers: [String])
  case answered(status: UInt16, headers: [String])
  case failed(ExchangeFailure, reason: String)
  /// There were too many requests with this one's key: nothing was asked. Another may come after so many seconds.
  case limited(seconds: UInt32)
  /// A request that goes another way than through this worker, which counts those with its key.
  case count(key: String)
  case admitted
  /// The service has changed the protocol (101), as it was asked to.
  case upgraded(headers: [String])

  /// Whether it is the head of an answer, behind which others come.
  public var isHead: Bool {
    switch self {
    case .answered, .upgraded: true
    default: false
    }
  }

  private static let switchingProtocols: UInt32 = 101
}

// MARK: Wire format

extension ExchangeMessage: LinkPayload {
  public var kind: PayloadKind {
    switch self {
    case .open: .open
    case .cancel: .cancelExchange
    case .credit: .credit
    case .end: .end
    case .informed: .informed
    case .answered: .answered
    case .failed: .failed
    case .limited: .limited
    case .count: .count
    case .admitted: .admitted
    case .upgraded: .upgraded
    }
  }

  public var value: UInt32 {
    switch self {
    case .open(let request): request.flags
    case .credit(let bytes): bytes
    case .informed(let status, _), .answered(let status, _): UInt32(status)
    case .failed(let failure, _): failure.rawValue
    case .limited(let seconds): seconds
    case .upgraded: Self.switchingProtocols
    case .cancel, .end, .count, .admitted: 0
    }
  }

  public func append(to fields: inout FieldWriter) {
    switch self {
    case .open(let request): request.append(to: &fields)
    case .end(let trailers): fields.append(trailers)
    case .informed(_, let headers), .answered(_, let headers), .upgraded(let headers): fields.append(headers)
    case .failed(_, let reason): fields.append(reason)
    case .count(let key): fields.append(key)
    case .cancel, .credit, .limited, .admitted: break
    }
  }

  public init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    let value = envelope.value
    switch envelope.kind {
    case .open: self = .open(try ProxiedRequest(&fields, flags: value))
    case .cancelExchange: self = .cancel
    case .credit: self = .credit(value)
    case .end: self = .end(trailers: try fields.requiredPairs())
    case .informed:
      self = .informed(status: try Self.status(value, 100...199), headers: try fields.requiredPairs())
    case .answered:
      self = .answered(status: try Self.status(value, 101...999), headers: try fields.requiredPairs())
    case .failed:
      guard let reason = fields.text() else { throw .malformed }
      // What another release calls otherwise is a failure all the same.
      self = .failed(ExchangeFailure(rawValue: value) ?? .badGateway, reason: reason)
    case .limited: self = .limited(seconds: value)
    case .count:
      guard let key = fields.text() else { throw .malformed }
      self = .count(key: key)
    case .admitted: self = .admitted
    case .upgraded:
      _ = try Self.status(value, Self.switchingProtocols...Self.switchingProtocols)
      self = .upgraded(headers: try fields.requiredPairs())
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

  mutating func requiredPairs() throws(RecordFault) -> [String] {
    guard let pairs = pairs() else { throw .malformed }
    return pairs
  }
}
