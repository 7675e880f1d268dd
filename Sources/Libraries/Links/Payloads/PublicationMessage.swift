// What is said in publication rings (by connection workers) and in response rings (to them, by the streams and the control worker).
//
//   publication ──► streams   outcome ◄──           question ──► control   answer ◄──
//   response ◄── streams, control                   taken ──► control (value 1: a request got it, 0: none waits for it)
//
// Fields (FieldCoding), little endian:
//
//   publication   generation of the streams worker, 8 bytes   topic, text   key, list of at most one   headers, list   value, data
//   outcome       code, 1 byte   reason, text

import Kit

public enum PublicationMessage: Equatable, Sendable {
  case publication(Publication)
  case outcome(PublicationOutcome)
  /// A service's answer to a request that waits for it.
  case response(ServiceResponse)
  case taken(Bool)
  case question(SessionQuestion)
  case answer(SessionAnswer)

  /// Bytes of the largest message under these bounds of bodies and heads: escaped in JSON, a byte of a head takes six.
  public static func maximumBytes(bodyBytes: Int, headBytes: Int) -> Int {
    min(2 * bodyBytes + 8 * headBytes + (64 << 10), Int(UInt32.max))
  }
}

extension PublicationMessage: LinkPayload {
  public var kind: PayloadKind {
    switch self {
    case .publication: .publication
    case .outcome: .publicationOutcome
    case .response: .response
    case .taken: .responseTaken
    case .question: .question
    case .answer: .questionAnswer
    }
  }

  public var value: UInt32 { self == .taken(true) ? 1 : 0 }

  public func append(to fields: inout FieldWriter) {
    switch self {
    case .publication(let publication): publication.append(to: &fields)
    case .outcome(let outcome): outcome.append(to: &fields)
    case .response(let response): response.append(to: &fields)
    case .taken: break
    case .question(let question): question.append(to: &fields)
    case .answer(let answer): answer.append(to: &fields)
    }
  }

  public init(_ envelope: Envelope, _ fields: inout FieldReader) throws(RecordFault) {
    switch envelope.kind {
    case .publication: self = .publication(try Publication(&fields))
    case .publicationOutcome: self = .outcome(try PublicationOutcome(&fields))
    case .response: self = .response(try ServiceResponse(&fields))
    case .responseTaken:
      guard envelope.value <= 1 else { throw .malformed }
      self = .taken(envelope.value == 1)
    case .question: self = .question(try SessionQuestion(&fields))
    case .questionAnswer: self = .answer(try SessionAnswer(&fields))
    default: throw envelope.unknownKind
    }
  }
}

/// A record for Kafka.
public struct Publication: Equatable, Sendable {
  /// Of the streams worker that it was given to: a successor leaves it alone, for whoever waits for it has been told already.
  public var generation: UInt64
  public var topic: String
  /// nil: any partition.
  public var key: String?
  /// Names and values, alternately.
  public var headers: [String]
  public var value: [UInt8]

  public init(generation: UInt64, topic: String, key: String?, headers: [String], value: [UInt8]) {
    self.generation = generation
    self.topic = topic
    self.key = key
    self.headers = headers
    self.value = value
  }

  func append(to fields: inout FieldWriter) {
    fields.append(generation)
    fields.append(topic)
    fields.append(key.map { [$0] } ?? [])
    fields.append(headers)
    fields.append(value)
  }

  init(_ fields: inout FieldReader) throws(RecordFault) {
    guard let generation = fields.number(UInt64.self), let topic = fields.text(), !topic.isEmpty,
      let key = fields.list(), key.count <= 1, let headers = fields.pairs(), let value = fields.data()
    else { throw .malformed }
    self.init(generation: generation, topic: topic, key: key.first, headers: headers, value: value)
  }
}

/// What came of a publication.
public enum PublicationOutcome: Equatable, Sendable {
  /// The brokers have it, as many of them as the topic asks for.
  case acknowledged
  /// It was never sent: it may be tried again.
  case unavailable(String)
  /// It was sent, or may have been, and nobody has said what became of it: it may be in the topic, or not.
  case unknown(String)
  /// The brokers don't take it, now or later.
  case refused(String)
  /// It is larger than the brokers allow.
  case tooLarge(String)

  private enum Code: UInt8 {
    case acknowledged = 1
    case unavailable, refused, tooLarge, unknown
  }

  func append(to fields: inout FieldWriter) {
    let (code, reason): (Code, String) =
      switch self {
      case .acknowledged: (.acknowledged, "")
      case .unavailable(let reason): (.unavailable, reason)
      case .unknown(let reason): (.unknown, reason)
      case .refused(let reason): (.refused, reason)
      case .tooLarge(let reason): (.tooLarge, reason)
      }
    fields.append(code.rawValue)
    fields.append(reason)
  }

  init(_ fields: inout FieldReader) throws(RecordFault) {
    guard let code = fields.number(UInt8.self), let reason = fields.text() else { throw .malformed }
    // What another release calls otherwise may have reached the brokers.
    switch Code(rawValue: code) ?? .unknown {
    case .acknowledged: self = .acknowledged
    case .unavailable: self = .unavailable(reason)
    case .unknown: self = .unknown(reason)
    case .refused: self = .refused(reason)
    case .tooLarge: self = .tooLarge(reason)
    }
  }
}
