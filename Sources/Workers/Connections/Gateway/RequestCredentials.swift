// What of a request says who its client is, and where it may go (contract §8). Pure.
//
//                                             service by HTTP   event for Kafka
//   authorization, cookie                     yes               no
//   the header that the API's auth names      yes               no
//   the parameter that the API's auth names   no                no
//   the parameter `jwt` (contract §6.1)       yes               no
//
// An endpoint with `forward_credentials` gets all of them. An event is kept and read by many; so are the logs of services, which have
// the query of each request in them.

import APIs
import HTTP
import Kit

struct RequestCredentials {
  private static let commonParameter = "jwt"

  /// Whether they go everywhere.
  private let areForwarded: Bool
  private let headers: [String]
  private let parameters: [String]

  init(_ match: APIMatch) {
    areForwarded = match.endpoint.forwardsCredentials
    // The token may be another API's, if another reading of the path leads there.
    let auths = [match.definition.auth] + (match.authority.map { [$0.auth] } ?? [])
    headers = auths.compactMap { $0.useHeader && !$0.headerName.isEmpty ? $0.headerName : nil }
    parameters = auths.compactMap { $0.useQuery && !$0.queryName.isEmpty ? $0.queryName : nil }
  }

  /// The query for the service.
  func serviceQuery(_ query: String?) -> String? {
    areForwarded ? query : QueryString.without(parameters, in: query)
  }

  /// The query for an event.
  func eventQuery(_ query: String?) -> String? {
    areForwarded ? query : QueryString.without(parameters + [Self.commonParameter], in: query)
  }

  /// The headers for an event, names in lower case as RIG has them; names and values, alternately.
  func eventHeaders(_ pairs: [String]) -> [String] {
    stride(from: 0, to: pairs.count - 1, by: 2).filter { areForwarded || !isCredential(pairs[$0]) }
      .flatMap { [pairs[$0].lowercased(), pairs[$0 + 1]] }
  }

  private func isCredential(_ name: String) -> Bool {
    HeaderFields.credentials.contains(name) || headers.contains { HeaderFields.isSame($0, name) }
  }
}
