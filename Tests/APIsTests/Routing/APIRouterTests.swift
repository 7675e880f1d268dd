// Which endpoint takes which request, and how many patterns are tried for it.

import TestSupport
import Testing

@testable import APIs

@Suite("API router")
struct APIRouterTests {
  private func router(_ definitions: [String]) throws -> APIRouter {
    var table = APITable()
    for definition in definitions { try table.create(definition) }
    return table.router()
  }

  @Test("the first definition wins, and in it the first endpoint")
  func order() throws {
    let first = definitionText(
      "z",
      endpoints: [
        endpointText("none", "/none"), endpointText("any", "/b/.*"), endpointText("exact", "/b/1"),
      ].joined(separator: ","))
    let second = definitionText(
      "a", endpoints: endpointText("exact", "/b/1") + "," + endpointText("all", ".*"))
    #expect(try router([first, second]).match(method: "GET", path: "/b/1").summary == "z/any /b/1")
    #expect(try router([second, first]).match(method: "GET", path: "/b/1").summary == "a/exact /b/1")
    #expect(try router([first, second]).match(method: "GET", path: "/c").summary == "a/all /c")
  }

  @Test("an unknown path is not found, a known one with another method names the methods")
  func methods() throws {
    let router = try router([
      definitionText(
        "a",
        endpoints: [
          endpointText("get", "/a"), endpointText("post", "/a", method: "POST"),
          endpointText("put", "/a/.*", method: "PUT"),
        ].joined(separator: ",")),
      definitionText("b", endpoints: endpointText("low", "/low", method: "patch")),
    ])
    #expect(router.match(method: "POST", path: "/a").summary == "a/post /a")
    #expect(router.match(method: "DELETE", path: "/a").summary == "405 GET,HEAD,POST")
    #expect(router.match(method: "get", path: "/a").summary == "405 GET,HEAD,POST")
    #expect(router.match(method: "GET", path: "/a/1").summary == "405 PUT")
    #expect(router.match(method: "GET", path: "/ab").summary == "404")
    #expect(router.match(method: "GET", path: "").summary == "404")
    #expect(router.match(method: "HEAD", path: "/a").summary == "a/get /a")
    #expect(router.match(method: "HEAD", path: "/a/1").summary == "405 PUT")
    #expect(router.match(method: "PATCH", path: "/low").summary == "b/low /low")
    #expect(APIRouter().match(method: "GET", path: "/").summary == "404")
  }

  @Test("a path goes on as it came, and begins with a slash")
  func untouched() throws {
    let router = try router([definitionText("a", endpoints: endpointText("all", ".*"))])
    for path in [
      "//host/x", "/%2F%2f", "/%zz", "/A//b/", "/é", "/a;b=c", "/c%23", "/...", "/.a/b..", "/a\\b",
    ] {
      #expect(router.match(method: "GET", path: path).summary == "a/all \(path)")
    }
    #expect(router.match(method: "GET", path: "*").summary == "a/all /*")
    #expect(router.match(method: "GET", path: "").summary == "a/all /")
  }

  @Test("inactive and versioned definitions take nothing")
  func leftOut() throws {
    let endpoints = endpointText("e", "/a")
    for more in [#""active":false,"#, #""versioned":true,"#] {
      // As a PUT may have left it: nothing that comes new has versions.
      let text = Array(definitionText("a", endpoints: endpoints, more: more).utf8)
      var table = APITable()
      try table.put(try text.withUnsafeBytes { try APIDefinition(stored: $0) })
      #expect(table.router().match(method: "GET", path: "/a").summary == "404")
    }
  }

  @Test("RIG 1's path is tried before path_regex, and either is enough")
  func simplePaths() throws {
    let both =
      #"{"id":"both","method":"GET","path":"/b/{id}","path_regex":"/r/(.*)","path_replacement":"/x/\\1"}"#
    let one = #"{"id":"one","method":"GET","path":"/one/{id}"}"#
    let router = try router([definitionText("a", endpoints: both + "," + one)])
    #expect(router.match(method: "GET", path: "/b/1").summary == "a/both /x/")
    #expect(router.match(method: "GET", path: "/r/1").summary == "a/both /x/1")
    #expect(router.match(method: "GET", path: "/one/1").summary == "a/one /one/1")
  }

  @Test("with 10,000 definitions a look-up tries one pattern, and none for an unknown path")
  func tenThousand() throws {
    var table = APITable()
    for number in 0..<10_000 {
      let name = "service-\(number)"
      try table.create(
        definitionText(
          name,
          endpoints: [
            endpointText("item", "/\(name)/items/([^/]+)", replacement: "/v1/\\1"),
            endpointText("post", "/\(name)/items", method: "POST"),
          ].joined(separator: ",")))
    }
    let router = table.router()
    for number in [0, 1, 4_999, 9_999] {
      var effort = APIRouter.Effort()
      let found = router.match(method: "GET", path: "/SERVICE-\(number)/items/7", &effort)
      #expect(found.summary == "service-\(number)/item /v1/7")
      #expect(effort.patterns == 1)
      #expect(effort.steps < 1_000)
    }
    var effort = APIRouter.Effort()
    #expect(router.match(method: "GET", path: "/service-10000/items/7", &effort).summary == "404")
    #expect(router.match(method: "GET", path: "/", &effort).summary == "404")
    #expect(effort == APIRouter.Effort())
    #expect(router.match(method: "GET", path: "/service-5/items", &effort).summary == "405 POST")
    #expect(effort.patterns == 1)
  }

  @Test("says what trying one pattern after the other says, for random definitions and paths")
  func agreement() throws {
    var random = SeededRandom(seed: 11)
    let regexes = [
      "/", "/a", "/ab", "/a.*", "/a/([^/]+)", "(/a)?/b", ".*c", "/ab?c", "/(a|b)/c", "/a|/b", "/abc+",
      "/A{1,2}",
    ]
    let paths = ["/", "/a", "/ab", "/abc", "/b", "/a/b", "/a/c", "/abcc", "/aa", "/x", "", "/a/b/c"]
    for _ in 0..<300 {
      let chosen = (0..<Int.random(in: 1...8, using: &random)).map { number in
        (
          id: "d\(number)", regex: regexes.randomElement(using: &random) ?? "/",
          method: ["GET", "POST"].randomElement(using: &random) ?? "GET"
        )
      }
      let router = try router(
        chosen.map { definitionText($0.id, endpoints: endpointText("e", $0.regex, method: $0.method)) })
      for path in paths {
        let first = try chosen.first { try $0.method == "GET" && PathPattern($0.regex).matches(path) }
        let isKnown = try chosen.contains { try PathPattern($0.regex).matches(path) }
        let shown = path.isEmpty ? "/" : path
        let expected = first.map { "\($0.id)/e \(shown)" } ?? (isKnown ? "405 POST" : "404")
        #expect(router.match(method: "GET", path: path).summary == expected)
      }
    }
  }
}
