// Which header fields concern whom: one list for requests and answers, heads and trailers, HTTP/1.1 and HTTP/2, events for Kafka and
// the responses of services.
//
//   hop by hop    one connection only (RFC 9110 §7.6.1), as do those that `connection` names: dropped both ways
//   framing       how long a message is: each hop has its own
//   forwarding    for whom a request comes, and for what: believed of trusted proxies, else replaced or dropped
//   credentials   who the client is: for services, not for events
//
// Names are the same in any case, and with '_' for '-': services that see fields as variables (CGI, WSGI, PHP) don't tell
// X_Forwarded_For from X-Forwarded-For, so what drops or replaces one drops the other. What is *understood* is the right name
// alone (`isField`). Comparing makes no string of its own and is written as loops over octets: it is done for every field of every
// message.

extension String {
  /// Whether it is the field name `lowercase`, in any case of its ASCII letters (RFC 9110 §5.1).
  public func isField(_ lowercase: StaticString) -> Bool {
    guard utf8.count == lowercase.utf8CodeUnitCount else { return false }
    return HeaderFields.withOctets(self) { HeaderFields.begins($0, lowercase, dashes: false) }
  }
}

/// Some names of header fields, in lower case, with '-', and of less than 64 octets.
public struct FieldNames: ExpressibleByArrayLiteral, Sendable {
  private let names: [StaticString]
  /// A bit for each length that is among them: most names of a message need no other look.
  private let lengths: UInt64

  public init(arrayLiteral names: StaticString...) { self.init(names) }

  public init(_ lists: FieldNames...) { self.init(lists.flatMap(\.names)) }

  private init(_ names: [StaticString]) {
    self.names = names
    lengths = names.reduce(0) { $0 | 1 << UInt64($1.utf8CodeUnitCount) }
  }

  /// Whether `name` is one of them, in any case of its ASCII letters and with '_' for '-'.
  public func contains(_ name: String) -> Bool { HeaderFields.withOctets(name, contains) }

  /// The same, of a name in octets.
  public func contains(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    guard name.count < UInt64.bitWidth, lengths >> UInt64(name.count) & 1 == 1 else { return false }
    for candidate in names
    where candidate.utf8CodeUnitCount == name.count && HeaderFields.begins(name, candidate, dashes: true) {
      return true
    }
    return false
  }
}

public enum HeaderFields {
  /// Of one connection only; proxy-authorization is for the proxy that asked for it, which we are.
  public static let hopByHop: FieldNames = [
    "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
  ]
  public static let framing: FieldNames = ["content-length", "transfer-encoding"]
  public static let credentials: FieldNames = ["authorization", "cookie", "proxy-authorization"]
  /// The last two name another path than the request line, and services exist that believe them.
  private static let forwarding: FieldNames = [
    "forwarded", "via", "x-real-ip", "x-original-url", "x-rewrite-url",
  ]
  private static let forwardingPrefix: StaticString = "x-forwarded-"

  /// Fields that decide about routing, conditions or what the content is: none of them comes behind a body (RFC 9110 §6.5.1).
  private static let ofHeads: FieldNames = [
    "cache-control", "content-encoding", "content-range", "content-type", "expect", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "max-forwards", "proxy", "range",
    "set-cookie",
    "traceparent", "tracestate", "www-authenticate",
  ]
  private static let neverTrailers = FieldNames(hopByHop, framing, credentials, forwarding, ofHeads)
  /// Of the request that brings a service's response, not of the response.
  private static let ofRequests: FieldNames = [
    "date", "expect", "from", "host", "max-forwards", "origin", "range", "referer", "traceparent",
    "tracestate",
    "upgrade-insecure-requests", "user-agent", "x-request-id",
  ]
  private static let neverOfResponses = FieldNames(hopByHop, framing, credentials, forwarding, ofRequests)
  private static let prefixesOfRequests: [StaticString] = ["accept-", "if-", "rig-", "sec-"]
  /// Begin like a field of requests, and are fields of answers.
  private static let ofResponses: FieldNames = ["accept-ranges", "accept-patch", "accept-post"]

  /// Whether it says for whom a request comes: `forwarded`, `x-forwarded-…`, `via`, `x-real-ip` and the like.
  public static func isForwarding(_ name: String) -> Bool { withOctets(name, isForwarding) }

  public static func isForwarding(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    forwarding.contains(name) || has(forwardingPrefix, name)
  }

  /// Whether it may stand behind a body, in requests and in answers. Who merged another one into the head could be led to read the
  /// message differently.
  public static func mayBeTrailer(_ name: String) -> Bool { withOctets(name, mayBeTrailer) }

  public static func mayBeTrailer(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    !neverTrailers.contains(name) && !has(forwardingPrefix, name)
  }

