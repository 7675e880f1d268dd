// Suggestions for misspelt names.

import Testing

@testable import Settings

@Suite("Nearest name")
struct NearestNameTests {
  @Test(
    "The distance counts insertions, deletions, replacements and swaps",
    arguments: [
      ("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abc", "abd", 1), ("abc", "ab", 1),
      ("abcd", "abdc", 1),
      ("kitten", "sitting", 3),
    ])
  func distance(a: String, b: String, expected: Int) {
    #expect(NearestName.distance(Array(a.utf8), Array(b.utf8)) == expected)
    #expect(NearestName.distance(Array(b.utf8), Array(a.utf8)) == expected)
  }

  @Test("A name unlike any other gets no suggestion")
  func noSuggestion() {
    #expect(NearestName.suggestion(for: "zzzzzzzz", among: ["INBOUND_PORT", "CORS"]) == nil)
    #expect(NearestName.suggestion(for: "COSR", among: ["INBOUND_PORT", "CORS"]) == "CORS")
  }
}
