// Starts of the gateway that are expected to fail or to print something.

/// What a run of `rig-supervisor` that ends by itself left.
struct GatewayRun {
  let ending: Ending
  let output: String

  /// Runs it to its end. `supervisor`: path of the executable, if it isn't the one that was built with the tests.
  init(_ arguments: [String], environment: [String: String] = [:], supervisor: String? = nil) throws {
    let directory = try TestDirectory()
    let process = try ChildProcess(
      supervisor ?? Tools.ours("rig-supervisor"), arguments, environment: environment,
      directory: directory.path)
    do {
      ending = try process.wait()
    } catch {
      try process.killTree()
      throw error
    }
    output = (try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)) ?? ""
    try process.killTree()
  }
}
