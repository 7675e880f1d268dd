// The body of POST /v3/session-blacklist: {"sessionId":"…","validityInSeconds":60}. Refusals name the field.

import HTTP
import Kit
import NIOCore

struct BlacklistOrder: Equatable {
  private static let maximumSessionBytes = 1_024
  /// Ten years of 365 days.
  static let maximumSeconds: Int64 = 315_360_000

  var session: String
  var seconds: UInt32

  /// Why there is none.
  struct Refusal: Error, Equatable {
    var status: Int
    var detail: String
  }

  init(contentType: String?, body: ByteBuffer) throws(Refusal) {
    guard let contentType, MediaType(contentType).isJSON else {
      let found = contentType.map { "is '\($0.prefix(100))'" } ?? "is missing"
      throw Refusal(status: 415, detail: "header content-type \(found), expected application/json")
    }
    let parsed = body.withUnsafeReadableBytes { bytes in
      Result { () throws(JSONError) in try JSONValue(parsing: bytes) }
    }
    guard case .success(let document) = parsed, case .object = document else {
      throw Refusal(status: 400, detail: "body: expected a JSON object")
    }
    session = try Self.session(document["sessionId"])
    seconds = try Self.seconds(document["validityInSeconds"])
  }

  private static func session(_ value: JSONValue?) throws(Refusal) -> String {
    let expected = "expected a string of 1 to \(maximumSessionBytes) bytes"
    guard let value else { throw Refusal(status: 400, detail: "sessionId is missing, \(expected)") }
    guard let text = value.string else {
      throw Refusal(status: 400, detail: "sessionId is \(value.kindName), \(expected)")
    }
    guard !text.isEmpty, text.utf8.count <= maximumSessionBytes else {
      throw Refusal(status: 400, detail: "sessionId has \(text.utf8.count) bytes, \(expected)")
    }
    return text
  }

  private static func seconds(_ value: JSONValue?) throws(Refusal) -> UInt32 {
    let expected = "expected a whole number from 1 to \(maximumSeconds)"
    guard let value else { throw Refusal(status: 400, detail: "validityInSeconds is missing, \(expected)") }
    let number: Int64?
    switch value {
    case .scalar(.integer(let integer)): number = integer
    case .scalar(.string(let text)): number = digits(text)
    case .scalar, .array, .object: number = nil
    }
    guard let number, number >= 1, number <= maximumSeconds else {
      throw Refusal(status: 400, detail: "validityInSeconds is out of range or no number, \(expected)")
    }
    return UInt32(number)
  }

  /// As people write whole numbers: no sign, no blanks.
  private static func digits(_ text: String) -> Int64? {
    text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 } ? Int64(text) : nil
  }
}
