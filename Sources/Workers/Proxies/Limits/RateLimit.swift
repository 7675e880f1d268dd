// What a proxy worker limits, and what it counts of it. A bucket belongs to one proxy worker, which connection workers find by its
// key, so the limit holds for the gateway as a whole. The buckets of a proxy worker that has died start full again.

import IPC
import Kit
import Settings

/// Belongs to the worker's loop.
final class RateLimit {
  private var limiter: RateLimiter
  private let refused: Metric?
  private let displaced: Metric?
  private let buckets: Metric?
  private let bytes: Metric?
  private var countedDisplaced = 0

  /// nil: nothing is limited.
  ///
  /// - Parameter worker: value of the label `worker`.
  init?(_ settings: Settings, _ status: StatusPage, worker: String) {
    guard settings.rateLimitEnabled else { return nil }
    limiter = RateLimiter(
      TokenBucket.Rate(perSecond: settings.rateLimitPerSecond, burst: settings.rateLimitBurst))
    let labels = [("worker", worker)]
    refused = status.metric(.counter, "rig_rate_limited_requests_total", labels: labels)
    displaced = status.metric(.counter, "rig_rate_limit_buckets_displaced_total", labels: labels)
    buckets = status.metric(.gauge, "rig_rate_limit_buckets", labels: labels)
    bytes = status.metric(.gauge, "rig_rate_limit_bytes", labels: labels)
  }

  /// nil: a request with this key may go on; else the seconds after which another may, at least 1.
  func refusal(_ key: String, nowNs: UInt64) -> UInt32? {
    guard let waitNs = limiter.take(key, nowNs: nowNs) else { return nil }
    refused?.add()
    let nsPerSecond: UInt64 = 1_000_000_000
    return UInt32(clamping: max(1, (waitNs + nsPerSecond - 1) / nsPerSecond))
  }

  /// Once per second.
  func tick(nowNs: UInt64) {
    limiter.forgetFull(nowNs: nowNs)
    buckets?.set(Int64(limiter.count))
    bytes?.set(Int64(limiter.bytes))
    displaced?.add(Int64(limiter.displaced - countedDisplaced))
    countedDisplaced = limiter.displaced
  }
}
