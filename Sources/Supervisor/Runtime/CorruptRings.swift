// What workers say about the writers of the rings they read. A ring that makes no sense is formatted anew before its writer runs
// again, which is restarted for it.

import IPC

final class CorruptRings {
  enum Consequence {
    case none
    /// The ring can be repaired as soon as its writer at this seat (place in `GatewayPlan.seats`) doesn't run.
    case stopWriter(seat: Int)
  }

  private let plan: GatewayPlan
  private let resources: SharedResources
  private let log: TreeLog
  /// By place in `GatewayPlan.rings`: reported, and not yet formatted anew.
  private var isCorrupt: [Bool]

  init(plan: GatewayPlan, resources: SharedResources, log: TreeLog) {
    self.plan = plan
    self.resources = resources
    self.log = log
    isCorrupt = Array(repeating: false, count: plan.rings.count)
  }

  func takeReport(of reporter: WorkerRecord) -> Consequence {
    guard let report = reporter.page.takeCorruptReport() else { return .none }
    guard let index = plan.ring(report.ring) else {
      log.say(
        .warning, "worker reports a ring that does not exist", reporter, [("ring", String(report.ring))])
      return .none
    }
    let ring = plan.rings[index]
    guard ring.isUsed(by: reporter.identity) else {
      log.say(.warning, "worker reports a ring that it has no part in", reporter, [("ring", ring.name)])
      return .none
    }
    // What was true before the ring was formatted anew must not cost the new writer its life, and its events theirs.
    if let epoch = report.epoch, epoch < resources.epochs[index] { return .none }
    guard !isCorrupt[index] else { return .none }
    isCorrupt[index] = true
    log.say(.error, "ring is corrupt; its writer is restarted", reporter, [("ring", ring.name)])
    return plan.seats.firstIndex(of: ring.writer).map { .stopWriter(seat: $0) } ?? .none
  }

  /// Formats those rings anew that are corrupt and belong to this worker, which doesn't run. False if that is impossible.
  func repair(writtenBy worker: WorkerRecord) -> Bool {
    guard isCorrupt.contains(true) else { return true }
    for (index, ring) in plan.rings.enumerated() where isCorrupt[index] && ring.writer == worker.identity {
      do throws(IPCError) {
        try resources.reset(ring: index)
        isCorrupt[index] = false
        log.log.log(.notice, "ring is formatted anew", [("ring", ring.name)])
      } catch {
        log.log.log(
          .critical, "ring can't be formatted anew; giving up, a new start is needed",
          [("ring", ring.name), ("error", error.description)])
        return false
      }
    }
    return true
  }
}
