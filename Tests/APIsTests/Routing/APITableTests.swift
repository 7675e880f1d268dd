// What the management API's changes do to the definitions.

import Kit
import TestSupport
import Testing

@testable import APIs

@Suite("API table")
struct APITableTests {
  private let books = definitionText("books", endpoints: endpointText("get", "/books"))

  @Test("a new definition gets RIG's defaults and keeps members that nobody knows")
  func defaults() throws {
    var table = APITable()
    let definition = try table.create(
      definitionText("books", endpoints: endpointText("get", "/books"), more: #""x":{"y":[1,2.5,null]},"#))
    #expect(
      text(definition.json)
        == #"{"id":"books","name":"books","x":{"y":[1,2.5,null]},"version_data":{"default":{"endpoints":"#
        + #"[{"id":"get","method":"GET","path_regex":"/books"}]}},"proxy":{"target_url":"http://localhost","#
        + #""port":3000},"active":true,"auth_type":"none","auth":{"use_header":false,"header_name":"","#
        + #""use_query":false,"query_name":""},"versioned":false,"ref_number":0,"#
        + #""timestamp":"2026-01-02T03:04:05Z","node_name":"node-1"}"#)
    #expect(text(table.json) == "[\(text(definition.json))]")
    #expect(text(APITable().json) == "[]")
  }

  @Test("with JWT the header is on, keeps its name, and the query is kept")
  func jwt() throws {
    var table = APITable()
    func auth(_ id: String, _ auth: String) throws -> APIDefinition.Auth {
      let endpoint = endpointText("e", "/e", more: #","secured":true"#)
      return try table.create(
        definitionText(id, endpoints: endpoint, more: #""auth_type":"jwt",\#(auth)"#)
      ).auth
    }
    #expect(
      try auth("1", "")
        == .init(isJWT: true, useHeader: true, headerName: "Authorization", useQuery: false, queryName: ""))
    #expect(
      try auth("2", #""auth":{"use_header":false,"use_query":true,"query_name":"token"},"#)
        == .init(
          isJWT: true, useHeader: true, headerName: "Authorization", useQuery: true, queryName: "token"))
    #expect(
      try auth("3", #""auth":{"use_header":true,"header_name":"x-token"},"#)
        == .init(isJWT: true, useHeader: true, headerName: "x-token", useQuery: false, queryName: ""))
  }

  @Test("creating what exists is refused, until it is removed or inactive")
  func exists() throws {
    var table = APITable()
    try table.create(books)
    #expect(throws: APIError.exists(id: "books")) { try table.create(books) }
    try table.remove(id: "books")
    #expect(try table.create(books).refNumber == 0)
    try table.replace("books", definitionText("books", endpoints: "", more: #""active":false,"#))
    #expect(table.definition("books") == nil)
    #expect(throws: APIError.unknown(id: "books")) { try table.remove(id: "books") }
    #expect(throws: APIError.unknown(id: "books")) { try table.replace("books", books) }
    #expect(text(table.json) == "[]")
    #expect(try table.create(books).refNumber == 2)
    #expect(table.count == 1)
  }

  @Test("an inactive definition that is created again comes last")
  func createdAgain() throws {
    var table = APITable()
    try table.create(definitionText("a", endpoints: "", more: #""active":false,"#))
    try table.create(books)
    try table.create(definitionText("a", endpoints: ""))
    #expect(table.all.map(\.id) == ["books", "a"])
  }

  @Test("PUT replaces whole members, keeps the others, and the id of the path counts")
  func merge() throws {
    var table = APITable()
    try table.create(definitionText("a", endpoints: endpointText("e", "/a"), more: #""k":1,"o":{"p":1},"#))
    try table.create(definitionText("b", endpoints: endpointText("e", "/.*")))
    let body = #"""
      {"id":"other","name":"n","o":{"q":2},"proxy":{"target_url":"h","port":1},
       "version_data":{"default":{"endpoints":[{"id":"f","method":"GET","path_regex":"/new"}]}}}
      """#
    let changed = try table.replace("a", body)
    #expect(changed.document["k"] == .scalar(.integer(1)))
    #expect(try changed.document["o"] == tree(#"{"q":2}"#))
    #expect(changed.id == "a" && changed.name == "n" && changed.refNumber == 1)
    #expect(changed.document["proxy"]?["target_url"] == .scalar(.string("h")))
    #expect(table.definition("a") == changed && table.definition("other") == nil)
    // It keeps its place before b.
    #expect(table.router().match(method: "GET", path: "/new").summary == "a/f /new")
    #expect(table.router().match(method: "GET", path: "/a").summary == "b/e /a")
  }

  @Test("PUT needs no id in its body, and a bad body is named before an unknown id")
  func unknown() throws {
    var table = APITable()
    try table.create(books)
    let body = #"""
      {"name":"n","version_data":{"default":{"endpoints":[]}},"proxy":{"target_url":"h","port":1}}
      """#
    #expect(try table.replace("books", body).id == "books")
    #expect(throws: APIError.unknown(id: "none")) { try table.replace("none", body) }
    #expect {
      try table.replace("none", "{}")
    } throws: { ($0 as? APIError)?.status == 400 }
    #expect(text(APIError.unknown(id: "x\"").json) == #"{"message":"API with id=x\" doesn't exists."}"#)
    #expect(text(APIError.exists(id: "x").json) == #"{"message":"API with id=x already exists."}"#)
    #expect(APIError.unknown(id: "").status == 404 && APIError.exists(id: "").status == 409)
  }

  @Test("a table that is told of changes says what the one that made them says")
  func followed() throws {
    var leader = APITable()
    var follower = APITable()
    var random = SeededRandom(seed: 5)
    for _ in 0..<600 {
      let id = "d\(Int.random(in: 0..<20, using: &random))"
      let body = definitionText(
        id, endpoints: endpointText("e\(UInt8.random(in: 0...255, using: &random))", "/.*"))
      if leader.definition(id) == nil {
        try follow(try leader.create(body), &follower)
      } else if Bool.random(using: &random) {
        try follow(try leader.replace(id, body), &follower)
      } else {
        try leader.remove(id: id)
        let isDropped = follower.drop(id: id)
        #expect(isDropped)
      }
      #expect(leader.json == follower.json)
      #expect(leader.count == Array(leader.all).count)
    }
    let isDropped = follower.drop(id: "none")
    #expect(!isDropped)
  }

  private func follow(_ definition: APIDefinition, _ table: inout APITable) throws {
    let stored = try withBytes(text(definition.json)) { bytes throws(APIError) in
      try APIDefinition(stored: bytes)
    }
    #expect(stored == definition)
    #expect(stored.json == definition.json)
    try table.put(stored)
  }

  @Test("ids that only look the same are two")
  func ids() throws {
    var table = APITable()
    try table.create(definitionText("caf\u{E9}", endpoints: ""))
    try table.create(definitionText("cafe\u{301}", endpoints: ""))
    #expect(table.count == 2)
    try table.remove(id: "cafe\u{301}")
    #expect(table.definition("caf\u{E9}") != nil)
  }

  @Test("a definition doesn't grow without end, PUT after PUT")
  func growth() throws {
    var table = APITable()
    let filler = String(repeating: "x", count: 200_000)
    try table.create(definitionText("a", endpoints: "", more: #""m0":"\#(filler)","#))
    try table.replace("a", definitionText("a", endpoints: "", more: #""m1":"\#(filler)","#))
    #expect {
      try table.replace("a", definitionText("a", endpoints: "", more: #""m2":"\#(filler)","#))
    } throws: { ($0 as? APIError)?.status == 400 }
    #expect(table.definition("a")?.refNumber == 1)
  }

  @Test("patterns of all definitions together are bounded")
  func bounded() throws {
    var table = APITable(maximumInstructions: 10_000)
    let endpoints = endpointText("e", "/[ab]{995}[ab]{995}")
    for number in 0..<5 { try table.create(definitionText("d\(number)", endpoints: endpoints)) }
    let error = #expect(throws: APIError.self) {
      try table.create(definitionText("d5", endpoints: endpoints))
    }
    #expect(error?.status == 503)
    #expect(table.count == 5)
    // A definition that is replaced counts once.
    try table.replace("d1", definitionText("d1", endpoints: endpoints))
    // Removing makes room again.
    try table.remove(id: "d0")
    try table.create(definitionText("again", endpoints: endpoints))
  }

  @Test("reads the file of the start, with methods in upper case")
  func file() throws {
    let list = "[\(definitionText("b", endpoints: endpointText("e", "/x", method: "get"))),\(books)]"
    let table = try withBytes(list) { bytes throws(APIFileError) in try APITable(list: bytes, change) }
    #expect(table.all.map(\.id) == ["b", "books"])
    #expect(text(table.json).contains(#""method":"GET","path_regex":"/x""#))
    #expect(table.router().match(method: "GET", path: "/x").summary == "b/e /x")
  }

  @Test("names every mistake of the file with its definition")
  func badFile() {
    func lines(_ list: String) -> [String] {
      do throws(APIFileError) {
        _ = try withBytes(list) { bytes throws(APIFileError) in try APITable(list: bytes, change) }
        return []
      } catch {
        return error.lines
      }
    }
    let bad = definitionText("bad", endpoints: endpointText("e", "(", more: #","target":"kafka""#))
    #expect(
      lines("[\(books),\(bad),7,\(books)]") == [
        "definition 2 (bad): bad/e: path_regex must be a pattern that is supported: a '(' without its ')' at byte 0; "
          + "bad/e: topic must be present", "definition 3: api: body must be object",
        "definition 4 (books): API with id=books already exists.",
      ])
    #expect(lines("{}") == ["an object, expected a list of definitions"])
    #expect(lines("[").count == 1)
    #expect(lines("[" + Array(repeating: "1", count: 150).joined(separator: ",") + "]").last == "and 50 more")
  }
}
