// The thread that may wait for brokers, so that the loop never does.
//
//   loop --ask--> [ one question ] --thread--> [ one answer ] --eventfd--> loop
//
// A look at the topics can take as long as a broker holds a fetch back (fetch.wait.max.ms), every few
// seconds: on the loop's thread that would be a hole in the delivery of the other brokers' records, and an
// outage would be one in the heartbeat. It must touch nothing but the client's thread-safe calls.

import Dispatch
import IPC
import Synchronization

/// Asks one question at a time on a thread of its own.
final class Scout: Sendable {
  enum Question: Sendable {
    /// Which partitions there are.
    case topics
    /// Where these are to be read from; the properties are those of a client that compares logs.
    case starts([OffsetQuestion], comparing: [ClientProperty])
  }

  enum Answer: Sendable {
    case topics(Result<TopicListing, KafkaError>)
    case starts([OffsetQuestion], found: [Int: StartPosition], failure: KafkaError?)
    /// The client has been closed.
    case closed
  }

  private struct State {
    var isBusy = false
    var answer: Answer?
  }

  private let queue = DispatchQueue(label: "scout")
  private let state = Mutex(State())
  private let wake: CInt

  /// - Parameter wake: the eventfd that is signalled when there is an answer.
  init(wake: CInt) {
    self.wake = wake
  }

  /// Whether a question is under way, or its answer has not been taken.
  var isBusy: Bool { state.withLock { $0.isBusy } }

  /// Asks `consumer`; only when not busy. The answer is for `takeAnswer`.
  func ask(_ question: Question, of consumer: KafkaConsumer) {
    start {
      switch question {
      case .topics:
        do throws(KafkaError) {
          return .topics(.success(try consumer.listTopics()))
        } catch {
          return .topics(.failure(error))
        }
      case .starts(let questions, let properties):
        let (found, failure) = consumer.findStarts(questions, comparing: properties)
        return .starts(questions, found: found, failure: failure)
      }
    }
  }

  /// Closes `consumer`, behind what is under way, which is then not answered. See `isIdle(within:)`.
  func close(_ consumer: KafkaConsumer) {
    start {
      consumer.close()
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
      state = State()
      return answer
    }
  }

  private func start(_ job: @escaping @Sendable () -> Answer) {
    state.withLock { $0 = State(isBusy: true) }
    queue.async { [self] in
      let answer = job()
      state.withLock { $0.answer = answer }
      EventFD.signal(wake)
    }
  }
}
