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
    for worker in plan.seats {
      table.pages[worker] = number()
      table.wakes[worker] = number()
      guard worker.kind == .connections else { continue }
      table.ledgers[worker] = number()
      table.handOvers[worker] = number()
    }
    for ring in plan.rings { table.rings[ring.id] = number() }
    table.listeners = ["inbound": number(), "management": number()]
    self.table = table
  }

  private func birth(_ kind: WorkerKind, _ place: Int = 0) throws -> WorkerBirth {
    try birth(WorkerIdentity(kind: kind, place: place))
  }

  private func birth(_ worker: WorkerIdentity) throws -> WorkerBirth {
    try WorkerBirth(of: worker, in: plan, table: table, identity: identity)
  }

  /// The supervisor's number behind one of the worker's.
  private func source(_ target: CInt, _ birth: WorkerBirth) -> CInt? {
    birth.descriptors.targets.firstIndex(of: target).map { birth.descriptors.sources[$0] }
  }

  @Test("every descriptor in the manifest is passed on, and nothing else is", arguments: 0..<9)
  func complete(_ index: Int) throws {
    let worker = plan.seats[index]
    let birth = try birth(worker)
    #expect(birth.manifest.descriptors == birth.descriptors.targets.sorted())
    #expect(Set(birth.descriptors.sources).count == birth.descriptors.sources.count)
    #expect(birth.descriptors.targets.allSatisfy { $0 >= table.base })
    #expect(birth.descriptors.sources.allSatisfy { $0 < table.base })
  }

  @Test(
    "15.2 every worker gets the lines of the table for the rings that it holds, as they are", arguments: 0..<9
  )
  func rings(_ index: Int) throws {
    let worker = plan.seats[index]
    let birth = try birth(worker)
    let held = plan.rings.filter { $0.isHeld(by: worker) }
    #expect(birth.manifest.rings.map(\.id) == held.map(\.id))
    for (grant, ring) in zip(birth.manifest.rings, held) {
      #expect(grant.name == ring.name && grant.purpose == ring.purpose && grant.writer == ring.writer)
      #expect(grant.cursorPosition == ring.cursorPosition, "\(ring.name)")
      #expect(source(grant.fd, birth) == table.rings[ring.id], "\(ring.name)")
      #expect(grant.readers.map(\.worker) == ring.readers.map(\.worker), "\(ring.name)")
      #expect(grant.readers.map(\.slot) == ring.readers.map(\.slot), "\(ring.name)")
      for reader in grant.readers {
        let eventfd = ring.writer == worker ? table.wakes[reader.worker] : nil
        #expect(reader.wake.flatMap { source($0, birth) } == eventfd, "\(ring.name): \(reader.worker.name)")
      }
    }
  }

  @Test("a connection worker reads all event and request rings and writes its own")
  func connections() throws {
    let manifest = try birth(.connections, 1).manifest
    #expect(manifest.worker == .connections(1))
    #expect(
      manifest.ringsRead(for: .events).map(\.name) == [
        "events.streams", "events.control", "events.connections.0", "events.connections.0b",
        "events.connections.1", "events.connections.1b", "events.connections.2", "events.connections.2b",
      ])
    #expect(manifest.ringsRead(for: .requests).count == 6)
    for purpose in [RingPurpose.events, .requests, .presence, .calls, .publications] {
      #expect(manifest.ringWritten(for: purpose)?.writer == .connections(1), "\(purpose.rawValue)")
    }
    #expect(manifest.rings.filter { [.presence, .publications].contains($0.purpose) }.count == 2)
  }

  @Test("the streams worker gets its own rings to write, those of publications to read, and no listener")
  func streams() throws {
    let manifest = try birth(.streams).manifest
    #expect(
      manifest.rings.map(\.name) == [
        "events.streams", "publications.connections.0", "publications.connections.0b",
        "publications.connections.1", "publications.connections.1b", "publications.connections.2",
        "publications.connections.2b", "responses.streams", "positions.streams",
      ])
    #expect(manifest.ringWritten(for: .events)?.wake.count == 6)
    #expect(manifest.ringWritten(for: .positions)?.wake == [])
    #expect(manifest.listeners.isEmpty)
  }

  @Test("the control worker holds all rings, and listens for operators")
  func control() throws {
    let birth = try birth(.control)
    #expect(birth.manifest.rings.count == plan.rings.count)
    #expect(
      birth.manifest.listeners.mapValues { source($0, birth) }
        == ["management": table.listeners["management"]])
    let connections = try self.birth(.connections)
    #expect(
      connections.manifest.listeners.mapValues { source($0, connections) }
        == ["inbound": table.listeners["inbound"]])
  }

  @Test("everybody gets every status page, the supervisor's as well, and its own", arguments: 0..<9)
  func pages(_ index: Int) throws {
    let worker = plan.seats[index]
    let birth = try birth(worker)
    var pages: [String: CInt] = [:]
    for peer in birth.manifest.peers { pages[peer.worker.seatName] = source(peer.status, birth) }
    var expected = ["supervisor": table.supervisorPage]
    for worker in plan.seats { expected[worker.seatName] = table.pages[worker] }
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

  @Test func `16.1 connection workers get their own ledgers, if connections are kept, and nobody else's`()
    throws
  {
    let keeping = GatewayPlan(settings: Settings())
    var table = table
    for (seat, worker) in keeping.seats.enumerated() {
      (table.pages[worker], table.wakes[worker]) = (10, 11)
      guard worker.kind == .connections else { continue }
      table.ledgers[worker] = 900 + CInt(seat)
      table.handOvers[worker] = 1_900 + CInt(seat)
    }
    for ring in keeping.rings { table.rings[ring.id] = 12 }
    for worker in keeping.seats {
      let birth = try WorkerBirth(of: worker, in: keeping, table: table, identity: identity)
      let manifest = birth.manifest
      #expect(manifest.ledger.flatMap { source($0, birth) } == table.ledgers[worker])
      #expect(
        manifest.siblingLedger.flatMap { source($0, birth) } == worker.sibling.flatMap { table.ledgers[$0] })
      #expect(manifest.handOver.flatMap { source($0, birth) } == table.handOvers[worker])
      #expect(!manifest.isRetiring && manifest.predecessor == nil, "that is told when it is started")
      #expect(birth.manifest.descriptors == birth.descriptors.targets.sorted())
    }
    table.ledgers = [:]
    #expect(throws: IPCError.invalid("there is no descriptor of the ledger for worker connections.0")) {
      try WorkerBirth(of: .connections(0), in: keeping, table: table, identity: identity)
    }
  }

  @Test("a descriptor that is missing is named")
  func missing() {
    var table = table
    table.listeners = [:]
    #expect(throws: IPCError.invalid("there is no descriptor of the listener management for worker control"))
    {
      try WorkerBirth(
        of: .control, in: plan, table: table, identity: identity)
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
