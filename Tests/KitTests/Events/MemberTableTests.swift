// The members of an object by name, and pointers into it.

import Testing

@testable import Kit

@Suite("Member table")
struct MemberTableTests {
  private static let text =
    #"{"a":{"b":[10,{"c":"x"},[true]],"":"empty","/":"slash","~":"tilde","0":"zero"},"s":"text","n":1.50,"z":null,"t":true,"e\u0061":"ea","":{"":5}}"#

  private func scalar(_ pointer: [String], in text: String = Self.text) throws -> ScalarValue? {
    try withGuarded(text.utf8) { try MemberTable($0).scalars(at: PointerTree([pointer])).first ?? nil }
  }

  @Test(
    "follows pointers through objects and lists to scalars",
    arguments: [
      (["s"], .string("text")), (["n"], .number(1.5)), (["z"], .null), (["t"], .bool(true)),
      (["ea"], .string("ea")),
      (["a", "b", "0"], .integer(10)), (["a", "b", "1", "c"], .string("x")),
      (["a", "b", "2", "0"], .bool(true)),
      (["a", ""], .string("empty")), (["a", "/"], .string("slash")), (["a", "~"], .string("tilde")),
      (["a", "0"], .string("zero")), (["", ""], .integer(5)),
    ] as [([String], ScalarValue)])
  func found(pointer: [String], value: ScalarValue) throws {
    #expect(try scalar(pointer) == value)
  }

  @Test(
    "a pointer that leads to nothing, to an object or list, or through a scalar finds nothing and does no harm",
    arguments: [
      [], ["x"], ["a"], ["a", "b"], ["a", "b", "3"], ["a", "b", "-"], ["a", "b", "-1"], ["a", "b", "00"],
      ["a", "b", "01"],
      ["a", "b", "+1"], ["a", "b", " 1"], ["a", "b", "1.0"], ["a", "b", "99999999999999999999"],
      ["a", "b", ""],
      ["a", "b", "x"], ["a", "b", "1"], ["a", "b", "1", "d"], ["s", "0"], ["s", ""], ["s", "length"],
      ["n", "x"], ["z", "x"],
      ["t", "0"], ["a", "x", "y"], ["z", "0", "1", "2"],
    ] as [[String]])
  func notFound(pointer: [String]) throws {
    #expect(try scalar(pointer) == nil)
  }

  @Test("a name that comes twice inside means its last value, and at the top is refused when asked for")
  func twice() throws {
    #expect(try scalar(["a", "b"], in: #"{"a":{"b":1,"b":2}}"#) == .integer(2))
    try withGuarded(#"{"x":1,"x":2,"y":3}"#.utf8) { bytes in
      let table = try MemberTable(bytes)
      #expect(table.has("x"))
      #expect(throws: EventError("x is given twice, expected once")) { try table.value("x") }
      #expect(try table.value("y") != nil)
      #expect(try table.value("w") == nil)
    }
  }

  @Test("gives strings, lists of strings, and says what they are not")
  func strings() throws {
    try withGuarded(Self.text.utf8) { bytes in
      let table = try MemberTable(bytes)
      #expect(try table.string("s") == "text")
      #expect(try table.string("z") == nil)
      #expect(try table.string("absent") == nil)
      #expect(throws: EventError("n is no string, expected a string")) { try table.string("n") }
      #expect(try table.namesOfUsers("s") == ["text"])
      #expect(try table.namesOfUsers("z") == [])
    }
    try withGuarded(" {} ".utf8) { bytes in
      let table = try MemberTable(bytes)
      #expect(table.object == 1..<3 && !table.has(""))
    }
  }

  @Test("a value has the bytes it was written with, without the space around it")
  func ranges() throws {
    try withGuarded(#"{"a" :  [1, 2] , "b":-1.0e1 }"#.utf8) { bytes in
      let table = try MemberTable(bytes)
      let texts = try ["a", "b"].map { name in
        try table.value(name).map { String(decoding: bytes[$0], as: UTF8.self) }
      }
      #expect(texts == ["[1, 2]", "-1.0e1"])
    }
  }

  @Test("an event nests 128 levels, its own braces included")
  func depth() throws {
    func event(_ levels: Int) -> String {
      let inner = levels - 1
      return #"{"a":\#(String(repeating: "[", count: inner))\#(String(repeating: "]", count: inner))}"#
    }
    let hasMember = try withGuarded(event(128).utf8) { try MemberTable($0).has("a") }
    #expect(hasMember)
    #expect(throws: EventError.self) { try withGuarded(event(129).utf8) { try MemberTable($0).has("a") } }
  }
}
