// What is said in publication rings (by connection workers) and in response rings (to them, by the streams and the control worker).
//
//   publication ──► streams   outcome ◄──           question ──► control   answer ◄──
//   response ◄── streams, control                   taken ──► control (value 1: a request got it, 0: none waits for it)

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
