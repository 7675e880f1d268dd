// All rings that a worker reads, for what is the same with every one of them: asleep or awake, suspended ones looked at again, and what
// has happened to them said to the supervisor and in the log.

import IPC
import Kit
import Logging

/// Belongs to one event loop.
public final class RingLoop {
  private var sets: [RingSet] = []
  private let status: StatusPage
  private let log: Logger

  public init(status: StatusPage, log: Logger) {
    self.status = status
    self.log = log
  }

  public func add(_ rings: RingSet) { sets.append(rings) }

  /// A turn begins: writers need not wake this worker.
  public func declareAwake() {
    for set in sets { set.declareAwake() }
  }

  /// This worker is about to wait; false if there is something to read in any ring: it doesn't wait, and is awake.
  public func declareAsleep() -> Bool {
    for set in sets {
      guard set.declareAsleep() else {
        declareAwake()
        return false
      }
    }
    return true
  }

  /// Says what has happened to rings since it was last called.
  public func settle() {
    for set in sets { Self.report(set.takeIncidents(), to: status, log) }
  }

  public static func report(_ incidents: [RingIncident], to status: StatusPage, _ log: Logger) {
    for incident in incidents {
      switch incident {
      case .corrupt(let ring, let report, let reason):
        status.reportCorrupt(report)
        log.error("a ring is corrupt", metadata: ["ring": "\(ring)", "reason": "\(reason)"])
      case .stillCorrupt(let report): status.reportCorrupt(report)
      case .reset(let ring): log.warning("a ring was reset", metadata: ["ring": "\(ring)"])
      }
    }
  }

  /// Once per second.
  public func probeSuspended() {
    for set in sets { set.probeSuspended() }
  }
}
