// What a worker gets at its birth.

import FoundationEssentials
import IPC
import Settings
import Testing

@testable import Supervisor

@Suite struct WorkerBirthTests {
  private let plan: GatewayPlan
  private let table: DescriptorTable
  private let identity = GatewayIdentity(
    epoch: 5, tokenKey: Data([1, 2, 3]), settings: Data([4]), supervisorPid: 77)

  init() {
    var settings = Settings()
    settings.connectionWorkers = 3
    settings.kafkaBrokers = ["localhost:9092"]
    plan = GatewayPlan(settings: settings)
    var next: CInt = 10
    func number() -> CInt {
      next += 1
      return next
    }
    var table = DescriptorTable(supervisorPage: number())
    for worker in plan.workers {
      table.pages[worker] = number()
      table.wakes[worker] = number()
    }
    table.rings = plan.rings.map { _ in number() }
    table.listeners = ["inbound": number(), "management": number()]
    self.table = table
  }

  private func birth(_ kind: WorkerKind, _ slot: Int = 0) throws -> WorkerBirth {
    try WorkerBirth(
      of: WorkerIdentity(kind: kind, slot: slot), in: plan, table: table, identity: identity)
  }

  /// The supervisor's number behind one of the worker's.
  private func source(_ target: CInt, _ birth: WorkerBirth) -> CInt? {
    birth.descriptors.targets.firstIndex(of: target).map { birth.descriptors.sources[$0] }
  }

  @Test("every descriptor in the manifest is passed on, and nothing else is", arguments: 0..<6)
  func complete(_ index: Int) throws {
    let worker = plan.workers[index]
    let birth = try birth(worker.kind, worker.slot)
    #expect(birth.manifest.descriptors == birth.descriptors.targets.sorted())
    #expect(Set(birth.descriptors.sources).count == birth.descriptors.sources.count)
    #expect(birth.descriptors.targets.allSatisfy { $0 >= table.base })
    #expect(birth.descriptors.sources.allSatisfy { $0 < table.base })
  }

  @Test("a connection worker writes and reads its own rings and reads all others at its slot")
  func connections() throws {
    let birth = try birth(.connections, 1)
    let manifest = birth.manifest
    #expect(manifest.worker == "connections")
    #expect(manifest.slot == 1)
    #expect(
      manifest.events.map(\.name) == [
        "events.streams", "events.control", "events.connections.0", "events.connections.1",
        "events.connections.2",
      ])
    #expect(manifest.requests.map(\.name).last == "requests.connections.2")
    for grant in manifest.events + manifest.requests {
      #expect(source(grant.fd, birth) == table.rings[Int(grant.id)], "\(grant.name)")
      #expect(plan.rings[Int(grant.id)].name == grant.name)
      guard grant.name.hasSuffix("connections.1") else {
        #expect(grant.role == .read(slot: 1), "\(grant.name)")
        continue
      }
      guard case .writeAndRead(slot: 1, let wake) = grant.role else {
        Issue.record("\(grant.name) is granted as \(grant.role)")
        continue
      }
      #expect(
        wake.map { source($0, birth) }
          == (0..<3).map { table.wakes[WorkerIdentity(kind: .connections, slot: $0)] })
      #expect(wake[1] == manifest.wake)
    }
    #expect(manifest.listeners.mapValues { source($0, birth) } == ["inbound": table.listeners["inbound"]])
  }

  @Test("the streams worker gets its own ring to write, no other ring and no listener")
  func streams() throws {
    let manifest = try birth(.streams).manifest
    #expect(manifest.events.map(\.name) == ["events.streams"])
    #expect(manifest.events.first?.role.wake.count == 3)
    if case .write? = manifest.events.first?.role {} else { Issue.record("not granted for writing") }
    #expect(manifest.requests.isEmpty)
    #expect(manifest.listeners.isEmpty)
  }

  @Test("the control worker writes its own ring, inspects all others and listens for operators")
  func control() throws {
    let birth = try birth(.control)
    let manifest = birth.manifest
    #expect(manifest.events.count == 5)
    #expect(manifest.requests.count == 3)
    for grant in manifest.events + manifest.requests {
      if grant.name == "events.control" {
        #expect(grant.role.wake.count == 3)
      } else {
        #expect(grant.role == .inspect, "\(grant.name)")
      }
    }
    #expect(
      manifest.listeners.mapValues { source($0, birth) } == ["management": table.listeners["management"]])
  }

  @Test("everybody gets every status page, the supervisor's as well, and its own", arguments: 0..<6)
  func pages(_ index: Int) throws {
    let worker = plan.workers[index]
    let birth = try birth(worker.kind, worker.slot)
    var pages: [String: CInt] = [:]
    for peer in birth.manifest.peers { pages["\(peer.worker).\(peer.slot)"] = source(peer.status, birth) }
    var expected = ["supervisor.0": table.supervisorPage]
    for worker in plan.workers { expected["\(worker.kind.rawValue).\(worker.slot)"] = table.pages[worker] }
    #expect(pages == expected)
    #expect(source(birth.manifest.status, birth) == table.pages[worker])
    #expect(source(birth.manifest.wake, birth) == table.wakes[worker])
  }

  @Test("a manifest survives being written and says whose it is")
  func identityInManifest() throws {
    let manifest = try birth(.control).manifest
    #expect(manifest.gatewayEpoch == 5)
    #expect(manifest.tokenKey == Data([1, 2, 3]))
    #expect(manifest.settings == Data([4]))
    #expect(manifest.supervisorPid == 77)
    #expect(manifest.release == Release.version)
    #expect(try JSONDecoder().decode(WorkerManifest.self, from: JSONEncoder().encode(manifest)) == manifest)
  }

  @Test("a descriptor that is missing is named")
  func missing() {
    var table = table
    table.listeners = [:]
    #expect(throws: IPCError.invalid("there is no descriptor of the listener management for worker control"))
    {
      try WorkerBirth(
        of: WorkerIdentity(kind: .control, slot: 0), in: plan, table: table, identity: identity)
    }
  }

  @Test("a gateway's identity is new each time, and its epoch fits into a cursor")
  func fresh() throws {
    let a = try GatewayIdentity(settings: Settings())
    let b = try GatewayIdentity(settings: Settings())
    #expect(a.epoch != b.epoch)
    #expect(a.epoch < 1 << 48)
    #expect(a.tokenKey != b.tokenKey)
    #expect(a.tokenKey.count == 32)
    #expect(try JSONDecoder().decode(Settings.self, from: a.settings) == Settings())
  }
}
