// Proxied requests and their answers on their way between a connection worker and a proxy worker, in the same rings as calls.
// One record of a call ring (type 7) or an answer ring (type 8) is one frame, little endian:
//
//    0  version = 1, 1 byte   kind, 1 byte   target slot, 2 bytes   value, 4 bytes
//    8  correlation, 8 bytes
//   16  payload
//
//   kind        value      payload                                         direction
//   open        flags      ProxiedRequest                                  request
//   body        –          bytes                                           both
//   end         –          trailers                                        both
//   cancel      –          –                                               request
//   credit      bytes      –                                               both
//   informed    status     headers                                         answer
//   answered    status     headers                                         answer
//   failed      reason     text                                            answer
//   limited     seconds    –                                               answer
//   count       –          a rate limit's key                              request
//   admitted    –          –                                               answer
//   upgraded    101        headers                                         answer
//
// `count` is answered by `limited` or `admitted`, and that is all of this exchange. Behind `upgraded` an exchange is a tunnel: body carries raw bytes, end ends one side of it.
//
// Neither side sends more of a body than the other has given it credit for: what waits anywhere is bounded for each exchange,
// and who is slow stalls nobody else's. Records are from another process: nothing in them is trusted. Behind the payload there may
// be fields of later releases, but for that of body (FieldCoding); what another release may have added is passed over (RecordFault).

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
}

public struct ExchangeFrame: Equatable, Sendable {
  public static let requestType: UInt16 = 7
  public static let answerType: UInt16 = 8
  public static let headerBytes = 16

  public enum Message: Equatable, Sendable {
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
    /// Such a request may go on.
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
  }

  private static let version: UInt8 = 1
  private static let switchingProtocols: UInt32 = 101
  /// Most frames without a body aren't larger.
  private static let usualBytes = 512

  enum Kind: UInt8 {
    case open = 1
    case body, end, cancel, credit, informed, answered, failed, limited, upgraded, count, admitted
  }

  /// The first sixteen bytes of a frame.
  public struct Header: Equatable, Sendable {
    public var isBody: Bool { kind == .body }
    /// Whether an exchange begins with it.
    public var isOpen: Bool { kind == .open }
    public var target: UInt16
    public var correlation: UInt64
    var kind: Kind
    var value: UInt32

    /// - Throws: what is wrong with a record that doesn't begin with one.
    public init(_ bytes: UnsafeRawBufferPointer) throws(RecordFault) {
      guard bytes.count >= ExchangeFrame.headerBytes else { throw .malformed }
      guard bytes[0] == ExchangeFrame.version else {
        throw .version(bytes[0], of: "frame")
      }
      guard let kind = Kind(rawValue: bytes[1]) else { throw .unknown(kind: "frame.\(bytes[1])") }
      self.kind = kind
      target = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
      value = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
      correlation = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    init(kind: Kind, target: UInt16, value: UInt32, correlation: UInt64) {
      self.kind = kind
      self.target = target
      self.value = value
      self.correlation = correlation
    }

    /// Of a frame that carries some of a body.
    public static func body(target: UInt16, correlation: UInt64) -> Header {
      Header(kind: .body, target: target, value: 0, correlation: correlation)
    }

    /// Writes it to the beginning of `buffer`, which has room for it.
    public func encode(into buffer: UnsafeMutableRawBufferPointer) {
      buffer[0] = ExchangeFrame.version
      buffer[1] = kind.rawValue
      buffer.storeBytes(of: target.littleEndian, toByteOffset: 2, as: UInt16.self)
      buffer.storeBytes(of: value.littleEndian, toByteOffset: 4, as: UInt32.self)
      buffer.storeBytes(of: correlation.littleEndian, toByteOffset: 8, as: UInt64.self)
    }
  }

