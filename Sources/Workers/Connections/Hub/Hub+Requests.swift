// What requests of frontends ask of the hub, parsed by its settings.

import HTTP
import Kit

extension Hub {
  /// What a request for a connection asks for.
  func connectRequest(_ request: HTTPRequest) throws(RefusedRequest) -> ConnectRequest {
    var wanted = try ConnectRequest(
      request, parser: parser, authorizer: authorizer, proxies: proxies, checks: checks,
      unixMs: clock.unixMs)
    do throws(SubscriptionError) {
      wanted.hold = try hold(wanted.subscriptions)
    } catch {
      throw RefusedRequest(status: error.status, detail: "subscriptions: \(error.detail)")
    }
    return wanted
  }
}
