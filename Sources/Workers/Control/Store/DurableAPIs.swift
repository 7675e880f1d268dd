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
import Glibc
import Kit
import NIOCore
import NIOPosix

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
  private(set) var definitions: [[UInt8]: Entry] = [:]
  private(set) var removed: Set<[UInt8]> = []

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

  /// PROXY_CONFIG_FILE's definition of `id` doesn't count.
  mutating func exclude(_ id: [UInt8]) { removed.insert(id) }

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

/// Use it on one loop.
final class StateKeeper {
  /// Does the work on a thread and calls back on the loop. A test has another.
  typealias Writing = (@escaping @Sendable () -> Written, @escaping (Written) -> Void) -> Void
  typealias Written = Result<[UInt8], StateFile.Failure>

  private let file: StateFile
  private let run: Writing
  private var written: [UInt8]?
  /// Why nothing is written: the file wasn't what it should be when a control worker took over from another.
  private(set) var refusal: StateFile.Failure?

  init(_ file: StateFile, run: @escaping Writing) {
    self.file = file
    self.run = run
    // A limit on the size of files is to be an error like any other (EFBIG).
    signal(SIGXFSZ, SIG_IGN)
  }

  convenience init(_ file: StateFile, thread: NIOThreadPool, loop: EventLoop) {
    self.init(file) { work, done in
      thread.runIfActive(eventLoop: loop) { work() }.assumeIsolated().whenComplete { result in
        switch result {
        case .success(let written): done(written)
        case .failure(let error): done(.failure(StateFile.Failure(description: "STATE_DIR: \(error)")))
        }
      }
    }
  }

  /// What the file says at the start of a gateway. If there is none it is made, so that a directory that can't be
  /// written is noticed now.
  func begin() throws(StateFile.Failure) -> DurableAPIs {
    file.removeLeftover()
    if let durable = try load() { return durable }
    if let failure = writeNow(DurableAPIs()) { throw failure }
    return DurableAPIs()
  }

  /// What the file says when this worker follows another one in the same gateway; nil, and nothing is ever written: it isn't
  /// there any more, or damaged.
  func goOn() -> DurableAPIs? {
    file.removeLeftover()
    do throws(StateFile.Failure) {
      if let durable = try load() { return durable }
      refusal = StateFile.Failure(description: "STATE_DIR: \(file.path) has been removed")
    } catch {
      refusal = error
    }
    return nil
  }

  private func load() throws(StateFile.Failure) -> DurableAPIs? {
    guard let bytes = try file.read() else { return nil }
    let durable = try Self.decoded(bytes, of: file)
    written = bytes
    return durable
  }

  static func decoded(_ bytes: [UInt8], of file: StateFile) throws(StateFile.Failure) -> DurableAPIs {
    do throws(StateDocument.Damage) {
      return try DurableAPIs(decoding: bytes)
    } catch {
      throw StateFile.Failure(description: "STATE_DIR: \(file.path) is damaged: \(error)")
    }
  }

  /// Writes on the calling thread: before anything is served. Returns why it can't be.
  func writeNow(_ durable: DurableAPIs) -> StateFile.Failure? {
    do throws(StateFile.Failure) {
      let bytes = durable.encoded
      try file.replace(written, by: bytes)
      written = bytes
      return nil
    } catch {
      return error
    }
  }

  /// Calls `done` when it is on the disk, or why it can't be.
  func write(_ durable: DurableAPIs, _ done: @escaping (StateFile.Failure?) -> Void) {
    if let refusal { return done(refusal) }
    let (file, old) = (file, written)
    let work: @Sendable () -> Written = {
      Result { () throws(StateFile.Failure) in
        let new = durable.encoded
        try file.replace(old, by: new)
        return new
      }
    }
    run(work) { [weak self] written in
      switch written {
      case .success(let bytes):
        self?.written = bytes
        done(nil)
      case .failure(let failure): done(failure)
      }
    }
  }
}

extension StateFile {
  init(directory: String) {
    self.init(directory: directory, name: "definitions", maximumBytes: APITable.maximumFileBytes)
  }
}
