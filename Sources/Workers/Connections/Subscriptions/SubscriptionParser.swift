// What clients write about their subscriptions (contract §3), checked: JSON in, subscriptions or the reason out. Pure.
//
//   [{"eventType":"greeting","oneOf":[{"name":"John","lang":"en"},{"name":"Frank"}]}]      or    {"subscriptions":[…]}
//
// What is accepted but will not do what the client may think comes back as warnings.

import Kit
import Settings

/// Why subscriptions are refused.
struct SubscriptionError: Error, Equatable {
  /// The HTTP status that says it.
  let status: Int
  /// Which subscription, what was found, what was expected.
  let detail: String
  /// The bound that they exceed, if it is one.
  let limit: SubscriptionLimit?

  init(status: Int = 400, _ detail: String, limit: SubscriptionLimit? = nil) {
    self.status = status
    self.detail = detail
    self.limit = limit
  }

  /// The worker holds so many of something already.
  static func full(_ limit: SubscriptionLimit, _ what: String, _ most: Int) -> SubscriptionError {
    SubscriptionError(
      status: 503, "this worker has no room for them: it holds at most \(most) \(what)", limit: limit)
  }

  /// Under every value that a condition asks for, so many conditions wait already.
  static func valueIsFull(_ most: Int) -> SubscriptionError {
    SubscriptionError(
      status: 503,
      "this worker holds \(most) conditions of two or more fields for each value in one of them, its limit",
      limit: .fieldValue)
  }
}

/// What subscriptions are bounded by; the raw value is the metric's label.
enum SubscriptionLimit: String, CaseIterable {
  case subscriptions
  case conditions
  case fields
  case bytes
  /// Conditions that wait for one value of one field.
  case fieldValue = "field_value"
  /// Changes of one connection in a minute.
  case rate
  /// Changes that wait for their turn.
  case waiting
}

struct SubscriptionParser {
  typealias Parsed = (subscriptions: [Subscription], warnings: [String])

  /// Bounds of one subscription; they keep SubscriptionContent's counts and lengths within their widths.
  private enum Limit {
    static let typeBytes = 4096
    /// Of one subscription, and of lists that aren't bounded otherwise.
    static let conjunctions = 65_535
    static let fields = 100
    static let nameBytes = 1024
    static let valueBytes = 65_536
    static let warnings = 20
    /// Of all types and names of fields that aren't ASCII: Swift compares such texts by what they look like, which takes
    /// long.
    static let bytesBeyondASCII = 16_384
  }

  private static let typeNames = ["eventType", "event_type"]
  private static let conjunctionNames = ["oneOf", "one_of", "constraints"]
  private static let names = typeNames + conjunctionNames

  /// Of one list. Bytes: of its text.
  private struct Maximum {
    var subscriptions: Int
    var conditions: Int
    var fields: Int
    var bytes: Int
  }

  private let maximum: Maximum
  private let extractors: ExtractorTable
  /// Fields that are defined for any type.
  private let fieldsOfAnyType: Set<String>
  private let refused: (SubscriptionLimit) -> Void

  /// - Parameter refused: is told what is refused for a limit's sake.
  init(settings: Settings, refused: @escaping (SubscriptionLimit) -> Void = { _ in }) {
    maximum = Maximum(
      subscriptions: settings.maxSubscriptionsPerConnection,
      conditions: settings.maxConditionsPerConnection, fields: settings.maxConditionFieldsPerConnection,
      bytes: settings.maxSubscriptionBytesPerConnection)
    extractors = settings.extractors
    fieldsOfAnyType = Set(settings.extractors.byType.values.flatMap(\.keys))
    self.refused = refused
  }

  /// - Parameters:
  ///   - mustBeObject: only `{"subscriptions":[…]}` will do.
  ///   - isOurOwn: a list that a worker has made, those of tokens included: not counted.
  func parse(
    _ bytes: UnsafeRawBufferPointer, mustBeObject: Bool = false, isOurOwn: Bool = false
  ) throws(SubscriptionError) -> Parsed {
    do throws(SubscriptionError) {
      return try parseBounded(bytes, mustBeObject: mustBeObject, isOurOwn: isOurOwn)
    } catch {
      if let limit = error.limit { refused(limit) }
      throw error
    }
  }

