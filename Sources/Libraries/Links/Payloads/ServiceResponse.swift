// The answer of a service to a request that waits for it, on its way to the connection worker that holds the request. Fields
// (FieldCoding), little endian:
//
//   response   correlation, text   status, 2 bytes   fields, data   body, data
//
// Whoever passes it on only looks at where it is to go (CorrelationAddress); whether the correlation is genuine is found out by
// the worker that has made it. Nothing in a record is trusted.

import Kit

public struct ServiceResponse: Equatable, Sendable {
  /// As the service gave it.
  public var correlation: String
  public var status: UInt16
  /// Lines "name: value" CRLF.
  public var fields: [UInt8]
  public var body: [UInt8]

  public static let statuses: ClosedRange<UInt16> = 200...599

  init(correlation: String, status: UInt16, fields: [UInt8], body: [UInt8]) {
    self.correlation = correlation
    self.status = status
    self.fields = fields
    self.body = body
  }

  /// A response as a service has given it.
  ///
  /// - Parameters:
  ///   - fields: all that came with it, names in lower case; those that concern the client are passed on.
  ///   - contentType: of the answer, if the fields name none.
  /// - Throws: 400 for one that is an event of the gateway's own, or could be taken for one (contract §1).
  public init(
    correlation: String, status: UInt16, fields: [ResponseFields.Field], contentType: String? = nil,
    body: [UInt8]
  ) throws(EventError) {
    let texts = fields.lazy.map { (name: $0.name, value: String(decoding: $0.value, as: UTF8.self)) }
    let refused = body.withUnsafeBytes { bytes in
      Result { () throws(EventError) in try ReservedTypes.refuse(inResponse: texts, body: bytes) }
    }
    try refused.get()
    var passed = fields
    if let contentType, !fields.contains(where: { $0.name == "content-type" }) {
      passed.append(("content-type", Array(contentType.utf8)))
    }
    self.init(correlation: correlation, status: status, fields: ResponseFields.passed(passed), body: body)
  }

  /// A response in the form of RIG 2: the body is an event, which says by `rig.correlation` for whom it is, and is the answer's body.
  ///
  /// - Parameter status: if `rig.response_code` doesn't say another one.
  /// - Throws: 400 for a body that is none.
  public init(
    event body: UnsafeRawBufferPointer, status: UInt16 = 200, fields: [ResponseFields.Field]
  ) throws(EventError) {
    let members = try MemberTable(body)
    guard let rig = try members.value("rig"),
      let place = JSONScanner.place(of: ["correlation"], in: body, from: rig),
      let correlation = JSONScanner.string(body, in: place)
    else {
      throw EventError("neither a header rig-correlation nor a member rig.correlation is there")
    }
    var status = status
    if let place = JSONScanner.place(of: ["response_code"], in: body, from: rig) {
      guard let code = ResponseFields.status(String(decoding: body[place], as: UTF8.self)) else {
        throw EventError("rig.response_code is no status, expected a number from 200 to 599")
      }
      status = code
    }
    try self.init(
      correlation: correlation, status: status, fields: fields, contentType: "application/json",
      body: Array(body))
  }

  func append(to fields: inout FieldWriter) {
    fields.append(correlation)
    fields.append(status)
    fields.append(self.fields)
    fields.append(body)
  }

  init(_ fields: inout FieldReader) throws(RecordFault) {
    guard let correlation = fields.text(), let status = fields.number(UInt16.self),
      Self.statuses.contains(status), let lines = fields.fieldLines(), let body = fields.data()
    else { throw .malformed }
    self.init(correlation: correlation, status: status, fields: lines, body: body)
  }
}

/// Which request a correlation id names. The id is this text:
///
///     slot (2 bytes) | gateway's epoch (6) | number (8) | authentication (16)      → 43 characters of base64url
///
/// Only the first three are read here; numbers are little endian.
public struct CorrelationAddress: Equatable, Sendable {
  /// Of the connection worker.
  public let slot: UInt16
  /// Of the gateway's life.
  public let epoch: UInt64
  /// Of the request among those of the worker; never used twice. Its upper bits are the worker's generation (Correlation).
  public let number: UInt64

  /// Bytes without the authentication, and of the authentication.
  public static let bytes = 16
  public static let authenticationBytes = 16
  public static let textLength = 43
  private static let slotMask: UInt64 = 0xFFFF
  private static let slotBits: UInt64 = 16

  public init(slot: UInt16, epoch: UInt64, number: UInt64) {
    self.slot = slot
    self.epoch = epoch
    self.number = number
  }

  public var encoded: [UInt8] {
    var fields = FieldWriter()
    fields.append(epoch << Self.slotBits | UInt64(slot))
    fields.append(number)
    return fields.bytes
  }

  /// The address in an id, and its authentication, which is not checked; nil: this is no id.
  public static func parse(_ text: String) -> (address: CorrelationAddress, authentication: [UInt8])? {
    guard text.utf8.count == textLength, let all = Base64URL.decode(text),
      all.count == bytes + authenticationBytes
    else { return nil }
    return all.withUnsafeBytes { raw in
      let first = UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self))
      let address = CorrelationAddress(
        slot: UInt16(first & slotMask), epoch: first >> slotBits,
        number: UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
      return (address, Array(raw[bytes...]))
    }
  }
}

/// Which of the fields that come with a service's response are part of the answer to the client (HeaderFields). What can't be a field of
/// HTTP is left out.
public enum ResponseFields {
  /// As it came, in whatever coding.
  public typealias Field = (name: String, value: [UInt8])

  public static let correlation = "rig-correlation"
  public static let status = "rig-response-code"
  /// Fields of one response at most.
  public static let maximumCount = 200

  /// As lines, what is passed on to the client.
  static func passed(_ fields: [Field]) -> [UInt8] {
    let passed = fields.lazy.filter { name, value in
      HeaderFields.isOfResponse(name) && HTTPOctets.isToken(name.utf8) && HTTPOctets.isFieldValue(value)
    }
    return passed.prefix(maximumCount).reduce(into: []) { lines, field in
      lines += field.name.lowercased().utf8
      lines += ": ".utf8
      lines += HTTPOctets.trimmed(field.value)
      lines += "\r\n".utf8
    }
  }

  /// A status that an answer can have: 200 to 599.
  public static func status(_ text: String) -> UInt16? {
    guard text.utf8.count == 3, let status = UInt16(text), ServiceResponse.statuses.contains(status) else {
      return nil
    }
    return status
  }
}
