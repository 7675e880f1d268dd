// What lies in STATE_DIR, and the changes that wait for it.

import APIs
import Foundation
import Glibc
import Kit
import Settings
import TestSupport
import Testing

@testable import Control

@Suite struct DurableTests {
  private static func definition(_ id: String) throws -> APIDefinition {
    let json = #"{"id":"\#(id)","name":"é \"x\"\n","version_data":{"default":{"endpoints":[]}}}"#
    return try Array(json.utf8).withUnsafeBytes { bytes in
      Result { () throws(APIError) in try APIDefinition(stored: bytes) }
    }.get()
  }

  private static func some() throws -> DurableAPIs {
    var durable = DurableAPIs()
    durable.define(try definition("a"), order: 1, old: 1)
    durable.define(try definition("b b"), order: DurableAPIs.firstOrder, old: nil)
    durable.define(try definition("c"), order: DurableAPIs.firstOrder + 1, old: 2)
    durable.remove(Array("line\\nbreak".utf8), old: 3)
    durable.remove(Array("never".utf8), old: DurableAPIs.firstOrder + 2)
    return durable
  }

  @Test("The checksum is CRC-32C")
  func checksum() {
    #expect(Checksum.crc32c("123456789".utf8) == 0xE306_9283)
    #expect(Checksum.crc32c([]) == 0)
  }

  @Test(
    "What is written is read again; what was PROXY_CONFIG_FILE's is remembered as removed, other ids aren't")
  func roundTrip() throws {
    let durable = try Self.some()
    #expect(try DurableAPIs(decoding: durable.encoded) == durable)
    #expect(durable.removed == [Array("c".utf8), Array("line\\nbreak".utf8)])
    #expect(durable.ordered.map(\.definition.id) == ["a", "b b", "c"])
    #expect(try DurableAPIs(decoding: DurableAPIs().encoded) == DurableAPIs())
  }

  @Test("No byte can be another one, be missing or be added")
  func damage() throws {
    let bytes = try Self.some().encoded
    for index in bytes.indices {
      for bit in [0, 3, 7] {
        var damaged = bytes
        damaged[index] ^= 1 << bit
        #expect(throws: StateDocument.Damage.self, "byte \(index)") { try DurableAPIs(decoding: damaged) }
      }
      #expect(throws: StateDocument.Damage.self) { try DurableAPIs(decoding: Array(bytes[..<index])) }
    }
    #expect(throws: StateDocument.Damage.self) { try DurableAPIs(decoding: bytes + [10]) }
  }

  // MARK: The file

  @Test("The file is replaced whole, is for its owner only, and nothing else is left; a link is not followed")
  func file() throws {
    let directory = try TestDirectory()
    let file = StateFile(directory: directory.path)
    #expect(try file.read() == nil)
    try Data("old".utf8).write(to: URL(fileURLWithPath: "\(directory.path)/definitions.new"))
    try file.replace(nil, by: [1, 2, 3])
    try file.replace([1, 2, 3], by: [4])
    #expect(try file.read() == [4])
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["definitions"])
    let mode = try FileManager.default.attributesOfItem(atPath: file.path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    try FileManager.default.removeItem(atPath: file.path)
    try FileManager.default.createSymbolicLink(atPath: file.path, withDestinationPath: "/etc/passwd")
    #expect(throws: StateFile.Failure.self) { try file.read() }
  }

  @Test("What can't be written says the directory, the file and the reason, and leaves the old file")
  func failure() throws {
    let directory = try TestDirectory()
    let file = StateFile(directory: directory.path)
    try file.replace(nil, by: [1])
    try FileManager.default.createDirectory(
      atPath: "\(directory.path)/definitions.new/x", withIntermediateDirectories: true)
    do {
      try file.replace([1], by: [2])
      Issue.record("it was written")
    } catch {
      #expect(error.description == "STATE_DIR: \(directory.path)/definitions.new can't be made: File exists")
    }
    #expect(try file.read() == [1])
  }

  // MARK: Groups

  /// A disk that does what it is told, when it is told.
  private final class SlowDisk {
    private(set) var pending: [() -> Void] = []
    var fails = false
    private(set) var writes = 0

    func run(
      _ work: @escaping @Sendable () -> StateKeeper.Written, _ done: @escaping (StateKeeper.Written) -> Void
    ) {
      pending.append { [self] in
        writes += 1
        done(fails ? .failure(StateFile.Failure(description: "STATE_DIR: no")) : work())
      }
    }

    func finish() { pending.isEmpty ? () : pending.removeFirst()() }
  }