  private func parseBounded(
    _ bytes: UnsafeRawBufferPointer, mustBeObject: Bool, isOurOwn: Bool
  ) throws(SubscriptionError) -> Parsed {
    guard isOurOwn || bytes.count <= maximum.bytes else {
      throw SubscriptionError(
        status: 413, "\(bytes.count) bytes, expected at most \(maximum.bytes) per connection", limit: .bytes)
    }
    let root: JSONValue
    do {
      root = try JSONValue(parsing: bytes)
    } catch {
      throw SubscriptionError("not JSON: \(error)")
    }
    let list = try list(in: root, mustBeObject)
    guard !isOurOwn else { return try parse(list) }
    let most = maximum.subscriptions
    guard list.count <= most else {
      throw SubscriptionError(
        "\(list.count) subscriptions, expected at most \(most) per connection", limit: .subscriptions)
    }
    try requireFew(list)
    return try parse(list)
  }

  /// The same for bytes in an array.
  func parse(
    _ bytes: [UInt8], mustBeObject: Bool = false, isOurOwn: Bool = false
  ) throws(SubscriptionError) -> Parsed {
    // Array's closures don't keep the type of what they throw.
    try bytes.withUnsafeBytes { bytes in
      Result { () throws(SubscriptionError) in
        try parse(bytes, mustBeObject: mustBeObject, isOurOwn: isOurOwn)
      }
    }.get()
  }

  private func list(in root: JSONValue, _ mustBeObject: Bool) throws(SubscriptionError) -> [JSONValue] {
    switch root {
    case .array(let list) where !mustBeObject: return list
    case .object:
      guard let member = root["subscriptions"] else {
        throw SubscriptionError("the member subscriptions is missing, expected a list of subscriptions")
      }
      guard case .array(let list) = member else {
        throw SubscriptionError("subscriptions is \(member.kindName), expected a list of subscriptions")
      }
      return list
    case .array, .scalar:
      let expected = mustBeObject ? #"an object {"subscriptions":[…]}"# : "a list of subscriptions"
      throw SubscriptionError("found \(root.kindName), expected \(expected)")
    }
  }

  /// Counts before anything is made of them.
  private func requireFew(_ list: [JSONValue]) throws(SubscriptionError) {
    var conditions = 0
    var fields = 0
    var bytesBeyondASCII = 0
    func count(_ text: String) {
      if text.utf8.contains(where: { $0 >= 0x80 }) { bytesBeyondASCII += text.utf8.count }
    }
    for case .object(let members) in list {
      for member in members {
        count(member.name)
        if Self.typeNames.contains(member.name), let type = member.value.string { count(type) }
      }
      for case (let name, .array(let oneOf)) in members where Self.conjunctionNames.contains(name) {
        conditions += max(1, oneOf.count)
        for case .object(let conjunction) in oneOf {
          fields += conjunction.count
          for field in conjunction { count(field.name) }
        }
      }
    }
    guard bytesBeyondASCII <= Limit.bytesBeyondASCII else {
      throw SubscriptionError(
        "types and fields beyond ASCII have \(bytesBeyondASCII) bytes in all, expected at most \(Limit.bytesBeyondASCII) per connection",
        limit: .bytes)
    }
    guard conditions <= maximum.conditions else {
      throw SubscriptionError(
        "oneOf has \(conditions) objects in all subscriptions, expected at most \(maximum.conditions) per connection",
        limit: .conditions)
    }
    guard fields <= maximum.fields else {
      throw SubscriptionError(
        "oneOf has \(fields) fields in all subscriptions, expected at most \(maximum.fields) per connection",
        limit: .fields)
    }
  }

  private func parse(_ list: [JSONValue]) throws(SubscriptionError) -> Parsed {
    var parsed: Parsed = ([], [])
    parsed.subscriptions.reserveCapacity(list.count)
    for (position, item) in list.enumerated() {
      do throws(SubscriptionError) {
        parsed.subscriptions.append(try subscription(item, warnings: &parsed.warnings))
      } catch {
        throw SubscriptionError(
          status: error.status, "subscription \(position): \(error.detail)", limit: error.limit)
      }
    }
    return parsed
  }

  private func subscription(
    _ item: JSONValue, warnings: inout [String]
  ) throws(SubscriptionError) -> Subscription {
    guard case .object(let members) = item else {
      throw SubscriptionError("found \(item.kindName), expected an object with eventType")
    }
    let type = try eventType(members)
    let oneOf = try conjunctions(members)
    for member in members where isRoomForWarnings(warnings) && !Self.names.contains(member.name) {
      // Nothing bounds the length of this name but that of the whole text.
      let name = member.name.prefix(64)
      warn(
        "subscription to '\(type)': unknown member '\(name)' has no effect, expected eventType and oneOf",
        &warnings)
    }
    let pattern = EventTypePattern(type)
    let ofType = extractors.byType[type]
    for name in Set(oneOf.flatMap(\.keys)).sorted()
    where isRoomForWarnings(warnings) && !isExtracted(name, pattern, ofType) {
      warn(
        "subscription to '\(type)': no extractor defines the field '\(name)', so nothing will match it",
        &warnings)
    }
    return Subscription(eventType: pattern, oneOf: oneOf)
  }

