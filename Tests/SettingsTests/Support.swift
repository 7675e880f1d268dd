// What the settings tests share: loading with less typing, and files that are gone after the test.

import Foundation
import TestSupport
import Testing

@testable import Settings

/// Loads from an environment and arguments; fails the test on mistakes.
func load(_ environment: [String: String] = [:], _ arguments: [String] = []) throws -> LoadedSettings {
  try Settings.load(arguments: arguments, environment: environment)
}

/// The mistakes that loading makes, as texts.
func mistakes(_ environment: [String: String] = [:], _ arguments: [String] = []) -> [String] {
  do {
    _ = try Settings.load(arguments: arguments, environment: environment)
    return []
  } catch {
    return error.mistakes.map(\.description)
  }
}

/// Runs `body` with the path of a file that holds `content`, and removes it.
func withFile<Result>(
  _ content: String, named name: String = "rig.yaml", _ body: (String) throws -> Result
) throws -> Result {
  let directory = try TestDirectory()
  let file = directory.file(name)
  try Data(content.utf8).write(to: URL(fileURLWithPath: file))
  return try withExtendedLifetime(directory) { try body(file) }
}
