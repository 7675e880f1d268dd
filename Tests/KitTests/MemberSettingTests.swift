// Setting a member of an object in its text.

import Testing

@testable import Kit

@Suite("Members set in a text")
struct MemberSettingTests {
  @Test("A member is set where it is, or at the end, and nothing else changes")
  func members() throws {
    func set(_ object: String) throws -> (String, String?) {
      let bytes = Array(object.utf8)
      let (changed, before) = try JSONText.setting("rig", to: Array("[1]".utf8), in: bytes)
      return (
        String(decoding: changed, as: UTF8.self), before.map { String(decoding: bytes[$0], as: UTF8.self) }
      )
    }
    for (object, expected, before) in [
      ("{}", #"{"rig":[1]}"#, nil), (#"{"a": {"rig":2} } "#, #"{"a": {"rig":2} ,"rig":[1]} "#, nil),
      (#"{"rig" : null}"#, #"{"rig" : [1]}"#, "null"),
      (#"{"a":1, "\u0072ig": {"x":"}"} ,"b":2}"#, #"{"a":1, "\u0072ig": [1] ,"b":2}"#, #"{"x":"}"}"#),
    ] as [(String, String, String?)] {
      let (changed, was) = try set(object)
      #expect(changed == expected && was == before)
    }
    for bad in [#"{"rig":1,"rig":2}"#, #"{"rig":1,"a":2,"ri\u0067":3}"#, "[]", "{", ""] {
      #expect(throws: EventError.self) { _ = try set(bad) }
    }
  }
}
