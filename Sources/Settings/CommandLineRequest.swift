// What the command line of `rig-supervisor` asks for. Options only; a value may follow after '=' or as the next argument.

/// What the supervisor was started to do.
public enum Action: Sendable, Equatable {
  case run
  case checkConfig
  case showVersion
  case showHelp
}

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

/// The text of `--help`, made from the table of keys.
extension Settings {
  /// Usage, options, and every key with what it takes and its default.
  public static var help: String {
    let defaults = Settings()
    let keys = SettingKey.all.map { key in
      let shown = key.show(defaults)
      let initially = shown.isEmpty ? "" : ", default \(shown)"
      let unused = key.isUsed ? "" : " [accepted, no effect in this release]"
      let names = ([key.name] + key.aliases).joined(separator: ", ") + (key.isSecret ? " (secret)" : "")
      return "  \(names)\n      \(key.help)\(unused)\n      \(key.form)\(initially)"
    }
    return """
      Usage: rig-supervisor [--config FILE] [--set KEY=VALUE]… [--dev] [--check-config]

        --config FILE     read keys from a YAML or JSON file
        --set KEY=VALUE   set one key; wins over the environment, which wins over the file
        --dev             development mode: serves the demo page at /_rig/demo
        --check-config    validate the configuration, name every mistake, and stop
        --version         print the version, and stop
        --help            print this, and stop

      Keys, for the environment, for --set, and in either case for the file. KEY_FILE names a file that holds the value.
      Secrets are not taken from --set: everybody on the machine sees command lines.

      \(keys.joined(separator: "\n"))
      """
  }
}
