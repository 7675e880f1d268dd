// What `Settings.load` says when it refuses: every mistake at once, each with the place it was made at, so that an
// operator corrects a configuration in one round. A text never quotes the value of a secret.

/// One mistake in the configuration and where it is.
public struct SettingsMistake: Sendable, Equatable, CustomStringConvertible {
  /// `rig.yaml:12:3`, `environment INBOUND_PORT`, `--set INBOUND_PORT` or the option itself.
  public let place: String
  /// What is wrong, the value found (unless it is a secret) and what was expected.
  public let message: String

  public init(place: String, message: String) {
    self.place = place
    self.message = message
  }

  public var description: String { "\(place): \(message)" }
}

/// All mistakes of a configuration, in the order of the layers: file, environment, command line, then contradictions
/// between values.
public struct SettingsErrors: Error, Sendable, Equatable, CustomStringConvertible {
  /// Never empty.
  public let mistakes: [SettingsMistake]

  public var description: String { mistakes.map(\.description).joined(separator: "\n") }
}

/// Why a value was refused. The place is added by the layer that the value came from; `line` and `column` only where
/// the value has an inside of its own, counted from 1.
public struct ValueProblem: Error, Equatable, CustomStringConvertible {
  public internal(set) var message: String
  var line: Int?
  var column: Int?

  public var description: String { message }

  init(_ message: String, line: Int? = nil, column: Int? = nil) {
    self.message = message
    self.line = line
    self.column = column
  }
}

/// Several problems inside one value, as an extractor table may have.
struct ValueProblems: Error, Equatable {
  var problems: [ValueProblem]

  init(_ problems: [ValueProblem]) {
    self.problems = problems
  }

  init(_ message: String) {
    problems = [ValueProblem(message)]
  }
}
