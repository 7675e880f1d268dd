// What requests of frontends ask of the hub, parsed by its settings.

import HTTP
import Kit

extension Hub {
  /// What a request for a connection asks for.
  func connectRequest(_ request: HTTPRequest) throws(RefusedRequest) -> ConnectRequest {
    try ConnectRequest(
      request, parser: parser, authorizer: authorizer, proxies: proxies, unixMs: clock.unixMs)
  }

  /// Subscriptions as a client or another worker wrote them.
  func parseSubscriptions(
    _ bytes: UnsafeRawBufferPointer, mustBeObject: Bool = false
  ) throws(SubscriptionError) -> SubscriptionParser.Parsed {
    try parser.parse(bytes, mustBeObject: mustBeObject)
  }

  func parseSubscriptions(
    _ bytes: [UInt8], mustBeObject: Bool = false
  ) throws(SubscriptionError) -> SubscriptionParser.Parsed {
    // Array's closures don't keep the type of what they throw.
    let parsed = bytes.withUnsafeBytes { bytes in
      Result { () throws(SubscriptionError) in try parser.parse(bytes, mustBeObject: mustBeObject) }
    }
    return try parsed.get()
  }
}
