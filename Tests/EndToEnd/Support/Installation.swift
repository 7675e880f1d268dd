// A copy of the gateway's executables in a directory of its own, from which a test may take something away.

import Foundation

struct Installation: ~Copyable {
  private let directory: TestDirectory

  init() throws {
    directory = try Self.linked()
  }

  private static func linked() throws -> TestDirectory {
    let directory = try TestDirectory()
    for name in ["rig-supervisor"] + WorkerKind.allCases.map(\.rawValue) {
      try link(name, to: directory.file(name))
    }
    return directory
  }

  private static func link(_ name: String, to copy: String) throws {
    let original = try Tools.ours(name)
    // A hard link costs nothing; a symbolic one would lead back to the original.
    do {
      try FileManager.default.linkItem(atPath: original, toPath: copy)
    } catch {
      try FileManager.default.copyItem(atPath: original, toPath: copy)
    }
  }

  func path(_ name: String) -> String {
    directory.file(name)
  }

  func remove(_ name: String) throws {
    try FileManager.default.removeItem(atPath: path(name))
  }

  /// Puts an executable back that was removed.
  func restore(_ name: String) throws {
    try Self.link(name, to: path(name))
  }

  /// Writes a file beside the executables.
  func write(_ text: String, to name: String) throws {
    try text.write(toFile: path(name), atomically: false, encoding: .utf8)
  }

  /// Puts a shell script in the place of an executable.
  func replace(_ name: String, by script: String, mode: Int = 0o755) throws {
    try remove(name)
    try "#!/bin/sh\n\(script)\n".write(toFile: path(name), atomically: false, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path(name))
  }
}
