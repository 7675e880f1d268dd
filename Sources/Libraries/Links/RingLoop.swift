// The rings that a worker reads beside each other, for what is the same with every one of them: asleep or awake, suspended ones looked
// at again, and what has happened to them.

import IPC
import Kit

/// Belongs to one event loop.
public final class RingLoop {
  private let sets: [RingSet]

  public init(_ sets: [RingSet]) { self.sets = sets }

  /// A turn begins: writers need not wake this worker.
  public func declareAwake() {
    for set in sets { set.declareAwake() }
  }

  /// This worker is about to wait; false if there is something to read in any ring: it doesn't wait, and is awake.
  public func declareAsleep() -> Bool {
    guard sets.allSatisfy({ $0.declareAsleep() }) else {
      declareAwake()
      return false
    }
    return true
  }

  /// What has happened to rings since it was last asked for.
  public func takeIncidents() -> [RingIncident] { sets.flatMap { $0.takeIncidents() } }

  /// Once per second.
  public func probeSuspended() {
    for set in sets { set.probeSuspended() }
  }
}
