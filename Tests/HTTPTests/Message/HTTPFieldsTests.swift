// Fields in octets: what they hold is what goes out, and nothing else can get in.

import Kit
import NIOCore
import TestSupport
import Testing

@testable import HTTP

@Suite("15.5 Fields of messages, in octets") struct HTTPFieldsTests {
  private let fields = HTTPFields([("Host", "a"), ("x-list", "1"), ("X-List", "2"), ("empty", "")])

  private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test("The block is the lines as HTTP/1.1 has them, and is taken over as it is")
  func block() throws {
    #expect(fields.wireBlock == octets("Host: a\r\nx-list: 1\r\nX-List: 2\r\nempty: \r\n"))
    let copy = try #require(HTTPFields(wireBlock: fields.wireBlock))
    #expect(copy == fields && copy.count == 4)
    #expect(copy.strings.map { "\($0)=\($1)" } == ["Host=a", "x-list=1", "X-List=2", "empty="])
    var buffer = ByteBuffer()
    buffer.writeFields(fields)
    #expect(Array(buffer.readableBytesView) == fields.wireBlock)
    #expect(HTTPFields(wireBlock: []) == [:])
  }

  @Test(
    "A block that isn't exactly lines of fields is none",
    arguments: [
      "a", "a:", "a: ", "a: b", "a: b\r", "a: b\n", "a: b\r\n\r\n", "\r\n", ": b\r\n", "a:b\r\n", "a:  b\r\n",
      "a: b \r\n", "a: \tb\r\n", "a : b\r\n", " a: b\r\n", "a b: c\r\n", "a: b\u{0}\r\n", "a: b\rc\r\n",
      "a: b\nc\r\n", "a: b\u{7f}\r\n", "a: b\r\nc", "a: b\r\n c: d\r\n", "ä: b\r\n", "a: b\r\nc: d\r\n\r",
    ])
  func noBlock(_ text: String) {
    #expect(HTTPFields(wireBlock: text.utf8) == nil)
  }

  @Test("Names are the same in any case of their letters, and of nothing else")
  func lookUp() {
    #expect(fields.contains(name: "HOST") && fields.contains(name: "host") && !fields.contains(name: "hos"))
    #expect(fields.first(name: "X-LIST") == "1" && fields["x-list"] == ["1", "2"] && fields["y"] == [])
    #expect(fields.count(of: "x-list") == 2 && fields.count(of: "y") == 0)
    #expect(fields.octets(of: "empty").map { Array($0) } == [] && fields.octets(of: "y") == nil)
    #expect(fields[0].nameIs("host") && !fields[0].nameIs("hos") && fields[0].valueIs("a"))
    // Differ in the bit that tells small letters from capital ones.
    let signs = HTTPFields([("a^b", "1"), ("a~b", "2")])
    #expect(signs["a~b"] == ["2"] && signs["a^b"] == ["1"])
    #expect(!HTTPFields([("x-list", "1")]).contains(name: "x\rlist"))
  }

  @Test("Octets that are no UTF-8 stay as they are, and are replaced in strings alone")
  func octetsKept() {
    let value: [UInt8] = [0x63, 0xe9, 0xff, 0x20, 0x80]
    var fields = HTTPFields()
    fields.add(name: "x", value: value)
    fields.add(name: octets("y").prefix(1), value: value[1...])
    #expect(fields.wireBlock == octets("x: ") + value + octets("\r\ny: ") + value[1...] + octets("\r\n"))
    #expect(fields.octets(of: "x").map { Array($0) } == value)
    #expect(fields.first(name: "x") == "c\u{fffd}\u{fffd} \u{fffd}")
  }

  @Test(
    "No value begins a field or a message of its own: control octets become blanks, and blanks around go",
    arguments: [
      ("a\r\nb: c", "a  b: c"), ("a\nb", "a b"), ("a\rb", "a b"), ("a\0b", "a b"), ("a\u{7f}b", "a b"),
      ("\r\n", ""), ("\r\na\r\n", "a"), (" a\t", "a"), ("a\tb", "a\tb"), ("\u{1} a \u{2}", "a"), ("", ""),
    ])
  func control(_ value: String, _ kept: String) throws {
    var fields = HTTPFields([("before", "1")])
    let isAdded = fields.add(name: "x", value: value)
    #expect(isAdded)
    fields.add(name: "behind", value: "2")
    #expect(fields.strings.map { "\($0)=\($1)" } == ["before=1", "x=\(kept)", "behind=2"])
    #expect(HTTPFields(wireBlock: fields.wireBlock) == fields)
    #expect(HTTPFields([("before", "1"), ("x", value), ("behind", "2")]) == fields)
    var appended = HTTPFields([("before", "1")])
    appended.add(name: "x") { $0 += value.utf8 }
    appended.add(name: "behind") { $0 += [UInt8(ascii: "2")] }
    #expect(appended == fields && Array(appended.strings.map(\.name)) == ["before", "x", "behind"])
  }

