// Extractor tables: what is taken, and that a broken one is never taken for none.

import Testing

@testable import Settings

@Suite("Extractors")
struct ExtractorTests {
  private static let greeting = """
    {"greeting":{"name":{"stable_field_index":1,"event":{"json_pointer":"/data/name"},\
    "jwt":{"json_pointer":"/username"}},"lang":{"event":{"json_pointer":"/data/l~1a~0ng/0"}}}}
    """

  private static let expected = ExtractorTable(byType: [
    "greeting": [
      "name": Extractor(eventPointer: ["data", "name"], jwtPointer: ["username"], stableFieldIndex: 1),
      "lang": Extractor(eventPointer: ["data", "l/a~ng", "0"]),
    ]
  ])

  @Test("A table as JSON text, as a file of its own, and inside the configuration file is the same table")
  func sources() throws {
    #expect(try load(["EXTRACTORS": Self.greeting]).settings.extractors == Self.expected)
    try withFile(Self.greeting, named: "extractors.json") { path in
      let settings = try load(["EXTRACTORS": path]).settings
      #expect(settings.extractors == Self.expected)
    }
    try withFile("extractors: \(Self.greeting)\n") { path in
      let settings = try load([:], ["--config", path]).settings
      #expect(settings.extractors == Self.expected)
    }
  }

  @Test(
    "A broken table is refused with the position of the mistake",
    arguments: [
      (#"{"a":"#, "line 1"),
      (#"{"a":{"f":{"event":{"json_pointer":"data"}}}}"#, "must begin with '/'"),
      (#"{"a":{"f":{"event":{"json_pointer":"/a~2"}}}}"#, "must be followed by '0' or '1'"),
      (#"{"a":{"f":{"event":{"json_pointer":"/a~"}}}}"#, "must be followed by '0' or '1'"),
      (#"{"a":{"f":{"evnt":{"json_pointer":"/a"}}}}"#, "did you mean 'event'?"),
      (#"{"a":{"f":{"event":{"jsonpointer":"/a"}}}}"#, "did you mean 'json_pointer'?"),
      (#"{"a":{"f":{"jwt":{"json_pointer":"/a"}}}}"#, "'event' is missing"),
      (#"{"a":{"f":{"event":{}}}}"#, "'json_pointer' is missing"),
      (#"{"a":{"f":{"event":{"json_pointer":null}}}}"#, "expected a text"),
      (#"{"a":{"f":{"event":"/a"}}}"#, "expected an object"),
      (#"{"a":{"f":[]}}"#, "expected an object"),
      (#"{"a":3}"#, "expected an object"),
      (#"{"a":{"f":{"stable_field_index":"1","event":{"json_pointer":"/a"}}}}"#, "expected a whole number"),
      (#"{"a":{"":{"event":{"json_pointer":"/a"}}}}"#, "isn't empty"),
      (#"{"a":{"f":{"event":{"json_pointer":"/a"}}},"a":{}}"#, "more than once"),
      (#"{"a":{"f":{"event":{"json_pointer":"/a","json_pointer":"/b"}}}}"#, "more than once"),
    ])
  func broken(text: String, part: String) throws {
    let found = mistakes(["EXTRACTORS": text])
    #expect(!found.isEmpty)
    #expect(found.contains { $0.contains(part) }, "\(found)")
    #expect(
      found.allSatisfy { $0.hasPrefix("environment EXTRACTORS: EXTRACTORS: at line 1, column ") }, "\(found)")
    try withFile(text, named: "extractors.json") { path in
      #expect(mistakes(["EXTRACTORS": path]).allSatisfy { $0.contains("\(path):1:") })
    }
  }

  @Test(
    "A table that can't be read is a mistake, not an empty table",
    arguments: ["/nonexistent.json", "[]", "greeting"])
  func unreadable(value: String) {
    #expect(mistakes(["EXTRACTORS": value]).count == 1)
  }

  @Test("An empty file is a mistake, an empty object is an empty table")
  func empty() throws {
    try withFile("", named: "extractors.json") { path in
      #expect(mistakes(["EXTRACTORS": path]).count == 1)
    }
    #expect(try load(["EXTRACTORS": "{}"]).settings.extractors.byType.isEmpty)
  }

  @Test("A mistake inside the configuration file is named with its own line")
  func lineInFile() throws {
    let text = """
      extractors:
        greeting:
          name:
            event:
              json_pointer: data
      """
    try withFile(text) { path in
      #expect(mistakes([:], ["--config", path]).first?.hasPrefix("\(path):5:") == true)
    }
  }

  @Test("Every mistake of a table is reported, not only the first")
  func allMistakes() {
    #expect(mistakes(["EXTRACTORS": #"{"a":{"f":{"event":{"json_pointer":"x"}}},"b":1}"#]).count == 2)
  }

  @Test("Nesting without end is refused")
  func nesting() {
    let depth = 5_000
    let text = String(repeating: #"{"a":"#, count: depth) + "1" + String(repeating: "}", count: depth)
    #expect(mistakes(["EXTRACTORS": text]).count == 1)
  }
}
