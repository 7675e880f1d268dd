// When the log of a partition may have changed under its reader: reading stops, the scout compares the log with what was read of
// it, and reading goes on where that says. Nothing is taken in between.

import Kit
import Logging

extension ConsumerLoop {
  /// Nanoseconds after a broker was lost for which answers about topics are no signs: librdkafka asks for it then.
  private static var answersExpected: UInt64 { 5_000_000_000 }
  /// Nanoseconds between two doubts for answers about topics: for those of a topic without a leader librdkafka asks several times
  /// a second. It grows as long as they come without a pause.
  private static var pauses: (first: UInt64, most: UInt64) { (1_000_000_000, 60_000_000_000) }

  /// - Parameter isAsking: the scout may have asked about topics: their answers are no signs.
  func takeSigns(isAsking: Bool, _ now: UInt64) {
    guard case .open(let consumer) = client else { return }
    let signs = consumer.signs.take()
    guard !signs.isEmpty else { return }
    if !signs.lost.isEmpty {
      answersExpectedUntil = now + Self.answersExpected
      if scout.isBusy { lostWhileAsking.formUnion(signs.lost) }
      doubt(state.table.read(from: signs.lost), "the connection to its broker was lost", consumer, now)
    } else if !isAsking {
      takeAnswers(consumer, now)
    }
  }

  private func takeAnswers(_ consumer: KafkaConsumer, _ now: UInt64) {
    let numbers = state.table.read(from: nil)
    guard now >= answersExpectedUntil, !numbers.isEmpty else { return }
    if now >= answersExpectedUntil + answerPause { answerPause = Self.pauses.first }
    answersExpectedUntil = now + answerPause
    answerPause = min(2 * answerPause, Self.pauses.most)
    doubt(numbers, "a broker had to be asked about a topic", consumer, now)
    if !scout.isBusy { askStarts(consumer, now) }
  }

  /// Stops reading partitions until their logs have been looked at.
  func doubt(_ numbers: [Int], _ why: String, _ consumer: KafkaConsumer, _ now: UInt64) {
    guard !numbers.isEmpty else { return }
    for number in numbers { state.update { $0.isDoubted(number) } }
    intake.forget(numbers)
    nextLookAt = min(nextLookAt, now)
    do throws(KafkaError) {
      try consumer.unassign(numbers.map(state.name))
    } catch {
      log.error("partitions can't be taken back", metadata: ["reason": "\(error)"])
    }
    guard let suppressed = limits.doubts.permit(at: now) else { return }
    log.info(
      "the logs of partitions may have changed and are compared with what was read",
      metadata: [
        "partition": "\(state.name(numbers[0]))", "count": "\(numbers.count)", "reason": "\(why)",
        "suppressed": "\(suppressed)",
      ])
  }

  /// Says what has become of a log; nothing if it is what it was.
  func report(_ start: StartPosition, of number: Int) {
    guard let verdict = start.verdict, verdict.kind != .unchanged else { return }
    let name = state.name(number)
    metrics.offsetResets.add(1, name.topic)
    if verdict.lost > 0 { metrics.recordsLost.add(verdict.lost, name.topic) }
    let what =
      switch verdict.kind {
      case .unchanged, .overtaken: "retention has removed records before they were read"
      case .shortened: "the log has lost its end"
      case .copied: "the records lie at other offsets"
      case .replaced: "the log has been replaced by another"
      case .unknown: "the log doesn't hold the offset, and nothing else is known of it"
      }
    log.error(
      "the log of a partition has changed under its reader",
      metadata: [
        "partition": "\(name)", "what": "\(what)", "offset": "\(verdict.next)", "lost": "\(verdict.lost)",
        "repeated":
          "\(verdict.mayRepeat ? "records may come again: neither timestamps nor offsets can tell" : "none")",
      ])
  }
}
