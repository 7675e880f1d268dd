// What patterns match, what they refuse, and how much work they can be made to do.

import Foundation
import TestSupport
import Testing

@testable import APIs

@Suite("Path pattern")
struct PathPatternTests {
  @Test(
    "matches whole paths",
    arguments: [
      ("/books", ["/books", "/BOOKS", "/Books"], ["/books/", "x/books", "/book", ""]),
      ("/BOOKS", ["/books"], ["/book"]),
      ("/books/([^/]+)", ["/books/7", "/books/a%2Fb", "/books/é"], ["/books/", "/books/7/8"]),
      ("^/a$", ["/a"], ["/ab", "b/a"]),
      ("/a|/b", ["/a", "/b"], ["/ax", "x/b", "/a|/b"]),
      ("(^/a|/b$)x?", ["/a", "/ax", "/b"], ["/bx"]),
      ("/a.c", ["/abc", "/a/c"], ["/ac", "/a\nc"]),
      ("/a\\.c\\/\\-", ["/a.c/-"], ["/abc/-"]),
      ("/\\d+", ["/0123456789"], ["/", "/a"]),
      ("/\\D\\W\\S", ["/a-b"], ["/1-b", "/aab", "/a- "]),
      ("/\\w+\\s", ["/aZ_9 ", "/a\t"], ["/- ", "/a"]),
      ("/[a-c]+", ["/abcABC"], ["/d", "/"]),
      ("/[^a-c]", ["/d", "/\u{7F}"], ["/a", "/A", "/"]),
      ("/[]x]", ["/]", "/x"], ["/["]),
      ("/[^]x]", ["/["], ["/]", "/X"]),
      ("/[a-]", ["/a", "/-"], ["/b"]),
      ("/[\\w-.]+", ["/a-b.c"], ["/a/b"]),
      ("/[\\d\\x2F]+", ["/1/2"], ["/a"]),
      ("/\\x41", ["/a", "/A"], ["/b"]),
      ("/a*", ["/", "/aaa"], ["/b"]),
      ("/a+", ["/a", "/aaa"], ["/"]),
      ("/a?", ["/", "/a"], ["/aa"]),
      ("/a{2}", ["/aa"], ["/a", "/aaa"]),
      ("/a{2,}", ["/aa", "/aaaa"], ["/a"]),
      ("/a{1,3}", ["/a", "/aaa"], ["/", "/aaaa"]),
      ("/a{0}b", ["/b"], ["/ab"]),
      ("/(?:ab){2}", ["/abab"], ["/ab", "/abb"]),
      ("/a*?b+?c??", ["/aabb", "/bc"], ["/a"]),
      ("/(a*)*", ["/", "/aaa"], ["/b"]),
      ("/(|a)+b", ["/b", "/aab"], ["/a"]),
      ("/é*x", ["/x", "/ééx"], ["/Éx", "/\u{E8}x"]),
      ("/(?<id>\\d+)/(?P<kind>a|b)", ["/1/a"], ["/1/c"]),
      ("(/)", ["/"], [""]),
      ("", [""], ["/"]),
      ("/a}", ["/a}"], ["/a"]),
    ] as [(String, [String], [String])])
  func matching(pattern: String, matching: [String], others: [String]) throws {
    let compiled = try PathPattern(pattern)
    for path in matching { #expect(compiled.matches(path), "\(pattern) must match \(path)") }
    for path in others { #expect(!compiled.matches(path), "\(pattern) must not match \(path)") }
  }

  @Test(
    "notes what the groups matched, as backtracking would",
    arguments: [
      ("/(a+)(a*)", "/aaa", ["aaa", ""]), ("/(a+?)(a*)", "/aaa", ["a", "aa"]),
      ("/(a|ab)(c|bcd)?", "/abcd", ["a", "bcd"]), ("/(?:(a)|b)+", "/ab", ["a"]),
      ("/(\\d)+", "/123", ["3"]), ("/(x)?y", "/y", [nil]), ("/((a)(b))", "/AB", ["AB", "A", "B"]),
      ("/(.*)/(.*)", "/a/b/c", ["a/b", "c"]), ("/(.*?)/(.*)", "/a/b/c", ["a", "b/c"]),
      ("/(a{1,2})(a{1,2})", "/aaa", ["aa", "a"]), ("/(a|b|ab)*", "/ab", ["b"]),
    ] as [(String, String, [String?])])
  func groups(pattern: String, path: String, expected: [String?]) throws {
    #expect(try PathPattern(pattern).groups(of: path) == [path] + expected)
  }

  @Test(
    "names what it doesn't support and where",
    arguments: [
      ("/(a)\\1", "reference to a group", 4), ("/\\k<a>", "reference to a group", 1),
      ("/(?=a)", "looking ahead", 1), ("/(?!a)", "looking ahead", 1), ("/(?<=a)", "looking behind", 1),
      ("/(?<!a)", "looking behind", 1), ("/(?>a)", "atomic", 1), ("/a++", "possessive", 3),
      ("/a*+", "possessive", 3), ("/(?i)a", "unknown kind", 1), ("/(?P=a)", "reference by name", 1),
      ("/\\bx", "word boundary", 1), ("/\\pL", "'\\p'", 1), ("/\\Z", "'\\Z'", 1),
      ("/a**", "of a repetition", 3),
      ("/a{2}{3}", "of a repetition", 5), ("*", "nothing to repeat", 0), ("/(+)", "nothing to repeat", 2),
      ("/^*", "of a place", 2), ("/(a", "without its ')'", 1), ("/a)", "without its '('", 2),
      ("/[a", "without its ']'", 1), ("/[", "without its ']'", 1), ("/[^]", "without its ']'", 1),
      ("/[b-a]", "before its begin", 2), ("/[a-\\d]", "ends with a set", 2),
      ("/[[:alpha:]]", "named class", 2), ("/[é]", "isn't ASCII", 2), ("/\\", "at the end", 1),
      ("/[\\", "at the end", 2), ("/\\é", "isn't ASCII", 1), ("/\\x4", "hexadecimal", 1),
      ("/\\x-1", "hexadecimal", 1),
      ("/{id}", "begins no repetition", 1), ("/a{,3}", "begins no repetition", 2), ("/a{1", "'}'", 2),
      ("/a{3,1}", "below its smallest", 2), ("/a{1001}", "more than 1000", 2),
      ("/a{99999999999999999999}", "more than 1000", 2), ("/(?<a", "name without an end", 1),
      ("/(?<>a)", "name without an end", 1), ("/(?", "unknown kind", 1),
    ])
  func refused(pattern: String, reason: String, offset: Int) {
    #expect {
      try PathPattern(pattern)
    } throws: { error in
      guard let error = error as? PatternError else { return false }
      #expect(error.reason.contains(reason) && error.offset == offset, "\(pattern): \(error)")
      return true
    }
  }

  @Test(
    "bounds what repetitions make of a small pattern",
    arguments: [
      "(a{1000}){1000}", "((a{100}){100}){100}", "(?:(?:(?:){1000}){1000}){1000}", "(a?){1000}(b?){1000}",
      "(?:(?:(?:(?:|){900}){900}){900}){900}", String(repeating: "a", count: 2_049),
      String(repeating: "([ab]?){90}", count: 30),
    ])
  func tooLarge(pattern: String) {
    #expect {
      try PathPattern(pattern)
    } throws: { ($0 as? PatternError)?.reason.contains("too large") ?? false }
  }

