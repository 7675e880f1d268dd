// Where the three layers come from: a YAML or JSON file, the environment, and `--set`. Unknown names are mistakes in a
// file and on the command line. The environment belongs to others too: there only a name that looks like a misspelt one
// of ours, or that a version of RIG knew, is worth a warning.

extension SettingsLayer {
  /// Reads the configuration file at `path`.
  static func file(_ path: String, mistakes: inout [SettingsMistake]) -> SettingsLayer {
    do throws(ValueProblem) {
      let text = try TextFile.read(path)
      guard let root = try SourceTree.parse(text), !root.isNull else { return SettingsLayer(entries: []) }
      guard let members = root.members else { throw root.problem("expected an object of keys") }
      return SettingsLayer(entries: members.compactMap { entry($0, in: path, mistakes: &mistakes) })
    } catch {
      let place = error.line.map { "\(path):\($0):\(error.column ?? 1)" } ?? "--config"
      mistakes.append(SettingsMistake(place: place, message: error.message))
      return SettingsLayer(entries: [])
    }
  }

  private static func entry(
    _ member: (key: SourceNode, value: SourceNode), in path: String, mistakes: inout [SettingsMistake]
  ) -> LayerEntry? {
    let place = "\(path):\(member.key.line):\(member.key.column)"
    guard let written = member.key.text else {
      mistakes.append(SettingsMistake(place: place, message: "expected the name of a key"))
      return nil
    }
    let name = normalized(written)
    guard lookUp(name) != nil else {
      mistakes.append(unknown(written, place: place))
      return nil
    }
    return LayerEntry(name: name, value: member.value, place: place, file: path)
  }

  /// The entries of `environment` that are ours.
  static func environment(_ environment: [String: String], warnings: inout [String]) -> SettingsLayer {
    var entries: [LayerEntry] = []
    for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
      if lookUp(name) != nil {
        entries.append(LayerEntry(name: name, text: value, place: "environment \(name)"))
      } else if let advice = FormerNames.advice[name], !value.isEmpty {
        warnings.append("environment \(name): RIG's, without effect here: \(advice)")
      } else if let known = misspelt(name) {
        warnings.append("environment \(name): not a key, ignored; did you mean \(known)?")
      }
    }
    return SettingsLayer(entries: entries)
  }

  /// The assignments of `--set`; the last one for a name counts.
  static func commandLine(
    _ assignments: [(key: String, value: String)], mistakes: inout [SettingsMistake]
  ) -> SettingsLayer {
    var entries: [LayerEntry] = []
    for (written, value) in assignments {
      let name = normalized(written)
      let place = "--set \(written)"
      guard let (position, isPath) = lookUp(name) else {
        mistakes.append(unknown(written, place: place))
        continue
      }
      let key = SettingKey.all[position]
      guard isPath || !key.isSecret else {
        mistakes.append(
          SettingsMistake(
            place: place,
            message:
              "\(key.name) is a secret, and everybody on the machine sees command lines; expected it in the "
              + "environment, in the file that \(key.name)\(SettingKey.fileSuffix) names, or in the configuration file"
          ))
        continue
      }
      entries.removeAll { $0.name == name }
      entries.append(LayerEntry(name: name, text: value, place: place))
    }
    return SettingsLayer(entries: entries)
  }

  private static func normalized(_ name: String) -> String {
    String(name.uppercased().map { $0 == "-" ? "_" : $0 })
  }

  private static func unknown(_ name: String, place: String) -> SettingsMistake {
    if let advice = FormerNames.advice[normalized(name)] {
      return SettingsMistake(place: place, message: "key '\(name)' is RIG's, without effect here: \(advice)")
    }
    let nearest = NearestName.suggestion(for: name, among: SettingKey.byName.keys.sorted())
    return SettingsMistake(
      place: place,
      message: "unknown key '\(name)'; " + (nearest.map { "did you mean \($0)?" } ?? "--help lists all keys"))
  }

  /// Names shorter than this are too easily somebody else's (HOME is close to HOST).
  private static let shortestSuspect = 6
  private static let largestSuspectDistance = 2

  private static func misspelt(_ name: String) -> String? {
    guard name.count >= shortestSuspect,
      let nearest = NearestName.nearest(to: name, among: SettingKey.byName.keys.sorted()),
      nearest.name.count >= shortestSuspect, nearest.distance <= largestSuspectDistance
    else { return nil }
    return nearest.name
  }
}
