// What a client asks for (contract §3): events of one type, or of many, and of those the ones with certain fields.

import Kit

/// Which event types a subscription is about.
enum EventTypePattern: Hashable, Sendable {
  /// Written as the type itself.
  case exact(String)
  /// Written with a trailing `.*`: every type that begins with this text, which ends with the dot.
  case prefix(String)
  /// Written `*`.
  case any

  /// - Parameter text: as in `eventType`; not empty.
  init(_ text: String) {
    if text == "*" {
      self = .any
    } else if text.hasSuffix(".*") {
      self = .prefix(String(text.dropLast()))
    } else {
      self = .exact(text)
    }
  }

  /// As in `eventType`.
  var text: String {
    switch self {
    case .exact(let type): type
    case .prefix(let prefix): prefix + "*"
    case .any: "*"
    }
  }
}

/// A disjunction of conjunctions of equalities: at least one element of `oneOf` has to match with all of its fields. An
/// empty `oneOf` is no condition.
struct Subscription: Equatable, Sendable {
  var eventType: EventTypePattern
  var oneOf: [[String: ScalarValue]] = []

  /// Appends `[{"eventType":"…","oneOf":[…]},…]`, fields in the order of their names.
  static func appendList(_ subscriptions: [Subscription], to json: inout [UInt8]) {
    JSONText.appendArray(subscriptions, to: &json) { $0.append(to: &$1) }
  }

  /// The list as JSON text.
  static func list(_ subscriptions: [Subscription]) -> [UInt8] {
    var json: [UInt8] = []
    appendList(subscriptions, to: &json)
    return json
  }

  private func append(to json: inout [UInt8]) {
    json.append(contentsOf: #"{"eventType":"#.utf8)
    JSONText.appendString(eventType.text, to: &json)
    json.append(contentsOf: #","oneOf":"#.utf8)
    JSONText.appendArray(oneOf, to: &json) { fields, json in
      json.append(UInt8(ascii: "{"))
      for (index, (name, value)) in fields.sorted(by: { $0.key < $1.key }).enumerated() {
        if index > 0 { json.append(UInt8(ascii: ",")) }
        JSONText.appendString(name, to: &json)
        json.append(UInt8(ascii: ":"))
        value.appendJSON(to: &json)
      }
      json.append(UInt8(ascii: "}"))
    }
    json.append(UInt8(ascii: "}"))
  }
}
