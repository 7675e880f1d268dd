// What a gateway consists of, from its settings.

import Settings
import Testing

@testable import Supervisor

@Suite struct GatewayPlanTests {
  private static func settings(workers: Int, kafka: Bool = false) -> Settings {
    var settings = Settings()
    settings.connectionWorkers = workers
    settings.kafkaBrokers = kafka ? ["localhost:9092"] : []
    return settings
  }

  private static func nodes(_ plan: GatewayPlan) -> [(id: String, node: NodeSpec)] {
    plan.tree.children.compactMap { child in
      if case .supervisor(let node) = child.kind { (child.id, node) } else { nil }
    }
  }

  @Test(
    "the tree has control, pools of proxy workers, streams and pools of connection workers, in this order")
  func order() {
    let nodes = Self.nodes(GatewayPlan(settings: Self.settings(workers: 3, kafka: true)))
    #expect(nodes.map(\.id) == ["control", "proxies", "streams", "connections"])
    #expect(
      nodes.map { $0.node.children.map(\.id) } == [
        ["control"], ["proxies.0"], ["streams"], ["connections.0", "connections.1", "connections.2"],
      ])
  }

  @Test("without Kafka there is no streams worker, but its ring exists at the same place")
  func withoutKafka() {
    let with = GatewayPlan(settings: Self.settings(workers: 2, kafka: true))
    let without = GatewayPlan(settings: Self.settings(workers: 2))
    #expect(Self.nodes(without).map(\.id) == ["control", "proxies", "connections"])
    #expect(!without.workers.contains { $0.kind == .streams })
    let late: [RingPlan.Purpose] = [.publications, .responses]
    #expect(
      without.rings.prefix { !late.contains($0.purpose) } == with.rings.prefix { !late.contains($0.purpose) })
    #expect(without.rings.first?.name == "events.streams")
  }

  @Test("what calls services begins before those for whom it calls")
  func proxies() {
    var settings = Self.settings(workers: 2)
    settings.proxyWorkers = 2
    let plan = GatewayPlan(settings: settings)
    #expect(Self.nodes(plan).map(\.id) == ["control", "proxies", "connections"])
    #expect(Self.nodes(plan)[1].node.children.map(\.id) == ["proxies.0", "proxies.1"])
    let rings = plan.rings.filter { [.calls, .answers].contains($0.purpose) }
    #expect(
      rings.map { "\($0.name) > \($0.readers.map(\.name).joined(separator: " "))" } == [
        "calls.connections.0 > proxies.0 proxies.1", "calls.connections.1 > proxies.0 proxies.1",
        "calls.control > proxies.0 proxies.1",
        "answers.proxies.0 > connections.0 connections.1 control",
        "answers.proxies.1 > connections.0 connections.1 control",
      ])
    let proxy = WorkerIdentity(kind: .proxies, slot: 1)
    #expect(GatewayPlan.use(of: rings[0], by: proxy) == .read(slot: 1))
    #expect(GatewayPlan.use(of: rings[3], by: proxy) == nil)
    #expect(GatewayPlan.use(of: rings[4], by: proxy) == .write)
    #expect(plan.rings.filter { GatewayPlan.use(of: $0, by: proxy) != nil }.count == 4)
    let control = WorkerIdentity(kind: .control, slot: 0)
    #expect(
      rings.map { GatewayPlan.use(of: $0, by: control) } == [
        .inspect, .inspect, .write, .read(slot: 2), .read(slot: 2),
      ])
  }

  @Test("records go to the streams worker if there is one; responses come from it and from control")
  func responses() {
    func rings(kafka: Bool) -> [String] {
      GatewayPlan(settings: Self.settings(workers: 2, kafka: kafka)).rings
        .filter { [.publications, .responses].contains($0.purpose) }
        .map { "\($0.name) > \($0.readers.map(\.name).joined(separator: " "))" }
    }
    #expect(
      rings(kafka: true) == [
        "publications.connections.0 > control streams", "publications.connections.1 > control streams",
        "responses.streams > connections.0 connections.1", "responses.control > connections.0 connections.1",
      ])
    #expect(
      rings(kafka: false) == [
        "publications.connections.0 > control", "publications.connections.1 > control",
        "responses.control > connections.0 connections.1",
      ])
  }

  @Test("there are listeners for TLS only with certificates, for the workers that have listeners at all")
  func listeners() {
    var settings = Settings()
    let plain = GatewayPlan(settings: settings)
    #expect(plain.listeners(of: .connections) == ["inbound"])
    #expect(plain.listeners(of: .control) == ["management"])
    settings.httpsCertFiles = ["/a"]
    let tls = GatewayPlan(settings: settings)
    #expect(tls.listeners(of: .connections) == ["inbound", "inbound-tls"])
    #expect(tls.listeners(of: .control) == ["management", "management-tls"])
    #expect(tls.listeners(of: .proxies) + tls.listeners(of: .streams) == [])
  }

  @Test("the root restarts nothing: a node that gave up ends the gateway")
  func root() {
    let plan = GatewayPlan(settings: Self.settings(workers: 1))
    #expect(plan.tree.intensity == 0)
    #expect(plan.tree.strategy == .oneForOne)
  }

  @Test(
    "13.B10: every node allows RESTART_INTENSITY restarts for each of its workers, and no worker more than that"
  )
  func intensity() {
    var settings = Self.settings(workers: 3, kafka: true)
    settings.proxyWorkers = 2
    settings.restartIntensity = 7
    settings.restartPeriodSeconds = 42
    for (id, node) in Self.nodes(GatewayPlan(settings: settings)) {
      #expect(node.intensity == 7 * node.children.count, "\(id)")
      #expect(node.childIntensity == 7, "\(id)")
      #expect(node.period == .seconds(42), "\(id)")
      #expect(node.strategy == .oneForOne, "\(id)")
    }
  }

  @Test("connection workers get their drain time and two seconds, others seven; all are permanent")
  func times() {
    var settings = Self.settings(workers: 2, kafka: true)
    settings.drainTimeoutSeconds = 11
    for (id, node) in Self.nodes(GatewayPlan(settings: settings)) {
      for child in node.children {
        #expect(child.shutdown == .timeout(.seconds(id == "connections" ? 13 : 7)), "\(child.id)")
        #expect(child.kind == .worker(startTimeout: .seconds(30)), "\(child.id)")
        #expect(child.restart == .permanent, "\(child.id)")
      }
    }
  }

  @Test("connection workers say goodbye to their clients at the same time")
  func drain() {
    for (id, node) in Self.nodes(GatewayPlan(settings: Self.settings(workers: 2, kafka: true))) {
      #expect(node.stopsTogether, "\(id)")
    }
  }

  @Test(
    "14.E29 the tree starts workers in the plan's order and stops them in reverse: connections first, control last"
  )
  func startAndStop() throws {
    let plan = GatewayPlan(settings: Self.settings(workers: 2, kafka: true))
    var tree = try SupervisionTree(plan.tree)
    #expect(tree.workers.map(\.name) == plan.workers.map(\.name))
    var actions = tree.handle(.start, at: 0)
    for (id, _) in tree.workers { actions += tree.handle(.started(id, instance: 1), at: 0) }
    #expect(actions.contains(.ready))
    var stopped: [ChildID] = []
    var pending = tree.handle(.stop, at: 0)
    while let action = pending.first {
      pending.removeFirst()
      guard case .terminate(let id) = action else { continue }
      stopped.append(id)
      pending += tree.handle(.exited(id, instance: 1, .status(0)), at: 0)
    }
    #expect(stopped == tree.workers.map(\.id).reversed())
    #expect(plan.workers.first?.kind == .control && plan.workers.last?.kind == .connections)
    #expect(tree.outcome == .stopped)
  }

  @Test("ring ids are places in the list, names and writers unique per purpose, sizes from the settings")
  func rings() {
    var settings = Self.settings(workers: 2, kafka: true)
    settings.eventRingBytes = 1
    settings.streamsRingBytes = 2
    settings.requestRingBytes = 3
    settings.stateRingBytes = 4
    settings.presenceRingBytes = 5
    settings.callRingBytes = 6
    settings.responseRingBytes = 7
    settings.positionRingBytes = 8
    let rings = GatewayPlan(settings: settings).rings
    #expect(rings.map(\.id) == Array(0..<18))
    #expect(
      rings.map(\.name) == [
        "events.streams", "events.control", "events.connections.0", "events.connections.1",
        "requests.connections.0", "requests.connections.1", "state.control", "presence.connections.0",
        "presence.connections.1", "calls.connections.0", "calls.connections.1", "calls.control",
        "answers.proxies.0", "publications.connections.0", "publications.connections.1", "responses.streams",
        "responses.control", "positions.streams",
      ])
    #expect(rings.map(\.bytes) == [2, 1, 1, 1, 3, 3, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8])
    let events = Array(repeating: RingPlan.Purpose.events, count: 4)
    #expect(
      rings.map(\.purpose) == events + [
        .requests, .requests, .state, .presence, .presence, .calls, .calls, .calls, .answers, .publications,
        .publications, .responses, .responses, .positions,
      ])
    let connections = (0..<2).map { WorkerIdentity(kind: .connections, slot: $0) }
    let control = WorkerIdentity(kind: .control, slot: 0)
    let proxies = [WorkerIdentity(kind: .proxies, slot: 0)]
    let streams = WorkerIdentity(kind: .streams, slot: 0)
    for ring in rings {
      let readers: [WorkerIdentity] =
        switch ring.purpose {
        case .events, .requests, .state, .responses: connections
        case .presence: [control]
        case .calls: proxies
        case .answers: connections + [control]
        case .publications: [control, streams]
        case .positions: []
        }
      #expect(ring.readers == readers, "\(ring.name)")
    }
  }
}
