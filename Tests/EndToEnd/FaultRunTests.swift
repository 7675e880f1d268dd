// Number E of issue 14 as a whole: workers of every kind are killed and the broker is restarted, in an order that a seed draws, while
// events come from Kafka and by HTTP on both ports. What each client has received is compared with what was published.
// benchmarks/faults.py is the long one, with more clients, and brokers that lose their logs.

import Foundation
import Testing

@Suite("14.E Faults at random", .serialized)
struct FaultRunTests {
  private enum Fault: CustomStringConvertible {
    case kill(WorkerKind)
    case restartBroker

    var description: String {
      switch self {
      case .kill(let kind): "kill \(kind.rawValue)"
      case .restartBroker: "restart the broker"
      }
    }
  }

  private struct SeededRandom: RandomNumberGenerator {
    var state: UInt64

    /// splitmix64.
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
      return mixed ^ mixed >> 31
    }
  }

  /// What differs from what was published, at one client, of one type.
  private struct Flaws: Equatable {
    var lost = 0
    var doubled = 0
    var disordered = 0

    /// - Parameters:
    ///   - published: this many, from 0 on, each behind the one before.
    ///   - doubtful: those that were sent again because the first request got no answer; it may have been taken.
    init(_ received: [Int], published: Int, doubtful: Set<Int>) {
      let once = Set(received)
      lost = (0..<published).count { !once.contains($0) }
      doubled = received.count { !doubtful.contains($0) } - once.count { !doubtful.contains($0) }
      disordered = zip(received, received.dropFirst()).count { $1 < $0 }
    }
  }

  /// What is published and how; each type of event has an order of its own.
  private struct Sources {
    static let kafka = "kafka"
    static let management = "management"
    static let inbound = "inbound"

    let broker: KafkaBroker
    let publishers: [(type: String, publisher: HTTPPublisher)]
    /// By type: the number of the next event.
    private(set) var next = [Sources.kafka: 0, Sources.management: 0, Sources.inbound: 0]
    private(set) var doubtful: [String: Set<Int>] = [:]
    /// The last event of each type.
    var last: [String: Int] { next.mapValues { $0 - 1 } }

    init(_ broker: KafkaBroker, _ gateway: Gateway) {
      self.broker = broker
      publishers = [
        (Self.management, HTTPPublisher(gateway)), (Self.inbound, HTTPPublisher(inbound: gateway)),
      ]
    }

    private mutating func take(_ type: String) -> (number: Int, json: String) {
      let number = next[type, default: 0]
      next[type] = number + 1
      return (number, CloudEvent.json(type, id: "\(number)"))
    }

    /// Publishes `count` events by HTTP on each port, one by one.
    mutating func publishByHTTP(_ count: Int) throws {
      for _ in 0..<count {
        for (type, publisher) in publishers {
          let (number, json) = take(type)
          let unanswered = publisher.unanswered
          try publisher.publish(json)
          if publisher.unanswered > unanswered { doubtful[type, default: []].insert(number) }
        }
      }
    }

    /// Publishes `count` records; the broker has them when this returns.
    mutating func publishByKafka(_ count: Int) throws {
      let records = (0..<count).map { _ in take(Self.kafka).json }
      try broker.publish(records)
    }
  }

  /// Every kind at least once, and those that clients feel more often.
  private static func plan(_ random: inout SeededRandom) -> [Fault] {
    let kinds: [WorkerKind] = [
      .connections, .connections, .connections, .streams, .streams, .control, .proxies,
    ]
    return (kinds.map(Fault.kill) + [.restartBroker]).shuffled(using: &random)
  }

  @Test(
    "14.E Workers of every kind killed and the broker restarted: nothing lost, doubled, out of order or untold",
    arguments: [14] as [UInt64])
  func faults(seed: UInt64) throws {
    var random = SeededRandom(state: seed)
    let plan = Self.plan(&random)
    try KafkaBroker.run { broker in
      let settings = Gateway.turnsUnderLoad.merging(["RESTART_INTENSITY": "100"]) { $1 }
        .merging(Gateway.withoutKeepers) { $1 }
      try Gateway.run(Gateway.kafka(broker.address, settings)) { gateway in
        try gateway.awaitReading()
        let types = [Sources.kafka, Sources.management, Sources.inbound]
        let clients = try ResumingClients(gateway, streams: 40, webSockets: 20, types: types)
        var sources = Sources(broker, gateway)
        for fault in plan {
          try sources.publishByKafka(10)
          try sources.publishByHTTP(Int.random(in: 1...6, using: &random))
          if Bool.random(using: &random) { try clients.look() }
          try Self.strike(fault, gateway, clients, &sources, &random)
        }
        try clients.pump("the gateway is ready again") { _ in
          (try? gateway.management("GET", "/readyz"))?.status == 200
        }
        // What comes twice comes before what is published last.
        try sources.publishByKafka(1)
        try sources.publishByHTTP(1)
        try clients.pump("every client has every event") { $0.haveAll(through: sources.last) }
        try Self.judge(clients, sources, gateway, "seed \(seed): \(plan)")
      }
    }
  }

  @Test("14.E What the run looks for, it finds")
  func judging() {
    let flaws = Flaws([0, 2, 1, 1, 4, 4], published: 6, doubtful: [4])
    #expect(flaws.lost == 2 && flaws.doubled == 1 && flaws.disordered == 1)
  }

  private static func strike(
    _ fault: Fault, _ gateway: Gateway, _ clients: ResumingClients, _ sources: inout Sources,
    _ random: inout SeededRandom
  ) throws {
    switch fault {
    case .kill(let kind):
      var victim: RunningProcess?
      try clients.pump("there is a \(kind.rawValue)") { _ in
        victim = gateway.workers(kind).randomElement(using: &random)
        return victim != nil
      }
      let worker = try #require(victim)
      worker.signal(SIGKILL)
      try sources.publishByHTTP(Int.random(in: 0...3, using: &random))
      // Else the next fault comes while this one is being mended.
      guard Bool.random(using: &random) else { return }
      try clients.pump("\(kind.rawValue) is replaced") { _ in
        let now = gateway.workers(kind)
        return !now.isEmpty && !now.contains(worker)
      }
    case .restartBroker:
      try sources.broker.stop()
      try sources.publishByHTTP(5)
      try clients.look()
      try sources.broker.restart()
    }
  }

  private static func judge(
    _ clients: ResumingClients, _ sources: Sources, _ gateway: Gateway, _ plan: String
  ) throws {
    for (type, published) in sources.next {
      let doubtful = sources.doubtful[type] ?? []
      for (index, received) in clients.received(type).enumerated() {
        let flaws = Flaws(received, published: published, doubtful: doubtful)
        #expect(
          flaws == Flaws([], published: 0, doubtful: []), "client \(index), \(type), \(plan): \(received)")
      }
    }
    // Nothing is lost, so there is nothing to tell.
    #expect(clients.lossesTold.allSatisfy { $0 == 0 }, "\(plan): \(clients.lossesTold)")
    #expect(clients.connections > clients.lossesTold.count, "somebody was cut off")
    for kind in WorkerKind.allCases {
      let restarts = try (0..<2).map { slot in
        try gateway.metric("rig_worker_restarts_total", ["worker": kind.place(slot)])
      }
      #expect(restarts.contains { $0 > 0 }, "\(kind.rawValue) was never replaced")
    }
  }
}
