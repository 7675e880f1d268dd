// Committing what every connection worker has passed: at most one commit under way, at most one per second.

import IPC
import Kit
import Logging

/// What is committed, and when. The loop's thread.
final class Commits {
  /// Nanoseconds after which everything is committed again: brokers forget the offsets of a group without
  /// members after offsets.retention.minutes (a week), for each partition by itself.
  private static let againInterval: UInt64 = 600_000_000_000
  /// Nanoseconds after which an unanswered commit counts as lost; librdkafka itself gives up earlier.
  private static let timeout: UInt64 = 90_000_000_000

  private let state: ReadState
  private let ring: RingWriter
  private let metrics: StreamMetrics
  private let log: Logger
  private var sentAt: UInt64?
  private var againAt: UInt64
  private var failures = LogLimiter()

  /// - Parameter ring: the event ring, whose readers are waited for.
  init(_ state: ReadState, ring: RingWriter, metrics: StreamMetrics, log: Logger) {
    self.state = state
    self.ring = ring
    self.metrics = metrics
    self.log = log
    againAt = MonotonicTime.now() + Self.againInterval
  }

  /// Whether every connection worker has passed what was taken.
  func isPassed() -> Bool {
    state.ledger.readersPassed(ring.slowestReaderPosition())
    return !state.ledger.isWaitingForReaders
  }

  /// Whether nothing is under way, and nothing may be committed that isn't.
  var isSettled: Bool { sentAt == nil && state.ledger.due().isEmpty }

  /// Commits what may be committed and is not.
  func send(_ consumer: KafkaConsumer, _ now: UInt64) {
    _ = isPassed()
    if let sentAt, now < sentAt + Self.timeout { return }
    let again = now >= againAt
    let due = state.ledger.due(again: again)
    guard !due.isEmpty else { return }
    if again { againAt = now + Self.againInterval }
    do throws(KafkaError) {
      try consumer.commit(
        due.map { commit in
          let trail = state.trail(commit.partition) ?? ReadTrail(next: commit.offset)
          return (
            state.name(commit.partition), commit.offset,
            metadata: CommitMetadata.text(trail, committing: commit.offset)
          )
        })
      sentAt = now
    } catch {
      failed(error, now)
    }
  }

  func take(_ result: ClientReports.CommitResult, _ now: UInt64) {
    sentAt = nil
    for (name, offset) in result.confirmed {
      guard let number = state.table.number(name) else { continue }
      state.ledger.confirmed(OffsetLedger.Commit(partition: number, offset: offset))
    }
    if let error = result.error { failed(error, now) } else { metrics.commits?.add() }
  }

  /// Nobody answers any more.
  func clientIsGone() { sentAt = nil }

  private func failed(_ error: KafkaError, _ now: UInt64) {
    metrics.failedCommits?.add()
    guard let suppressed = failures.permit(at: now) else { return }
    log.warning(
      "offsets can't be committed; they are tried again",
      metadata: ["reason": "\(error)", "suppressed": "\(suppressed)"])
  }
}
