// One layer of configuration (file, environment or command line) as entries with places, and how it is laid over the
// settings made so far. A layer is applied whole: a mistake is reported even where a later layer overrides the value.

/// A name, its value and where both stand.
struct LayerEntry {
  let name: String
  let value: SourceNode
  /// `rig.yaml:3:1`, `environment INBOUND_PORT`, `--set INBOUND_PORT`.
  let place: String
  /// Place of something inside the value, for values that span lines of a file; nil: named relative to the value.
  let file: String?

  init(name: String, value: SourceNode, place: String, file: String? = nil) {
    self.name = name
    self.value = value
    self.place = place
    self.file = file
  }

  init(name: String, text: String, place: String) {
    self.init(
      name: name, value: SourceNode(content: .scalar(text, quoted: true), line: 1, column: 1), place: place)
  }
}

struct SettingsLayer {
  var entries: [LayerEntry]

  /// Lays the entries over `settings`. Every entry's name must be known. Returns the names of the keys that it has set.
  func apply(
    to settings: inout Settings, mistakes: inout [SettingsMistake], warnings: inout [String]
  ) -> Set<String> {
    var given: [Int: LayerEntry] = [:]
    for entry in entries {
      guard let (position, isPath) = Self.lookUp(entry.name) else { continue }
      let key = SettingKey.all[position]
      guard !saysNothing(entry.value, key, isPath: isPath) else {
        // As from a variable that isn't set: who writes a secret's name means to have one.
        if key.isSecret { warnings.append("\(entry.place): \(key.name) is empty and counts as not set") }
        continue
      }
      // A name of the key with nothing behind it doesn't contradict another one of its names.
      if let earlier = given[position], isBlank(entry.value) || isBlank(earlier.value) {
        if isBlank(entry.value) { continue }
        given[position] = nil
      }
      if let earlier = given[position] {
        let message = "sets \(key.name) again, after \(earlier.place); expected one of them"
        mistakes.append(SettingsMistake(place: entry.place, message: message))
        continue
      }
      given[position] = entry
      do throws(ValueProblems) {
        let value = isPath ? try content(ofFile: entry.value, mayBeBlank: key.isSecret) : entry.value
        guard !isPath || !key.isSecret || !isBlank(value) else {
          warnings.append("\(entry.place): the file of \(key.name) is empty, which counts as not set")
          given[position] = nil
          continue
        }
        try key.assign(value, &settings)
        if !key.isUsed {
          warnings.append("\(entry.place): \(key.name) is accepted, but has no effect in this release")
        }
      } catch {
        mistakes += error.problems.map { mistake($0, at: entry, of: key) }
      }
    }
    return Set(given.keys.map { SettingKey.all[$0].name })
  }

  private static func lookUp(_ name: String) -> (position: Int, isPath: Bool)? {
    if let position = SettingKey.byName[name] { return (position, false) }
    guard name.hasSuffix(SettingKey.fileSuffix) else { return nil }
    return SettingKey.byName[String(name.dropLast(SettingKey.fileSuffix.count))].map { ($0, true) }
  }

  /// Whether an entry counts as not there: null, or empty where that is no value.
  private func saysNothing(_ value: SourceNode, _ key: SettingKey, isPath: Bool) -> Bool {
    value.isNull || value.text?.isEmpty == true && (isPath || !key.takesEmpty)
      || key.isSecret && isBlank(value)
  }

  /// Whether a value is a text with nothing in it but white space.
  private func isBlank(_ value: SourceNode) -> Bool {
    value.text.map { ValueForm.trimmed($0[...]).isEmpty } ?? false
  }

  /// What the file holds whose path is given.
  private func content(ofFile value: SourceNode, mayBeBlank: Bool) throws(ValueProblems) -> SourceNode {
    guard let path = value.text else { throw ValueProblems("expected the path of a file") }
    do throws(ValueProblem) {
      let text = try TextFile.read(path)
      // The line break at the end isn't part of the value. CR LF is one character.
      let content = text.last == "\n" || text.last == "\r\n" ? String(text.dropLast()) : text
      guard mayBeBlank || !content.isEmpty else { throw ValueProblem("'\(path)' is empty") }
      return SourceNode(content: .scalar(content, quoted: true), line: 1, column: 1)
    } catch {
      throw ValueProblems([error])
    }
  }

  private func mistake(_ problem: ValueProblem, at entry: LayerEntry, of key: SettingKey) -> SettingsMistake {
    guard let line = problem.line else {
      return SettingsMistake(place: entry.place, message: "\(key.name): \(problem.message)")
    }
    let position = "\(line):\(problem.column ?? 1)"
    if let file = entry.file, entry.value.text == nil {
      return SettingsMistake(place: "\(file):\(position)", message: "\(key.name): \(problem.message)")
    }
    return SettingsMistake(
      place: entry.place,
      message: "\(key.name): at line \(line), column \(problem.column ?? 1): \(problem.message)")
  }

  // Where the three layers come from: a YAML or JSON file, the environment, and `--set`. Unknown names are mistakes in a
  // file and on the command line. The environment belongs to others too: there only a name that looks like a misspelt one
  // of ours, or that a version of RIG knew, is worth a warning.

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
