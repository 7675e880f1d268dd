// One row of the table of configuration keys: what a key is called, what it takes, what it means, whether this release
// uses it, and how a text becomes a value of `Settings`. The rows are in EventKeys, IdentityKeys and OperationKeys;
// loading, help and error
// texts all come from them, so that a key is described in one place only.

struct SettingKey: Sendable {
  /// Name in the environment; in a file in either case.
  let name: String
  var aliases: [String] = []
  /// What a value looks like, for help and for error texts: "a whole number from 0 to 65535".
  let form: String
  let help: String
  /// Values are never quoted.
  var isSecret = false
  /// False: accepted and validated for compatibility, without effect in this release.
  var isUsed = true
  /// Whether an empty value means something (an empty list) instead of "not set".
  var takesEmpty = false
  let assign: @Sendable (SourceNode, inout Settings) throws(ValueProblems) -> Void
  /// The value in effect as a text, without secrets.
  let show: @Sendable (Settings) -> String

  /// Every key, in the order of the help.
  static let all: [SettingKey] =
    network + events + kafka + identity + proxy + operation + limits

  /// Every name that is accepted, mapped to its key's index in `all`.
  static let byName: [String: Int] = {
    var index: [String: Int] = [:]
    for (position, key) in all.enumerated() {
      for name in [key.name] + key.aliases { index[name] = position }
    }
    return index
  }()

  /// Ending of a name that makes the value a path of the file holding it.
  static let fileSuffix = "_FILE"
}

typealias SettingField<Value> = WritableKeyPath<Settings, Value> & Sendable

extension SettingKey {
  /// A key whose value is one text that `parse` makes into a value.
  static func scalar<Value>(
    _ name: String, _ field: SettingField<Value>, form: String, help: String,
    parse: @escaping @Sendable (String) throws(ValueProblem) -> Value,
    show: @escaping @Sendable (Value) -> String
  ) -> SettingKey {
    SettingKey(
      name: name, form: form, help: help,
      assign: { (node, settings) throws(ValueProblems) in
        settings[keyPath: field] = try convert(node, form: form, parse)
      },
      show: { show($0[keyPath: field]) })
  }

  static func integer(
    _ name: String, _ field: SettingField<Int>, _ range: ClosedRange<Int>, unit: String = "", _ help: String
  ) -> SettingKey {
    scalar(
      name, field, form: ValueForm.integer(range, unit: unit), help: help,
      parse: { (text) throws(ValueProblem) in try ValueForm.integer(text, range, unit: unit) },
      show: { String($0) })
  }

  static func flag(_ name: String, _ field: SettingField<Bool>, _ help: String) -> SettingKey {
    scalar(
      name, field, form: ValueForm.boolean, help: help,
      parse: { (text) throws(ValueProblem) in try ValueForm.boolean(text) }, show: { String($0) })
  }

  static func text(
    _ name: String, _ field: SettingField<String>, form: String, _ help: String,
    parse: @escaping @Sendable (String) throws(ValueProblem) -> String = { (text) throws(ValueProblem) in text
    }
  ) -> SettingKey {
    scalar(name, field, form: form, help: help, parse: parse, show: { $0 })
  }

  /// A comma-separated text or a list, each item accepted by `parse`.
  static func list(
    _ name: String, _ field: SettingField<[String]>, form: String, _ help: String,
    parse: @escaping @Sendable (String) throws(ValueProblem) -> String
  ) -> SettingKey {
    var key = SettingKey(
      name: name, form: form, help: help,
      assign: { (node, settings) throws(ValueProblems) in
        settings[keyPath: field] = try items(of: node, form: form, parse)
      },
      show: { $0[keyPath: field].joined(separator: ",") })
    key.takesEmpty = true
    return key
  }

  /// A key that this release accepts but doesn't use: its value is checked and dropped.
  static func notUsed(
    _ name: String, form: String, initially value: String = "", _ help: String,
    check: @escaping @Sendable (String) throws(ValueProblem) -> Void = { (_) throws(ValueProblem) in }
  ) -> SettingKey {
    SettingKey(
      name: name, form: form, help: help, isUsed: false,
      assign: { (node, _) throws(ValueProblems) in
        if case .sequence = node.content {
          _ = try items(of: node, form: form) { (text) throws(ValueProblem) in text }
        } else {
          try convert(node, form: form, check)
        }
      },
      show: { _ in value })
  }

  func also(_ names: String...) -> SettingKey {
    var key = self
    key.aliases = names
    return key
  }

  var setWhenEmpty: SettingKey {
    var key = self
    key.takesEmpty = true
    return key
  }

  /// The same key, of which an empty value says nothing.
  var unsetWhenEmpty: SettingKey {
    var key = self
    key.takesEmpty = false
    return key
  }

  var secret: SettingKey {
    var key = self
    key.isSecret = true
    return key
  }

  private static func convert<Value>(
    _ node: SourceNode, form: String, _ parse: (String) throws(ValueProblem) -> Value
  ) throws(ValueProblems) -> Value {
    guard let text = node.text else {
      throw ValueProblems([node.problem("expected \(form), found a list or object")])
    }
    do {
      return try parse(text)
    } catch {
      throw ValueProblems([error])
    }
  }

  private static func items(
    of node: SourceNode, form: String, _ parse: (String) throws(ValueProblem) -> String
  ) throws(ValueProblems) -> [String] {
    var texts: [String] = []
    switch node.content {
    case .scalar(let text, _):
      texts = text.split(separator: ",").map(ValueForm.trimmed)
    case .sequence(let nodes):
      for item in nodes {
        guard let text = item.text else { throw ValueProblems([item.problem("expected \(form)")]) }
        texts.append(ValueForm.trimmed(text[...]))
      }
    case .mapping:
      throw ValueProblems([node.problem("expected \(form), found an object")])
    }
    var result: [String] = []
    var problems: [ValueProblem] = []
    for text in texts where !text.isEmpty {
      do { result.append(try parse(text)) } catch { problems.append(error) }
    }
    guard problems.isEmpty else { throw ValueProblems(problems) }
    return result
  }
}
