// What all workers that take events in count in the same way: their series are added up, so the buckets must be the same.

import IPC

public enum EventMetrics {
  /// Time from an event's arrival in the worker until it is in the ring, `rig_consumed_event_processing_duration_milliseconds`.
  ///
  /// - Parameters:
  ///   - source: `http` or `kafka`.
  ///   - topic: of Kafka; empty for others.
  public static func processingDuration(
    _ status: StatusPage, source: String, topic: String = ""
  ) -> Histogram {
    Histogram(
      status, "rig_consumed_event_processing_duration_milliseconds",
      labels: [("source", source), ("topic", topic)],
      boundsNs: [
        10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 25_000_000, 100_000_000,
      ])
  }
}
