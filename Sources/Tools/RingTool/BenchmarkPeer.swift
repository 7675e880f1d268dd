// The writing child of a measurement.

import CLinux
import Glibc
import IPC

struct BenchmarkPeer {
  static let command = "bench-writer"
  /// Records of one publication: what a worker takes from its source in one turn.
  private static let batch = 64
  /// The wake-up is measured of a reader that has slept this long, not of one that is just going to sleep.
  private static let restNanoseconds: UInt64 = 50_000
  /// What payloads consist of.
  static let word: UInt64 = 0x5A5A_5A5A_5A5A_5A5A
  private static let byte = UInt8(truncatingIfNeeded: word)
  private static let fullTurnsBetweenChecks = 1 << 20

  private let ring: CInt
  private let wake: [CInt]
  private let bytes: Int
  private let samples: Int
  private let sleeps: Bool

  init(_ options: ToolOptions) throws(ToolError) {
    ring = try options.number("--ring")
    wake = try options.numbers("--wake")
    bytes = try options.number("--bytes", 64)
    samples = try options.number("--samples", 0)
    sleeps = options.has("--sleeps")
  }

  func run() throws {
    let writer = try RingWriter(attaching: ring, wake: wake)
    if samples > 0 { try wakeUps(writer) } else { try flood(writer) }
  }

  private func flood(_ writer: RingWriter) throws {
    let parent = ParentWatch()
    let bytes = bytes
    var turns = 0
    while true {
      for _ in 0..<Self.batch {
        let result = writer.append(type: 1, length: bytes) { payload in
          payload.initializeMemory(as: UInt8.self, repeating: Self.byte)
        }
        if result == .full { break }
      }
      writer.publish()
      turns += 1
      if turns % Self.fullTurnsBetweenChecks == 0 { try parent.require() }
    }
  }

  private func wakeUps(_ writer: RingWriter) throws {
    let parent = ParentWatch()
    let inspector = try RingInspector(attaching: ring)
    for _ in 0..<samples {
      while try inspector.usage().readers.first?.isAsleep != true { try parent.require() }
      rest()
      _ = writer.append(type: 1, length: MemoryLayout<UInt64>.size) { payload in
        payload.storeBytes(of: Waiting.nanoseconds(), as: UInt64.self)
      }
      writer.publish()
    }
  }

  /// A worker sleeps until its next event, which leaves its core to the reader that it wakes then; a writer that never
  /// sleeps wakes its reader on another core, which on a virtual machine takes an interrupt by the hypervisor.
  private func rest() {
    if sleeps {
      var time = timespec(tv_sec: 0, tv_nsec: Int(Self.restNanoseconds))
      nanosleep(&time, nil)
    } else {
      let rested = Waiting.nanoseconds() + Self.restNanoseconds
      while Waiting.nanoseconds() < rested {}
    }
  }
}
