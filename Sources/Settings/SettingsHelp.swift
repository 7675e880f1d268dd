// The text of `--help`, made from the table of keys.

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
