// The mock cluster that librdkafka carries for its own tests, owned.
//
// It listens on ports of 127.0.0.1 that the kernel picks, keeps at most 5 MB per partition in memory, and speaks
// enough of the protocol for producers, consumers and committed offsets. It holds a fetch without data back for
// the whole of the client's fetch.wait.max.ms, even if a record arrives meanwhile; real brokers don't.
// It must never be used for data that anybody wants to keep.

import CRdKafka

/// Why the mock cluster could not do something; the text names the value and librdkafka's reason.
struct MockClusterError: Error, CustomStringConvertible {
  let description: String
}

/// Owns a librdkafka handle and the mock cluster that lives in it; both end with the value.
struct MockCluster: ~Copyable {
  private let handle: OpaquePointer
  private let cluster: OpaquePointer

  /// Where clients connect: "127.0.0.1:PORT", comma-separated with several brokers.
  let bootstrap: String

  /// Starts `brokers` brokers with the ids 1 ... brokers.
  init(brokers: Int32) throws(MockClusterError) {
    let configuration = rd_kafka_conf_new()
    // Without it the handle announces on stderr that it has no broker to connect to, which is the intention.
    _ = rd_kafka_conf_set(configuration, "log_level", "3", nil, 0)
    var reason = [CChar](repeating: 0, count: 512)
    guard let handle = rd_kafka_new(RD_KAFKA_PRODUCER, configuration, &reason, reason.count) else {
      rd_kafka_conf_destroy(configuration)
      throw MockClusterError(description: "cannot create a librdkafka handle: \(text(of: reason))")
    }
    guard let cluster = rd_kafka_mock_cluster_new(handle, brokers),
      let addresses = rd_kafka_mock_cluster_bootstraps(cluster)
    else {
      rd_kafka_destroy(handle)
      throw MockClusterError(description: "cannot start a mock cluster of \(brokers) brokers")
    }
    self.handle = handle
    self.cluster = cluster
    bootstrap = String(cString: addresses)
  }

  deinit {
    rd_kafka_mock_cluster_destroy(cluster)
    rd_kafka_destroy(handle)
  }

  /// Carries out one command.
  borrowing func perform(_ command: BrokerCommand) throws(MockClusterError) {
    let outcome =
      switch command {
      case .down(let broker): rd_kafka_mock_broker_set_down(cluster, broker.number)
      case .up(let broker): rd_kafka_mock_broker_set_up(cluster, broker.number)
      case .roundTrip(let broker, let milliseconds):
        rd_kafka_mock_broker_set_rtt(cluster, broker.number, milliseconds)
      case .topic(let topic):
        // One replica: more brokers are for tests of leaders that go away, not for durability.
        rd_kafka_mock_topic_create(cluster, topic.name, topic.partitions, 1)
      case .leader(let topic, let partition, let broker):
        rd_kafka_mock_partition_set_leader(cluster, topic, partition, broker.number)
      }
    guard outcome == RD_KAFKA_RESP_ERR_NO_ERROR else {
      throw MockClusterError(description: "\(command): \(String(cString: rd_kafka_err2str(outcome)))")
    }
  }
}

/// The text in a zero-terminated buffer.
private func text(of buffer: [CChar]) -> String {
  String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
