// How a refused place is counted and told: 429 for a client that holds its share, 503 for what the client can't help.

import HTTP
import IPC
import Kit
import NIOHTTP1

/// Refusals of places of one kind, in the worker's status page.
struct PlaceCounters {
  /// The setting that says how many places there are.
  let setting: String
  private let limits: PlaceLimits
  private let refused: [PlaceRefusal: Metric]

  init(_ setting: String, _ limits: PlaceLimits, _ status: StatusPage) {
    self.setting = setting
    self.limits = limits
    refused = Dictionary(
      uniqueKeysWithValues: PlaceRefusal.allCases.compactMap { refusal in
        status.metric(
          .counter, "rig_places_refused_total", labels: [("by", refusal.rawValue), ("limit", setting)]
        ).map { (refusal, $0) }
      })
  }

  func add(_ refusal: PlaceRefusal) { refused[refusal]?.add() }

  /// - Parameter what: `requests being proxied`.
  func response(_ refusal: PlaceRefusal, _ what: String) -> HTTPResponse {
    let count = limits.limit(refusal)
    switch refusal {
    case .all:
      return .unavailable(retryAfterSeconds: 1, "\(count) \(what) by this worker, its limit (\(setting))")
    case .api:
      return .unavailable(
        retryAfterSeconds: 1, "\(count) \(what) for this API, its share of \(setting) (MAX_SHARE_OF_API)")
    case .client:
      return .problem(
        .tooManyRequests,
        "\(count) \(what) for this client's address, its share of \(setting) (MAX_SHARE_OF_CLIENT; who stands "
          + "in front of clients has to be one of TRUSTED_PROXIES)",
        headers: ["retry-after": "1"])
    }
  }
}
