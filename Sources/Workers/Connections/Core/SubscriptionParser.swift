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

  init(status: Int = 400, _ detail: String) {
    self.status = status
    self.detail = detail
  }
}

struct SubscriptionParser {
  typealias Parsed = (subscriptions: [Subscription], warnings: [String])

  /// Bounds of one subscription; they keep SubscriptionContent's counts and lengths within their widths.
  private enum Limit {
    static let typeBytes = 4096
    static let conjunctions = 10_000
    static let fields = 100
    static let nameBytes = 1024
    static let valueBytes = 65_536
    static let warnings = 20
  }

  private static let typeNames = ["eventType", "event_type"]
  private static let conjunctionNames = ["oneOf", "one_of", "constraints"]

  private let maximumCount: Int
  private let extractors: ExtractorTable

  init(settings: Settings) {
    maximumCount = settings.maxSubscriptionsPerConnection
    extractors = settings.extractors
  }

  /// - Parameters:
  ///   - mustBeObject: only `{"subscriptions":[…]}` will do.
  ///   - isOurOwn: a list that a worker has made, those of tokens included: not counted.
  func parse(
    _ bytes: UnsafeRawBufferPointer, mustBeObject: Bool = false, isOurOwn: Bool = false
  ) throws(SubscriptionError) -> Parsed {
    let root: JSONValue
    do {
      root = try JSONValue(parsing: bytes)
    } catch {
      throw SubscriptionError("not JSON: \(error)")
    }
    let list = try list(in: root, mustBeObject)
    guard isOurOwn || list.count <= maximumCount else {
      throw SubscriptionError("\(list.count) subscriptions, expected at most \(maximumCount) per connection")
    }
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

  private func parse(_ list: [JSONValue]) throws(SubscriptionError) -> Parsed {
    var parsed: Parsed = ([], [])
    parsed.subscriptions.reserveCapacity(list.count)
    for (position, item) in list.enumerated() {
      do throws(SubscriptionError) {
        parsed.subscriptions.append(try subscription(item, warnings: &parsed.warnings))
      } catch {
        throw SubscriptionError(status: error.status, "subscription \(position): \(error.detail)")
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
    for member in members where !(Self.typeNames + Self.conjunctionNames).contains(member.name) {
      // Nothing bounds the length of this name but that of the whole text.
      let name = member.name.prefix(64)
      warn(
        "subscription to '\(type)': unknown member '\(name)' has no effect, expected eventType and oneOf",
        &warnings)
    }
    let pattern = EventTypePattern(type)
    for name in Set(oneOf.flatMap(\.keys)).sorted() where !isExtracted(name, pattern) {
      warn(
        "subscription to '\(type)': no extractor defines the field '\(name)', so nothing will match it",
        &warnings)
    }
    return Subscription(eventType: pattern, oneOf: oneOf)
  }

  private func warn(_ text: String, _ warnings: inout [String]) {
    if warnings.count < Limit.warnings, !warnings.contains(text) { warnings.append(text) }
  }

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
      fields[name] = scalar
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

  /// Whether an event that the pattern is about can have the field.
  private func isExtracted(_ name: String, _ pattern: EventTypePattern) -> Bool {
    switch pattern {
    case .exact(let type): extractors.byType[type]?[name] != nil
    case .prefix(let prefix): extractors.byType.contains { $0.key.hasPrefix(prefix) && $0.value[name] != nil }
    case .any: extractors.byType.contains { $0.value[name] != nil }
    }
  }
}