  private static func body(_ id: String) -> [UInt8] {
    Array(
      #"{"id":"\#(id)","name":"x","version_data":{"default":{"endpoints":[]}},"proxy":{"target_url":"a","port":1}}"#
        .utf8)
  }

  /// A store on a disk like that, and what it was asked and has answered.
  ///
  /// - Parameter soon: calls its closure in another turn of the loop.
  private func withStore(
    soon: @escaping (@escaping () -> Void) -> Void = { $0() },
    _ body: @escaping (APIStore, SlowDisk, StateFile) throws -> Void
  ) async throws {
    let gateway = try TestGateway()
    try gateway.withoutStateReaders()
    let directory = try TestDirectory()
    let file = StateFile(directory: directory.path)
    let disk = SlowDisk()
    try await gateway.withAPIStore(keeper: StateKeeper(file, run: disk.run), soon: soon) {
      try body($0, disk, file)
    }
  }

  @Test("A change is answered when it is on the disk; those that come meanwhile share the next write")
  func groups() async throws {
    try await withStore { store, disk, file in
      var answers: [String: APIStore.Outcome] = [:]
      for id in ["a", "b", "c"] { store.order(.create(Self.body(id))) { answers[id] = $0 } }
      store.order(.create(Self.body("b"))) { answers["b again"] = $0 }
      store.order(.remove(id: "a")) { answers["a removed"] = $0 }
      #expect(answers.isEmpty && store.table.count == 0)
      disk.finish()
      #expect(answers == ["a": .done] && store.table.count == 1)
      disk.finish()
      #expect(answers["b"] == .done && answers["c"] == .done && answers["a removed"] == .done)
      #expect(answers["b again"] == .refused(.exists(id: "b")))
      #expect(disk.writes == 2 && disk.pending.isEmpty)
      #expect(store.table.all.map(\.id) == ["b", "c"])
      let bytes = try #require(try file.read())
      #expect(try DurableAPIs(decoding: bytes).ordered.map(\.definition.id) == ["b", "c"])
    }
  }