  @Test(
    "A name that is no token is no field's",
    arguments: ["", " ", "a b", "a:", "a\r\n", "ä", "a\0", ":status"])
  func names(_ name: String) {
    var fields = HTTPFields([("before", "1")])
    let added = [
      fields.add(name: name, value: "x"), fields.add(name: Array(name.utf8), value: Array("x".utf8)),
    ]
    #expect(added == [false, false])
    #expect(fields == ["before": "1"])
  }

  @Test("Fields are replaced, removed and joined where they stand")
  func changes() {
    var changed = fields
    changed.replaceOrAdd(name: "X-LIST", value: "3")
    #expect(changed.wireBlock == octets("Host: a\r\nempty: \r\nX-LIST: 3\r\n"))
    changed.remove(name: "empty")
    changed.remove(name: "absent")
    #expect(changed.wireBlock == octets("Host: a\r\nX-LIST: 3\r\n"))
    changed.add(contentsOf: fields)
    #expect(changed.count == 6 && changed["x-list"] == ["3", "1", "2"])
    changed.removeAll { $0.valueIs("1") || $0.nameIs("host") }
    #expect(changed.wireBlock == octets("X-LIST: 3\r\nX-List: 2\r\nempty: \r\n"))
    #expect(changed.first(name: "empty") == "" && changed.contains(name: "x-list"))
    changed.add(fields[0])
    #expect(changed.wireBlock == octets("X-LIST: 3\r\nX-List: 2\r\nempty: \r\nHost: a\r\n"))
    changed.removeAll { _ in true }
    #expect(changed.isEmpty && changed == [:])
    #expect(HTTPFields(fields.lazy.filter { $0.nameIs("x-list") })["x-list"] == ["1", "2"])
  }

  @Test("15.5 What is kept of others stands as it stood, wherever what isn't kept has stood")
  func kept() {
    let others = HTTPFields((0..<6).map { ("n\($0)", String(repeating: "v", count: $0)) })
    for mask in 0..<64 {
      let chosen = (0..<6).filter { mask >> $0 & 1 == 1 }
      var some = HTTPFields([("first", "1")])
      some.add(contentsOf: others) { name, value in
        mask >> value.count & 1 == 1 && name.last == UInt8(ascii: "0") + UInt8(value.count)
      }
      let expected = HTTPFields(
        [("first", "1")] + chosen.map { ("n\($0)", String(repeating: "v", count: $0)) })
      #expect(some == expected && some.count == 1 + chosen.count)
      #expect(some.map(\.value) == expected.map(\.value))
      let filtered = others.filtered { mask >> Int($0[1] - UInt8(ascii: "0")) & 1 == 1 }
      #expect(filtered.map(\.line) == chosen.map { others[$0].line })
    }
  }

  @Test("A copy doesn't change with what it was copied from")
  func copies() {
    var changed = fields
    changed.add(name: "y", value: "z")
    let field = changed[4]
    changed.removeAll { _ in true }
    #expect(field.name == "y" && field.value == "z" && fields.count == 4)
  }

  @Test(
    "An option is found in lists, in any case, whole",
    arguments: [
      ("close", true), ("a , CLOSE", true), ("a,\tclose\t", true), ("closed", false), ("a close", false),
      ("", false), (",,close,", true),
    ])
  func options(_ value: String, _ has: Bool) {
    #expect(
      HTTPFields([("connection", "x"), ("Connection", value)]).hasOption("close", in: "connection") == has)
  }

  @Test("Whatever is done to them, they are what a list of names and values would be")
  func model() {
    var generator = SeededRandom(seed: 15)
    let names = ["a", "bb", "A", "x-y", "c d"]
    for _ in 0..<300 {
      var fields = HTTPFields()
      var model: [(name: String, value: String)] = []
      for step in 0..<12 {
        let name = names[Int.random(in: 0..<names.count, using: &generator)]
        let kind = Int.random(in: 0..<3, using: &generator)
        if kind < 2 { model.removeAll { $0.name.lowercased() == name.lowercased() } }
        if kind > 0, name != "c d" { model.append((name, "\(step)")) }
        switch kind {
        case 0: fields.remove(name: name)
        case 1: fields.replaceOrAdd(name: name, value: "\(step)")
        default: fields.add(name: name, value: "\(step)")
        }
        #expect(fields.strings.map { "\($0)=\($1)" } == model.map { "\($0)=\($1)" })
      }
      #expect(HTTPFields(wireBlock: fields.wireBlock) == fields)
    }
  }
}
