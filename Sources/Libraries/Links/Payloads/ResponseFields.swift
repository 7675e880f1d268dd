// Which of the fields that come with a service's response are part of the answer to the client (HeaderFields). What can't be a field of
// HTTP is left out.

import Kit

public enum ResponseFields {
  public static let correlation = "rig-correlation"
  public static let status = "rig-response-code"
  /// Fields of one response at most.
  public static let maximumCount = 200

  /// Names and values, alternately, of what is passed on to the client.
  public static func passed(_ fields: some Sequence<(name: String, value: String)>) -> [String] {
    var passed: [String] = []
    for (name, value) in fields {
      let lower = name.lowercased()
      guard HeaderFields.isOfResponse(lower), isName(lower), isValue(value), passed.count < 2 * maximumCount
      else { continue }
      passed.append(lower)
      passed.append(value)
    }
    return passed
  }

  /// A status that an answer can have: 200 to 599.
  public static func status(_ text: String) -> UInt16? {
    guard text.utf8.count == 3, let status = UInt16(text), ServiceResponse.statuses.contains(status) else {
      return nil
    }
    return status
  }

  /// A token of RFC 9110.
  private static func isName(_ text: String) -> Bool {
    !text.isEmpty
      && text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"):
          true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
      }
  }

  /// Without line breaks and other control characters.
  private static func isValue(_ text: String) -> Bool {
    text.utf8.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 }
  }
}
