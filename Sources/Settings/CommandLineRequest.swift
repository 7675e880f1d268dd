// What the command line of `rig-supervisor` asks for. Options only; a value may follow after '=' or as the next argument.

/// What the supervisor was started to do.
public enum Action: Sendable, Equatable {
  /// Run the gateway.
  case run
  /// Say whether the configuration is right, and stop.
  case checkConfig
  /// Print the version, and stop.
  case showVersion
  /// Print `Settings.help`, and stop.
  case showHelp
}

/// A parsed command line.
struct CommandLineRequest: Equatable {
  var action = Action.run
  var configPath: String?
  var isDev = false
  /// In the order given.
  var assignments: [(key: String, value: String)] = []

  static let options = ["--config", "--check-config", "--dev", "--set", "--version", "--help"]

  static func == (a: Self, b: Self) -> Bool {
    a.action == b.action && a.configPath == b.configPath && a.isDev == b.isDev
      && a.assignments.elementsEqual(b.assignments) { $0.key == $1.key && $0.value == $1.value }
  }

  /// Parses `arguments` (without the program's name). Mistakes are added to `mistakes`; the rest is still parsed.
  init(_ arguments: [String], mistakes: inout [SettingsMistake]) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
        String.init)
      let option = parts[0]
      let attached = parts.count == 2 ? parts[1] : nil
      func refuse(_ message: String) { mistakes.append(SettingsMistake(place: option, message: message)) }
      switch option {
      case "--config", "--set":
        guard let value = attached ?? rest.popFirst() else {
          refuse(option == "--config" ? "expected the path of a file" : "expected KEY=VALUE")
          continue
        }
        if option == "--config" {
          if configPath != nil { refuse("given twice; expected one file") }
          configPath = value
        } else if let equals = value.firstIndex(of: "="), equals > value.startIndex {
          assignments.append((String(value[..<equals]), String(value[value.index(after: equals)...])))
        } else {
          refuse("expected KEY=VALUE")
        }
      case "--check-config", "--dev", "--version", "--help", "-h":
        if attached != nil { refuse("takes no value") }
        switch option {
        case "--check-config": action = .checkConfig
        case "--version": action = .showVersion
        case "--dev": isDev = true
        default: action = .showHelp
        }
      default:
        let hint = NearestName.suggestion(for: option, among: Self.options).map { "; did you mean \($0)?" }
        refuse("unknown option" + (hint ?? "; expected one of \(Self.options.joined(separator: ", "))"))
      }
    }
  }
}
