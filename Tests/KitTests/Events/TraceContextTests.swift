// Trace contexts: which are passed on, and which are made.

import Testing

@testable import Kit

struct TraceContextTests {
  static let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

  @Test(
    "A traceparent is accepted as the standard says",
    arguments: [
      (valid, true),
      ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later", true),
      ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
      ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
      ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more", false),
      ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
      ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
      ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
      ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", false),
      ("00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
      ("", false), ("00", false),
    ])
  func validity(text: String, isValid: Bool) {
    #expect(TraceContext.isValid(text) == isValid)
  }

  @Test("What later versions may put at the end is bounded in length and fit for a header")
  func laterVersions() {
    let start = "cc" + Self.valid.dropFirst(2) + "-"
    #expect(TraceContext.isValid(start + String(repeating: "a", count: 512 - start.utf8.count)))
    #expect(!TraceContext.isValid(start + String(repeating: "a", count: 513 - start.utf8.count)))
    for bad in ["a b", "a\r\nx: y", "a\u{7F}", "\u{E4}", "\0"] { #expect(!TraceContext.isValid(start + bad)) }
  }

  @Test("New trace contexts are valid and differ")
  func fresh() {
    var source = TraceSource(seed: 7)
    let made = (0..<1000).map { _ in source.make() }
    #expect(made.allSatisfy(TraceContext.isValid))
    #expect(Set(made).count == made.count)
  }

  @Test("A tracestate is kept with a valid traceparent only, and only up to its bound")
  func tracestate() {
    var source = TraceSource(seed: 7)
    let kept = source.context(traceparent: Self.valid, traceparents: 1, tracestate: "a=1")
    #expect(kept == TraceContext(traceparent: Self.valid, tracestate: "a=1"))
    #expect(source.context(traceparent: "nonsense", traceparents: 1, tracestate: "a=1").tracestate == nil)
    #expect(
      source.context(traceparent: Self.valid, traceparents: 2, tracestate: "a=1").traceparent != Self.valid)
    let long = String(repeating: "a", count: TraceContext.maxTracestateBytes + 1)
    #expect(source.context(traceparent: Self.valid, traceparents: 1, tracestate: long).tracestate == nil)
  }
}
