// What a spare process does before it waits: it puts a connection worker together on memory of its own, lets it take a turn, and takes
// it apart. The second time costs a fraction of the first: the runtime knows then what each type can do, and the code is in memory.

import FoundationEssentials
import IPC
import Kit
import Settings

enum Rehearsal {
  static func perform() throws {
    let stage = try Stage()
    let context = try WorkerProcess.rehearse(stage.manifest())
    let wiring = try Wiring(
      context,
      LoopTasks(run: { _ in }, wakeAgain: {}, soon: { _ in }, after: { _, _ in {} }))
    wiring.adoption.inherit(from: [], patienceSeconds: 0)
    wiring.state.catchUp()
    wiring.adoption.begin(host: nil)
    wiring.turn.run()
    wiring.tick()
    wiring.ledger.close()
    withExtendedLifetime(stage) {}
  }

  /// A gateway of one connection worker.
  private struct Stage: ~Copyable {
    private static let ringBytes = 1 << 16
    private static let tokenKeyBytes = 32

    private let page: Descriptor
    private let wake: Descriptor
    private let ledger: Descriptor
    private let events: Descriptor
    private let requests: Descriptor
    private let state: Descriptor
    private let presence: Descriptor

    init() throws(IPCError) {
      func ring(_ name: String) throws(IPCError) -> Descriptor {
        try Ring.create(name: "rig-rehearsal-\(name)", capacity: Self.ringBytes, readers: 1)
      }
      page = try StatusPage.create(name: "rig-rehearsal-status")
      wake = try EventFD.create()
      ledger = try Ledger.create(
        name: "rig-rehearsal-ledger",
        LedgerSizes(connections: 1, arenaBytes: 1 << 20, largestEventBytes: Self.ringBytes))
      events = try ring("events")
      requests = try ring("requests")
      state = try ring("state")
      presence = try ring("presence")
    }

    func manifest() throws -> WorkerManifest {
      let worker = WorkerIdentity.connections(0)
      let reader = RingGrant.Reader(worker, slot: 0, wake: wake.rawValue)
      func grant(_ purpose: RingPurpose, _ ring: borrowing Descriptor, by writer: WorkerIdentity) -> RingGrant {
        RingGrant(
          id: 0, purpose: purpose, writer: writer,
          readers: [purpose == .presence ? RingGrant.Reader(.control, slot: 0, wake: nil) : reader],
          cursorPosition: purpose == .events ? 0 : nil, fd: ring.rawValue)
      }
      var rings = [
        grant(.events, events, by: worker), grant(.requests, requests, by: worker),
        grant(.state, state, by: .control), grant(.presence, presence, by: worker),
      ]
      for index in rings.indices { rings[index].id = UInt32(index) }
      var manifest = WorkerManifest(
        worker: worker, gatewayEpoch: 1, tokenKey: Data(repeating: 1, count: Self.tokenKeyBytes),
        settings: try JSONEncoder().encode(Settings()), status: page.rawValue, wake: wake.rawValue,
        listeners: [:], rings: rings, peers: [WorkerManifest.Peer(worker: worker, status: page.rawValue)],
        supervisorPid: 0, release: "")
      manifest.ledger = ledger.rawValue
      manifest.incarnation = 1
      return manifest
    }
  }
}
