// Which paths need a token because of another reading of them, which are refused, and what judging them costs. Contract §8.

import TestSupport
import Testing

@testable import APIs

@Suite("Readings of paths")
struct PathReadingTests {
  private static let jwt = #""auth_type":"jwt","#
  private static let secured = #","secured":true"#

  /// What needs a token, each with what is open besides.
  private static let forms: [(secured: [String], others: String)] = [
    (["/admin", "/admin/.*"], "/.*"), (["/admin/.*"], "/.*"), (["/admin/.*"], "/public/.*"),
    (["/admin/(.*)"], ".*"), (["/admin(/.*)?"], "/.*"),
  ]

  /// `/admin` and all below it needs a token, everything else is open.
  private static func router(_ secured: [String] = ["/admin", "/admin/.*"], others: String = "/.*") throws
    -> APIRouter
  {
    let endpoints = secured.enumerated().map { endpointText("\($0)", $1, more: Self.secured) }
    return try router([
      definitionText("admin", endpoints: endpoints.joined(separator: ","), more: jwt),
      definitionText("open", endpoints: endpointText("all", others)),
    ])
  }

  private static func router(_ definitions: [String]) throws -> APIRouter {
    var table = APITable()
    for definition in definitions { try table.create(definition) }
    return table.router()
  }

  /// `open`, `token of <API>`, or the status without one.
  private static func judgement(_ router: APIRouter, _ path: String, method: String = "GET") -> String {
    let routing = router.match(method: method, path: path)
    guard case .match(let match) = routing else { return String(routing.summary.prefix(3)) }
    return match.authority.map { "token of \($0.id)" } ?? "open"
  }

  /// Those of issue 13, and their kin.
  private static let table: [(path: String, judgement: String)] = [
    ("/public/../admin/x", "400"), ("/public/%2e%2e/admin/x", "400"), ("/./admin", "400"),
    ("/admin#x", "400"),
    ("//admin", "token of admin"), ("/%61dmin", "token of admin"), ("/admin;x", "token of admin"),
    ("/admin/", "token of admin"),
    // as sent
    ("/admin", "token of admin"), ("/ADMIN/x", "token of admin"), ("/public/y", "open"), ("/", "open"),
    ("/administrator", "open"), ("/public/admin", "open"), ("/public/a%2Fb", "open"), ("/c%23", "open"),
    ("/100%", "open"), ("/%zz", "open"), ("/a%20b;v=1/c/", "open"), ("/.well-known/x", "open"),
    ("/...", "open"),
    ("/public/a..b/..c/d..", "open"), ("/é", "open"),
    // escapes, their case, and two layers of them
    ("/%41DMIN/x", "token of admin"), ("/%61%64%6d%69%6E", "token of admin"),
    ("/adm%2569n", "token of admin"),
    ("/admin%2fx", "token of admin"), ("/admin%2Fx", "token of admin"), ("/admin%252Fx", "token of admin"),
    ("/%2fadmin", "token of admin"), ("/admin%2F", "token of admin"), ("/admin%3f", "token of admin"),
    ("/admin%3fx=1", "token of admin"), ("/admin%23x", "token of admin"),
    // slashes of other kinds, empty segments, authorities
    ("/admin\\x", "token of admin"), ("\\admin", "token of admin"), ("/admin%5cx", "token of admin"),
    ("/admin%255cx", "token of admin"), ("///admin//x", "token of admin"), ("/\\admin", "token of admin"),
    ("//host/admin", "token of admin"), ("/\\host/admin", "token of admin"),
    ("///host/admin/x", "token of admin"),
    ("/%2f%2fhost/admin", "token of admin"), ("admin/x", "token of admin"),
    ("/admin%c0%afx", "token of admin"),
    ("/%c1%a1dmin", "token of admin"), ("/admin%e0%80%afx", "token of admin"),
    // parameters and last slashes
    ("/admin;a=b/x", "token of admin"), ("/admin;a=b;c/", "token of admin"), ("/admin%3bx", "token of admin"),
    ("/admin;/", "token of admin"), ("/admin//", "token of admin"), ("/;x/admin", "token of admin"),
    ("/admin;x%2fy", "token of admin"), ("/admin;x/y", "token of admin"),
    // dot segments in any reading
    ("/a/.", "400"), ("/..", "400"), ("/a/..;x/b", "400"), ("/a%2f..%2fb", "400"), ("/a\\..\\b", "400"),
    ("/a/.%2e/b", "400"), ("/a/%252e%252e/b", "400"), ("/a/%c0%ae./b", "400"), ("/a/..%3fb", "400"),
    ("/a/..%00", "400"), ("..", "400"), ("/a;x%2f..%2fb", "400"), ("/%2e", "400"), ("/.%3bx", "400"),
    ("/a/..%5c", "400"),
    // control characters, and blanks at the end
    ("/a%00", "400"), ("/a%2500", "400"), ("/a%c0%80", "400"), ("/ad%09min", "400"), ("/admin%0a", "400"),
    ("/%61dmin/x%0d", "400"), ("/admin%250a", "400"), ("/a%7f", "400"), ("/public/.%09./admin", "400"),
    ("/admin%20", "token of admin"), ("/%61dmin%2520%20", "token of admin"),
  ]

