// The thread that may wait for brokers, so that the loop never does.
//
//   loop --ask--> [ one question ] --thread--> [ one answer ] --eventfd--> loop
//
// A look at the topics can take as long as a broker holds a fetch back (fetch.wait.max.ms), every few
// seconds: on the loop's thread that would be a hole in the delivery of the other brokers' records, and an
// outage would be one in the heartbeat. Topics are listed by a client of its own: every
// answer about topics that comes to the one that reads is a sign (BrokerSigns).

import Dispatch
import IPC
import Synchronization

/// The source topics as the brokers have them.
struct TopicListing: Equatable, Sendable {
  var partitions: [TopicPartition] = []
  /// Topics that don't exist, or that this client must not see; with the broker's reason.
  var missing: [String: String] = [:]
  /// The brokers that lead the partitions; those without a leader are left out.
  var leaders: [TopicPartition: Int32] = [:]
  /// Those of `missing` that are known not to exist.
  var absent: Set<String> = []
}

/// A partition whose start is to be found.
struct OffsetQuestion: Sendable {
  let number: Int
  let name: TopicPartition
  let seen: FirstSeen
  /// Where it was read to, if that is known without asking.
  var known: KnownPosition?
  /// For a partition of responses, of which nothing is committed: those since then, milliseconds since 1970, are read. The
  /// requests that they answer wait in other processes, and may have waited since before this one was started.
  var sinceMs: Int64?
  var isCommitted: Bool { sinceMs == nil }
}

/// Asks one question at a time on a thread of its own.
final class Scout: Sendable {
  enum Answer: Sendable {
    case topics(Result<TopicListing, KafkaError>)
    case starts([OffsetQuestion], found: [Int: StartPosition], failure: KafkaError?)
    /// The client has been closed.
    case closed
  }

  private struct State {
    var isBusy = false
    var isClosing = false
    var answer: Answer?
  }

  private let queue = DispatchQueue(label: "scout")
  private let state = Mutex(State())
  private let properties: [ClientProperty]
  private let topics: [String]
  private let wake: CInt
  private let closing: @Sendable (KafkaConsumer) -> Void
  /// Made when topics are first listed; used by the thread alone.
  private let lister = Mutex<KafkaConsumer?>(nil)

  /// - Parameters:
  ///   - properties: the consumer's.
  ///   - topics: those that are listed.
  ///   - wake: the eventfd that is signalled when there is an answer.
  ///   - closing: ends a client, and may wait for ever.
  init(
    _ properties: [ClientProperty], topics: [String], wake: CInt,
    closing: @escaping @Sendable (KafkaConsumer) -> Void = { $0.close() }
  ) {
    self.closing = closing
    self.properties = properties
    self.topics = topics
    self.wake = wake
  }

  /// Whether a question is under way, or its answer has not been taken.
  var isBusy: Bool { state.withLock { $0.isBusy } }

  /// Whether a client is being closed at this moment.
  var isClosing: Bool { state.withLock { $0.isClosing } }

  /// Lists the topics; only when not busy. The answer is for `takeAnswer`.
  func list() {
    start { [self] in
      do throws(KafkaError) {
        return .topics(.success(try openLister().listTopics()))
      } catch {
        return .topics(.failure(error))
      }
    }
  }

  private func openLister() throws(KafkaError) -> KafkaConsumer {
    if let open = lister.withLock({ $0 }) {
      // What librdkafka says of connections is said by the client that reads too, and mustn't pile up here.
      open.serve()
      _ = open.reports.take()
      return open
    }
    let new = try KafkaConsumer(properties, topics: topics, wake: -1)
    lister.withLock { $0 = new }
    return new
  }

  /// Finds out through `consumer`, and by comparing logs, where partitions are to be read from; only when not busy. The answer is for
  /// `takeAnswer`.
  func findStarts(_ questions: [OffsetQuestion], of consumer: KafkaConsumer) {
    start { [self] in
      let (found, failure) = consumer.findStarts(questions, comparing: properties)
      return .starts(questions, found: found, failure: failure)
    }
  }

  /// Closes `consumer`, and the client that lists topics, behind what is under way, which is then not answered. See `isIdle(within:)`.
  func close(_ consumer: KafkaConsumer) {
    start { [self] in
      state.withLock { $0.isClosing = true }
      defer { state.withLock { $0.isClosing = false } }
      closing(consumer)
      let lister = lister.withLock { lister in
        defer { lister = nil }
        return lister
      }
      if let lister { closing(lister) }
      return .closed
    }
  }

  /// Waits at most `milliseconds` for the last job; true if it has ended.
  func isIdle(within milliseconds: Int) -> Bool {
    let done = DispatchSemaphore(value: 0)
    queue.async { done.signal() }
    return done.wait(timeout: .now() + .milliseconds(milliseconds)) == .success
  }

  /// The answer, once.
  func takeAnswer() -> Answer? {
    state.withLock { state in
      guard let answer = state.answer else { return nil }
      // A client may be on its way out meanwhile (`isClosing`).
      state.answer = nil
      state.isBusy = false
      return answer
    }
  }

  private func start(_ job: @escaping @Sendable () -> Answer) {
    state.withLock {
      $0.isBusy = true
      $0.answer = nil
    }
    queue.async { [self] in
      let answer = job()
      state.withLock { $0.answer = answer }
      EventFD.signal(wake)
    }
  }
}
