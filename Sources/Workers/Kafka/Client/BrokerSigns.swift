// Signs that the log of a partition may have changed under its reader, which librdkafka tells nobody: it goes on at the offset
// where it stood.
//
//   a broker's connection is lost        it may come back without the tail of its logs
//   an answer about topics (Metadata)    nobody here asks for any through the client that reads: librdkafka asks when a fetch was
//                                        refused, because the topic is gone or somebody else leads it. A topic that is deleted and
//                                        made again at once gives no other sign.
//
// They come from librdkafka's own threads, before it acts on them; they only put something down. A sign proves nothing: the log is
// compared then.

import CRdKafka
import IPC
import Synchronization

/// The letter box between librdkafka's interceptors and the loop.
final class BrokerSigns: Sendable {
  struct Contents: Equatable, Sendable {
    /// Brokers whose connections were lost.
    var lost: Set<Int32> = []
    /// Answers about topics.
    var answers = 0

    var isEmpty: Bool { lost.isEmpty && answers == 0 }
  }

  /// Of the protocol: Metadata.
  private static let metadataKey: Int16 = 3
  /// A connection for commits, to a broker that may serve no partition of ours.
  private static let coordinator = "GroupCoordinator"

  private let contents = Mutex(Contents())
  private let wake: CInt

  /// - Parameter wake: an eventfd that is signalled for each sign; −1: none.
  init(wake: CInt) { self.wake = wake }

  /// Takes everything out.
  func take() -> Contents {
    contents.withLock { contents in
      defer { contents = Contents() }
      return contents
    }
  }

  /// Whether there is none that hasn't been taken.
  var isQuiet: Bool { contents.withLock { $0.isEmpty } }

  private func put(_ change: (inout Contents) -> Void) {
    contents.withLock { change(&$0) }
    if wake >= 0 { EventFD.signal(wake) }
  }

  // MARK: C

  /// Has clients made from `configuration` report here. The object must outlive them.
  func attach(to configuration: OpaquePointer) {
    rd_kafka_conf_interceptor_add_on_new(
      configuration, "rig", BrokerSigns.onNew, Unmanaged.passUnretained(self).toOpaque())
  }

  private static let onNew:
    @convention(c) (
      OpaquePointer?, OpaquePointer?, UnsafeMutableRawPointer?, UnsafeMutablePointer<CChar>?, Int
    ) -> rd_kafka_resp_err_t = { client, _, signs, _, _ in
      rd_kafka_interceptor_add_on_response_received(client, "rig", BrokerSigns.onResponse, signs)
      rd_kafka_interceptor_add_on_broker_state_change(client, "rig", BrokerSigns.onState, signs)
      return RD_KAFKA_RESP_ERR_NO_ERROR
    }

  private static let onResponse:
    @convention(c) (
      OpaquePointer?, CInt, UnsafePointer<CChar>?, Int32, Int16, Int16, Int32, Int, Int64,
      rd_kafka_resp_err_t, UnsafeMutableRawPointer?
    ) -> rd_kafka_resp_err_t = { _, _, _, _, key, _, _, _, _, _, signs in
      guard key == BrokerSigns.metadataKey, let signs else { return RD_KAFKA_RESP_ERR_NO_ERROR }
      Unmanaged<BrokerSigns>.fromOpaque(signs).takeUnretainedValue().put { $0.answers += 1 }
      return RD_KAFKA_RESP_ERR_NO_ERROR
    }

  private static let onState:
    @convention(c) (
      OpaquePointer?, Int32, UnsafePointer<CChar>?, UnsafePointer<CChar>?, CInt, UnsafePointer<CChar>?,
      UnsafeMutableRawPointer?
    ) -> rd_kafka_resp_err_t = { _, broker, _, name, _, state, signs in
      guard broker >= 0, let name, let state, let signs, String(cString: state) == "DOWN",
        String(cString: name) != BrokerSigns.coordinator
      else { return RD_KAFKA_RESP_ERR_NO_ERROR }
      Unmanaged<BrokerSigns>.fromOpaque(signs).takeUnretainedValue().put { $0.lost.insert(broker) }
      return RD_KAFKA_RESP_ERR_NO_ERROR
    }
}

// MARK: Doubts

/// What is to be doubted by the signs, and what answers are expected. Pure: no clock, no client.
///
///     a broker is lost          doubts what it leads; librdkafka asks about topics then: answers are no signs for a while
///     an answer about topics    doubts everything: nobody else asks through the client that reads
struct LogDoubts {
  enum Doubt: Equatable, Sendable {
    /// What these brokers lead.
    case leads(Set<Int32>)
    case everything
  }

  /// Nanoseconds after a broker was lost for which answers about topics are no signs.
  private static let answersExpected: UInt64 = 5_000_000_000
  /// Nanoseconds between two doubts for answers about topics: for those of a topic without a leader librdkafka asks several times
  /// a second. It grows as long as they come without a pause.
  private static let pauses: (first: UInt64, most: UInt64) = (1_000_000_000, 60_000_000_000)

  private var answersExpectedUntil: UInt64 = 0
  private var pause: UInt64 = 0
  private var lostWhileAsking: Set<Int32> = []

  /// The scout looks at logs.
  mutating func beginComparing() { lostWhileAsking = [] }

  /// Whether what the scout has found out of a broker's logs is out of date.
  func isOutOfDate(_ leader: Int32?) -> Bool { leader.map(lostWhileAsking.contains) ?? false }

  /// - Parameters:
  ///   - isReading: whether anything is being read that could be doubted.
  ///   - now: of a monotonic clock, in ns.
  mutating func judge(
    _ signs: BrokerSigns.Contents, isReading: @autoclosure () -> Bool, _ now: UInt64
  ) -> Doubt? {
    guard signs.lost.isEmpty else {
      answersExpectedUntil = now + Self.answersExpected
      lostWhileAsking.formUnion(signs.lost)
      return .leads(signs.lost)
    }
    guard signs.answers > 0, now >= answersExpectedUntil, isReading() else { return nil }
    if now >= answersExpectedUntil + pause { pause = Self.pauses.first }
    answersExpectedUntil = now + pause
    pause = min(2 * pause, Self.pauses.most)
    return .everything
  }
}