  /// The frame's bytes.
  public static func encode(_ message: Message, target: UInt16, correlation: UInt64) -> [UInt8] {
    var fields = FieldWriter(prefix: headerBytes, capacity: usualBytes)
    var value: UInt32 = 0
    let kind: Kind
    switch message {
    case .open(let request):
      (kind, value) = (.open, request.flags)
      request.append(to: &fields)
    case .cancel: kind = .cancel
    case .credit(let bytes): (kind, value) = (.credit, bytes)
    case .end(let trailers):
      kind = .end
      fields.append(trailers)
    case .informed(let status, let headers):
      (kind, value) = (.informed, UInt32(status))
      fields.append(headers)
    case .answered(let status, let headers):
      (kind, value) = (.answered, UInt32(status))
      fields.append(headers)
    case .failed(let failure, let reason):
      (kind, value) = (.failed, failure.rawValue)
      fields.append(reason)
    case .limited(let seconds): (kind, value) = (.limited, seconds)
    case .count(let key):
      kind = .count
      fields.append(key)
    case .admitted: kind = .admitted
    case .upgraded(let headers):
      (kind, value) = (.upgraded, switchingProtocols)
      fields.append(headers)
    }
    return fields.bytes {
      Header(kind: kind, target: target, value: value, correlation: correlation).encode(into: $0)
    }
  }

  /// What a frame says that carries no body.
  ///
  /// - Throws: what is wrong with one that isn't as this format has it.
  public static func message(_ header: Header, _ bytes: UnsafeRawBufferPointer) throws(RecordFault) -> Message
  {
    guard bytes.count >= headerBytes else { throw .malformed }
    var fields = FieldReader(UnsafeRawBufferPointer(rebasing: bytes[headerBytes...]))
    guard let message = try message(header, &fields), fields.isComplete else { throw .malformed }
    return message
  }

  /// nil: malformed.
  private static func message(_ header: Header, _ fields: inout FieldReader) throws(RecordFault) -> Message? {
    switch header.kind {
    case .body: return nil
    case .open: return .open(try ProxiedRequest(&fields, flags: header.value))
    case .cancel: return .cancel
    case .credit: return .credit(header.value)
    case .end: return fields.pairs().map { .end(trailers: $0) }
    case .informed:
      guard let status = status(header, 100...199), let headers = fields.pairs() else { return nil }
      return .informed(status: status, headers: headers)
    case .answered:
      guard let status = status(header, 101...999), let headers = fields.pairs() else { return nil }
      return .answered(status: status, headers: headers)
    case .failed:
      // Whatever else has happened to it: there is no answer.
      let failure = ExchangeFailure(rawValue: header.value) ?? .badGateway
      return fields.text().map { .failed(failure, reason: $0) }
    case .limited: return .limited(seconds: header.value)
    case .count: return fields.text().map { .count(key: $0) }
    case .admitted: return .admitted
    case .upgraded:
      guard status(header, switchingProtocols...switchingProtocols) != nil else { return nil }
      return fields.pairs().map { .upgraded(headers: $0) }
    }
  }

  private static func status(_ header: Header, _ range: ClosedRange<UInt32>) -> UInt16? {
    range.contains(header.value) ? UInt16(header.value) : nil
  }
}

/// Names an exchange, or a call, among those of one caller: the upper bits are the caller's generation, so that what a
/// predecessor has begun is known for it.
public enum Correlation {
  private static let countBits: UInt64 = 40

  /// The first of a caller with that generation of its status page.
  public static func first(generation: UInt64) -> UInt64 { (generation << countBits) | 1 }

  /// Whether a caller of that generation may have chosen `correlation`.
  public static func isOf(generation: UInt64, _ correlation: UInt64) -> Bool {
    correlation >> countBits == (generation << countBits) >> countBits
  }
}

/// How much of a body may be under way between two workers.
public enum ExchangeWindow {
  /// Bytes that one side may send before it is given credit.
  public static let bytes: UInt32 = 512 << 10
  /// Credit is given in lumps of at least this size.
  public static let lumpBytes: UInt32 = 128 << 10
  /// Some credit is enough for a whole piece of this size.
  public static let pieceBytes = 64 << 10
  /// Bytes of one frame at most.
  public static let frameBytes = 64 << 10
}