  private func warn(_ text: String, _ warnings: inout [String]) {
    if isRoomForWarnings(warnings), !warnings.contains(where: { $0.utf8.elementsEqual(text.utf8) }) {
      warnings.append(text)
    }
  }

  private func isRoomForWarnings(_ warnings: [String]) -> Bool { warnings.count < Limit.warnings }

  private func eventType(_ members: [(name: String, value: JSONValue)]) throws(SubscriptionError) -> String {
    guard let member = try only(Self.typeNames, of: members) else {
      throw SubscriptionError("eventType is missing, expected a non-empty string")
    }
    guard let type = member.string, !type.isEmpty else {
      let found = member.string == nil ? member.kindName : "empty"
      throw SubscriptionError("eventType is \(found), expected a non-empty string")
    }
    guard type.utf8.count <= Limit.typeBytes else {
      throw SubscriptionError("eventType has \(type.utf8.count) bytes, expected at most \(Limit.typeBytes)")
    }
    return type
  }

  private func conjunctions(
    _ members: [(name: String, value: JSONValue)]
  ) throws(SubscriptionError) -> [[String: ScalarValue]] {
    guard let member = try only(Self.conjunctionNames, of: members), member != .scalar(.null) else {
      return []
    }
    guard case .array(let list) = member else {
      throw SubscriptionError("oneOf is \(member.kindName), expected a list of objects")
    }
    guard list.count <= Limit.conjunctions else {
      throw SubscriptionError("oneOf has \(list.count) objects, expected at most \(Limit.conjunctions)")
    }
    var oneOf: [[String: ScalarValue]] = []
    for (position, item) in list.enumerated() {
      guard case .object(let fields) = item else {
        throw SubscriptionError("oneOf \(position) is \(item.kindName), expected an object of fields")
      }
      oneOf.append(try conjunction(fields, position))
    }
    return oneOf
  }

  private func conjunction(
    _ members: [(name: String, value: JSONValue)], _ position: Int
  ) throws(SubscriptionError) -> [String: ScalarValue] {
    guard members.count <= Limit.fields else {
      throw SubscriptionError(
        "oneOf \(position) has \(members.count) fields, expected at most \(Limit.fields)")
    }
    var fields: [String: ScalarValue] = [:]
    for (name, value) in members {
      guard name.utf8.count <= Limit.nameBytes else {
        throw SubscriptionError("oneOf \(position) has a field name of more than \(Limit.nameBytes) bytes")
      }
      guard case .scalar(let scalar) = value else {
        throw SubscriptionError(
          "oneOf \(position), field '\(name)' is \(value.kindName), expected a string, number, boolean or null"
        )
      }
      if case .string(let text) = scalar, text.utf8.count > Limit.valueBytes {
        throw SubscriptionError("oneOf \(position), field '\(name)' has more than \(Limit.valueBytes) bytes")
      }
      guard fields.updateValue(scalar, forKey: name) == nil else {
        throw SubscriptionError("oneOf \(position) has the field '\(name.prefix(64))' twice")
      }
    }
    return fields
  }

  /// The member that has one of these names; two of them could contradict each other.
  private func only(
    _ names: [String], of members: [(name: String, value: JSONValue)]
  ) throws(SubscriptionError) -> JSONValue? {
    let found = members.filter { names.contains($0.name) }
    guard found.count <= 1 else {
      throw SubscriptionError("\(found[0].name) and \(found[1].name) are both given, expected one of them")
    }
    return found.first?.value
  }

  /// Whether an event that the pattern is about can have the field. `ofType`: what is extracted from the one type that an
  /// exact pattern is about.
  private func isExtracted(
    _ name: String, _ pattern: EventTypePattern, _ ofType: [String: Extractor]?
  ) -> Bool {
    guard fieldsOfAnyType.contains(name) else { return false }
    switch pattern {
    case .exact: return ofType?[name] != nil
    case .prefix(let prefix):
      return extractors.byType.contains {
        $0.value[name] != nil && $0.key.utf8.starts(with: prefix.utf8)
      }
    case .any: return true
    }
  }
}
