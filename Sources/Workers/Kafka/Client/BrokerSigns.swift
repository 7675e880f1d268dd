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
