// Subscription sets that somebody made to hold the loop: each is refused, or made in shares, and events go on.

import Kit
import Settings
import TestSupport
import Testing

@testable import Connections

/// Makes lists that are as dear as their maker can think of, always the same ones.
private struct HostileLists {
  static let names = (0..<20).map { "f\($0)" }

  static let extractors = ExtractorTable(byType: [
    "t": Dictionary(uniqueKeysWithValues: names.map { ($0, Extractor(eventPointer: ["data", $0])) })
  ])

  static let kinds = [
    "combinations", "subsets", "one rare field", "types", "prefixes", "long values", "many members",
    "repetition", "empty", "accents", "unknown fields", "unknown members",
  ]

  private var random: SeededRandom

  init(seed: UInt64) { random = SeededRandom(seed: seed) }

  mutating func list(_ kind: String) -> String {
    switch kind {
    case "combinations": oneOf("t", (0..<16).map { conjunction(3 << $0) })
    case "subsets":
      oneOf("t", (0..<amount(10_000)).map { _ in conjunction(Int.random(in: 7..<1 << 20, using: &random)) })
    case "one rare field": oneOf("t", (0..<amount(10_000)).map { conjunction(1 << 19 | $0) })
    case "types": subscriptions(amount(100)) { #"{"eventType":"t.\#($0)","oneOf":[{"f0":1}]}"# }
    case "prefixes":
      subscriptions(amount(100)) { #"{"eventType":"\#(String(repeating: "t.", count: $0))*"}"# }
    case "long values":
      oneOf("t", (0..<3).map { #"{"f0":"\#(String(repeating: "x", count: 60_000))\#($0)"}"# })
    case "many members":
      oneOf(
        "t", ["{" + (0..<100).map { #""g\#($0)":\#($0)"# }.joined(separator: ",") + "}"])
    case "repetition": oneOf("t", Array(repeating: conjunction(0xFFF), count: amount(1_600)))
    case "empty": oneOf("*", Array(repeating: "{}", count: amount(20_000)))
    case "accents":
      oneOf("t", (0..<3).map { #"{"f0":"e\#(String(repeating: "\u{301}\u{323}", count: 15_000))\#($0)"}"# })
    case "unknown fields": oneOf("*", (0..<amount(20_000)).map { #"{"u\#($0)":1}"# })
    default: "[{\"eventType\":\"t\"" + (0..<amount(30_000)).map { #","m\#($0)":1"# }.joined() + "}]"
    }
  }

  private mutating func amount(_ most: Int) -> Int { Int.random(in: most / 2...most, using: &random) }

  private func conjunction(_ subset: Int) -> String {
    let fields = Self.names.enumerated().filter { subset >> $0.offset & 1 == 1 }
    return "{" + fields.map { "\"\($0.element)\":true" }.joined(separator: ",") + "}"
  }

  private func oneOf(_ type: String, _ conjunctions: [String]) -> String {
    #"[{"eventType":"\#(type)","oneOf":[\#(conjunctions.joined(separator: ","))]}]"#
  }

  private func subscriptions(_ count: Int, _ item: (Int) -> String) -> String {
    "[" + (0..<count).map(item).joined(separator: ",") + "]"
  }
}

@Suite("Hostile subscriptions")
struct HostileSubscriptionTests {
  /// Conditions that one turn may touch: a share for making, one for taking apart, and the last of a share may be begun.
  private static let mostConditionsPerTurn = 2 * TurnWork.unitsPerTurn / TurnWork.unitsPerCondition + 64

  @Test("13.B9: no set holds a turn: it is refused, or made in shares", arguments: 1...4)
  func generated(seed: UInt64) throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { settings in
      settings.extractors = HostileLists.extractors
      settings.maxSubscriptionChangesPerMinute = 1_000_000
    }
    let clients = try (0..<4).map { _ in try TestClient() }
    let connections = try clients.map { try worker.openSSE($0, [.to("old")]) }
    var hostile = HostileLists(seed: seed)
    var random = SeededRandom(seed: seed)
    var made = 0
    for round in 0..<2 {
      for kind in round == 0 ? HostileLists.kinds : HostileLists.kinds.shuffled(using: &random) {
        let text = hostile.list(kind)
        let connection = try #require(connections.randomElement(using: &random))
        let parsed: [Subscription]
        do {
          parsed = try worker.subscriptions.parser.parse(Array(text.utf8)).subscriptions
        } catch {
          #expect((400..<500).contains(error.status), "\(kind): \(error)")
          continue
        }
        let before = worker.subscriptions.index.subscriptions(of: connection.index)
        let answer = try change(worker, connection, parsed, kind)
        let now = worker.subscriptions.index.subscriptions(of: connection.index)
        if answer.status == 204 {
          made += 1
          #expect(now == parsed, "\(kind)")
        } else {
          #expect(answer.status == 503, "\(kind): \(answer)")
          #expect(now == before, "\(kind): refused, and not as it was")
        }
      }
    }
    #expect(made >= 8)
    try matchingIsBounded(gateway, worker)
    for client in clients { client.disconnect() }
    worker.run()
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
    #expect(worker.subscriptions.index.size == SubscriptionSize())
  }

  /// Makes a change turn by turn.
  private func change(
    _ worker: TestWorker, _ connection: Connection, _ subscriptions: [Subscription], _ kind: String
  ) throws -> WorkerAnswer {
    var answer: WorkerAnswer?
    var before = worker.subscriptions.index.table.visited
    func expectFew() {
      let touched = Int(worker.subscriptions.index.table.visited - before)
      before = worker.subscriptions.index.table.visited
      #expect(touched <= Self.mostConditionsPerTurn, "\(kind): \(touched) conditions in one turn")
    }
    worker.changes.make(SubscriptionChange(subscriptions), of: connection) { answer = $0 }
    expectFew()
    for _ in 0..<100 where answer == nil {
      worker.turn.run()
      expectFew()
    }
    return try #require(answer, "\(kind): no answer after a hundred turns")
  }

  private func matchingIsBounded(_ gateway: TestGateway, _ worker: TestWorker) throws {
    let before = worker.subscriptions.index.matcher.visited
    let fields = Dictionary(uniqueKeysWithValues: HostileLists.names.map { ($0, ScalarValue.bool(true)) })
    try gateway.streamsWriter().publish(1, type: "t", fields: fields)
    worker.run()
    let most = 2 * (HostileLists.names.count * 257 + 16)
    #expect(Int(worker.subscriptions.index.matcher.visited - before) <= most)
  }

  @Test(
    "13.B9: until a large change is whole the old set is in force, and a second change is told to come later")
  func between() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.extractors = HostileLists.extractors }
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("old")])
    let writer = try gateway.streamsWriter()
    let large = Subscription(
      eventType: .exact("t"), oneOf: (0..<8_000).map { ["f0": .integer(Int64($0))] })
    var answers: [Int] = []
    worker.changes.make(SubscriptionChange([large]), of: connection) {
      answers.append(Int($0.status))
    }
    worker.changes.make(SubscriptionChange([.to("new")]), of: connection) {
      answers.append(Int($0.status))
    }
    #expect(answers == [429])
    try writer.publish(1, type: "old")
    worker.turn.run()
    #expect(numbers(client.take()) == [1])
    worker.run()
    #expect(answers == [429, 204])
    try writer.publish(2, type: "old")
    try writer.publish(3, type: "t", fields: ["f0": .integer(7_999)])
    worker.run()
    let text = client.take()
    #expect(streamed(text).first?.name == "rig.subscriptions_set")
    #expect(text.hasSuffix("\n\n") && text.contains(#"{"n":3}"#) && !text.contains(#"{"n":2}"#))
    #expect(worker.change(connection, SubscriptionChange([.to("new")]))?.status == 204)
    client.disconnect()
    worker.run()
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
  }

  @Test("13.B9: a connection that closes while its change is made leaves nothing behind")
  func closed() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.extractors = HostileLists.extractors }
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("old")])
    let large = Subscription(
      eventType: .exact("t"), oneOf: (0..<8_000).map { ["f0": .integer(Int64($0))] })
    var answer: WorkerAnswer?
    worker.changes.make(SubscriptionChange([large]), of: connection) { answer = $0 }
    worker.turn.run()
    #expect(answer == nil)
    client.disconnect()
    worker.run()
    #expect(answer == .gone)
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
    #expect(worker.subscriptions.index.size == SubscriptionSize())
  }

  @Test("13.B9: a large change holds for history too, and goes with the connection into the present")
  func replay() throws {
    let gateway = try TestGateway(eventRingBytes: 8 << 20)
    let worker = try gateway.worker { $0.extractors = HostileLists.extractors }
    let writer = try gateway.streamsWriter()
    for number in 1...9_000 { try writer.publish(number, type: "even", padding: 100) }
    worker.run()
    let client = try TestClient()
    let cursor = Cursor(epoch: TestGateway.epoch, positions: [0])
    let connection = try worker.openSSE(client, [.to("odd")], lastEventID: cursor.text)
    #expect(connection.replay != nil)
    let large = Subscription(
      eventType: .exact("t"), oneOf: (0..<8_000).map { ["f0": .integer(Int64($0))] })
    #expect(worker.change(connection, SubscriptionChange([large]))?.status == 204)
    #expect(connection.replay == nil)
    #expect(worker.subscriptions.index.subscriptions(of: connection.index) == [large])
    try writer.publish(9_001, type: "t", fields: ["f0": .integer(5)])
    worker.run()
    #expect(client.take().contains(#"{"n":9001}"#))
    client.disconnect()
    worker.run()
    #expect(worker.subscriptions.index.usage == (0, 0, 0, 0))
  }

  @Test("13.B9: a worker with many connections says goodbye in shares, and to each once")
  func farewells() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker()
    let clients = try (0..<200).map { _ in try TestClient() }
    let connections = try clients.map { try worker.openSSE($0, [.to("a")]) }
    worker.run()
    var isDrained = false
    worker.drain(.shutdown) { isDrained = true }
    var closing = connections.count(where: \.isClosing)
    let share = TurnWork.unitsPerTurn / TurnWork.unitsPerEnd
    #expect(closing > 0 && closing <= share)
    while closing < connections.count {
      worker.turn.run()
      let now = connections.count(where: \.isClosing)
      try #require(now > closing && now - closing <= share)
      closing = now
    }
    for client in clients {
      #expect(streamed(client.take()).map(\.name) == ["rig.server_closing"])
      client.disconnect()
    }
    #expect(isDrained)
  }

  @Test("13.B9: a connection whose subscriptions change too often is told so, and its set stays")
  func rate() throws {
    let gateway = try TestGateway()
    let worker = try gateway.worker { $0.maxSubscriptionChangesPerMinute = 3 }
    let client = try TestClient()
    let connection = try worker.openSSE(client, [.to("a")])
    for _ in 0..<3 { #expect(worker.change(connection, SubscriptionChange([.to("b")]))?.status == 204) }
    let answer = worker.change(connection, SubscriptionChange([.to("c")]))
    #expect(answer?.status == 429)
    #expect(answer?.text.contains("3") == true)
    #expect(worker.subscriptions.index.subscriptions(of: connection.index) == [.to("b")])
    #expect(worker.metric(#"rig_subscriptions_refused_total{limit="rate"}"#) == 1)
    client.disconnect()
  }
}
