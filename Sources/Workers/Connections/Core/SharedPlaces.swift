// Places that many compete for, such as the requests that a worker proxies at once: of which no client and no API holds more than its
// share, so that nobody can keep all others out. Pure.

import Kit
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

struct SharedPlaces {
  let limits: PlaceLimits
  private(set) var taken = 0
  private var ofClients: [AddressPrefix: Int] = [:]
  private var ofAPIs: [String: Int] = [:]

  init(_ limits: PlaceLimits) { self.limits = limits }

  /// Clients and APIs that hold a place.
  var holders: (clients: Int, apis: Int) { (ofClients.count, ofAPIs.count) }

  /// Takes a place; whoever took it gives it back.
  mutating func take(_ holder: PlaceHolder) throws(PlaceRefusal) {
    guard taken < limits.all else { throw .all }
    if let client = holder.client, ofClients[client, default: 0] >= limits.perClient { throw .client }
    guard ofAPIs[holder.api, default: 0] < limits.perAPI else { throw .api }
    taken += 1
    if let client = holder.client { ofClients[client, default: 0] += 1 }
    ofAPIs[holder.api, default: 0] += 1
  }

  mutating func giveBack(_ holder: PlaceHolder) {
    taken -= 1
    if let client = holder.client { Self.lessen(&ofClients, client) }
    Self.lessen(&ofAPIs, holder.api)
  }

  private static func lessen<Key>(_ counts: inout [Key: Int], _ key: Key) {
    guard let count = counts[key] else { return }
    counts[key] = count > 1 ? count - 1 : nil
  }
}
