// Places that many compete for, such as the requests that a worker proxies at once: of which no client and no API holds more than its
// share, so that nobody can keep all others out. `SharedPlaces` is pure; `CountedPlaces` counts and tells what it refuses.

import HTTP
import IPC
import Kit
import NIOHTTP1
import Settings

struct PlaceHolder: Hashable {
  /// nil: the client has no address; it counts for its API alone.
  var client: AddressPrefix?
  var api: String
}

/// Why there is no place now.
enum PlaceRefusal: String, Error, CaseIterable {
  /// All are taken.
  case all
  /// The client, or the API, holds its share.
  case client, api
}

/// How many places there are, and how many of them one client and one API may hold.
struct PlaceLimits: Equatable {
  let all: Int
  let perClient: Int
  let perAPI: Int

  /// Shares in percent of `all`; at least one place.
  init(all: Int, clientShare: Int, apiShare: Int) {
    self.all = all
    perClient = max(1, (all * clientShare + 99) / 100)
    perAPI = max(1, (all * apiShare + 99) / 100)
  }

  /// The configured shares of `all`.
  init(all: Int, _ settings: Settings) {
    self.init(all: all, clientShare: settings.maxShareOfClient, apiShare: settings.maxShareOfAPI)
  }

  /// How many places the refused one holds, or all hold.
  func limit(_ refusal: PlaceRefusal) -> Int {
    switch refusal {
    case .all: all
    case .client: perClient
    case .api: perAPI
    }
  }
}

struct SharedPlaces: Equatable {
  let limits: PlaceLimits
  private(set) var taken = 0
  private var ofClients: [AddressPrefix: Int] = [:]
  private var ofAPIs: [String: Int] = [:]

  init(_ limits: PlaceLimits) { self.limits = limits }

  /// Takes a place; whoever took it gives it back.
  mutating func take(_ holder: PlaceHolder) throws(PlaceRefusal) {
    guard taken < limits.all else { throw .all }
    if let client = holder.client, !Self.raise(&ofClients[client, default: 0], limits.perClient) {
      throw .client
    }
    guard Self.raise(&ofAPIs[holder.api, default: 0], limits.perAPI) else {
      if let client = holder.client { Self.lessen(&ofClients, client) }
      throw .api
    }
    taken += 1
  }

  mutating func giveBack(_ holder: PlaceHolder) {
    taken -= 1
    if let client = holder.client { Self.lessen(&ofClients, client) }
    Self.lessen(&ofAPIs, holder.api)
  }

  /// False: it is `most` already, which is at least one.
  private static func raise(_ count: inout Int, _ most: Int) -> Bool {
    guard count < most else { return false }
    count += 1
    return true
  }

  private static func lessen<Key>(_ counts: inout [Key: Int], _ key: Key) {
    guard let place = counts.index(forKey: key) else { return }
    if counts.values[place] > 1 { counts.values[place] -= 1 } else { counts.remove(at: place) }
  }
}

/// Places whose refusals are counted in the worker's status page and told: 429 to a client that holds its share, 503 for what the
/// client can't help.
struct CountedPlaces {
  /// There is no place now: what the client is told.
  struct Refusal: Error {
    let response: HTTPResponse
  }

  private var places: SharedPlaces
  private let setting: String
  private let what: String
  private let refused: [PlaceRefusal: Metric]

  /// - Parameters:
  ///   - setting: that says how many places there are, `MAX_TUNNELS`.
  ///   - what: they are of, `tunnels are open`.
  init(_ limits: PlaceLimits, setting: String, _ what: String, _ status: StatusPage) {
    places = SharedPlaces(limits)
    self.setting = setting
    self.what = what
    refused = Dictionary(
      uniqueKeysWithValues: PlaceRefusal.allCases.compactMap { refusal in
        status.metric(
          .counter, "rig_places_refused_total", labels: [("by", refusal.rawValue), ("limit", setting)]
        ).map { (refusal, $0) }
      })
  }

  var taken: Int { places.taken }

  /// Takes a place; whoever took it gives it back.
  mutating func take(_ holder: PlaceHolder) throws(Refusal) {
    do throws(PlaceRefusal) {
      try places.take(holder)
    } catch {
      refused[error]?.add()
      throw Refusal(response: response(error))
    }
  }

  mutating func giveBack(_ holder: PlaceHolder) { places.giveBack(holder) }

  private func response(_ refusal: PlaceRefusal) -> HTTPResponse {
    let count = places.limits.limit(refusal)
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
