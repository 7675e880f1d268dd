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

  /// A value that came as plain text.
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

  /// The key that `name` stands for, and whether its value is the path of a file with the value.
  static func lookUp(_ name: String) -> (position: Int, isPath: Bool)? {
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
}