  @Test(
    "Whoever is answered may order the next change at once, as a client does that sends one request behind the other"
  )
  func ordersFromAnswers() async throws {
    try await withStore { store, disk, file in
      var answers: [String: APIStore.Outcome] = [:]
      store.order(.create(Self.body("a"))) {
        answers["a"] = $0
        store.order(.create(Self.body("x"))) { answers["x"] = $0 }
      }
      store.order(.create(Self.body("a"))) {
        answers["a again"] = $0
        store.order(.create(Self.body("z"))) { answers["z"] = $0 }
      }
      store.order(.create(Self.body("y"))) { answers["y"] = $0 }
      while !disk.pending.isEmpty { disk.finish() }
      #expect(answers["a again"] == .refused(.exists(id: "a")))
      for id in ["a", "x", "y", "z"] { #expect(answers[id] == .done, "\(id)") }
      #expect(Set(store.table.all.map(\.id)) == ["a", "x", "y", "z"])
      let bytes = try #require(try file.read())
      #expect(try Set(DurableAPIs(decoding: bytes).ordered.map(\.definition.id)) == ["a", "x", "y", "z"])
    }
  }

  @Test(
    "A write that fails fails all of its group, also what was refused because of it, and nothing has changed")
  func failedGroup() async throws {
    try await withStore { store, disk, file in
      var answers: [String: APIStore.Outcome] = [:]
      store.order(.create(Self.body("a"))) { answers["a"] = $0 }
      store.order(.remove(id: "a")) { answers["too early"] = $0 }
      store.order(.create(Self.body("b"))) { answers["b"] = $0 }
      store.order(.create(Self.body("b"))) { answers["b again"] = $0 }
      disk.fails = true
      disk.finish()
      #expect(answers["a"] == .unwritten("STATE_DIR: no"))
      // It was judged when nothing else had been said.
      #expect(answers["too early"] == .refused(.unknown(id: "a")))
      disk.finish()
      #expect(answers["b"] == .unwritten("STATE_DIR: no") && answers["b again"] == answers["b"])
      #expect(store.table.count == 0 && store.sessions.state.apis.isEmpty)
      disk.fails = false
      store.order(.create(Self.body("b"))) { answers["b"] = $0 }
      disk.finish()
      #expect(answers["b"] == .done && store.table.count == 1)
    }
  }

  @Test("13.B9: however many changes are answered in one turn, comparing their endpoints takes what one may")
  func warnings() async throws {
    func body(_ id: String, _ patterns: [String], _ more: String = "") -> [UInt8] {
      let endpoints = patterns.enumerated().map { number, pattern in
        #"{"id":"\#(number)","method":"GET","path_regex":"\#(pattern)"\#(more)}"#
      }
      return Array(
        #"""
        {"id":"\#(id)","name":"x","auth_type":"jwt","proxy":{"target_url":"a","port":1},
         "version_data":{"default":{"endpoints":[\#(endpoints.joined(separator: ","))]}}}
        """#.utf8)
    }
    let slow = "/(a?b?){50}"
    try await withStore { store, disk, _ in
      var answers: [String: [String]] = [:]
      var renewals: [() -> Void] = []
      func order(_ id: String, _ change: OrderedAPIs.Change) {
        store.order(change) { outcome in
          #expect(outcome == .done)
          answers[id] = store.warnings(about: change) { renewals.append($0) }
        }
      }
      order("secured", .create(body("secured", [slow], #","secured":true"#)))
      disk.finish()
      renewals.removeFirst()()
      for number in 0..<12 {
        order("\(number)", .create(body("\(number)", [slow + "c?", slow + "d?"])))
      }
      while !disk.pending.isEmpty { disk.finish() }
      // The first is written alone, the others as one group.
      func isIncomplete(_ warnings: [String]?) -> Bool {
        warnings?.last == APIStore.notCompared || warnings?.last?.hasPrefix("and perhaps more") == true
      }
      let incomplete = answers.values.filter { isIncomplete($0) }.count
      #expect(incomplete > 3 && incomplete < 12, "\(incomplete)")
      #expect(answers["0"]?.count == 2 && !isIncomplete(answers["0"]) && isIncomplete(answers["11"]))
      #expect(renewals.count == 1)
      renewals.removeFirst()()
      order("11", .replace(id: "11", body("11", [slow + "c?"])))
      disk.finish()
      #expect(answers["11"]?.count == 1 && !isIncomplete(answers["11"]))
    }
  }

  /// What is to be done in later turns of the loop.
  private final class LaterTurns {
    private var bodies: [() -> Void] = []
    var count: Int { bodies.count }
    func add(_ body: @escaping () -> Void) { bodies.append(body) }
    func run() { bodies.isEmpty ? () : bodies.removeFirst()() }
  }

  @Test(
    "14.D19 However many changes wait, one turn of the loop judges so many, or so many bytes, of them",
    arguments: [
      (10, APIStore.maximumGroup), (APIStore.maximumGroupBytes / 2, 2),
      (APIStore.maximumGroupBytes + 1, 1),
    ])
  func boundedTurns(body: Int, each: Int) async throws {
    let turns = LaterTurns()
    try await withStore(soon: turns.add) { store, disk, _ in
      var done: [APIStore.Outcome] = []
      var refused = 0
      store.order(.create(Self.body("a"))) { done.append($0) }
      for _ in 0..<2 * each + 1 {
        store.order(.create([UInt8](repeating: UInt8(ascii: "["), count: body))) { _ in refused += 1 }
      }
      disk.finish()
      #expect(done == [.done] && refused == each && turns.count == 1)
      // Whoever comes in the same turn waits as well.
      store.order(.remove(id: "a")) { done.append($0) }
      #expect(refused == each && turns.count == 1)
      turns.run()
      #expect(refused == 2 * each && turns.count == 1)
      turns.run()
      #expect(refused == 2 * each + 1)
      turns.run()
      disk.finish()
      #expect(done == [.done, .done] && turns.count == 0)
    }
  }

  @Test("Changes that wait are bounded in number and bytes, and all are answered when the worker ends")
  func bounds() async throws {
    try await withStore { store, disk, _ in
      var answers: [APIStore.Outcome] = []
      for number in 0...APIStore.maximumWaiting + 1 {
        store.order(.create(Self.body("api\(number)"))) { answers.append($0) }
      }
      #expect(answers == [.busy])
      store.stop()
      #expect(answers.count == APIStore.maximumWaiting + 2)
      #expect(answers.dropFirst().allSatisfy { $0 == .unknown })
      disk.finish()
      store.order(.remove(id: "a")) { answers.append($0) }
      #expect(answers.last == .unknown && answers.count == APIStore.maximumWaiting + 3)
    }
    try await withStore { store, _, _ in
      var answers: [APIStore.Outcome] = []
      let large = [UInt8](repeating: 0x20, count: APIStore.maximumWaitingBytes / 2)
      store.order(.create(Self.body("first"))) { answers.append($0) }
      for _ in 0..<3 { store.order(.create(large)) { answers.append($0) } }
      #expect(answers == [.busy])
      store.stop()
    }
  }
}
