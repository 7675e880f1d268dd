// Who gets which event, and what finding that out costs.

import Kit
import Testing

@testable import Connections

/// What the contract says about one subscription and one event, as plainly as it can be written down.
private func matches(_ subscription: Subscription, _ event: TestEvent) -> Bool {
  let concerns =
    switch subscription.eventType {
    case .exact(let type): event.type == type
    case .prefix(let prefix): event.type.hasPrefix(prefix)
    case .any: true
    }
  guard concerns, !event.isAddressed else { return false }
  return subscription.oneOf.isEmpty
    || subscription.oneOf.contains { fields in fields.allSatisfy { event.fields[$0.key] == $0.value } }
}

extension SubscriptionIndex {
  fileprivate mutating func matching(_ event: TestEvent) -> [ConnectionIndex] {
    event.withRecord { record in
      var connections: [ConnectionIndex] = []
      match(record, into: &connections)
      return connections.sorted()
    }
  }

  fileprivate mutating func matching(_ type: String, _ fields: [String: ScalarValue] = [:])
    -> [ConnectionIndex]
  {
    matching(TestEvent(type: type, fields: fields))
  }
}

@Suite("Subscription index")
struct SubscriptionIndexTests {
  private var index = SubscriptionIndex(seed: 1)

  private static func greeting(_ oneOf: [String: ScalarValue]...) -> Subscription {
    Subscription(eventType: .exact("greeting"), oneOf: oneOf)
  }

  @Test("finds the subscribers of a type")
  mutating func types() {
    index.set(1, [Self.greeting()])
    index.set(2, [Subscription(eventType: .exact("goodbye"))])
    index.set(3, [Self.greeting(), Subscription(eventType: .exact("goodbye"))])
    #expect(index.matching("greeting") == [1, 3])
    #expect(index.matching("goodbye") == [2, 3])
    #expect(index.matching("greetings") == [])
    #expect(index.matching("") == [])
  }

  @Test("finds the subscribers of prefixes and of everything")
  mutating func patterns() {
    index.set(0, [Subscription(eventType: EventTypePattern("com.example.*"))])
    index.set(1, [Subscription(eventType: EventTypePattern("com.*"))])
    index.set(2, [Subscription(eventType: EventTypePattern("*"))])
    index.set(3, [Subscription(eventType: EventTypePattern("com.example"))])
    index.set(4, [Subscription(eventType: EventTypePattern("com*"))])
    #expect(index.matching("com.example.greeting.new") == [0, 1, 2])
    #expect(index.matching("com.example") == [1, 2, 3])
    #expect(index.matching("com.example.") == [0, 1, 2])
    #expect(index.matching("com.other") == [1, 2])
    #expect(index.matching("com") == [2])
    #expect(index.matching("com*") == [2, 4], "a star elsewhere is a letter like any other")
    #expect(index.matching("company.x") == [2])
  }

  @Test("needs one conjunction of oneOf with all its fields")
  mutating func constraints() {
    index.set(
      1, [Self.greeting(["name": .string("John"), "lang": .string("en")], ["name": .string("Frank")])])
    #expect(index.matching("greeting", ["name": .string("John"), "lang": .string("en")]) == [1])
    #expect(index.matching("greeting", ["name": .string("John"), "lang": .string("de")]) == [])
    #expect(index.matching("greeting", ["name": .string("John")]) == [])
    #expect(index.matching("greeting", ["name": .string("Frank"), "lang": .string("de")]) == [1])
    #expect(index.matching("goodbye", ["name": .string("Frank")]) == [])
  }

  @Test("compares values as JSON values: a text is no number, an absent field isn't null")
  mutating func values() {
    index.set(1, [Self.greeting(["a": .bool(true)])])
    index.set(2, [Self.greeting(["a": .string("true")])])
    index.set(3, [Self.greeting(["a": .null])])
    #expect(index.matching("greeting", ["a": .bool(true)]) == [1])
    #expect(index.matching("greeting", ["a": .string("true")]) == [2])
    #expect(index.matching("greeting", ["a": .null]) == [3])
    #expect(index.matching("greeting") == [])
  }

