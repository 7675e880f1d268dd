// The independent judge of our WebSocket: the fuzzing client of the Autobahn test suite (wstest of autobahntestsuite), as
// a process, and its report. It is written in Python 2: `scripts/lib.sh` installs it where there is one, and says where
// in RIG_TEST_PYTHON_BIN.

import Foundation
import TestSupport

struct FuzzingClient {
  private static let program = "wstest"

  /// Why a run gave no report.
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// What became of one case.
  struct Outcome: Decodable, Equatable {
    /// Of the frames and messages.
    let behavior: String
    /// Of the closing handshake.
    let behaviorClose: String

    private static let good: Set<String> = ["OK", "INFORMATIONAL"]

    var isGood: Bool { Self.good.contains(behavior) && Self.good.contains(behaviorClose) }
  }

  private static let agent = "rig"
  private static let logTailBytes = 2000

  /// Where `scripts/test` has put the Python tools; a run without it looks into the checkout.
  private static var directory: URL {
    if let given = ProcessInfo.processInfo.environment["RIG_TEST_PYTHON_BIN"] {
      return URL(fileURLWithPath: given)
    }
    return URL(fileURLWithPath: #filePath).appendingPathComponent("../../../../.build-python/bin")
      .standardized
  }

  private let executable: URL

  /// nil if it isn't installed.
  init?() {
    executable = Self.directory.appendingPathComponent(Self.program)
    guard FileManager.default.isExecutableFile(atPath: executable.path) else { return nil }
  }

  /// Runs `cases` (`1.*`) against the server at `port` of this machine. Returns the outcomes by case.
  ///
  /// - Parameter patience: a run that takes longer is ended, and gives no report.
  func run(_ cases: [String], port: UInt16, patience: Duration) async throws -> [String: Outcome] {
    let directory = try TestDirectory()
    defer { withExtendedLifetime(directory) {} }
    let folder = URL(fileURLWithPath: directory.path)
    let log = folder.appendingPathComponent("output.log")
    try Data().write(to: log)
    let process = Process()
    process.executableURL = executable
    process.arguments = try arguments(cases, port: port, folder: folder)
    process.currentDirectoryURL = folder
    let output = try FileHandle(forWritingTo: log)
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    try await Self.end(of: process, patience: patience)
    let report = folder.appendingPathComponent("report/index.json")
    guard let bytes = try? Data(contentsOf: report),
      let outcomes = try JSONDecoder().decode([String: [String: Outcome]].self, from: bytes).values.first
    else {
      let text = String(decoding: try Data(contentsOf: log).suffix(Self.logTailBytes), as: UTF8.self)
      throw Failure(description: "\(Self.program) left no report; it said: \(text)")
    }
    return outcomes
  }

  private func arguments(_ cases: [String], port: UInt16, folder: URL) throws -> [String] {
    let specification = Specification(
      outdir: "report", servers: [.init(agent: Self.agent, url: "ws://127.0.0.1:\(port)")], cases: cases)
    let encoder = JSONEncoder()
    encoder.outputFormatting = .withoutEscapingSlashes
    try encoder.encode(specification).write(to: folder.appendingPathComponent("spec.json"))
    return ["--mode", "fuzzingclient", "--spec", "spec.json"]
  }

  /// Starts a process and returns when it has ended, by itself or because it took too long.
  private static func end(of process: Process, patience: Duration) async throws {
    let (ended, end) = AsyncStream.makeStream(of: Void.self)
    process.terminationHandler = { _ in end.finish() }
    try process.run()
    let pid = process.processIdentifier
    let deadline = Task {
      try await Task.sleep(for: patience)
      kill(pid, SIGKILL)
    }
    for await _ in ended {}
    deadline.cancel()
  }

  /// wstest's configuration file.
  private struct Specification: Encodable {
    struct Server: Encodable {
      let agent: String
      let url: String
    }

    let outdir: String
    let servers: [Server]
    let cases: [String]
    let excludeCases: [String] = []
    let excludeAgentCases: [String: [String]] = [:]

    enum CodingKeys: String, CodingKey {
      case outdir, servers, cases
      case excludeCases = "exclude-cases"
      case excludeAgentCases = "exclude-agent-cases"
    }
  }
}
