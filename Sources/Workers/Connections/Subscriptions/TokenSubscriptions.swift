// What tokens do to subscriptions (contract §3): they add some by themselves, and they restrict what may be asked for.
//
//   "greeting":{"name":{"event":{…},"jwt":{"json_pointer":"/username"}}}               adds   greeting where name = claim
//   "greeting":{"name":{"event":{…},"jwt":{"json_pointer":"/username","enforce":true}}}  also restricts all others to it

import Kit
import Settings
import Tokens

struct TokenSubscriptions {
  private let extractors: ExtractorTable

  init(_ extractors: ExtractorTable) { self.extractors = extractors }

  /// One subscription for each event type with a pointer that leads to a value in one of the tokens; of several tokens
  /// the last counts. In the order of the types' names.
  func automatic(_ tokens: [VerifiedToken]) -> [Subscription] {
    guard !tokens.isEmpty else { return [] }
    var subscriptions: [Subscription] = []
    for (type, extractors) in extractors.byType.sorted(by: { $0.key < $1.key }) {
      var fields: [String: ScalarValue] = [:]
      for (name, extractor) in extractors {
        if let value = value(extractor, tokens) { fields[name] = value }
      }
      if !fields.isEmpty { subscriptions.append(Subscription(eventType: .exact(type), oneOf: [fields])) }
    }
    return subscriptions
  }

  /// The subscriptions with the enforced fields added to every condition.
  ///
  /// - Throws: 403 if the tokens don't have an enforced value, a condition asks for another one, or a pattern covers a
  ///   type with enforced fields.
  func enforce(_ subscriptions: [Subscription], _ tokens: [VerifiedToken]) throws(SubscriptionError)
    -> [Subscription]
  {
    var result: [Subscription] = []
    for subscription in subscriptions { result.append(try enforce(subscription, tokens)) }
    return result
  }

  private func enforce(
    _ subscription: Subscription, _ tokens: [VerifiedToken]
  ) throws(SubscriptionError) -> Subscription {
    guard case .exact(let type) = subscription.eventType else {
      for (type, extractors) in extractors.byType where subscription.eventType.covers(type) {
        guard !extractors.values.contains(where: \.isEnforced) else {
          throw SubscriptionError(
            status: 403,
            "subscription to '\(subscription.eventType.text)' covers '\(type)', which a token restricts: subscribe to it by name"
          )
        }
      }
      return subscription
    }
    var enforced: [String: ScalarValue] = [:]
    for (name, extractor) in extractors.byType[type] ?? [:] where extractor.isEnforced {
      guard let value = value(extractor, tokens) else {
        throw SubscriptionError(
          status: 403, "subscription to '\(type)' needs a token with a value for the field '\(name)'")
      }
      enforced[name] = value
    }
    guard !enforced.isEmpty else { return subscription }
    var restricted = subscription
    restricted.oneOf = []
    for fields in subscription.oneOf.isEmpty ? [[:]] : subscription.oneOf {
      for (name, value) in enforced where fields[name] != nil && fields[name] != value {
        throw SubscriptionError(
          status: 403, "subscription to '\(type)': the field '\(name)' must have the value of the token")
      }
      restricted.oneOf.append(fields.merging(enforced) { _, value in value })
    }
    return restricted
  }

  private func value(_ extractor: Extractor, _ tokens: [VerifiedToken]) -> ScalarValue? {
    guard let pointer = extractor.jwtPointer else { return nil }
    for token in tokens.reversed() {
      if let value = token.value(at: pointer) { return value }
    }
    return nil
  }
}

extension EventTypePattern {
  /// Whether events of the type match.
  func covers(_ type: String) -> Bool {
    switch self {
    case .exact(let name): type.utf8.elementsEqual(name.utf8)
    case .prefix(let prefix): type.utf8.starts(with: prefix.utf8)
    case .any: true
    }
  }
}
