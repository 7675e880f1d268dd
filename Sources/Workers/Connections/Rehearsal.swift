// What a spare process does before it waits: it puts a connection worker together on memory of its own, lets it take a turn, and takes
// it apart. The second time costs a fraction of the first: the runtime knows then what each type can do, and the code is in memory.

import FoundationEssentials
import Glibc
import IPC
import Kit
import Settings

enum Rehearsal {
  static func perform() throws {
    let stage = Stage()
    let context = try WorkerProcess.rehearse(stage.manifest())
    let wiring = try Wiring(
      context,
      LoopTasks(run: { _ in }, wakeAgain: {}, soon: { _ in }, after: { _, _ in {} }))
    wiring.adoption.inherit(from: [], patienceSeconds: 0)
    wiring.state.catchUp()
    wiring.adoption.begin()
    wiring.turn.run()
    wiring.tick()
    wiring.ledger.close()
    withExtendedLifetime(stage) {}
  }

  /// A gateway of one connection worker.
  private final class Stage {
    private static let ringBytes = 1 << 16
    private static let tokenKeyBytes = 32

    private var descriptors: [CInt] = []

    deinit {
      for descriptor in descriptors { close(descriptor) }
    }

    private func own(_ descriptor: consuming Descriptor) -> CInt {
      let number = descriptor.take()
      descriptors.append(number)
      return number
    }

    private func ring(_ purpose: RingPurpose, by writer: WorkerIdentity, _ reader: RingGrant.Reader) throws
      -> RingGrant
    {
      let name = "rig-rehearsal-\(purpose.rawValue)"
      return RingGrant(
        id: UInt32(descriptors.count), purpose: purpose, writer: writer, readers: [reader],
        cursorPosition: purpose == .events ? 0 : nil,
        fd: own(try Ring.create(name: name, capacity: Self.ringBytes, readers: 1)))
    }

    func manifest() throws -> WorkerManifest {
      let worker = WorkerIdentity.connections(0)
      let page = own(try StatusPage.create(name: "rig-rehearsal-status"))
      let wake = own(try EventFD.create())
      let reader = RingGrant.Reader(worker, slot: 0, wake: wake)
      let rings = [
        try ring(.events, by: worker, reader), try ring(.requests, by: worker, reader),
        try ring(.state, by: .control, reader),
        try ring(.presence, by: worker, RingGrant.Reader(.control, slot: 0)),
      ]
      var manifest = WorkerManifest(
        worker: worker, gatewayEpoch: 1, tokenKey: Data(repeating: 1, count: Self.tokenKeyBytes),
        settings: try JSONEncoder().encode(Settings()), status: page, wake: wake,
        listeners: [:], rings: rings, peers: [WorkerManifest.Peer(worker: worker, status: page)],
        supervisorPid: 0, release: "")
      manifest.ledger = own(
        try Ledger.create(
          name: "rig-rehearsal-ledger",
          LedgerSizes(connections: 1, arenaBytes: 1 << 20, largestEventBytes: Self.ringBytes)))
      manifest.incarnation = 1
      return manifest
    }
  }
}