  @Test("bounds the depth of groups")
  func depth() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "(", count: depth) + String(repeating: ")", count: depth)
    }
    #expect(try PathPattern(nested(50)).matches(""))
    #expect(throws: PatternError.self) { try PathPattern(nested(51)) }
    #expect(throws: PatternError.self) { try PathPattern(String(repeating: "(", count: 2_000)) }
  }

  @Test(
    "needs no more steps for a byte than the pattern has instructions, whatever the pattern",
    arguments: ["(a+)+$", "(a|a)*", "(a*)*b", "(a|aa)+", "(.*)*=", "(a?){20}a{20}", "([a-z]+)*x?"])
  func linear(pattern: String) throws {
    let compiled = try PathPattern(pattern)
    var perByte: [Int] = []
    for count in [1_000, 10_000] {
      var matcher = PatternMatcher()
      _ = compiled.groups(of: String(repeating: "a", count: count) + "X", &matcher)
      // Following and reading each look at an instruction once.
      #expect(matcher.steps <= 2 * (count + 2) * compiled.instructionCount)
      perByte.append(matcher.steps * 10 / count)
    }
    // Ten times the path takes ten times the steps.
    #expect(perByte[1] <= perByte[0] + 1)
  }

  @Test("a pattern that makes backtracking run for ever is answered")
  func catastrophe() throws {
    let pattern = try PathPattern("(a+)+$")
    let path = String(repeating: "a", count: 10_000)
    #expect(pattern.matches(path))
    #expect(!pattern.matches(path + "X"))
  }

  @Test("agrees with another engine about random patterns and paths")
  func agreement() throws {
    var random = SeededRandom(seed: 7)
    var matched = 0
    for _ in 0..<400 {
      let text = randomPattern(&random, depth: 3)
      let pattern = try PathPattern(text)
      // Whether a whole path matches has nothing to do with laziness, but the other engine gives up in lazy loops.
      let greedy = text.replacingOccurrences(of: "*?", with: "*").replacingOccurrences(of: "+?", with: "+")
      let other = try NSRegularExpression(pattern: "\\A(?:\(greedy))\\z", options: [.caseInsensitive])
      for _ in 0..<6 {
        let path = String(
          (0..<Int.random(in: 0...5, using: &random)).map { _ in "abC/".randomElement(using: &random) ?? "a" }
        )
        let expected =
          other.firstMatch(in: path, range: NSRange(location: 0, length: path.utf16.count)) != nil
        #expect(pattern.matches(path) == expected, "\(text) and \(path)")
        if expected {
          matched += 1
          #expect(path.lowercased().utf8.starts(with: pattern.prefix), "\(text): prefix of \(path)")
        }
      }
    }
    #expect(matched > 100)
  }

  private func randomPattern(_ random: inout SeededRandom, depth: Int) -> String {
    let atoms = ["a", "b", "C", "/", ".", "[ab]", "[^a/]", "\\w"]
    guard depth > 0 else { return atoms.randomElement(using: &random) ?? "a" }
    let parts = (0..<Int.random(in: 1...3, using: &random)).map { _ in
      randomPattern(&random, depth: depth - 1)
    }
    switch Int.random(in: 0..<4, using: &random) {
    case 0: return "(" + parts.joined(separator: "|") + ")"
    case 1:
      let repetition =
        ["*", "+", "?", "*?", "+?", "{0,2}", "{2}", "{1,}"].randomElement(using: &random) ?? "*"
      return "(?:\(parts.joined()))" + repetition
    default: return parts.joined()
    }
  }

  @Test("never crashes on random text")
  func noise() {
    var random = SeededRandom(seed: 3)
    let letters = Array("ab/()[]{}|*+?^$.\\-,0129:<=!Pdwx")
    var compiled = 0
    for _ in 0..<50_000 {
      let text = String(
        (0..<Int.random(in: 0...12, using: &random)).map { _ in letters.randomElement(using: &random) ?? "a" }
      )
      guard let pattern = try? PathPattern(text) else { continue }
      compiled += 1
      _ = pattern.groups(of: "/ab01-")
    }
    #expect(compiled > 1_000)
  }

  @Test(
    "knows what every path that matches begins with",
    arguments: [
      ("/Books/([^/]+)", "/books/"), ("/a*", "/"), ("/(ab)c", "/abc"), ("/(ab|ac)d", "/a"), ("(/a)+", "/a"),
      ("(/a)?", ""), ("/a|/b", "/"), ("^/x$", "/x"), (".*", ""), ("/ab{2}", "/ab"), ("/a(|b)", "/a"),
    ])
  func prefixes(pattern: String, prefix: String) throws {
    #expect(try PathPattern(pattern).prefix == Array(prefix.utf8))
  }

  @Test(
    "takes {name} of RIG 1 for one segment",
    arguments: [
      ("/books/{id}", "/books/7", true), ("/books/{id}", "/books/7/8", false),
      ("/books/{id}", "/books/", false),
      ("/{a}/x/{b}", "/1/x/2", true), ("/a/{id", "/a/1", false),
    ])
  func wildcards(pattern: String, path: String, matches: Bool) {
    #expect(((try? PathPattern(wildcards: pattern))?.matches(path) ?? false) == matches)
  }
}
