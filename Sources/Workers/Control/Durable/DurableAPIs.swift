// What the management API has changed, as it lies in STATE_DIR: the difference to the definitions that the gateway starts with
// (PROXY_CONFIG_FILE), so that a definition added to that file counts at the next start.
//
//   rig-state 1 1597639105 1834        see StateDocument
//   removed "books"                    was in PROXY_CONFIG_FILE, and is not to be taken from there
//   api 1 {"id":"authors",…}           order below 2^32: takes the place of PROXY_CONFIG_FILE's
//   api 4294967296 {"id":"books",…}    made at run time: behind all others, by order
//
// A file that isn't exactly this is damaged: nothing of it is believed.

import APIs
import Kit

struct DurableAPIs: Equatable, Sendable {
  /// Definitions of PROXY_CONFIG_FILE have smaller orders than those that are made at run time.
  static let firstOrder: UInt64 = 1 << 32
  static let version = 1
  private static let name = "rig-state"

  struct Entry: Equatable, Sendable {
    var order: UInt64
    var definition: APIDefinition
  }

  /// By the bytes of their ids.
  var definitions: [[UInt8]: Entry] = [:]
  var removed: Set<[UInt8]> = []

  /// The definitions in their order.
  var ordered: [Entry] { definitions.values.sorted { $0.order < $1.order } }

  // MARK: Changes

  /// `id` is now defined so; `old` is the order that it had.
  mutating func define(_ definition: APIDefinition, order: UInt64, old: UInt64?) {
    let id = Array(definition.id.utf8)
    if let old, old < Self.firstOrder, order >= Self.firstOrder { removed.insert(id) }
    definitions[id] = Entry(order: order, definition: definition)
  }

  /// `id`, which had the order `old`, is no longer defined.
  mutating func remove(_ id: [UInt8], old: UInt64?) {
    if let old, old < Self.firstOrder { removed.insert(id) }
    definitions[id] = nil
  }

  // MARK: Text

  var encoded: [UInt8] {
    var body: [UInt8] = []
    for id in removed.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
      body.append(contentsOf: "removed ".utf8)
      JSONText.appendString(utf8: id, to: &body)
      body.append(UInt8(ascii: "\n"))
    }
    for entry in ordered {
      body.append(contentsOf: "api \(entry.order) ".utf8)
      body.append(contentsOf: entry.definition.json)
      body.append(UInt8(ascii: "\n"))
    }
    return StateDocument.encode(Self.name, version: Self.version, body: body)
  }

  init() {}

  init(decoding bytes: [UInt8]) throws(StateDocument.Damage) {
    let lines = try StateDocument.lines(of: bytes, Self.name, version: Self.version)
    for (index, line) in lines.enumerated() {
      guard learn(line) else { throw StateDocument.Damage("line \(index + 2) is none of a state file") }
    }
  }

  private mutating func learn(_ line: ArraySlice<UInt8>) -> Bool {
    let words = line.split(separator: UInt8(ascii: " "), maxSplits: 1)
    guard words.count == 2 else { return false }
    switch String(decoding: words[0], as: UTF8.self) {
    case "removed":
      guard let id = words[1].withUnsafeBytes({ try? JSONValue(parsing: $0) })?.string else { return false }
      return removed.insert(Array(id.utf8)).inserted
    case "api":
      let parts = words[1].split(separator: UInt8(ascii: " "), maxSplits: 1)
      guard parts.count == 2, let order = UInt64(String(decoding: parts[0], as: UTF8.self)),
        let definition = parts[1].withUnsafeBytes({ try? APIDefinition(stored: $0) })
      else { return false }
      let entry = Entry(order: order, definition: definition)
      return definitions.updateValue(entry, forKey: Array(definition.id.utf8)) == nil
    default: return false
    }
  }
}
