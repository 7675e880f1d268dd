// Everything that a scrape looks at, as steps of about a tenth of a millisecond:
//
//   status pages   the workers' own numbers        │  one step each, and no system call but for
//   rings          fill and lag of each            │  what a process costs
//   processes      /proc of workers, supervisor    │
//
// It only looks: a crashed or hung worker's numbers come out like all others. What can't be read costs its own lines.

import Glibc
import IPC
import Kit
import Logging

final class Observatory {
  private let pages: [WatchedPage]
  private let rings: [WatchedRing]
  private let supervisorPid: Int32
  private let release: String
  private let proc: ProcFS
  private let errors: ScrapeErrors

  init(
    pages: [WatchedPage], rings: [RingGrant], supervisorPid: Int32, release: String,
    proc: ProcFS = ProcFS(), errors: ScrapeErrors
  ) {
    self.pages = pages
    self.rings = rings.map(WatchedRing.init)
    self.supervisorPid = supervisorPid
    self.release = release
    self.proc = proc
    self.errors = errors
  }

  /// The steps of one scrape, in order.
  var steps: [SlicedScrape.Step] {
    var steps: [SlicedScrape.Step] = []
    for ring in rings { steps.append { self.look(at: ring, &$0) } }
    steps.append { self.lookAtGateway(&$0) }
    for place in WatchedPage.byPlace(pages) { steps.append { self.lookAtProcesses(of: place, &$0) } }
    for page in pages { steps.append { self.look(at: page, &$0) } }
    return steps
  }

  /// Series that were left out of a scrape.
  func dropped(_ series: Int) {
    let part = "series"
    if series > 0 {
      errors.failed(part, "\(series) series are malformed, or more than \(FamilyCollector.maximumSeries)")
    } else {
      errors.succeeded(part)
    }
  }

  private func look(at page: WatchedPage, _ families: inout FamilyCollector) {
    let part = "status.\(page.name)"
    do {
      for metric in try page.page().metrics() { families.add(metric.kind, metric.series, metric.value) }
      errors.succeeded(part)
    } catch {
      errors.failed(part, error.description)
    }
  }

  private func look(at ring: WatchedRing, _ families: inout FamilyCollector) {
    do {
      try ring.put(into: &families)
      errors.succeeded(ring.name)
    } catch {
      errors.failed(ring.name, error.description)
    }
  }

  private func lookAtGateway(_ families: inout FamilyCollector) {
    families.set(.gauge, "rig_build_info", [("version", release)], .integer(1))
    proc.figures(of: supervisorPid, childOf: nil)?.put(
      into: &families, worker: WorkerIdentity.supervisor.name)
  }

  /// - Parameter place: the pages of its seats; of the processes there while one hands over to the other, the place shows the sums.
  private func lookAtProcesses(of place: [WatchedPage], _ families: inout FamilyCollector) {
    let sightings = place.compactMap { $0.sighting() }.filter { $0.pid > 0 }
    guard let name = place.first?.name, let beat = sightings.map(\.heartbeatNs).min() else { return }
    let now = MonotonicTime.now()
    let age = now > beat ? now - beat : 0
    families.set(
      .gauge, "rig_worker_heartbeat_age_seconds", [("worker", name)],
      .real(Double(age) / Double(Health.nsPerSecond)))
    let figures = sightings.compactMap { sighting in
      // Our own parent is known to be the supervisor, or this process would have ended.
      proc.figures(of: sighting.pid, childOf: sighting.pid == getpid() ? nil : supervisorPid)
    }
    guard let first = figures.first else { return }
    figures.dropFirst().reduce(first) { $0.adding($1) }.put(into: &families, worker: name)
  }
}

/// A ring, attached when it can be.
private final class WatchedRing {
  let name: String
  private let grant: RingGrant
  private var inspector: RingInspector?

  init(_ grant: RingGrant) {
    name = grant.name
    self.grant = grant
    inspector = try? RingInspector(attaching: grant.fd)
  }

  func put(into families: inout FamilyCollector) throws(IPCError) {
    let usage = try attached().usage()
    // A second seat that nobody has sat at yet is nothing that anybody asks about.
    guard grant.writer.seat == 0 || usage.records > 0 else { return }
    let labels = [(name: "ring", value: name)]
    families.set(.gauge, "rig_ring_capacity_bytes", labels, .integer(Int64(usage.capacity)))
    families.set(.gauge, "rig_ring_used_bytes", labels, .integer(Int64(usage.usedBytes)))
    families.set(.gauge, "rig_ring_retained_bytes", labels, .integer(Int64(usage.retainedBytes)))
    families.set(.counter, "rig_ring_records_total", labels, .integer(Int64(clamping: usage.records)))
    for reader in usage.readers {
      // Somebody has scribbled over the header of a ring that says more readers than the table.
      guard let worker = grant.reader(slot: reader.slot) else { continue }
      families.set(
        .gauge, "rig_ring_reader_lag_bytes", labels + [(name: "reader", value: worker.seatName)],
        .integer(Int64(reader.lagBytes)))
    }
  }

  private func attached() throws(IPCError) -> RingInspector {
    if let inspector { return inspector }
    let inspector = try RingInspector(attaching: grant.fd)
    self.inspector = inspector
    return inspector
  }
}

/// Counts what scrapes could not read, and says each trouble once: a scrape comes every few seconds, for ever.
final class ScrapeErrors {
  private let counter: Metric?
  private let log: Logger
  /// The parts that are in trouble and have been named in the log. As many as the manifest has, at most.
  private var reported: Set<String> = []

  init(status: StatusPage, log: Logger) {
    counter = status.metric(.counter, "rig_scrape_errors_total")
    self.log = log
  }

  /// `part` could not be read.
  func failed(_ part: String, _ reason: @autoclosure () -> String) {
    counter?.add(1)
    guard reported.insert(part).inserted else { return }
    log.warning("not all numbers can be read", metadata: ["part": "\(part)", "reason": "\(reason())"])
  }

  /// `part` was read; its next trouble is news again.
  func succeeded(_ part: String) {
    guard !reported.isEmpty, reported.remove(part) != nil else { return }
    log.info("its numbers can be read again", metadata: ["part": "\(part)"])
  }
}
