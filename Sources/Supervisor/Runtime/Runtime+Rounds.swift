// What the runtime looks at on the status pages: readiness, reports of corrupt rings, heartbeats.

import IPC

extension Runtime {
  func lookAtStartingWorkers() {
    for worker in workers where tree[worker.child].state == .starting && worker.isReady {
      worker.up?.set(1)
      dispatch(.started(worker.child, instance: worker.instance))
    }
  }

  /// - Parameter due: when this round should have been.
  func round(due: Nanoseconds, now: Nanoseconds) {
    resources.supervisorPage.page.beat()
    serviceManager.beat(at: now, callsEvery: roundInterval)
    for worker in workers { takeReport(of: worker) }
    guard !Heartbeat.isBlind(due: due, now: now) else { return }
    for worker in workers where worker.hasPage && mayBeCondemned(worker) {
      let beat = worker.page.heartbeat
      guard Heartbeat.isHung(beat: beat, now: now, limit: watchdog) else { continue }
      say(.error, "worker is hung: its heartbeat has stopped", worker)
      dispatch(.condemn(worker.child, .hung))
    }
  }

  /// Acts on what a worker says about the writers of the rings it reads.
  func takeReport(of reporter: WorkerRecord) {
    guard let ring = reporter.page.takeCorruptReport() else { return }
    guard ring < UInt32(plan.rings.count) else {
      return say(.warning, "worker reports a ring that does not exist", reporter, [("ring", String(ring))])
    }
    let index = Int(ring)
    guard !isCorrupt[index] else { return }
    isCorrupt[index] = true
    say(.error, "ring is corrupt; its writer is restarted", reporter, [("ring", plan.rings[index].name)])
    if let place = placeOfWriter[index], workers[place].isAlive {
      dispatch(.condemn(workers[place].child, .corruptRing))
    } else {
      // Nobody writes it now. With a place, the next process will find it in order.
      repairRing(ring)
    }
  }

  /// Formats those rings anew that are corrupt and belong to a worker that doesn't run. False if that is impossible.
  func repairRings(writtenBy worker: WorkerRecord) -> Bool {
    guard isCorrupt.contains(true) else { return true }
    for (index, ring) in plan.rings.enumerated() where isCorrupt[index] && ring.writer == worker.identity {
      guard repairRing(ring.id) else { return false }
    }
    return true
  }

  /// False if it is impossible: the gateway is then on its way down.
  @discardableResult
  private func repairRing(_ ring: UInt32) -> Bool {
    // Late reports about the same corruption must not cost the new writer its life, and its events theirs.
    for reporter in workers { takeReport(of: reporter) }
    do throws(IPCError) {
      try resources.reset(ring: ring)
      isCorrupt[Int(ring)] = false
      log.log(.notice, "ring is formatted anew", [("ring", plan.rings[Int(ring)].name)])
      return true
    } catch {
      log.log(
        .critical, "ring can't be formatted anew; giving up, a new start is needed",
        [("ring", plan.rings[Int(ring)].name), ("error", error.description)])
      isBeyondRepair = true
      dispatch(.quit)
      return false
    }
  }

  /// Whether the tree would act on it: a worker that is being stopped or killed already has its own deadline.
  private func mayBeCondemned(_ worker: WorkerRecord) -> Bool {
    let state = tree[worker.child].state
    return state == .starting || state == .running
  }
}
