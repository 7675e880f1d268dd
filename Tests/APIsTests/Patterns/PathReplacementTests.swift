// What becomes of a path.

import Testing

@testable import APIs

@Suite("Path replacement")
struct PathReplacementTests {
  private func rewritten(_ path: String, _ pattern: String, _ replacement: String) throws -> String {
    let text = definitionText("a", endpoints: endpointText("e", pattern, replacement: replacement))
    var table = APITable()
    try table.create(text)
    guard case .match(let match) = table.router().match(method: "GET", path: path) else { return "404" }
    return match.path
  }

  @Test(
    "puts groups in as RIG does",
    arguments: [
      ("/v1/\\1", "/v1/7"), ("/\\2/\\1", "/x/7"), ("\\0", "/books/7/x"), ("/p\\0", "/p/books/7/x"),
      ("/\\g{2}0", "/x0"), ("/\\3-\\12", "/-"), ("/\\\\1", "/\\1"), ("/\\z", "/\\z"), ("/\\", "/\\"),
      ("/\\g{", "/\\g{"), ("/\\g{1", "/\\g{1"), ("/\\99999999999999999999", "/"), ("/$1", "/$1"),
      ("/v1?id=\\1", "/v1?id=7"), ("/\\1\\1", "/77"),
    ])
  func groups(replacement: String, expected: String) throws {
    #expect(try rewritten("/books/7/x", "/books/([^/]+)/([^/]+)", replacement) == expected)
  }

  @Test("a path that is rewritten begins with a slash, and what is put in is not decoded")
  func slash() throws {
    #expect(try rewritten("/go/http://evil", "/go/(.*)", "\\1") == "/http://evil")
    #expect(try rewritten("/go/@evil", "/go/(.*)", "\\1") == "/@evil")
    #expect(try rewritten("/go/x", "/go/(y)?x", "\\1") == "/")
    #expect(try rewritten("/go/a%2F...%2fB", "/go/(.*)", "/v/\\1") == "/v/a%2F...%2fB")
  }

  @Test("a group without a part in the match is empty, also when another pattern was tried before")
  func staleCaptures() throws {
    var table = APITable()
    try table.create(
      definitionText(
        "a",
        endpoints: [
          endpointText("1", "/(a)(b)(c)", replacement: "/\\1\\2\\3"),
          endpointText("2", "/(x)?abd", replacement: "/n\\1"),
          endpointText("3", "/lit", replacement: "/n\\1"),
        ].joined(separator: ",")))
    let router = table.router()
    #expect(router.match(method: "GET", path: "/abd").summary == "a/2 /n")
    #expect(router.match(method: "GET", path: "/LIT").summary == "a/3 /n")
    #expect(router.match(method: "GET", path: "/abc").summary == "a/1 /abc")
  }

  @Test(
    "refuses what would end the request line, and what makes paths of any length",
    arguments: [
      "/a b", "/a\r\nx: y", "/\u{7F}", "/é", "/a#b", "/\t", String(repeating: "\\1", count: 33),
      String(repeating: "a", count: 2_049),
    ])
  func refused(replacement: String) {
    #expect(throws: PatternError.self) { try PathReplacement(replacement) }
  }
}
