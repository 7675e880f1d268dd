// A broker in this process, librdkafka's mock cluster, and a producer for it.

import CRdKafka
import Testing

/// A cluster of one broker with one topic; ends with the object.
final class MockBroker {
  let topic = "rig"
  let address: String
  private let handle: OpaquePointer
  private let cluster: OpaquePointer
  private let producer: OpaquePointer

  init(partitions: Int32 = 1) throws {
    handle = try Self.client(servers: nil)
    cluster = try #require(rd_kafka_mock_cluster_new(handle, 1))
    address = String(cString: try #require(rd_kafka_mock_cluster_bootstraps(cluster)))
    try #require(rd_kafka_mock_topic_create(cluster, topic, partitions, 1) == RD_KAFKA_RESP_ERR_NO_ERROR)
    producer = try Self.client(servers: address)
  }

  deinit {
    rd_kafka_destroy(producer)
    rd_kafka_mock_cluster_destroy(cluster)
    rd_kafka_destroy(handle)
  }

  private static func client(servers: String?) throws -> OpaquePointer {
    let configuration = rd_kafka_conf_new()
    _ = rd_kafka_conf_set(configuration, "log_level", "0", nil, 0)
    if let servers { _ = rd_kafka_conf_set(configuration, "bootstrap.servers", servers, nil, 0) }
    return try #require(rd_kafka_new(RD_KAFKA_PRODUCER, configuration, nil, 0))
  }

  /// Appends records to one partition and waits until the broker has them.
  func produce(_ values: [String], partition: Int32 = 0) throws {
    let handle = try #require(rd_kafka_topic_new(producer, topic, nil))
    defer { rd_kafka_topic_destroy(handle) }
    for value in values {
      var bytes = Array(value.utf8)
      let outcome = rd_kafka_produce(
        handle, partition, RD_KAFKA_MSG_F_COPY, &bytes, bytes.count, nil, 0, nil)
      try #require(outcome == 0)
    }
    try #require(rd_kafka_flush(producer, 60_000) == RD_KAFKA_RESP_ERR_NO_ERROR)
  }

  /// One more topic, of one partition.
  func create(_ topic: String) throws {
    try #require(rd_kafka_mock_topic_create(cluster, topic, 1, 1) == RD_KAFKA_RESP_ERR_NO_ERROR)
  }

  /// A topic that doesn't exist, and isn't made because somebody asks for it.
  func withhold(_ topic: String) {
    rd_kafka_mock_topic_set_error(cluster, topic, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
  }

  /// Its clients lose their connections, and come back.
  func bounce() throws {
    try #require(rd_kafka_mock_broker_set_down(cluster, 1) == RD_KAFKA_RESP_ERR_NO_ERROR)
    try #require(rd_kafka_mock_broker_set_up(cluster, 1) == RD_KAFKA_RESP_ERR_NO_ERROR)
  }

  /// A CloudEvent.
  static func event(_ id: Int, padding: Int = 0) -> String {
    """
    {"specversion":"1.0","type":"t","source":"s","id":"\(id)","data":"\(String(repeating: "x", count: padding))"}
    """
  }
}
