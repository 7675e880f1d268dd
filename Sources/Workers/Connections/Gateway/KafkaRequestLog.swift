// Records of proxied requests on their way to Kafka (REQUEST_LOG=kafka), each as one CloudEvent without a key. Requests matter
// more: so many records may wait for their acknowledgement, fewer than publications may, and what the brokers don't take in
// time is dropped and counted, never sent a second time.

import IPC
import Kit
import Links

final class KafkaRequestLog: RequestLogSink {
  /// Records that wait for their acknowledgement at once; more are dropped. The rest of `PublicationClient.maximumWaiting` is
  /// for the requests themselves.
  static let maximumWaiting = PublicationClient.maximumWaiting / 2
  static let headers = ["content-type", "application/cloudevents+json"]

  private let publications: PublicationClient
  private let topic: String
  private let dropped: Metric?
  private var waiting = 0

  init(_ publications: PublicationClient, topic: String, _ context: WorkerContext) {
    self.publications = publications
    self.topic = topic
    dropped = context.status.metric(
      .counter, "rig_request_log_dropped_total", labels: [("log", "kafka"), ("worker", context.name)])
  }

  func log(_ record: RequestRecord) {
    guard waiting < Self.maximumWaiting else { return dropped?.add() ?? () }
    waiting += 1
    let stamp = Stamp.now()
    publications.publish(
      topic: topic, key: nil, headers: Self.headers,
      value: record.event(id: stamp.uuid, time: stamp.rfc3339),
      nowNs: MonotonicTime.now()
    ) { [self] outcome in
      waiting -= 1
      if outcome != .acknowledged { dropped?.add() }
    }
  }

  /// What is on its way is with the streams worker, which ends after this one or with it.
  func close() {}
}