  @Test("a conjunction without fields is no condition")
  mutating func emptyConjunction() {
    index.set(1, [Self.greeting([:])])
    index.set(2, [Self.greeting(["a": .null], [:])])
    #expect(index.matching("greeting") == [1, 2])
  }

  @Test("gives each connection once, however many of its subscriptions match")
  mutating func once() {
    let many = [
      Self.greeting(), Self.greeting(["a": .null]), Self.greeting(["b": .null]),
      Self.greeting(["a": .null, "b": .null]),
      Subscription(eventType: .any), Subscription(eventType: .prefix("greeting.")),
    ]
    index.set(1, many)
    index.set(2, many)
    index.set(3, [Self.greeting(["a": .null], ["b": .null], ["a": .null, "b": .null])])
    #expect(index.matching("greeting", ["a": .null, "b": .null]) == [1, 2, 3])
    #expect(index.matching("greeting.x", ["a": .null, "b": .null]) == [1, 2])
  }

  @Test("holds addressed events back from everybody")
  mutating func addressed() {
    index.set(1, [Subscription(eventType: .any), Self.greeting()])
    #expect(index.matching(TestEvent(type: "greeting", isAddressed: true)) == [])
    #expect(TestEvent(type: "greeting", isAddressed: true).withRecord { index.matches($0, 1) } == false)
  }

  @Test("replaces, and gives back what was set")
  mutating func replaces() {
    let first = [Self.greeting(["a": .bool(false)]), Subscription(eventType: .any)]
    index.set(1, first)
    #expect(index.subscriptions(of: 1) == first)
    #expect(index.subscriptionCount == 2)
    index.set(1, [Self.greeting()])
    #expect(index.matching("other") == [])
    #expect(index.subscriptions(of: 1) == [Self.greeting()])
    #expect(index.subscriptionCount == 1)
    index.set(1, [])
    #expect(index.subscriptions(of: 1) == [])
    #expect(index.subscriptions(of: 99) == [])
    #expect(index.usage == (0, 0, 0, 0))
  }

  @Test("shares equal lists of subscriptions between connections")
  mutating func sharing() {
    for connection in ConnectionIndex(0)..<1000 {
      index.set(connection, [Self.greeting(["b": .null, "a": .null]), Subscription(eventType: .any)])
    }
    #expect(index.usage.sets == 1)
    #expect(index.usage.conditions == 2)
    #expect(index.subscriptionCount == 2000)
    let before = index.matcher.visited
    #expect(index.matching("x").count == 1000)
    #expect(index.matcher.visited - before == 1, "one look for a thousand connections")
  }

  @Test("leaves nothing behind, in whatever order connections come and go")
  mutating func noLeaks() {
    var random = SeededRandom(seed: 10)
    var alive: [ConnectionIndex] = []
    for connection in ConnectionIndex(0)..<500 {
      index.set(connection, Self.randomSubscriptions(&random))
      alive.append(connection)
    }
    alive.shuffle(using: &random)
    for connection in alive {
      index.remove(connection)
      index.remove(connection)
    }
    #expect(index.usage == (0, 0, 0, 0))
    #expect(index.subscriptionCount == 0)
    #expect(index.matching("a", ["f": .null]) == [])
  }

  // MARK: Against the definition

  private static let types = ["a", "a.b", "a.b.c", "b", "a.", ".", ""]
  private static let patterns = ["a", "a.b", "a.b.c", "b", "a.*", "a.b.*", "*", ".*", "b.*"]
  private static let names = ["f", "g", "h", "name", ""]
  private static let values: [ScalarValue] = [
    .null, .bool(true), .bool(false), .string(""), .string("x"), .string("y"),
  ]

  private static func randomFields(_ counts: ClosedRange<Int>, _ random: inout SeededRandom) -> [String:
    ScalarValue]
  {
    var fields: [String: ScalarValue] = [:]
    for _ in 0..<Int.random(in: counts, using: &random) {
      fields[names.randomElement(using: &random) ?? ""] = values.randomElement(using: &random) ?? .null
    }
    return fields
  }

