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

  @Test("Many coverings are counted, and many endpoints are compared up to a bound")
  func bounds() throws {
    let many = (0..<50).map { endpointText("\($0)", "/a\($0).*") }.joined(separator: ",")
    let listed = try Self.warnings([
      Self.secured("/a1.*"),
      definitionText(
        "many", endpoints: (0..<50).map { endpointText("\($0)", "/a.*") }.joined(separator: ",")),
    ])
    #expect(listed.count == CoveredEndpoints.maximumListed + 1 && listed.last == "and 30 more such endpoints")
    #expect(try Self.warnings([Self.secured("/a1"), definitionText("many", endpoints: many)]).count == 1)
    let securedMany = (0..<500).map { endpointText("\($0)", "/s\($0)/x", more: #","secured":true"#) }
    let openMany = (0..<500).map { endpointText("\($0)", "/o\($0)/x") }
    let warnings = try Self.warnings(
      [
        definitionText("s", endpoints: securedMany.joined(separator: ","), more: #""auth_type":"jwt","#),
        definitionText("o", endpoints: openMany.joined(separator: ",")),
      ], of: "o")
    #expect(warnings.count == 1 && warnings.first?.hasPrefix("and perhaps more") == true)
  }

  @Test("Samples of a pattern match it and begin with a slash")
  func samples() throws {
    for regex in [
      "/a", "/a/([^/]+)", ".*", "/(a|b)?c*", "/a{2,3}(b+?)*", "/[^a-z]x\\d", "/a$|/b^", "(a*)*", "/é.*",
      "/\\s?",
      "([a-f]{2}:){5}x|/y",
    ] {
      let pattern = try PathPattern(regex)
      for sample in pattern.samples {
        #expect(pattern.matches(text(sample)) && sample.first == 0x2F, "\(regex)")
      }
    }
    #expect(Set(["/a/x", "/a/7", "/a/xx"]).isSubset(of: try PathPattern("/a/([^/]+)").samples.map(text)))
    #expect(try PathPattern("x").samples.isEmpty && PathPattern("/x^y").samples.isEmpty)
  }
}
