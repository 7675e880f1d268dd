// Programs that tests use: the gateway's own, which lie beside the test bundle, and those that `scripts/test` brings.

import Foundation

enum Tools {
  /// Directory of the binaries built together with these tests.
  static var buildDirectory: String {
    let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(fileURLWithPath: bundle).deletingLastPathComponent().path
  }

  /// A program of the gateway.
  static func ours(_ name: String) throws -> String {
    try existing("\(buildDirectory)/\(name)", hint: "build everything first: swift build --build-tests")
  }

  /// A program of the Python environment of the tests.
  static func python(_ name: String) throws -> String {
    var directory = ProcessInfo.processInfo.environment["RIG_TEST_PYTHON_BIN"] ?? ""
    if directory.isEmpty {
      var folder = URL(fileURLWithPath: buildDirectory)
      while folder.path != "/",
        !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path)
      {
        folder.deleteLastPathComponent()
      }
      directory = folder.appendingPathComponent(".build-python/bin").path
    }
    return try existing("\(directory)/\(name)", hint: "run the tests by scripts/test, which installs it")
  }

  /// A program of the system.
  static func system(_ name: String) throws -> String {
    for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
      let path = "\(directory)/\(name)"
      if FileManager.default.isExecutableFile(atPath: path) { return path }
    }
    throw TestFailure("\(name) isn't there: run the tests by scripts/test, which installs it")
  }

  private static func existing(_ path: String, hint: String) throws -> String {
    guard FileManager.default.isExecutableFile(atPath: path) else {
      throw TestFailure("\(path) isn't there: \(hint)")
    }
    return path
  }
}