  private static func randomSubscriptions(_ random: inout SeededRandom) -> [Subscription] {
    (0..<Int.random(in: 0...4, using: &random)).map { _ in
      let pattern = EventTypePattern(patterns.randomElement(using: &random) ?? "*")
      let oneOf = (0..<Int.random(in: 0...3, using: &random)).map { _ in randomFields(0...4, &random) }
      return Subscription(eventType: pattern, oneOf: oneOf)
    }
  }

  @Test("agrees with the definition on random subscriptions, events and changes", arguments: 1...8)
  mutating func againstTheDefinition(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    index = SubscriptionIndex(seed: seed)
    var naive: [ConnectionIndex: [Subscription]] = [:]
    for _ in 0..<400 {
      let connection = ConnectionIndex.random(in: 0..<60, using: &random)
      let subscriptions = Int.random(in: 0..<4, using: &random) == 0 ? [] : Self.randomSubscriptions(&random)
      index.set(connection, subscriptions)
      naive[connection] = subscriptions
      let event = TestEvent(
        type: Self.types.randomElement(using: &random) ?? "", fields: Self.randomFields(0...5, &random),
        isAddressed: Int.random(in: 0..<10, using: &random) == 0)
      let expected = naive.filter { $0.value.contains { matches($0, event) } }.keys.sorted()
      #expect(index.matching(event) == expected)
      let agrees = event.withRecord { record in
        (ConnectionIndex(0)..<60).allSatisfy { index.matches(record, $0) == expected.contains($0) }
      }
      #expect(agrees)
      #expect(index.subscriptions(of: connection) == subscriptions)
      #expect(index.subscriptionCount == naive.values.reduce(0) { $0 + $1.count })
    }
  }
}

@Suite("Cost of matching")
struct MatchingCostTests {
  /// Conditions and sets that one event looks at among `count` connections with the subscriptions that `make` gives, and
  /// one more that makes each list unlike all others.
  private func cost(
    of event: TestEvent, among count: Int, _ make: (Int) -> [Subscription]
  ) -> (matches: Int, visited: Int) {
    var index = SubscriptionIndex(seed: 3)
    for connection in 0..<count {
      let own = Subscription(eventType: .exact("own.\(connection)"))
      index.set(ConnectionIndex(connection), make(connection) + [own])
    }
    let before = index.matcher.visited
    let found = index.matching(event)
    return (found.count, Int(index.matcher.visited - before))
  }

  private func text(_ number: Int) -> ScalarValue { .string("value \(number)") }

  @Test("by one field: only the matching subscriptions are looked at", arguments: [1000, 20_000])
  func oneField(count: Int) {
    let event = TestEvent(type: "t", fields: ["name": text(7), "other": .null])
    let cost = cost(of: event, among: count) { connection in
      [Subscription(eventType: .exact("t"), oneOf: [["name": text(connection / 10)]])]
    }
    #expect(cost.matches == 10)
    #expect(cost.visited <= cost.matches + 1)
  }

  @Test("by several fields that each select little: still only the matching ones", arguments: [1000, 20_000])
  func severalFields(count: Int) {
    let event = TestEvent(type: "t", fields: ["a": text(1), "b": text(2), "c": text(3)])
    let cost = cost(of: event, among: count) { connection in
      let (a, b) = connection < 10 ? (1, 2) : (connection % 30, connection / 30 % 30 + 100)
      return [Subscription(eventType: .exact("t"), oneOf: [["a": text(a), "b": text(b)]])]
    }
    #expect(cost.matches == 10)
    #expect(cost.visited <= cost.matches + 1)
  }

  @Test("ten matches among a hundred thousand cost at most twice as much as among a thousand")
  func growth() {
    let event = TestEvent(type: "t", fields: ["name": text(7), "lang": text(1)])
    func costAmong(_ count: Int) -> (matches: Int, visited: Int) {
      cost(of: event, among: count) { connection in
        [
          Subscription(
            eventType: .exact("t"),
            oneOf: [["name": text(connection / 10)], ["name": text(connection / 10), "lang": text(2)]])
        ]
      }
    }
    let few = costAmong(1000)
    let many = costAmong(100_000)
    #expect(few.matches == 10)
    #expect(many.matches == 10)
    #expect(few.visited >= 10)
    #expect(many.visited <= 2 * few.visited)
  }

