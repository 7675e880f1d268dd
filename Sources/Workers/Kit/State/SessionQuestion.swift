// What a connection worker asks the control worker about sessions, for clients of RIG 1's paths on the inbound port, and what it is
// told. Whether the client may ask has been judged by whoever asks. Fields (FieldCoding), little endian:
//
//   question   kind, 1 byte   name, text   until, 4 bytes
//   answer     status, 2 bytes   headers, list   body, data
//
// Nothing in a record is trusted: what isn't exactly as above is nil.

/// A question about sessions.
public enum SessionQuestion: Equatable, Sendable {
  /// Who is online.
  case users
  /// With which devices a user is.
  case devices(user: String)
  /// End the session, until its tokens have expired.
  ///
  /// - Parameter atLeastUntil: if nothing is known of its tokens, in seconds since 1970; 0: for as long as is configured.
  case end(session: String, atLeastUntil: UInt32)

  /// No token names a longer one.
  public static let maximumNameBytes = 1_024
  /// Bytes of an encoded question.
  public static let maximumBytes = 9 + maximumNameBytes

  private enum Kind: UInt8 {
    case users = 1
    case devices
    case end
  }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    let (kind, name, until): (Kind, String, UInt32) =
      switch self {
      case .users: (.users, "", 0)
      case .devices(let user): (.devices, user, 0)
      case .end(let session, let until): (.end, session, until)
      }
    fields.append(kind.rawValue)
    fields.append(name)
    fields.append(until)
    return fields.bytes
  }

  public init?(_ bytes: [UInt8]) {
    let decoded: SessionQuestion? = bytes.withUnsafeBytes { raw in
      var fields = FieldReader(raw)
      guard raw.count <= Self.maximumBytes, let kind = fields.number(UInt8.self).flatMap(Kind.init),
        let name = fields.text(), let until = fields.number(UInt32.self), fields.isComplete
      else { return nil }
      switch kind {
      case .users: return name.isEmpty && until == 0 ? .users : nil
      case .devices: return until == 0 ? .devices(user: name) : nil
      case .end: return .end(session: name, atLeastUntil: until)
      }
    }
    guard let decoded else { return nil }
    self = decoded
  }
}

/// What is said to a question, as HTTP says it.
public struct SessionAnswer: Equatable, Sendable {
  public var status: UInt16
  /// Names and values, alternately.
  public var headers: [String]
  public var body: [UInt8]

  public init(status: UInt16, headers: [String], body: [UInt8]) {
    self.status = status
    self.headers = headers
    self.body = body
  }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    fields.append(status)
    fields.append(headers)
    fields.append(body)
    return fields.bytes
  }

  public init?(_ bytes: [UInt8]) {
    let decoded: SessionAnswer? = bytes.withUnsafeBytes { raw in
      var fields = FieldReader(raw)
      guard let status = fields.number(UInt16.self), (200...599).contains(status),
        let headers = fields.list(), headers.count.isMultiple(of: 2), let body = fields.data(),
        fields.isComplete
      else { return nil }
      return SessionAnswer(status: status, headers: headers, body: body)
    }
    guard let decoded else { return nil }
    self = decoded
  }
}