  @Test("13.A4: a path needs the token if any reading of it meets a secured endpoint", arguments: table)
  func readings(path: String, judgement: String) throws {
    for form in [(secured: ["/admin", "/admin/.*"], others: ".*")] + Self.forms {
      let seen = Self.judgement(try Self.router(form.secured, others: form.others), path)
      let isUnknown = form.others == "/public/.*" && !path.hasPrefix("/public/") && seen == "404"
      let isRootless = form.others == "/.*" && path.utf8.first != UInt8(ascii: "/") && seen == "404"
      #expect(seen == judgement || isUnknown || isRootless, "\(form)")
    }
  }

  @Test(
    "13.A4: 10,000 odd paths: none reaches a secured resource of a service of any kind without a token",
    arguments: forms.indices)
  func oddPaths(form: Int) throws {
    let (secured, others) = Self.forms[form]
    let router = try Self.router(secured, others: others)
    var generator = OddPathGenerator(seed: 13)
    var reaching = 0
    var refused = 0
    var open = 0
    var slipped: [String] = []
    for _ in 0..<10_000 {
      let target = generator.next()
      let path = String(target.prefix { $0 != "?" })
      let models = ServiceModel.all.filter { $0.isSecured(target) }
      if !models.isEmpty { reaching += 1 }
      switch Self.judgement(router, path) {
      case "400": refused += 1
      case "404": #expect(others == "/public/.*", "\(target)")
      case "open":
        open += 1
        if let model = models.first { slipped.append("\(target) by \(model.name)") }
      case let judgement: #expect(judgement == "token of admin", "\(target)")
      }
    }
    #expect(slipped.isEmpty, "\(slipped.count) slipped by, e.g. \(slipped.prefix(10))")
    // It would be no test if nothing were disguised, or everything refused.
    let isNarrow = others == "/public/.*"
    #expect(
      reaching > 2_000 && open > (isNarrow ? 300 : 1_500) && refused < 6_000,
      "\(reaching), \(open), \(refused)")
  }

  @Test("13.A4: patterns of other forms, and services with endpoints of their own, are judged alike")
  func otherPatterns() throws {
    let router = try Self.router([
      definitionText(
        "a",
        endpoints: [
          endpointText("open", "/files/([^/]+)", replacement: "/v1/\\1"),
          endpointText("list", "/lists/", more: Self.secured),
          endpointText("hidden", "/files/(secret)/?", more: Self.secured),
        ].joined(separator: ","), more: Self.jwt),
      definitionText("b", endpoints: endpointText("rest", "/.*")),
      definitionText(
        "late", endpoints: endpointText("covered", "/covered/.*", more: Self.secured), more: Self.jwt),
    ])
    // An encoded slash in a name stays one.
    #expect(router.match(method: "GET", path: "/files/a%2Fb").summary == "a/open /v1/a%2Fb")
    #expect(Self.judgement(router, "/files/a%2Fb") == "open")
    // The open endpoint comes first, and is an exception however the path is written.
    #expect(
      Self.judgement(router, "/files/secret") == "open" && Self.judgement(router, "/covered/x") == "open")
    #expect(Self.judgement(router, "/%63overed/x") == "open")
    // What isn't one name any more is the secured endpoint's.
    #expect(Self.judgement(router, "//files/secret/") == "token of a")
    // A service that doesn't mind the last slash takes the path without it.
    #expect(
      Self.judgement(router, "/lists/") == "token of a" && Self.judgement(router, "/lists") == "token of a")
    #expect(Self.judgement(router, "/%6cists") == "token of a" && Self.judgement(router, "/listsx") == "open")
    // Dot segments of a capture's making.
    let cut = try Self.router([
      definitionText("a", endpoints: endpointText("e", "/books(.*)", replacement: "/v1/\\1"))
    ])
    #expect(cut.match(method: "GET", path: "/books../x").summary == "400")
    #expect(cut.match(method: "GET", path: "/books..x").summary == "a/e /v1/..x")
  }

  /// What is open and what is secured (`-` before it: behind the open ones), a path, and whether it needs the token.
  private static let exceptions: [(open: [String], secured: String, path: String, isSecured: Bool)] = [
    // What takes the path with a slash too is wider, whatever comes first.
    (["/.*"], "/admin/.*", "/admin", true), (["/[^/]+/?"], "/admin/.*", "/admin", true),
    (["/a.*"], "/admin/[^/]*", "/admin", true), ([".*"], "/v\\d/.*", "/v1", true),
    // A place among others is none that was opened on purpose.
    (["/[^/]+"], "/admin/.*", "/admin", true), (["/[^/]+"], "-/admin/.*", "/admin", true),
    (["/[^/]+"], "/lists/", "/lists", true), (["/[^/]+/[^/]+"], "/[^/]+/admin/.*", "/x/admin", true),
    // This place was: it is open, and what is below it isn't.
    (["/books", "/.*"], "/books/.*", "/books", false), (["/books", "/.*"], "/books/.*", "/%62ooks", false),
    (["/books(\\?.*)?", "/.*"], "/books/.*", "/books", false),
    (["/books", "/.*"], "/books/.*", "/books/", true), (["/books"], "-/books/", "/books", false),
    (["/users/([^/]+)"], "/users/([^/]+)/.*", "/users/7", false),
    (["^/users/\\d+$"], "-/users/\\d+/.*", "/users/7", false),
    (["/users/\\d+"], "/users/\\w+/.*", "/users/7", true),
    // Groups are no difference.
    (["/users/[^/]+"], "/users/([^/]+)/.*", "/users/7", false),
    (["/users/([^/]+)"], "/users/[^/]+/.*", "/users/7", false),
    (["/users/(?:[^/]+)"], "/users/([^/]+)(/.*)", "/users/7", false),
    (["/(a+|b)"], "/((?:a+|b))/.*", "/aa", false), (["/([^/]+)"], "/(\\w+)/.*", "/aa", true),
    // Nor is it one whether one name was written out or several.
    (["/(login|admin)"], "/admin/.*", "/admin", false), (["/(admin)"], "/admin/.*", "/admin", false),
    (["/admins?"], "/admins/.*", "/admins", false), (["/(login|[^/]+)"], "/admin/.*", "/admin", true),
    (["/(login|admin)"], "/admin/.*", "/admin/", true), (["/(a|b){1,9}"], "/ab/.*", "/ab", true),
    // What isn't met with a slash either, and what would be met without one but for what comes first.
    (["/.*"], "/admin/.+", "/admin", false), (["/.*"], "/admin/x", "/admin", false),
    (["/items/[^/]+"], "-/.*", "/items/7", false), (["/items/[^/]+"], "-/items/.*", "/items/7", false),
    (["/public/.*"], "-/.*", "/public/x", false), (["/admin.*"], "-/admin/.*", "/admin", false),
  ]

  @Test(
    "13.A4: who is met with a slash behind the path is asked, unless the place was opened",
    arguments: exceptions)
  func missingSlash(open: [String], secured: String, path: String, isSecured: Bool) throws {
    let opening = definitionText(
      "open", endpoints: open.enumerated().map { endpointText("\($0)", $1) }.joined(separator: ","))
    let isBehind = secured.hasPrefix("-")
    let securing = definitionText(
      "a", endpoints: endpointText("s", isBehind ? String(secured.dropFirst()) : secured, more: Self.secured),
      more: Self.jwt)
    let router = try Self.router(isBehind ? [opening, securing] : [securing, opening])
    #expect(Self.judgement(router, path) == (isSecured ? "token of a" : "open"))
  }

  @Test("13.A4: a control character that is escaped is refused beside secured endpoints only, NUL everywhere")
  func controls() throws {
    let post = endpointText("post", "/(.*)", method: "POST", replacement: "/v1/\\1", more: Self.secured)
    for more in ["", "," + post] {
      let router = try Self.router([
        definitionText(
          "open", endpoints: endpointText("all", "/(.*)", replacement: "/v1/\\1") + more, more: Self.jwt)
      ])
      for path in ["/files/a%09b", "/search/100%2510", "/a%0a", "/%7f", "/a%c0%8a"] {
        #expect(Self.judgement(router, path) == "open", "\(path)")
        #expect(router.match(method: "GET", path: path).summary == "open/all /v1" + path)
        #expect(Self.judgement(router, path, method: "POST") == (more.isEmpty ? "405" : "400"), "\(path)")
      }
      for path in ["/a%00", "/a%2500", "/a%c0%80", "/a\u{9}b", "/a\u{7f}", "/a/.%2e%09/.."] {
        #expect(Self.judgement(router, path) == "400", "\(path.debugDescription)")
      }
    }
  }

  @Test("13.A4: the method is the router's: HEAD is taken for GET, others have endpoints of their own")
  func methods() throws {
    let router = try Self.router([
      definitionText(
        "admin",
        endpoints: endpointText("get", "/admin", more: Self.secured) + ","
          + endpointText("post", "/admin/.*", method: "POST", more: Self.secured), more: Self.jwt),
      definitionText(
        "open",
        endpoints: ["GET", "POST", "DELETE"].map { endpointText($0, "/.*", method: $0) }.joined(
          separator: ",")),
    ])
    #expect(Self.judgement(router, "//admin", method: "HEAD") == "token of admin")
    #expect(Self.judgement(router, "//admin", method: "GET") == "token of admin")
    #expect(Self.judgement(router, "//admin", method: "DELETE") == "open")
    #expect(Self.judgement(router, "/admin%2fx", method: "POST") == "token of admin")
    #expect(Self.judgement(router, "/admin%2fx") == "open")
    #expect(Self.judgement(router, "//admin", method: "PUT") == "405")
  }

  @Test("13.A4: an ordinary path is looked at once, and an odd one costs no more than its bounds")
  func effort() throws {
    for form in Self.forms + [(["/lists/"], "/.*"), (["/public/items/"], "/.*"), (["/public/x/.*"], "/.*")] {
      var effort = APIRouter.Effort()
      let router = try Self.router(form.secured, others: form.others)
      _ = router.match(method: "GET", path: "/public/items/4711", &effort)
      #expect(effort.readings == 0 && effort.patterns <= 1 + (form.secured == ["/public/items/"] ? 1 : 0))
    }
    let router = try Self.router()

    let length = 16_384
    let pieces = [
      "%2e", "/", "//a", "\\", ";", "%25", "%2525", "/;", "%2f", "a%2f;b//c\\d%5c%3b%3f/", "%c0%af",
      "/a;b%252f//",
      "%2", "%%32%66", "/%2e%2e%2e/", ";/%3b%253b", "%3f%253f;", "%61%2561", "é%c0",
    ]
    for piece in pieces {
      let path = "/" + String(repeating: piece, count: length / piece.utf8.count)
      var effort = APIRouter.Effort()
      let summary = router.match(method: "GET", path: path, &effort).summary.prefix(3)
      #expect(summary == "400" || summary == "ope" || summary == "adm", "\(piece): \(summary)")
      #expect(effort.readings <= PathReadings.maximumCount, "\(piece)")
      // A reading is noted before it is known to be too much.
      #expect(effort.readingBytes <= PathReadings.maximumBytes + length, "\(piece)")
      // The pattern for everything is tried with the path as sent; readings only if a secured one may take them.
      #expect(effort.steps <= 16 * (length + effort.readingBytes), "\(piece): \(effort.steps)")
    }
    #expect(Self.judgement(router, "/" + String(repeating: "%2e", count: length / 3)) == "open")
  }

  @Test("13.B9: whatever the path and however many patterns, a look-up takes no more than its steps")
  func steps() throws {
    func steps(_ secured: [String], _ open: [String], _ path: String) throws -> (steps: Int, summary: String)
    {
      let router = try Self.router([
        definitionText(
          "s",
          endpoints: secured.enumerated().map { endpointText("\($0)", $1, more: Self.secured) }.joined(
            separator: ","), more: Self.jwt),
        definitionText(
          "o", endpoints: open.enumerated().map { endpointText("\($0)", $1) }.joined(separator: ",")),
      ])
      var effort = APIRouter.Effort()
      let routing = router.match(method: "GET", path: path, &effort)
      guard case .match(let match) = routing else { return (effort.steps, routing.summary) }
      return (effort.steps, match.authority == nil ? "open" : "token")
    }
    // One octet more is read of a path before it is known to be too much.
    let bound = APIRouter.maximumSteps + 4 * PatternProgram.maximumInstructions
    let bySet = (0..<100).map { "/([^/]+)/orders\($0)/.*" }
    let long = String(repeating: "a%61%2561", count: 1_700)
    let sets: [(secured: [String], open: [String], path: String, expected: String)] = [
      (bySet, ["/.*"], "/\(long);x", "400"), (bySet, ["/.*"], "/\(long)/orders7/x;y", "400"),
      // Where nothing is secured, and the path is ordinary.
      ([], bySet, "/" + String(repeating: "a", count: 16_000), "400"),
      (
        [], ["/" + String(repeating: ".*", count: 50) + "x"], "/" + String(repeating: "a", count: 16_000),
        "400"
      ),
      // What people have is judged as ever.
      (bySet, ["/.*"], "/c%61rt;x/other/y", "open"),
      (bySet, ["/.*"], "/\(long.prefix(100));x/orders7/y", "token"),
      (bySet, ["/.*"], "/c%61rt;x/orders7/y", "token"), (bySet, ["/.*"], "/cart/orders7/y", "token"),
      ([], bySet, "/" + String(repeating: "a", count: 200) + "/orders99/x", "open"),
      ([], ["/.*"], "/" + String(repeating: "a", count: 16_000), "open"),
      (bySet, ["/.*"], "/" + String(repeating: "/", count: 100), "open"),
    ]
    for set in sets {
      let (steps, summary) = try steps(set.secured, set.open, set.path)
      #expect(steps <= bound, "\(set.path.prefix(40))")
      #expect(summary == set.expected, "\(set.path.prefix(40)): \(steps) steps")
    }
    // To note what groups have matched is more work than to match.
    let grouped = try PathPattern("/" + String(repeating: "(a?)", count: 150) + "(.*)")
    var (matching, noting) = (PatternMatcher(), PatternMatcher())
    Array(("/" + String(repeating: "a", count: 1_000)).utf8).withUnsafeBufferPointer { path in
      #expect(grouped.matches(folded: path, &matching))
      #expect(grouped.matches(folded: path, slots: 2 * grouped.groupCount, &noting))
    }
    #expect(noting.steps > 5 * matching.steps)
  }

  @Test("13.A4: a path with more readings than are judged is refused; without a secured endpoint nothing is")
  func tooMany() throws {
    let path = (20..<32).map { "/a%2f\\b%5c;c//%25\($0)%3b%3f" }.joined()
    #expect(Self.judgement(try Self.router(), path + "/") == "400")
    let open = try Self.router([definitionText("open", endpoints: endpointText("all", ".*"))])
    #expect(Self.judgement(open, path + "/") == "open")
    #expect(Self.judgement(open, path + "/..") == "400")
    #expect(Self.judgement(APIRouter(), "/..") == "404")
  }
}
