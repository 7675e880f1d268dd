// Who gets which event, and what finding that out costs.

import Kit
import Settings
import TestSupport
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
  /// Sets what must find room.
  mutating func put(_ connection: ConnectionIndex, _ subscriptions: [Subscription]) {
    do { try set(connection, subscriptions) } catch { Issue.record("\(error)") }
  }

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
    index.put(1, [Self.greeting()])
    index.put(2, [Subscription(eventType: .exact("goodbye"))])
    index.put(3, [Self.greeting(), Subscription(eventType: .exact("goodbye"))])
    #expect(index.matching("greeting") == [1, 3])
    #expect(index.matching("goodbye") == [2, 3])
    #expect(index.matching("greetings") == [])
    #expect(index.matching("") == [])
  }

  @Test("finds the subscribers of prefixes and of everything")
  mutating func patterns() {
    index.put(0, [Subscription(eventType: EventTypePattern("com.example.*"))])
    index.put(1, [Subscription(eventType: EventTypePattern("com.*"))])
    index.put(2, [Subscription(eventType: EventTypePattern("*"))])
    index.put(3, [Subscription(eventType: EventTypePattern("com.example"))])
    index.put(4, [Subscription(eventType: EventTypePattern("com*"))])
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
    index.put(
      1, [Self.greeting(["name": .string("John"), "lang": .string("en")], ["name": .string("Frank")])])
    #expect(index.matching("greeting", ["name": .string("John"), "lang": .string("en")]) == [1])
    #expect(index.matching("greeting", ["name": .string("John"), "lang": .string("de")]) == [])
    #expect(index.matching("greeting", ["name": .string("John")]) == [])
    #expect(index.matching("greeting", ["name": .string("Frank"), "lang": .string("de")]) == [1])
    #expect(index.matching("goodbye", ["name": .string("Frank")]) == [])
  }

  @Test("compares values as JSON values: a text is no number, an absent field isn't null")
  mutating func values() {
    index.put(1, [Self.greeting(["a": .bool(true)])])
    index.put(2, [Self.greeting(["a": .string("true")])])
    index.put(3, [Self.greeting(["a": .null])])
    #expect(index.matching("greeting", ["a": .bool(true)]) == [1])
    #expect(index.matching("greeting", ["a": .string("true")]) == [2])
    #expect(index.matching("greeting", ["a": .null]) == [3])
    #expect(index.matching("greeting") == [])
  }

  @Test("a conjunction without fields is no condition")
  mutating func emptyConjunction() {
    index.put(1, [Self.greeting([:])])
    index.put(2, [Self.greeting(["a": .null], [:])])
    #expect(index.matching("greeting") == [1, 2])
  }

  @Test("gives each connection once, however many of its subscriptions match")
  mutating func once() {
    let many = [
      Self.greeting(), Self.greeting(["a": .null]), Self.greeting(["b": .null]),
      Self.greeting(["a": .null, "b": .null]),
      Subscription(eventType: .any), Subscription(eventType: .prefix("greeting.")),
    ]
    index.put(1, many)
    index.put(2, many)
    index.put(3, [Self.greeting(["a": .null], ["b": .null], ["a": .null, "b": .null])])
    #expect(index.matching("greeting", ["a": .null, "b": .null]) == [1, 2, 3])
    #expect(index.matching("greeting.x", ["a": .null, "b": .null]) == [1, 2])
  }

  @Test("holds addressed events back from everybody")
  mutating func addressed() {
    index.put(1, [Subscription(eventType: .any), Self.greeting()])
    #expect(index.matching(TestEvent(type: "greeting", isAddressed: true)) == [])
    #expect(TestEvent(type: "greeting", isAddressed: true).withRecord { index.matches($0, 1) } == false)
  }

  @Test("replaces, and gives back what was set")
  mutating func replaces() {
    let first = [Self.greeting(["a": .bool(false)]), Subscription(eventType: .any)]
    index.put(1, first)
    #expect(index.subscriptions(of: 1) == first)
    #expect(index.subscriptionCount == 2)
    index.put(1, [Self.greeting()])
    #expect(index.matching("other") == [])
    #expect(index.subscriptions(of: 1) == [Self.greeting()])
    #expect(index.subscriptionCount == 1)
    index.put(1, [])
    #expect(index.subscriptions(of: 1) == [])
    #expect(index.subscriptions(of: 99) == [])
    #expect(index.usage == (0, 0, 0, 0))
  }

  @Test("shares equal lists of subscriptions between connections")
  mutating func sharing() {
    for connection in ConnectionIndex(0)..<1000 {
      index.put(connection, [Self.greeting(["b": .null, "a": .null]), Subscription(eventType: .any)])
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
      index.put(connection, Self.randomSubscriptions(&random))
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
    index = SubscriptionIndex(seed: seed)
    compareWithTheDefinition(seed)
  }

  @Test("13.B9: agrees with the definition also when all strings have the same hash", arguments: 1...2)
  mutating func sameHashes(seed: UInt64) {
    index = SubscriptionIndex(hasher: KeyedHash(key: 0, multiplier: 0))
    compareWithTheDefinition(seed)
    for connection in ConnectionIndex(0)..<60 { index.remove(connection) }
    #expect(index.usage == (0, 0, 0, 0))
  }

  private mutating func compareWithTheDefinition(_ seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var naive: [ConnectionIndex: [Subscription]] = [:]
    for _ in 0..<400 {
      let connection = ConnectionIndex.random(in: 0..<60, using: &random)
      let subscriptions = Int.random(in: 0..<4, using: &random) == 0 ? [] : Self.randomSubscriptions(&random)
      index.put(connection, subscriptions)
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

@Suite("Cost of changing subscriptions")
struct ChangeCostTests {
  private static let names = (0..<20).map { "f\($0)" }
  private let present = Dictionary(uniqueKeysWithValues: names.map { ($0, ScalarValue.bool(true)) })

  /// A conjunction over those names whose bits are set in `subset`.
  private func conjunction(_ subset: Int) -> [String: ScalarValue] {
    var fields: [String: ScalarValue] = [:]
    for (bit, name) in Self.names.enumerated() where subset >> bit & 1 == 1 { fields[name] = .bool(true) }
    return fields
  }

  private func list(_ subsets: some Sequence<Int>) -> [Subscription] {
    [Subscription(eventType: .exact("t"), oneOf: subsets.map(conjunction))]
  }

  /// Different subsets of at least three names.
  private func subsets(_ count: Int, seed: UInt64) -> [Int] {
    var random = SeededRandom(seed: seed)
    var found = Set<Int>()
    while found.count < count {
      let subset = Int.random(in: 0..<1 << Self.names.count, using: &random)
      if subset.nonzeroBitCount >= 3 { found.insert(subset) }
    }
    return found.sorted()
  }

  @Test("13.B9: ten thousand conditions under the same fields cost as much each as ten, coming and going")
  func constant() throws {
    func cost(_ count: Int) throws -> UInt64 {
      var index = SubscriptionIndex(seed: 3)
      // The combinations that a node looks up as a whole are used up first.
      index.put(0, list((0..<16).map { 3 << $0 }))
      let before = index.table.visited
      index.put(1, list(subsets(count, seed: 5)))
      index.remove(1)
      var budget = Int.max
      let hasMore = index.takeApart(&budget)
      #expect(!hasMore)
      index.remove(0)
      #expect(index.usage == (0, 0, 0, 0))
      return index.table.visited - before
    }
    #expect(try cost(10_000) <= 1_001 * cost(10))
  }

  @Test("13.B9: an event is compared with a bounded number of conditions, whoever has how many")
  func boundedMatching() throws {
    var index = SubscriptionIndex(seed: 3, limits: .init(conditionsPerValue: 256))
    index.put(0, list((0..<16).map { 3 << $0 }))
    var refused = 0
    for connection in ConnectionIndex(1)..<40 {
      do {
        try index.set(connection, list(subsets(1_000, seed: UInt64(connection))))
      } catch {
        refused += 1
        #expect(error.status == 503 && error.limit == .fieldValue)
        #expect(index.subscriptions(of: connection).isEmpty)
      }
    }
    #expect(refused > 0)
    let before = index.matcher.visited
    let found = TestEvent(type: "t", fields: present).withRecord { record in
      var connections: [ConnectionIndex] = []
      index.match(record, into: &connections)
      return connections.count
    }
    #expect(found == 40 - refused)
    let conditions = Self.names.count * 257 + 16
    #expect(Int(index.matcher.visited - before) <= 2 * conditions, "each once, and once for its set")
  }

  @Test("13.B9: fields that no event can have cost nothing")
  func neverExtracted() throws {
    let extractors = ExtractorTable(byType: [
      "t": ["f0": Extractor(eventPointer: ["data", "f0"])], "u": ["f1": Extractor(eventPointer: ["x"])],
    ])
    var index = SubscriptionIndex(seed: 3, extracted: extractors)
    let wanted =
      list([1, 2, 3, 7]) + [Subscription(eventType: .any, oneOf: [conjunction(3), conjunction(4)])]
    index.put(0, wanted)
    #expect(index.usage.conditions == 2, "f0 of t, and f0 with f1 of any type")
    #expect(index.subscriptions(of: 0) == wanted)
  }

  @Test("13.B9: what doesn't fit a worker is refused whole, and what was there stays")
  func full() throws {
    func index(_ limits: SubscriptionSize) -> SubscriptionIndex {
      SubscriptionIndex(seed: 3, limits: .init(total: limits))
    }
    let most = SubscriptionSize(conditions: 10, fields: 30, bytes: 1_000)
    for (lists, limit) in [
      ([list([1, 2, 3, 4, 5, 6]), list([7, 8, 9, 10, 11])], SubscriptionLimit.conditions),
      ([list([0xFFFF]), list([0x1FFFE])], .fields),
      ([[Subscription(eventType: .exact(String(repeating: "x", count: 900)))], list([0xFFF])], .bytes),
    ] {
      var index = index(most)
      index.put(0, lists[0])
      index.put(1, list([1]))
      let before = index.size
      do {
        try index.set(1, lists[1])
        Issue.record("\(limit) was not kept")
      } catch {
        #expect(error.limit == limit)
        #expect(error.status == 503)
      }
      #expect(index.size == before)
      #expect(index.subscriptions(of: 1) == list([1]))
      index.remove(0)
      index.remove(1)
      #expect(index.size == SubscriptionSize())
    }
  }

  @Test("13.B9: a set is made and taken apart in steps; nobody is in it before it is whole")
  func steps() throws {
    var index = SubscriptionIndex(seed: 3)
    let event = TestEvent(type: "t", fields: present)
    func matching() -> [ConnectionIndex] {
      event.withRecord { record in
        var connections: [ConnectionIndex] = []
        index.match(record, into: &connections)
        return connections
      }
    }
    index.put(7, [Subscription(eventType: .exact("other"))])
    var draft = try index.begin(SubscriptionContent.encode(list(subsets(1_000, seed: 9))))
    var steps = 0
    while !draft.isWhole {
      let before = index.table.visited
      var budget = 100
      try index.advance(&draft, &budget)
      #expect(index.table.visited - before <= 100)
      #expect(matching() == [])
      steps += 1
    }
    #expect(steps >= 10)
    index.commit(draft, for: 7)
    #expect(matching() == [7])
    var second = try index.begin(SubscriptionContent.encode(list(subsets(1_000, seed: 9))))
    #expect(second.isWhole, "the same list is there already")
    index.remove(7)
    #expect(matching() == [])
    #expect(index.usage.sets == 1, "the draft keeps it")
    index.abandon(second)
    second = try index.begin(SubscriptionContent.encode(list([1])))
    index.abandon(second)
    var turns = 0
    var budget = 100
    while index.takeApart(&budget) {
      budget = 100
      turns += 1
    }
    #expect(turns >= 9)
    #expect(index.usage == (0, 0, 0, 0))
    #expect(index.size == SubscriptionSize())
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
      index.put(ConnectionIndex(connection), make(connection) + [own])
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
      index.put(ConnectionIndex(connection), [Subscription(eventType: .exact("t"), oneOf: [fields])])
    }
    let before = index.usage.conditions
    for connection in invented..<invented + 20 {
      let same = Subscription(eventType: .exact("t"), oneOf: [["lang": text(0), "name": text(0)]])
      let own = Subscription(eventType: .exact("own.\(connection)"))
      index.put(ConnectionIndex(connection), [same, own])
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
