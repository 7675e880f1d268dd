// What of the configuration only a worker can judge: certificates, keys, definitions, properties of libraries. `rig-supervisor
// --check-config` starts each worker with its own arguments, and the worker says what it finds instead of serving.

import FoundationEssentials
import Glibc
import Settings

/// What a worker has found in the settings, which are right in themselves. Each text names the key, the place and what was expected.
public struct ConfigurationFindings: Sendable, Equatable {
  /// What a start would fail by, or go on without.
  public var mistakes: [String] = []
  /// What is accepted, and won't do what somebody may think.
  public var warnings: [String] = []

  public init() {}

  /// Notes what `body` throws as a mistake; nil: it did.
  @discardableResult
  public mutating func judge<Value>(_ body: () throws -> Value) -> Value? {
    do {
      return try body()
    } catch {
      mistakes.append("\(error)")
      return nil
    }
  }
}

extension WorkerProcess {
  private static let checkOption = "--check-config"

  /// Whether this process is to check the configuration and nothing else.
  static var isCheck: Bool { CommandLine.arguments.contains(checkOption) }

  /// Says what `findings` says of the configuration that the command line and the environment give, and ends: 78 if something is wrong.
  static func check(_ findings: (Settings) -> ConfigurationFindings) -> Never {
    var found = ConfigurationFindings()
    do throws(SettingsErrors) {
      let arguments = Array(CommandLine.arguments.dropFirst())
      let loaded = try Settings.load(arguments: arguments, environment: ProcessInfo.processInfo.environment)
      found = findings(loaded.settings)
    } catch {
      found.mistakes = error.mistakes.map(\.description)
    }
    for warning in found.warnings { complain("warning: \(warning)") }
    for mistake in found.mistakes { complain(mistake) }
    exit(found.mistakes.isEmpty ? 0 : wrongConfiguration)
  }

  private static func complain(_ text: String) {
    var line = text + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
