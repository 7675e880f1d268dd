// The management API against its own document: schemathesis sends what the document allows and what it forbids, and holds the
// answers against it. Contract §9.

import Foundation
import Testing

@Suite("OpenAPI document")
struct OpenAPITests {
  private static let token = "0123456789abcdef-token"
  /// Requests of each method of each path in the part that is random; the others are as many as it takes.
  private static let examples = 10
  /// It takes some 40 s where nothing else runs.
  private static let patience = 600.0

  @Test("schemathesis finds nothing, with all of its checks")
  func conformance() throws {
    let directory = try TestDirectory()
    let state = directory.file("state")
    try FileManager.default.createDirectory(atPath: state, withIntermediateDirectories: true)
    let settings = ["MANAGEMENT_TOKEN": Self.token, "STATE_DIR": state]
    try Gateway.run(settings) { gateway in
      #expect(try gateway.management("GET", "/openapi.json").status == 401)
      let files = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("OpenAPI").path
      let process = try ChildProcess(
        Tools.python("st"),
        [
          "--config-file=\(files)/schemathesis.toml", "run",
          "http://127.0.0.1:\(gateway.managementPort)/openapi.json", "--checks", "all",
          "--generation-deterministic", "--max-examples", "\(Self.examples)", "--continue-on-failure",
          "--request-timeout", "120", "--no-color", "--header", "Authorization: Bearer \(Self.token)",
        ],
        environment: [
          "SCHEMATHESIS_HOOKS": "rig_formats", "PYTHONPATH": files, "PYTHONDONTWRITEBYTECODE": "1",
        ],
        directory: directory.path)
      let ending = try process.wait(within: Self.patience)
      let output = String(
        decoding: ProcFile.contents(directory.file("output.log")) ?? [], as: UTF8.self)
      #expect(ending == .exited(0), "\(Self.short(output))")
      #expect(output.contains("Tested: "), "\(Self.short(output))")
      #expect(try gateway.management("GET", "/readyz").status == 200)
    }
  }

  /// What it found, without the long requests.
  private static func short(_ output: String) -> String {
    output.split(separator: "\n").map { $0.prefix(300) }.suffix(120).joined(separator: "\n")
  }
}