  /// Whether a field that comes with a service's response is part of the answer. The rest concerns the way that it came.
  public static func isOfResponse(_ name: String) -> Bool { withOctets(name, isOfResponse) }

  public static func isOfResponse(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    if ofResponses.contains(name) { return true }
    let isOfRequest = HTTPOctets.matches(name, "accept") || prefixesOfRequests.contains { has($0, name) }
    return !isOfRequest && !neverOfResponses.contains(name) && !has(forwardingPrefix, name)
  }

  /// Refuses a body in a content coding (RFC 9110 §8.4): where bodies are read, they are read as they come.
  ///
  /// - Throws: 415.
  public static func requireNoContentCoding(
    _ fields: some Sequence<(name: String, value: String)>
  ) throws(EventError) {
    guard let field = fields.first(where: { $0.name.isField("content-encoding") }) else { return }
    throw EventError(
      status: 415,
      "header content-encoding is '\(field.value.prefix(64))', expected none: the body is read as it comes")
  }

  /// Whether two names are the same, in any case and with '_' for '-'.
  public static func isSame(_ a: String, _ b: String) -> Bool {
    a.utf8.count == b.utf8.count
      && withOctets(a) { a in withOctets(b) { isSame(a, $0) } }
  }

  // MARK: Octets

  fileprivate typealias Octets = UnsafeBufferPointer<UInt8>

  /// Without a copy: names of messages lie in one piece.
  fileprivate static func withOctets<Result>(_ text: String, _ body: (Octets) -> Result) -> Result {
    if let result = text.utf8.withContiguousStorageIfAvailable(body) { return result }
    var copy = text
    return copy.withUTF8(body)
  }

  /// - Parameters:
  ///   - lowercase: not longer than `octets`.
  ///   - dashes: whether '_' counts as '-'.
  fileprivate static func begins(_ octets: Octets, _ lowercase: StaticString, dashes: Bool) -> Bool {
    let wanted = lowercase.utf8Start
    for position in 0..<lowercase.utf8CodeUnitCount {
      let octet = octets[position]
      if octet == wanted[position] || folded(octet) == wanted[position] { continue }
      guard dashes, octet == UInt8(ascii: "_"), wanted[position] == UInt8(ascii: "-") else { return false }
    }
    return true
  }

  fileprivate static func isSame(_ a: Octets, _ b: Octets) -> Bool {
    guard a.count == b.count else { return false }
    for position in a.indices where compared(a[position]) != compared(b[position]) { return false }
    return true
  }

  private static func has(_ prefix: StaticString, _ name: Octets) -> Bool {
    name.count >= prefix.utf8CodeUnitCount && begins(name, prefix, dashes: true)
  }

  private static func compared(_ octet: UInt8) -> UInt8 {
    octet == UInt8(ascii: "_") ? UInt8(ascii: "-") : folded(octet)
  }

  private static func folded(_ octet: UInt8) -> UInt8 {
    UInt8(ascii: "A")...UInt8(ascii: "Z") ~= octet ? octet | 0x20 : octet
  }
}

/// The fields that the `connection` fields of a message name (RFC 9110 §7.6.1): they go no further.
public struct ConnectionOptions {
  /// As they came. `keep-alive` and `close` alone, what nearly all have, aren't kept: the first is hop by hop by itself, and the second
  /// names no field.
  private var values: [[UInt8]] = []

  public init() {}

  public init(_ fields: some Sequence<(name: String, value: String)>) {
    for (name, value) in fields { note(name, value) }
  }

  /// Takes one more field of the message.
  public mutating func note(_ name: String, _ value: String) {
    if name.isField("connection") { HeaderFields.withOctets(value) { note(value: $0) } }
  }

  /// Takes one more field named `connection`.
  public mutating func note(value: UnsafeBufferPointer<UInt8>) {
    if !HTTPOctets.matches(value, "keep-alive"), !HTTPOctets.matches(value, "close") {
      values.append(Array(value))
    }
  }

  /// Whether the field is named, in any case and with '_' for '-'.
  public func contains(_ name: String) -> Bool {
    !values.isEmpty && HeaderFields.withOctets(name, contains)
  }

  /// The same, of a name in octets.
  public func contains(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    values.contains { $0.withUnsafeBufferPointer { Self.names($0, name) } }
  }

  /// Whether one of the options in `value` is `name`.
  private static func names(_ value: UnsafeBufferPointer<UInt8>, _ name: UnsafeBufferPointer<UInt8>) -> Bool {
    value.split(separator: UInt8(ascii: ",")).contains { option in
      let option = HTTPOctets.trimmed(option)
      return !option.isEmpty && HeaderFields.isSame(name, UnsafeBufferPointer(rebasing: option))
    }
  }
}
