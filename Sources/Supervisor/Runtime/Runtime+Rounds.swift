// What the runtime looks at on the status pages: readiness, reports of corrupt rings, heartbeats.

import IPC

extension Runtime {
  func lookAtStartingWorkers() {
    for worker in workers where tree[worker.child].state == .starting && worker.isReady {
      worker.up?.set(1)
      dispatch(.started(worker.child, instance: worker.instance))
    }
  }

  func round() {
    resources.supervisorPage.page.beat()
    serviceManager.beat(at: MonotonicClock.now(), callsEvery: roundInterval)
    for worker in workers { takeReport(of: worker) }
    // Of a worker that is starting, its start time-out says when it takes too long: it may have files to read first.
    for worker in workers where worker.hasPage && tree[worker.child].state == .running {
      // The clock behind the beat, however long this thread is kept from running in between.
      let beat = worker.page.heartbeat
      let now = MonotonicClock.now()
      guard Heartbeat.isHung(beat: beat, now: now, limit: watchdog, excusedUntil: blindUntil) else {
        continue
      }
      say(.error, "worker is hung: its heartbeat has stopped", worker)
      dispatch(.condemn(worker.child, .hung))
    }
  }

  /// Time in which this process didn't run, and perhaps none of the gateway's, is nobody's fault: nobody is judged by
  /// it, and no timer runs on in it.
  ///
  /// - Parameter due: when the alarm should have gone off.
  func excuse(from due: Nanoseconds, to now: Nanoseconds) {
    guard Heartbeat.isBlind(due: due, now: now) else { return }
    blindUntil = now
    let lost = now - due
    for index in timers.indices { timers[index]?.deadline += lost }
    log.log(.warning, "the supervisor was kept from running", [("ms", String(lost / .perMillisecond))])
  }

  /// Acts on what a worker says about the writers of the rings it reads.
  func takeReport(of reporter: WorkerRecord) {
    guard let report = reporter.page.takeCorruptReport() else { return }
    guard let index = plan.ring(report.ring) else {
      return say(
        .warning, "worker reports a ring that does not exist", reporter, [("ring", String(report.ring))])
    }
    guard plan.rings[index].isUsed(by: reporter.identity) else {
      return say(
        .warning, "worker reports a ring that it has no part in", reporter, [("ring", plan.rings[index].name)]
      )
    }
    // What was true before the ring was formatted anew must not cost the new writer its life, and its events theirs.
    if let epoch = report.epoch, epoch < resources.epochs[index] { return }
    guard !isCorrupt[index] else { return }
    isCorrupt[index] = true
    say(.error, "ring is corrupt; its writer is restarted", reporter, [("ring", plan.rings[index].name)])
    if let place = placeOfWriter[index], workers[place].isAlive {
      dispatch(.condemn(workers[place].child, .corruptRing))
    } else {
      // Nobody writes it now. With a place, the next process will find it in order.
      repairRing(index)
    }
  }

  /// Formats those rings anew that are corrupt and belong to a worker that doesn't run. False if that is impossible.
  func repairRings(writtenBy worker: WorkerRecord) -> Bool {
    guard isCorrupt.contains(true) else { return true }
    for (index, ring) in plan.rings.enumerated() where isCorrupt[index] && ring.writer == worker.identity {
      guard repairRing(index) else { return false }
    }
    return true
  }

  /// False if it is impossible: the gateway is then on its way down.
  @discardableResult
  private func repairRing(_ index: Int) -> Bool {
    do throws(IPCError) {
      try resources.reset(ring: index)
      isCorrupt[index] = false
      log.log(.notice, "ring is formatted anew", [("ring", plan.rings[index].name)])
      return true
    } catch {
      log.log(
        .critical, "ring can't be formatted anew; giving up, a new start is needed",
        [("ring", plan.rings[index].name), ("error", error.description)])
      isBeyondRepair = true
      dispatch(.quit)
      return false
    }
  }
}
