// What a connection worker asks the control worker about sessions, for clients of RIG 1's paths on the inbound port, and what it is
// told. Whether the client may ask has been judged by whoever asks. Fields (FieldCoding), little endian:
//
//   question   kind, 1 byte   name, text   until, 4 bytes
//   answer     status, 2 bytes   fields, data   body, data
//
// Nothing in a record is trusted. What another release may have added is passed over (FieldCoding, RecordFault).

import Kit

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
  /// Bytes of an encoded question, with room for what later releases add.
  public static let maximumBytes = 9 + maximumNameBytes + 1_024

  private enum Kind: UInt8 {
    case users = 1
    case devices
    case end
  }

  func append(to fields: inout FieldWriter) {
    let (kind, name, until): (Kind, String, UInt32) =
      switch self {
      case .users: (.users, "", 0)
      case .devices(let user): (.devices, user, 0)
      case .end(let session, let until): (.end, session, until)
      }
    fields.append(kind.rawValue)
    fields.append(name)
    fields.append(until)
  }

  init(_ fields: inout FieldReader) throws(RecordFault) {
    guard let code = fields.number(UInt8.self), let name = fields.text(),
      let until = fields.number(UInt32.self),
      name.utf8.count <= Self.maximumNameBytes
    else { throw .malformed }
    guard let kind = Kind(rawValue: code) else { throw .unknown(kind: "question \(code)") }
    switch kind {
    case .users:
      guard name.isEmpty, until == 0 else { throw .malformed }
      self = .users
    case .devices:
      guard until == 0 else { throw .malformed }
      self = .devices(user: name)
    case .end: self = .end(session: name, atLeastUntil: until)
    }
  }
}

/// What is said to a question, as HTTP says it.
public struct SessionAnswer: Equatable, Sendable {
  public var status: UInt16
  /// Lines "name: value" CRLF.
  public var fields: [UInt8]
  public var body: [UInt8]

  public init(status: UInt16, fields: [UInt8], body: [UInt8]) {
    self.status = status
    self.fields = fields
    self.body = body
  }

  func append(to fields: inout FieldWriter) {
    fields.append(status)
    fields.append(self.fields)
    fields.append(body)
  }

  init(_ fields: inout FieldReader) throws(RecordFault) {
    guard let status = fields.number(UInt16.self), (200...599).contains(status),
      let lines = fields.fieldLines(), let body = fields.data()
    else { throw .malformed }
    self.init(status: status, fields: lines, body: body)
  }
}
