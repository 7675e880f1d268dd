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
// alone (`isField`). Comparing makes no string of its own: it is done for every field of every message.

extension String {
  /// Whether it is the field name `lowercase`, in any case of its ASCII letters (RFC 9110 §5.1).
  public func isField(_ lowercase: StaticString) -> Bool {
    HeaderFields.isSame(utf8, lowercase) { $0 == $1 }
  }
}

/// Some names of header fields, in lower case, with '-', and of less than 64 octets.
public struct FieldNames: ExpressibleByArrayLiteral, Sendable {
  private let names: [StaticString]
  /// A bit for each length that is among them: most names of a message need no other look.
  private let lengths: UInt64

  public init(arrayLiteral names: StaticString...) { self.init(names) }

  /// Those of several lists.
  public init(_ lists: FieldNames...) { self.init(lists.flatMap(\.names)) }

  private init(_ names: [StaticString]) {
    self.names = names
    lengths = names.reduce(0) { $0 | 1 << UInt64($1.utf8CodeUnitCount) }
  }

  /// Whether `name` is one of them, in any case of its ASCII letters and with '_' for '-'.
  public func contains(_ name: String) -> Bool {
    let count = name.utf8.count
    guard count < UInt64.bitWidth, lengths >> UInt64(count) & 1 == 1 else { return false }
    return names.contains { HeaderFields.isSame(name.utf8, $0) { $0 == $1 || HeaderFields.isDash($0, $1) } }
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
  public static func isForwarding(_ name: String) -> Bool {
    forwarding.contains(name) || has(forwardingPrefix, name)
  }

  /// Whether it may stand behind a body, in requests and in answers. Who merged another one into the head could be led to read the
  /// message differently.
  public static func mayBeTrailer(_ name: String) -> Bool {
    !neverTrailers.contains(name) && !has(forwardingPrefix, name)
  }

  /// Whether a field that comes with a service's response is part of the answer. The rest concerns the way that it came.
  public static func isOfResponse(_ name: String) -> Bool {
    if ofResponses.contains(name) { return true }
    let isOfRequest = name.isField("accept") || prefixesOfRequests.contains { has($0, name) }
    return !isOfRequest && !neverOfResponses.contains(name) && !has(forwardingPrefix, name)
  }

  /// Whether two names are the same, in any case and with '_' for '-'.
  public static func isSame(_ a: String, _ b: String) -> Bool {
    a.utf8.count == b.utf8.count
      && a.utf8.elementsEqual(b.utf8) { folded($0) == folded($1) || (isDash($0, $1) || isDash($1, $0)) }
  }

  // MARK: Octets

  fileprivate static func isSame(
    _ name: some Collection<UInt8>, _ lowercase: StaticString, _ isAlike: (UInt8, UInt8) -> Bool
  ) -> Bool {
    let count = lowercase.utf8CodeUnitCount
    guard name.count == count else { return false }
    let expected = UnsafeBufferPointer(start: lowercase.utf8Start, count: count)
    return name.elementsEqual(expected) { octet, wanted in
      isAlike(octet, wanted) || (octet | 0x20 == wanted && UInt8(ascii: "a")...UInt8(ascii: "z") ~= wanted)
    }
  }

  private static func has(_ prefix: StaticString, _ name: String) -> Bool {
    let expected = UnsafeBufferPointer(start: prefix.utf8Start, count: prefix.utf8CodeUnitCount)
    return name.utf8.starts(with: expected) { folded($0) == $1 || isDash($0, $1) }
  }

  fileprivate static func isDash(_ octet: UInt8, _ wanted: UInt8) -> Bool {
    octet == UInt8(ascii: "_") && wanted == UInt8(ascii: "-")
  }

  private static func folded(_ octet: UInt8) -> UInt8 {
    UInt8(ascii: "A")...UInt8(ascii: "Z") ~= octet ? octet | 0x20 : octet
  }
}

/// The fields that the `connection` fields of a message name (RFC 9110 §7.6.1): they go no further.
public struct ConnectionOptions {
  private var names: [String] = []

  public init(_ fields: some Sequence<(name: String, value: String)>) {
    for (name, value) in fields where name.isField("connection") {
      for option in value.utf8.split(separator: UInt8(ascii: ",")) {
        let isBlank = { (byte: UInt8) in byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        let start = option.drop(while: isBlank)
        guard let last = start.lastIndex(where: { !isBlank($0) }) else { continue }
        names.append(String(Substring(start[...last])))
      }
    }
  }

  /// Whether the field is named, in any case and with '_' for '-'.
  public func contains(_ name: String) -> Bool { names.contains { HeaderFields.isSame($0, name) } }
}
