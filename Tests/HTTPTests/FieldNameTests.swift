import Testing

@testable import HTTP

@Suite("Field names")
struct FieldNameTests {
  @Test("A name is the same in any case", arguments: ["content-length", "Content-Length", "CONTENT-LENGTH"])
  func anyCase(name: String) {
    #expect(name.isField("content-length"))
  }

  @Test(
    "Another name isn't, however near",
    arguments: [
      "", "content-lengt", "content-lengths", "content-lengtg", "content\rlength",
      "content length", "content-lengt\u{48}\u{0}", "cöntent-lengt",
    ])
  func others(name: String) {
    #expect(!name.isField("content-length"))
  }

  @Test("Only letters have a case: a blank or a bracket is no other octet in capitals")
  func onlyLetters() {
    #expect(!"x\u{0}y".isField("x y"))
    #expect("X@Y".isField("x@y"))
    #expect(!"x`y".isField("x@y"))
    #expect(!"x@y".isField("x`y"))
  }

  @Test("A set has its names in any case, and no others of the same length")
  func set() {
    let names: FieldNames = ["te", "upgrade", "content-length"]
    for name in ["te", "TE", "Upgrade", "Content-Length"] { #expect(names.contains(name)) }
    let long = String(repeating: "x", count: 64 + 2)
    for name in ["", "to", "trailer", "transfer-code", "content-lengths", long] {
      #expect(!names.contains(name))
    }
  }
}
