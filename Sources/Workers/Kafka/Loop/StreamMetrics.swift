// The numbers of this worker in its status page.

import IPC
import Kit

/// Counters and gauges, looked up once.
final class StreamMetrics {
  /// Topics with a duration of their own; the rest counts under "other".
  private static let mostDurationTopics = 50
  /// Longer names would make series that are too long.
  private static let mostTopicBytes = 100
  /// Partitions with a lag of their own; the rest adds up under "other" (design §10).
  static let maximumLagSeries = 200

  let consumed: LabelledCounter
  let failed: LabelledCounter
  let offsetResets: LabelledCounter
  let recordsLost: LabelledCounter
  let ringFull: Metric?
  let connected: Metric?
  let paused: Metric?
  let commits: Metric?
  let failedCommits: Metric?
  let clientRestarts: Metric?

  private let status: StatusPage
  /// As metrics call it.
  private let source: String
  private var durations: [String: Histogram] = [:]
  private lazy var restDuration = EventMetrics.processingDuration(status, source: source, topic: "other")
  private var lags: [Metric?] = []
  private lazy var restLag = lag(topic: "other", partition: "other")

  init(_ status: StatusPage, ring: String, source name: String = "kafka") {
    self.status = status
    source = name
    let source = [("source", name)]
    consumed = LabelledCounter(status, "rig_consumed_events_total", labels: source, label: "topic")
    failed = LabelledCounter(status, "rig_consumed_events_failed_total", labels: source, label: "topic")
    offsetResets = LabelledCounter(status, "rig_kafka_offset_resets_total", label: "topic")
    recordsLost = LabelledCounter(status, "rig_kafka_records_lost_total", label: "topic")
    ringFull = status.metric(.counter, "rig_ring_full_total", labels: [("ring", ring)])
    connected = status.metric(.gauge, "rig_kafka_connected")
    paused = status.metric(.gauge, "rig_kafka_consumer_paused")
    commits = status.metric(.counter, "rig_kafka_offset_commits_total")
    failedCommits = status.metric(.counter, "rig_kafka_offset_commits_failed_total")
    clientRestarts = status.metric(.counter, "rig_kafka_client_restarts_total")
  }

  /// The time that records of a topic take.
  func duration(topic: String) -> Histogram {
    if let duration = durations[topic] { return duration }
    guard durations.count < Self.mostDurationTopics, topic.utf8.count <= Self.mostTopicBytes else {
      return restDuration
    }
    let duration = EventMetrics.processingDuration(status, source: source, topic: topic)
    durations[topic] = duration
    return duration
  }

  /// Sets how many records each partition is behind. The order of the partitions must not change.
  func setLags(_ values: some Sequence<(name: TopicPartition, lag: Int64?)>) {
    var rest: Int64 = 0
    var hasRest = false
    for (number, value) in values.enumerated() {
      if number >= Self.maximumLagSeries {
        hasRest = true
        rest += value.lag ?? 0
        continue
      }
      if number == lags.count {
        lags.append(lag(topic: value.name.topic, partition: "\(value.name.partition)"))
      }
      if let lag = value.lag { lags[number]?.set(lag) }
    }
    if hasRest { restLag?.set(rest) }
  }

  private func lag(topic: String, partition: String) -> Metric? {
    status.metric(.gauge, "rig_kafka_consumer_lag", labels: [("topic", topic), ("partition", partition)])
  }
}
