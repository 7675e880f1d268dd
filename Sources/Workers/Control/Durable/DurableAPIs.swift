// What the management API has changed, as it lies in STATE_DIR: the difference to the definitions that the gateway starts with
// (PROXY_CONFIG_FILE), so that a definition added to that file counts at the next start.
//
//   rig-state 1 1597639105 1834        version, CRC-32C of all that follows and its bytes
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

  struct Damage: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
  }

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
    return Array("rig-state \(Self.version) \(Checksum.crc32c(body)) \(body.count)\n".utf8) + body
  }

  init() {}

  init(decoding bytes: [UInt8]) throws(Damage) {
    guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else {
      throw Damage("its first line has no end")
    }
    let head = bytes[..<end].split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
    let body = bytes[(end + 1)...]
    guard head.count == 4, head[0] == "rig-state" else {
      throw Damage("its first line isn't that of a state file")
    }
    guard head[1] == String(Self.version) else {
      throw Damage("it has version \(head[1].prefix(20)), expected \(Self.version)")
    }
    guard head[3] == String(body.count) else {
      throw Damage("it has \(body.count) bytes after its first line, expected \(head[3].prefix(20))")
    }
    guard head[2] == String(Checksum.crc32c(body)) else { throw Damage("its checksum is wrong") }
    guard body.isEmpty || body.last == UInt8(ascii: "\n") else { throw Damage("its last line has no end") }
    for (index, line) in body.dropLast().split(separator: UInt8(ascii: "\n")).enumerated() {
      guard learn(line) else { throw Damage("line \(index + 2) is none of a state file") }
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
