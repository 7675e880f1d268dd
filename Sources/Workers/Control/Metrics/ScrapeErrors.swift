// Counts what scrapes could not read, and says each trouble once: a scrape comes every few seconds, for ever.

import IPC
import Logging

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
