// What a request changes about a connection: the subscriptions in force from now on, and what its tokens say. Complete and
// checked; the worker that holds the connection may be another one.

import Kit

struct SubscriptionChange: Equatable {
  var subscriptions: [Subscription]
  var credentials: [Credential] = []

  /// For the other worker.
  var encoded: [UInt8] {
    var fields = FieldWriter()
    fields.append(Subscription.list(subscriptions))
    Credential.encode(credentials, into: &fields)
    return fields.bytes
  }

  init(_ subscriptions: [Subscription], _ credentials: [Credential] = []) {
    self.subscriptions = subscriptions
    self.credentials = credentials
  }

  /// nil if `bytes` isn't what `encoded` makes.
  init?(_ bytes: [UInt8], _ parser: SubscriptionParser) {
    var json: [UInt8]?
    var credentials: [Credential]?
    bytes.withUnsafeBytes { bytes in
      var fields = FieldReader(bytes)
      json = fields.data()
      credentials = Credential.decodeList(&fields)
      if !fields.isComplete { credentials = nil }
    }
    guard let json, let credentials,
      let parsed = try? parser.parse(json, isOurOwn: true)
    else { return nil }
    self.init(parsed.subscriptions, credentials)
  }
}
