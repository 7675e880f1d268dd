// Committing what every connection worker has passed: at most one commit under way, at most one per second,
// and one at the end.

import Glibc
import IPC
import Kit
import Logging

extension ConsumerLoop {
  /// Nanoseconds after which everything is committed again: brokers forget the offsets of a group without
  /// members after offsets.retention.minutes (a week), for each partition by itself.
  static var recommitInterval: UInt64 { 600_000_000_000 }
  /// Nanoseconds after which an unanswered commit counts as lost; librdkafka itself gives up earlier.
  private static var commitTimeout: UInt64 { 90_000_000_000 }
  /// Milliseconds that stopping waits for each of: readers, the broker's answer, the client's end.
  private static var patienceMs: Int { 1_000 }
  /// Milliseconds between looks at the readers' cursors while stopping.
  private static var readerPollMs: CInt { 10 }

  /// Commits what may be committed and is not.
  func commitDue(_ consumer: KafkaConsumer, _ now: UInt64) {
    state.ledger.readersPassed(writer.ring.slowestReaderPosition())
    if let sent = commitSentAt, now < sent + Self.commitTimeout { return }
    let again = now >= recommitAt
    let due = state.ledger.due(again: again)
    guard !due.isEmpty else { return }
    if again { recommitAt = now + Self.recommitInterval }
    do throws(KafkaError) {
      try consumer.commit(
        due.map { commit in
          let trail = state.trail(commit.partition) ?? ReadTrail(next: commit.offset)
          return (
            state.name(commit.partition), commit.offset,
            metadata: CommitMetadata.text(trail, committing: commit.offset)
          )
        })
      commitSentAt = now
    } catch {
      failedCommit(error, now)
    }
  }

  func take(_ result: ClientReports.CommitResult, _ now: UInt64) {
    commitSentAt = nil
    for (name, offset) in result.confirmed {
      guard let number = state.table.number(name) else { continue }
      state.ledger.confirmed(OffsetLedger.Commit(partition: number, offset: offset))
    }
    if let error = result.error { failedCommit(error, now) } else { metrics.commits?.add() }
  }

  private func failedCommit(_ error: KafkaError, _ now: UInt64) {
    metrics.failedCommits?.add()
    guard let suppressed = limits.commits.permit(at: now) else { return }
    log.warning(
      "offsets can't be committed; they are tried again",
      metadata: ["reason": "\(error)", "suppressed": "\(suppressed)"])
  }

  /// Stops reading, lets the connection workers pass what is published, commits that, and ends the client.
  /// Every step is bounded: what is not committed now is read again, from the ring or from the broker.
  func stop() {
    status.state = .stopping
    intake.discard()
    producing?.desk.stop { pause() }
    guard case .open(let consumer) = client else { return }
    wait { [self] in
      state.ledger.readersPassed(writer.ring.slowestReaderPosition())
      return !state.ledger.isWaitingForReaders
    }
    positions.keepPassed(state, knownEnds, ringEnd: intake.ringEnd)
    wait { [self] in
      let now = MonotonicTime.now()
      takeReports(now)
      guard case .open = client else { return true }
      commitDue(consumer, now)
      return commitSentAt == nil && state.ledger.due().isEmpty
    }
    positions.saveAtEnd(state, within: Self.patienceMs)
    guard case .open = client else { return }
    scout.close(consumer)
    if !scout.isIdle(within: Self.patienceMs) {
      log.info("the Kafka client is still waiting for a broker and ends with the process")
    }
  }

  /// Waits until `isDone`, or until patience ends; beats meanwhile.
  private func wait(until isDone: () -> Bool) {
    let deadline = MonotonicTime.now() + UInt64(Self.patienceMs) * 1_000_000
    while !isDone(), MonotonicTime.now() < deadline { pause() }
  }

  /// Waits a moment for librdkafka.
  private func pause() {
    status.beat()
    var entry = pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0)
    if poll(&entry, 1, Self.readerPollMs) == 1 { EventFD.drain(wake.rawValue) }
  }
}
