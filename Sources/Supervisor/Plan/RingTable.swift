// The ring table: which rings a gateway has, who writes and who reads them. The only place where that is said; everything else
// (segments, manifests, metrics) follows from it.
//
//   purpose        writers                         readers, each at its slot
//   events         streams, control, connections   connections
//   requests       connections                     connections
//   state          control                         connections
//   presence       connections                     control
//   calls          control, connections            proxies
//   answers        proxies                         control, connections
//   publications   connections                     control, streams
//   responses      streams, control                connections
//   positions      streams                         nobody
//
// A writer or reader is a seat: a place of connection workers has two, of which one is empty most of the time. Nobody waits for the
// reader slots of an empty seat (SharedResources).
//
// The control worker inspects what it neither writes nor reads.
//
// Numbers come from the table alone, never from how many workers there are: a ring's id is its purpose's code and its writer's
// number among the writers, a cursor's position and a reader's slot are numbers among writers and readers. So they are the same
// after any change of settings, in every life of the gateway and in every release, with nothing to be kept. That holds as long as
// the table is only added to: codes are never used again, and a kind is added behind the others of its list.

import IPC
import Settings

struct RingRule: Sendable {
  let purpose: RingPurpose
  /// Never given to another purpose.
  let code: UInt32
  let writers: [WorkerKind]
  let readers: [WorkerKind]
  /// Bytes for records, by the writer's kind.
  private let bytes: @Sendable (Settings, WorkerKind) -> Int

  private init(
    _ purpose: RingPurpose, _ code: UInt32, by writers: [WorkerKind], to readers: [WorkerKind],
    _ bytes: @escaping @Sendable (Settings, WorkerKind) -> Int
  ) {
    self.purpose = purpose
    self.code = code
    self.writers = writers
    self.readers = readers
    self.bytes = bytes
  }

  static let all: [RingRule] = [
    RingRule(.events, 1, by: [.streams, .control, .connections], to: [.connections]) { settings, writer in
      writer == .streams ? settings.streamsRingBytes : settings.eventRingBytes
    },
    RingRule(.requests, 2, by: [.connections], to: [.connections]) { settings, _ in settings.requestRingBytes
    },
    RingRule(.state, 3, by: [.control], to: [.connections]) { settings, _ in settings.stateRingBytes },
    RingRule(.presence, 4, by: [.connections], to: [.control]) { settings, _ in settings.presenceRingBytes },
    RingRule(.calls, 5, by: [.control, .connections], to: [.proxies]) { settings, _ in settings.callRingBytes
    },
    RingRule(.answers, 6, by: [.proxies], to: [.control, .connections]) { settings, _ in
      settings.callRingBytes
    },
    RingRule(.publications, 7, by: [.connections], to: [.control, .streams]) { settings, _ in
      settings.responseRingBytes
    },
    RingRule(.responses, 8, by: [.streams, .control], to: [.connections]) { settings, _ in
      settings.responseRingBytes
    },
    RingRule(.positions, 9, by: [.streams], to: []) { settings, _ in settings.positionRingBytes },
  ]

  /// The rings of this purpose in a gateway with these seats, by the numbers of their writers.
  func rings(of workers: [WorkerIdentity], _ settings: Settings) -> [RingPlan] {
    let readers = Self.numbered(workers, among: readers).map {
      RingPlan.Reader(worker: $0.worker, slot: $0.number)
    }
    return Self.numbered(workers, among: writers).map { writer, number in
      RingPlan(
        id: code << Self.numberBits | UInt32(number), purpose: purpose, bytes: bytes(settings, writer.kind),
        writer: writer, readers: readers, cursorPosition: purpose == .events ? number : nil)
    }
  }

  private static let numberBits: UInt32 = 16

  /// The seats of these kinds with their numbers, in ascending order. A pool has as many numbers as a ring has readers, however
  /// many workers it has: those of a kind behind it stay the same.
  private static func numbered(
    _ workers: [WorkerIdentity], among kinds: [WorkerKind]
  ) -> [(worker: WorkerIdentity, number: Int)] {
    var first = 0
    var numbered: [(worker: WorkerIdentity, number: Int)] = []
    for kind in kinds {
      let members = workers.filter { $0.kind == kind }.sorted { $0.number < $1.number }
      for worker in members { numbered.append((worker, first + worker.number)) }
      first += kind.isPool ? Ring.maximumReaders : 1
    }
    return numbered
  }
}

struct RingPlan: Equatable, Sendable {
  struct Reader: Equatable, Sendable {
    let worker: WorkerIdentity
    let slot: Int
  }

  /// Names the ring in corruption reports.
  let id: UInt32
  let purpose: RingPurpose
  let bytes: Int
  let writer: WorkerIdentity
  /// By slot.
  let readers: [Reader]
  /// Of event rings: see `RingGrant.cursorPosition`.
  let cursorPosition: Int?

  var name: String { RingGrant.name(purpose, writer) }

  func isUsed(by worker: WorkerIdentity) -> Bool {
    writer == worker || readers.contains { $0.worker == worker }
  }

  /// Whether the worker gets it at all: the control worker shows how full each of them is.
  func isHeld(by worker: WorkerIdentity) -> Bool { isUsed(by: worker) || worker.kind == .control }
}
