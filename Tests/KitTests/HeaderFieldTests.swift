import Testing

@testable import Kit

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

  /// One name of each kind, and what else it is like.
  private static let table: [(name: String, isForwarding: Bool, mayBeTrailer: Bool, isOfResponse: Bool)] = [
    ("x-any", false, true, true), ("content-type", false, false, true), ("set-cookie", false, false, true),
    ("grpc-status", false, true, true), ("etag", false, true, true), ("accept-ranges", false, true, true),
    ("x-forwarded", false, true, true), ("real-ip", false, true, true),
    ("xx-forwarded-for", false, true, true),
    ("forwarded", true, false, false), ("x-forwarded-for", true, false, false),
    ("x-forwarded-port", true, false, false), ("x-forwarded-", true, false, false),
    ("via", true, false, false),
    ("x-real-ip", true, false, false), ("x-original-url", true, false, false),
    ("x-rewrite-url", true, false, false),
    ("authorization", false, false, false), ("cookie", false, false, false), ("proxy", false, false, true),
    ("proxy-authorization", false, false, false), ("content-length", false, false, false),
    ("transfer-encoding", false, false, false), ("connection", false, false, false),
    ("keep-alive", false, false, false), ("te", false, false, false), ("http2-settings", false, false, false),
    ("if-match", false, false, false), ("accept", false, true, false),
    ("accept-encoding", false, true, false),
    ("rig-x", false, true, false), ("sec-fetch-mode", false, true, false), ("user-agent", false, true, false),
  ]

  @Test("13.A7: what a field is, is so in any case and with '_' for '-'", arguments: table)
  func kinds(name: String, isForwarding: Bool, mayBeTrailer: Bool, isOfResponse: Bool) {
    let under = name.replacing("-", with: "_")
    for spelling in [name, name.uppercased(), under, under.uppercased(), name.capitalized] {
      #expect(HeaderFields.isForwarding(spelling) == isForwarding, "\(spelling)")
      #expect(HeaderFields.mayBeTrailer(spelling) == mayBeTrailer, "\(spelling)")
      #expect(HeaderFields.isOfResponse(spelling) == isOfResponse, "\(spelling)")
      #expect(HeaderFields.isSame(spelling, name) && HeaderFields.isSame(name, spelling))
      #expect(!HeaderFields.isSame(spelling + "x", name))
    }
  }

  @Test("13.A7: what `connection` names goes no further, however it is spelled")
  func connectionOptions() {
    let options = ConnectionOptions([
      (name: "Connection", value: "keep-alive, X_Hop ,,x-b"), (name: "connection_", value: "x-c"),
      (name: "connection", value: "\tx-d"),
    ])
    for name in ["keep-alive", "x-hop", "X_HOP", "x_b", "x-d"] { #expect(options.contains(name), "\(name)") }
    for name in ["x-c", "", "x", "x-hops"] { #expect(!options.contains(name), "\(name)") }
  }

  @Test("A dash is no underscore where names are understood, and no other octet is a dash")
  func understood() {
    #expect(!"content_length".isField("content-length"))
    let names: FieldNames = ["content-length"]
    #expect(names.contains("Content_Length"))
    for name in ["content.length", "content length", "content\rlength", "content\u{7f}length"] {
      #expect(!names.contains(name))
    }
  }
}
