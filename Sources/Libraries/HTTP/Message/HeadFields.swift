// One pass over a request head that collects what the front itself looks at.
//
// Header fields are compared by length first, so that most of them cost one comparison.

import Kit

/// What the front has to know of a request's head.
struct HeadFields {
  private(set) var hosts = 0
  /// A `host` that is neither empty nor an authority.
  private(set) var invalidHost: String?
  private(set) var expectsContinue = false
  /// An `expect` that isn't `100-continue`.
  private(set) var unknownExpectation: String?
  private(set) var traceparent: String?
  private(set) var traceparents = 0
  /// All `tracestate` fields, in order, joined by commas (RFC 9110 §5.3).
  private(set) var tracestate: String?
  /// A protocol that `upgrade` names.
  private var hasUpgrade = false
  private var isUpgradeNamed = false

  /// Whether the client asks to leave HTTP (RFC 9110 §7.8): `connection` names `upgrade`, and that a protocol.
  var isUpgrade: Bool { hasUpgrade && isUpgradeNamed }

  init(_ fields: HTTPFields) {
    for field in fields {
      switch field.nameCount {
      case 4 where field.nameIs("host"):
        hosts += 1
        if !field.withValue({ $0.isEmpty || Authority.isValid($0) }) { invalidHost = field.value }
      case 6 where field.nameIs("expect"):
        if field.valueIs("100-continue") {
          expectsContinue = true
        } else {
          unknownExpectation = field.value
        }
      case 7 where field.nameIs("upgrade"):
        if !field.valueOctets.isEmpty { hasUpgrade = true }
      case 10 where field.nameIs("connection"):
        if field.hasOption("upgrade") { isUpgradeNamed = true }
      case 10 where field.nameIs("tracestate"):
        tracestate = tracestate.map { "\($0),\(field.value)" } ?? field.value
      case 11 where field.nameIs("traceparent"):
        traceparents += 1
        traceparent = field.value
      default: break
      }
    }
  }
}
