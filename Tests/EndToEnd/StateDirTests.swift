// STATE_DIR: what the management API has changed is there after a restart of the whole gateway, or the answer was no.
// Contract §9.

import CLinux
import Foundation
import Testing

@Suite("State directory")
struct StateDirTests {
  private static func ids(_ gateway: Gateway) throws -> [String] {
    try gateway.management("GET", "/v3/apis").json.array?.compactMap { $0["id"]?.string } ?? []
  }

  private static func idsAfterStart(_ settings: [String: String]) throws -> [String] {
    var found: [String] = []
    try Gateway.run(settings) { found = try ids($0) }
    return found
  }

  private static func list(_ ids: [String], port: Int = 9) -> String {
    "[" + ids.map { TestAPI(id: $0, port: port).json }.joined(separator: ",") + "]"
  }

  @Test(
    "Definitions made, changed and removed survive the restart of the gateway, in their order, and are routed by"
  )
  func restart() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path]
    try Gateway.run(settings) { gateway in
      for id in ["c", "b", "a"] { try gateway.define(TestAPI(id: id, port: 9)) }
      #expect(
        try gateway.manageAPIs("PUT", "/v3/apis/b", TestAPI(id: "b", port: service.port).json).status == 200)
      #expect(try gateway.management("DELETE", "/v3/apis/c").status == 204)
    }
    let file = directory.file("definitions")
    let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    try "half".write(toFile: directory.file("definitions.new"), atomically: false, encoding: .utf8)
    try Gateway.run(settings) { gateway in
      let found = try Self.ids(gateway)
      #expect(found == ["b", "a"])
      #expect(try gateway.management("GET", "/v3/apis/b").json["ref_number"]?.integer == 1)
      #expect(try gateway.inbound("GET", "/books/1").text == "here")
      #expect(!FileManager.default.fileExists(atPath: directory.file("definitions.new")))
    }
  }

  @Test(
    "What was changed at run time wins over PROXY_CONFIG_FILE; what is added to the file counts all the same")
  func together() throws {
    let directory = try TestDirectory()
    func settings(_ ids: [String]) -> [String: String] {
      ["STATE_DIR": directory.path, "PROXY_CONFIG_FILE": Self.list(ids)]
    }
    try Gateway.run(settings(["a", "b", "c"])) { gateway in
      #expect(try gateway.manageAPIs("PUT", "/v3/apis/a", TestAPI(id: "a", port: 77).json).status == 200)
      #expect(try gateway.management("DELETE", "/v3/apis/b").status == 204)
      #expect(try gateway.management("DELETE", "/v3/apis/c").status == 204)
      try gateway.define(TestAPI(id: "c", port: 78))
      try gateway.define(TestAPI(id: "n", port: 79))
      #expect(try Self.ids(gateway) == ["a", "c", "n"])
    }
    try Gateway.run(settings(["x", "a", "b", "c"])) { gateway in
      #expect(try Self.ids(gateway) == ["x", "a", "c", "n"])
      let ports = try gateway.management("GET", "/v3/apis").json.array?.map { $0["proxy"]?["port"]?.integer }
      #expect(ports == [9, 77, 78, 79])
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.control).first))
      #expect(try Self.ids(gateway) == ["x", "a", "c", "n"])
    }
    // Taken out of the file once, a removal is forgotten; what was changed at run time stays.
    #expect(try Self.idsAfterStart(settings([])) == ["c", "n", "a"])
    #expect(try Self.idsAfterStart(settings(["b", "n"])) == ["b", "c", "n", "a"])
  }

  @Test("What a control worker had written and not told any more is told by the next one")
  func untold() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    let directory = try TestDirectory()
    let other = try TestDirectory()
    let list = Self.list(["first", "second"])
    try Gateway.run(["STATE_DIR": other.path, "PROXY_CONFIG_FILE": list]) { gateway in
      try gateway.define(TestAPI(id: "written", port: service.port))
      #expect(try gateway.management("DELETE", "/v3/apis/first").status == 204)
      let changed = TestAPI(id: "second", port: 78)
      #expect(try gateway.manageAPIs("PUT", "/v3/apis/second", changed.json).status == 200)
    }
    try Gateway.run(["STATE_DIR": directory.path, "PROXY_CONFIG_FILE": list]) { gateway in
      try gateway.define(TestAPI(id: "told", port: 9))
      let supervisor = try #require(gateway.process.tree().first { $0.name == "rig-supervisor" })
      let control = try #require(gateway.workers(.control).first)
      try supervisor.freeze()
      kill(control.pid, SIGKILL)
      try eventually("the control worker is dead") { control.state.map { $0 == "Z" } ?? true }
      let bytes = try Data(contentsOf: URL(fileURLWithPath: other.file("definitions")))
      try bytes.write(to: URL(fileURLWithPath: directory.file("definitions")))
      supervisor.thaw()
      try gateway.awaitReplacement(of: control, kind: .control, count: 1)
      let found = try Self.ids(gateway)
      #expect(found == ["second", "written"])
      try eventually("the workers know it") {
        let apis = try gateway.inbound("GET", "/apis").json.array
        return apis?.map { $0["id"] } == ["second", "written"] && apis?.first?["proxy"]?["port"] == 78
      }
      #expect(try gateway.inbound("GET", "/books/1").status != 404)
    }
  }

  @Test(
    "Whenever the control worker is killed, every change that was answered is there, on workers and after a restart"
  )
  func killed() throws {
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path, "RESTART_INTENSITY": "1000"]
    var expected: [String: Int?] = [:]
    try Gateway.run(settings) { gateway in
      let clients = try Self.changeWhileKilling(gateway)
      for client in clients {
        expected.merge(client.known) { $1 }
        #expect(client.contradictions == [])
      }
      #expect(clients.contains { !$0.unknown.isEmpty } || expected.count > 20, "something has happened")
      for client in clients { for id in client.unknown { expected[id] = nil } }
      try Self.check(gateway, expected)
      let inbound = try gateway.inbound("GET", "/apis").json.array?.compactMap { $0["id"]?.string }
      #expect(Set(inbound ?? []) == Set(try Self.ids(gateway)))
      // The whole gateway at once, and no farewell.
      try gateway.process.killTree()
    }
    try Gateway.run(settings) { gateway in try Self.check(gateway, expected) }
  }

  private static func check(_ gateway: Gateway, _ expected: [String: Int?]) throws {
    for (id, port) in expected {
      let answer = try gateway.management("GET", "/v3/apis/\(id)")
      #expect(answer.status == (port == nil ? 404 : 200), "\(id)")
      if let port { #expect(try answer.json["proxy"]?["port"]?.integer == port, "\(id)") }
    }
  }

  /// Changes definitions of its own, one after the other, and notes what it was told.
  private final class Changer: @unchecked Sendable {
    /// The port of each definition that is there; nil: it isn't.
    var known: [String: Int?] = [:]
    /// Definitions of which the last order wasn't answered 2xx.
    var unknown: Set<String> = []
    /// Answers that can't be if all that was answered before is true.
    var contradictions: [String] = []
    let name: Int
    init(_ name: Int) { self.name = name }

    func change(_ step: Int, _ gateway: Gateway) {
      let id = "api\(name)-\(step / 3)"
      let port = 1_000 + step
      let answer: HTTPAnswer?
      switch step % 3 {
      case 0: answer = try? gateway.manageAPIs("POST", "/v3/apis", TestAPI(id: id, port: port).json)
      case 1: answer = try? gateway.manageAPIs("PUT", "/v3/apis/\(id)", TestAPI(id: id, port: port).json)
      default:
        guard step % 2 == 0 else { return }
        answer = try? gateway.management("DELETE", "/v3/apis/\(id)")
      }
      guard let answer, answer.status / 100 == 2 else {
        if let answer, answer.status / 100 == 4, !unknown.contains(id) {
          contradictions.append("step \(step): \(answer.status) \(answer.text)")
        }
        unknown.insert(id)
        return
      }
      known[id] = step % 3 == 2 ? .some(nil) : .some(port)
    }
  }

  private static func changeWhileKilling(_ gateway: Gateway) throws -> [Changer] {
    let clients = (0..<4).map(Changer.init)
    let steps = 150
    let isOver = Flag()
    let group = DispatchGroup()
    nonisolated(unsafe) let gateway = gateway
    for client in clients {
      DispatchQueue.global().async(group: group) {
        for step in 0..<steps { client.change(step, gateway) }
      }
    }
    DispatchQueue.global().async {
      group.wait()
      isOver.set()
    }
    var kills = 0
    let deadline = Deadline(after: 4 * Deadline.patience)
    while !isOver.isSet {
      guard !deadline.hasPassed else { throw TestFailure("the changes don't come to an end") }
      guard let control = gateway.workers(.control).first else { continue }
      // At any time: in the middle of something, most likely.
      poll(nil, 0, CInt.random(in: 5...60))
      kill(control.pid, SIGKILL)
      kills += 1
      try eventually("it is replaced") {
        isOver.isSet || gateway.workers(.control).contains { $0 != control }
      }
    }
    #expect(kills > 4, "the worker was killed often enough")
    try gateway.waitUntilReady()
    return clients
  }

  private final class Flag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false
    var isSet: Bool { lock.withLock { value } }
    func set() { lock.withLock { value = true } }
  }

  // MARK: Faults

  @Test(
    "A change that can't be written is refused with the reason, and has changed nothing; when it can, it is taken"
  )
  func fileSizeLimit() throws {
    let directory = try TestDirectory()
    try Gateway.run(["STATE_DIR": directory.path]) { gateway in
      try gateway.define(TestAPI(id: "a", port: 1))
      let control = try #require(gateway.workers(.control).first)
      try Self.limitFiles(of: control.pid, to: 8)
      try Self.expectRefusals(gateway, reason: "File too large")
      try Self.limitFiles(of: control.pid, to: nil)
      try gateway.define(TestAPI(id: "b", port: 1))
      #expect(try gateway.management("DELETE", "/v3/apis/a").status == 204)
    }
    #expect(try Self.idsAfterStart(["STATE_DIR": directory.path]) == ["b"])
  }

  /// `a` is defined; nothing can be changed.
  private static func expectRefusals(_ gateway: Gateway, reason: String) throws {
    let orders: [(String, String, String?)] = [
      ("POST", "/v3/apis", TestAPI(id: "b", port: 1).json),
      ("PUT", "/v3/apis/a", TestAPI(id: "a", port: 2).json), ("DELETE", "/v3/apis/a", nil),
    ]
    for (method, path, body) in orders {
      let answer = try gateway.manageAPIs(method, path, body)
      #expect(answer.status == 503, "\(method)")
      #expect(answer["content-type"] == "application/problem+json" && answer["retry-after"] != nil)
      #expect(answer.text.contains("STATE_DIR") && answer.text.contains(reason), "\(answer.text)")
    }
    #expect(try ids(gateway) == ["a"])
    #expect(try gateway.management("GET", "/v3/apis/a").json["proxy"]?["port"] == 1)
    #expect(try gateway.inbound("GET", "/apis").json.array?.count == 1)
    // What is wrong with the change itself is said first.
    #expect(try gateway.manageAPIs("POST", "/v3/apis", TestAPI(id: "a", port: 2).json).status == 409)
  }

  private static func limitFiles(of pid: pid_t, to bytes: Int?) throws {
    let limit = bytes.map(String.init) ?? "unlimited"
    let prlimit = try ChildProcess(
      Tools.system("prlimit"), ["--pid", "\(pid)", "--fsize=\(limit):unlimited"], environment: [:],
      directory: FileManager.default.temporaryDirectory.path, log: "prlimit-\(pid).log")
    defer {
      try? FileManager.default.removeItem(
        at: FileManager.default.temporaryDirectory.appendingPathComponent("prlimit-\(pid).log"))
    }
    try #require(try prlimit.wait() == .exited(0))
  }

  @Test(
    "A disk that is full: 503, nothing has changed, and the gateway goes on", .enabled(if: Tmpfs.isPossible))
  func fullDisk() throws {
    let disk = try Tmpfs(bytes: 65_536)
    defer { disk.remove() }
    try Gateway.run(["STATE_DIR": disk.path]) { gateway in
      try gateway.define(TestAPI(id: "a", port: 1))
      try disk.fill()
      try Self.expectRefusals(gateway, reason: "No space left on device")
      let control = try #require(gateway.workers(.control).first)
      try gateway.killAndAwaitReplacement(control)
      try Self.expectRefusals(gateway, reason: "No space left on device")
      try disk.empty()
      try gateway.define(TestAPI(id: "b", port: 1))
    }
    try disk.fill()
    #expect(try Self.idsAfterStart(["STATE_DIR": disk.path]) == ["a", "b"])
  }

  @Test("A directory that goes away: changes are refused, requests are answered")
  func gone() throws {
    let service = try TestService(.answer(200, body: "here"))
    defer { service.stop() }
    let directory = try TestDirectory()
    try Gateway.run(["STATE_DIR": directory.path, "RESTART_INTENSITY": "100"]) { gateway in
      try gateway.define(TestAPI(port: service.port))
      try FileManager.default.removeItem(atPath: directory.path)
      #expect(try gateway.management("DELETE", "/v3/apis/books").status == 503)
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.control).first))
      let answer = try gateway.management("DELETE", "/v3/apis/books")
      #expect(answer.status == 503 && answer.text.contains("has been removed"), "\(answer.text)")
      #expect(try gateway.inbound("GET", "/books/1").text == "here")
    }
  }

  @Test(
    "14.D21 The blacklist outlives the gateway, entries that have expired don't; a torn end is no damage, anything else is"
  )
  func blacklist() throws {
    let directory = try TestDirectory()
    let settings = TestToken.settings(["STATE_DIR": directory.path])
    let token = TestToken.of("alice", session: "gone")
    try Gateway.run(settings.merging(["RESTART_INTENSITY": "100"]) { $1 }) { gateway in
      #expect(try gateway.blacklist("gone", seconds: 3600).status == 201)
      #expect(try gateway.blacklist("short", seconds: 1).status == 201)
      // What the next worker tells is what this one has written.
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.control).first))
      #expect(try gateway.blacklist("other", seconds: 3600).status == 201)
      try eventually("the short entry has expired") {
        try gateway.management("GET", "/v3/session-blacklist/short").status == 404
      }
    }
    let file = URL(fileURLWithPath: directory.file("blacklist"))
    // As of a machine that lost its power while an entry was written, of which nobody has heard.
    var bytes = try Data(contentsOf: file)
    bytes.append(contentsOf: [1, 2, 3] + Array(repeating: 0, count: 30))
    try bytes.write(to: file)
    try Gateway.run(settings) { gateway in
      for session in ["gone", "other"] {
        let answer = try gateway.management("GET", "/v3/session-blacklist/\(session)")
        #expect(answer.status == 200, "\(session)")
      }
      #expect(try gateway.statuses(of: token) == [401])
      // The clock of the boot and that of the file are read in whole seconds: it may live for one more.
      try eventually("the short entry is gone") {
        try gateway.management("GET", "/v3/session-blacklist/short").status == 404
          && gateway.metric("rig_blacklist_entries") == 2
      }
    }
    bytes = try Data(contentsOf: file)
    bytes[20] ^= 1
    try bytes.write(to: file)
    let ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0", "RESTART_INTENSITY": "0"]
    let run = try GatewayRun([], environment: settings.merging(ports) { $1 })
    #expect(run.ending != .exited(0))
    #expect(run.output.contains("\(directory.path)/blacklist is damaged"), "\(run.output)")
    #expect(try Data(contentsOf: file) == bytes)
  }

  @Test("14.D21 An entry that can't be written stands, and the answer says that it won't outlive the gateway")
  func blacklistUnwritten() throws {
    let directory = try TestDirectory()
    try Gateway.run(TestToken.settings(["STATE_DIR": directory.path])) { gateway in
      try FileManager.default.removeItem(atPath: directory.path)
      let answer = try gateway.blacklist("gone")
      try expectProblem(answer, 503, naming: "STATE_DIR", "stands until the gateway ends")
      #expect(try gateway.statuses(of: TestToken.of("alice", session: "gone")) == [401])
    }
  }

  @Test(
    "14.E29 A damaged file stops the start with 78 and is named",
    arguments: ["", "rig-state 1 0 0", "flip", "cut", "longer", "version"])
  func damaged(how: String) throws {
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path]
    try Gateway.run(settings) { gateway in try gateway.define(TestAPI(port: 1)) }
    let file = URL(fileURLWithPath: directory.file("definitions"))
    var bytes = try Data(contentsOf: file)
    switch how {
    case "flip": bytes[bytes.count / 2] ^= 1
    case "cut": bytes.removeLast(10)
    case "longer": bytes.append(contentsOf: "\n".utf8)
    case "version": bytes[10] = UInt8(ascii: "2")
    default: bytes = Data(how.utf8)
    }
    try bytes.write(to: file)
    let ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0", "RESTART_INTENSITY": "0"]
    let run = try GatewayRun([], environment: settings.merging(ports) { $1 })
    #expect(run.ending == .exited(78))
    #expect(run.output.contains("STATE_DIR") && run.output.contains(directory.path), "\(run.output)")
    #expect(try Data(contentsOf: file) == bytes)
  }

  /// A file of STATE_DIR that can't be believed, and what is said of it.
  private static let damages = [
    ("definitions", "nonsense\n", "its first line isn't that of a state file"),
    ("definitions", "rig-state 1 0 0", "its first line has no end"),
    ("blacklist", "nonsense", "its first line isn't that of a blacklist"),
    (
      "blacklist", "rig-blacklist 1\n" + String(repeating: "x", count: 48),
      "the checksum of record 0 is wrong"
    ),
    ("positions", "rig-positions 2 0 0\n", "it has version 2, expected 1"),
    ("positions", "rig-positions 1 1 10\nposition \n", "its checksum is wrong"),
    ("positions", "rig-positions 1 0 7\n", "it has 0 bytes after its first line, expected 7"),
  ]

  private static let withKafka = [
    "INBOUND_PORT": "0", "API_HTTP_PORT": "0", "RESTART_INTENSITY": "0", "KAFKA_BROKERS": "127.0.0.1:1",
  ]

  @Test("14.D19 --check-config names each damaged file of STATE_DIR with its place, and touches none")
  func checkedFiles() throws {
    for number in Self.damages.indices {
      let (name, text, what) = Self.damages[number]
      let directory = try TestDirectory()
      let file = directory.file(name)
      // As it is while a gateway that runs is writing.
      let files = [file: text, directory.file("positions.new"): "half"]
      for (path, text) in files { try text.write(toFile: path, atomically: false, encoding: .utf8) }
      let environment = Self.withKafka.merging(["STATE_DIR": directory.path]) { $1 }
      let run = try GatewayRun(["--check-config"], environment: environment)
      #expect(run.ending == .exited(78))
      let lines = run.output.split(separator: "\n")
      #expect(lines.count == 1, "\(run.output)")
      for part in ["STATE_DIR", file, what] { #expect(run.output.contains(part), "\(run.output)") }
      for (path, text) in files { #expect(try String(contentsOfFile: path, encoding: .utf8) == text) }
      guard name != "definitions" else { continue }
      let start = try GatewayRun([], environment: environment)
      #expect(start.ending == .exited(78) && start.output.contains(file), "\(start.output)")
    }
  }

  @Test(
    "14.D19 --check-config names all damaged files of STATE_DIR in one run, and accepts what a gateway leaves"
  )
  func checkedTogether() throws {
    let directory = try TestDirectory()
    let settings = ["STATE_DIR": directory.path]
    try Gateway.run(settings) { gateway in
      try gateway.define(TestAPI(port: 1))
      #expect(try gateway.blacklist("gone", seconds: 3600).status == 201)
    }
    let positions = directory.file("positions")
    try "rig-positions 1 0 0\n".write(toFile: positions, atomically: false, encoding: .utf8)
    let environment = Self.withKafka.merging(settings) { $1 }
    let sound = try GatewayRun(["--check-config"], environment: environment)
    #expect(sound.ending == .exited(0), "\(sound.output)")
    let names = ["definitions", "blacklist", "positions"]
    for name in names {
      let file = URL(fileURLWithPath: directory.file(name))
      var bytes = try Data(contentsOf: file)
      bytes[0] ^= 1
      try bytes.write(to: file)
    }
    let damaged = try GatewayRun(["--check-config"], environment: environment)
    #expect(damaged.ending == .exited(78))
    for name in names { #expect(damaged.output.contains("\(directory.file(name)) is damaged"), "\(name)") }
  }

  @Test("A directory that doesn't exist is a mistake, also for --check-config")
  func missing() throws {
    let directory = try TestDirectory()
    let file = directory.file("file")
    try "".write(toFile: file, atomically: false, encoding: .utf8)
    for (path, reason) in [(directory.file("none"), "doesn't exist"), (file, "is no directory")] {
      for arguments in [[], ["--check-config"]] {
        let run = try GatewayRun(arguments, environment: ["STATE_DIR": path])
        #expect(run.ending == .exited(78))
        #expect(run.output.contains("STATE_DIR") && run.output.contains(reason), "\(run.output)")
      }
    }
  }

  @Test("A second gateway in the same directory is refused, and doesn't disturb the first")
  func twice() throws {
    let directory = try TestDirectory()
    try Gateway.run(["STATE_DIR": directory.path]) { gateway in
      let ports = ["INBOUND_PORT": "0", "API_HTTP_PORT": "0"]
      let run = try GatewayRun([], environment: ports.merging(["STATE_DIR": directory.path]) { $1 })
      #expect(run.ending == .exited(71))
      #expect(
        run.output.contains("STATE_DIR") && run.output.contains("(process \(gateway.process.pid))"),
        "\(run.output)")
      try gateway.define(TestAPI(port: 1))
    }
  }
}