  @Test("a conjunction that comes again is shared, also when its rarest field is another by then")
  func sharedRarest() {
    var index = SubscriptionIndex(seed: 3)
    let invented = 4 * SubscriptionIndex.maximumCombinations
    for connection in 0..<invented {
      let fields = ["x\(connection)": text(0), "lang": text(0)]
      index.set(ConnectionIndex(connection), [Subscription(eventType: .exact("t"), oneOf: [fields])])
    }
    let before = index.usage.conditions
    for connection in invented..<invented + 20 {
      let same = Subscription(eventType: .exact("t"), oneOf: [["lang": text(0), "name": text(0)]])
      let own = Subscription(eventType: .exact("own.\(connection)"))
      index.set(ConnectionIndex(connection), [same, own])
    }
    #expect(index.usage.conditions == before + 1 + 20)
    for connection in 0..<invented + 20 { index.remove(ConnectionIndex(connection)) }
    #expect(index.usage == (0, 0, 0, 0))
  }

  @Test("other types, with the same fields, cost nothing", arguments: [20_000])
  func otherTypes(count: Int) {
    let event = TestEvent(type: "t.0", fields: ["name": text(7)])
    let cost = cost(of: event, among: count) { connection in
      [
        Subscription(
          eventType: .exact("t.\(connection % 1000)"), oneOf: connection < 1000 ? [] : [["name": text(7)]])
      ]
    }
    #expect(cost.matches == 20)
    #expect(cost.visited <= cost.matches + 1)
  }

  @Test("a common field beside a rare one costs nothing")
  func commonField() {
    let event = TestEvent(type: "t", fields: ["lang": text(0), "name": text(7)])
    let cost = cost(of: event, among: 5000) { connection in
      [Subscription(eventType: .exact("t"), oneOf: [["lang": text(0), "name": text(connection / 10)]])]
    }
    #expect(cost.matches == 10)
    #expect(cost.visited <= cost.matches + 1)
  }

  @Test("inventing combinations of fields doesn't make the others' events cost more")
  func inventedCombinations() {
    let event = TestEvent(type: "t", fields: ["lang": text(0), "name": text(7)])
    let cost = cost(of: event, among: 6000) { connection in
      let fields: [String: ScalarValue] =
        connection < 1000
        ? ["x\(connection)": text(0), "lang": text(0)]
        : ["lang": text(0), "name": text((connection - 1000) / 10)]
      return [Subscription(eventType: .exact("t"), oneOf: [fields])]
    }
    #expect(cost.matches == 10)
    #expect(cost.visited <= 12, "kept under their rarest field")
  }

  @Test("saying the same thing many times costs as much as saying it once")
  func repetition() {
    let event = TestEvent(type: "t", fields: ["a": text(0)])
    func costWhenSaid(_ times: Int) -> (matches: Int, visited: Int) {
      cost(of: event, among: 10) { _ in
        [EventTypePattern.any, .exact("t")].flatMap { pattern in
          (0..<times).map { _ in Subscription(eventType: pattern, oneOf: [["a": text(0)]]) }
        }
      }
    }
    let often = costWhenSaid(50)
    #expect(often.matches == 10)
    #expect(often == costWhenSaid(1))
    #expect(often.visited <= 2 * (often.matches + 1), "once for each of the two patterns")
  }

  @Test("a condition beside none on the same type costs nothing")
  func superfluous() {
    let event = TestEvent(type: "t", fields: ["a": text(0)])
    let cost = cost(of: event, among: 1) { _ in
      [Subscription(eventType: .exact("t"), oneOf: [["a": text(0)]]), Subscription(eventType: .exact("t"))]
    }
    #expect(cost.matches == 1)
    #expect(cost.visited == 1)
  }
}
