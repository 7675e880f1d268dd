// What a gateway consists of, from its settings.

import IPC
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

  @Test("without Kafka there is no streams worker, and none of its rings")
  func withoutKafka() {
    let with = GatewayPlan(settings: Self.settings(workers: 2, kafka: true))
    let without = GatewayPlan(settings: Self.settings(workers: 2))
    #expect(Self.nodes(without).map(\.id) == ["control", "proxies", "connections"])
    #expect(!without.workers.contains { $0.kind == .streams })
    #expect(
      Set(with.rings.map(\.name)).subtracting(without.rings.map(\.name)) == [
        "events.streams", "responses.streams", "positions.streams",
      ])
  }

  @Test func `16.5 only connection workers have a second seat, and it is no child of the tree`() throws {
    let plan = GatewayPlan(settings: Self.settings(workers: 2, kafka: true))
    #expect(
      plan.seats.map(\.seatName) == [
        "control", "proxies.0", "streams", "connections.0", "connections.0b", "connections.1",
        "connections.1b",
      ])
    #expect(plan.seats.filter { $0.seat == 0 } == plan.workers)
    let tree = try SupervisionTree(plan.tree)
    #expect(tree.workers.map(\.name) == plan.workers.map(\.name))
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

  @Test(
    "15.9 who has certificates that can be read again: the workers with listeners, and those that call services"
  )
  func rereading() {
    var settings = Settings()
    #expect(GatewayPlan(settings: settings).rereading == [])
    settings.proxyCACertFile = "/a"
    #expect(GatewayPlan(settings: settings).rereading == [.proxies])
    settings.httpsCertFiles = ["/a"]
    #expect(GatewayPlan(settings: settings).rereading == [.proxies, .connections, .control])
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
      guard case .terminate(let process) = action else { continue }
      stopped.append(process.child)
      pending += tree.handle(.exited(process.child, instance: 1, .status(0)), at: 0)
    }
    #expect(stopped == tree.workers.map(\.id).reversed())
    #expect(plan.workers.first?.kind == .control && plan.workers.last?.kind == .connections)
    #expect(tree.outcome == .stopped)
  }
}
