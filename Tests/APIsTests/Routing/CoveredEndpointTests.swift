// Which open endpoints are said to cover which secured ones.

import Testing

@testable import APIs

@Suite("Covered endpoints")
struct CoveredEndpointTests {
  private static func warnings(_ definitions: [String], of id: String? = nil) throws -> [String] {
    var table = APITable()
    for definition in definitions { try table.create(definition) }
    return CoveredEndpoints(table.all, of: id).warnings
  }

  private static func secured(_ regex: String, method: String = "GET") -> String {
    definitionText(
      "admin", endpoints: endpointText("s", regex, method: method, more: #","secured":true"#),
      more: #""auth_type":"jwt","#)
  }

  private static func open(_ regex: String, method: String = "GET", more: String = "") -> String {
    definitionText("open", endpoints: endpointText("o", regex, method: method), more: more)
  }

  /// An open pattern, a secured one, and whether the first covers the second.
  private static let table: [(open: String, secured: String, isCovered: Bool)] = [
    ("/.*", "/admin", true), ("/.*", "/admin/.*", true), (".*", "/admin/([^/]+)/x", true),
    ("/.*", ".*", true),
    ("/ADMIN.*", "/admin/x", true), ("/[a-z]+", "/admin", true), ("/admin/.*", "/admin/.*", true),
    ("/(a|b).*", "/(a|b)/c", true), ("/.+", "/(x/)?admin", true), ("/a.*", "/a{2,4}", true),
    ("(/[^/]+)+", "/v\\d+/users/[0-9a-f-]{36}", true), ("/.*", "(/x)*/y", true), ("/.*", "/a/?", true),
    ("/public/.*", "/admin/.*", false), ("/admin", "/admin/.*", false), ("/admin/[^/]+", "/admin/.*", false),
    ("/[a-z]+", "/v\\d", false), ("/a/b", "/.*", false), ("/(a|b)", "/(a|b|c)", false),
    ("/x.*", "/(x|y)", false),
    ("/admin/x", "/admin/?", false), ("/a[a-w]", "/a[a-z]", false), ("/admins/.*", "/admin/.*", false),
  ]

  @Test("13.A4: an open pattern that covers a secured one is named, whichever is first", arguments: table)
  func coverings(open: String, secured: String, isCovered: Bool) throws {
    let later = try Self.warnings([Self.secured(secured), Self.open(open)])
    let first = try Self.warnings([Self.open(open), Self.secured(secured)])
    #expect(later.count == (isCovered ? 1 : 0) && first.count == later.count, "\(later) \(first)")
    guard isCovered else { return }
    let covering = "open endpoint open/o (GET \(open)) covers secured endpoint admin/s (GET \(secured))"
    #expect(later == [covering + ": only paths that are read as the secured one's need a token"])
    #expect(first == [covering + " and comes first: no token is asked for"])
  }

  @Test("13.A4: only endpoints that take the same requests, and only those of the definition asked for")
  func others() throws {
    #expect(try Self.warnings([Self.secured("/a"), Self.open("/.*", method: "POST")]).isEmpty)
    #expect(try Self.warnings([Self.secured("/a"), Self.open("/.*", method: "HEAD")]).count == 1)
    #expect(try Self.warnings([Self.secured("/a"), Self.open("/.*", more: #""active":false,"#)]).isEmpty)
    let all = [
      Self.secured("/a"), Self.open("/.*"), definitionText("third", endpoints: endpointText("t", "/a.*")),
    ]
    #expect(try Self.warnings(all).count == 2 && (try Self.warnings(all, of: "admin").count) == 2)
    #expect(try Self.warnings(all, of: "third").count == 1 && (try Self.warnings(all, of: "none").isEmpty))
  }

  @Test("Many coverings are counted")
  func bounds() throws {
    let many = (0..<50).map { endpointText("\($0)", "/a\($0).*") }.joined(separator: ",")
    let listed = try Self.warnings([
      Self.secured("/a1.*"),
      definitionText(
        "many", endpoints: (0..<50).map { endpointText("\($0)", "/a.*") }.joined(separator: ",")),
    ])
    #expect(listed.count == CoveredEndpoints.maximumListed + 1 && listed.last == "and 30 more such endpoints")
    #expect(try Self.warnings([Self.secured("/a1"), definitionText("many", endpoints: many)]).count == 1)
  }

  @Test(
    "13.B9: however many endpoints there are and however hard their patterns, a look takes no more than its bound"
  )
  func effort() throws {
    func looks(_ secured: [String], _ open: [String], of id: String?) throws -> CoveredEndpoints {
      var table = APITable()
      let endpoints = secured.enumerated().map { endpointText("\($0)", $1, more: #","secured":true"#) }
      try table.create(
        definitionText("s", endpoints: endpoints.joined(separator: ","), more: #""auth_type":"jwt","#))
      try table.create(
        definitionText(
          "o", endpoints: open.enumerated().map { endpointText("\($0)", $1) }.joined(separator: ",")))
      return CoveredEndpoints(table.all, of: id)
    }
    let bounds = CoveredEndpoints.maximumEffort
    let slow = "/" + String(repeating: "(a?b?)", count: 50)
    let prefix = "/" + String(repeating: "p", count: 1_500)
    let sets: [(secured: [String], open: [String])] = [
      // Patterns that begin alike, and names that are.
      ((0..<50).map { "\(prefix)s\($0)" }, (0..<50).map { "\(prefix)o\($0)" }),
      ((0..<1_500).map { "/s\($0)/x" }, (0..<1_500).map { "/o\($0)/x" }),
      ((0..<100).map { _ in slow }, (0..<100).map { _ in slow + "c?" }),
    ]
    for set in sets {
      for (id, bound) in [(nil, bounds.start), ("o", bounds.change), ("s", bounds.change)] {
        let look = try looks(set.secured, set.open, of: id)
        // One pair is counted before it is known to be too much.
        let most = bound + PathPattern.maximumBytes + 1
        #expect(look.effort <= most && look.effort > bound / 2, "\(look.effort)")
        #expect(look.warnings.last?.hasPrefix("and perhaps more") == true)
      }
    }
    let small = try looks(["/a"], ["/.*"], of: nil)
    #expect(small.effort > 1 && small.effort < 100 && small.warnings.count == 1, "\(small.effort)")
  }

  private static func samples(_ pattern: PathPattern) -> [[UInt8]] {
    var matcher = PatternMatcher()
    return pattern.samples(steps: 1_000_000, &matcher) ?? []
  }

  @Test("Samples of a pattern match it and begin with a slash")
  func samples() throws {
    for regex in [
      "/a", "/a/([^/]+)", ".*", "/(a|b)?c*", "/a{2,3}(b+?)*", "/[^a-z]x\\d", "/a$|/b^", "(a*)*", "/é.*",
      "/\\s?",
      "([a-f]{2}:){5}x|/y",
    ] {
      let pattern = try PathPattern(regex)
      for sample in Self.samples(pattern) {
        #expect(pattern.matches(text(sample)) && sample.first == 0x2F, "\(regex)")
      }
    }
    #expect(
      Set(["/a/x", "/a/7", "/a/xx"]).isSubset(of: Self.samples(try PathPattern("/a/([^/]+)")).map(text)))
    for regex in ["x", "/x^y"] { #expect(Self.samples(try PathPattern(regex)).isEmpty) }
  }
}
