// Headers on their way through the gateway (contract §8): what a service gets of a client's, and a client of a service's. Pure.
//
//   dropped both ways   hop-by-hop fields (RFC 9110 §7.6.1), those that `connection` names, and framing, which each hop has its own
//   to the service      host of the service; forwarded, x-forwarded-for, -host, -proto, via (RFC 9110 §7.6.3); trace context; what
//                       the API's transforms set
//
// Other forwarding fields (x-real-ip, x-forwarded-port …) are passed on from trusted proxies and dropped from everybody else; so are
// all that are written with '_', since no proxy replaces those.

import APIs
import HTTP
import Kit
import Links
import NIOCore
import NIOHTTP1

enum ForwardedHead {
  /// What isn't taken from a client: also the gateway's own business towards the service, and `proxy`, which services that see
  /// fields as variables (CGI) take for the setting HTTP_PROXY.
  private static let ownInRequests = FieldNames(
    HeaderFields.hopByHop, HeaderFields.framing, ["host", "expect", "proxy", "traceparent", "tracestate"])
  private static let ownInAnswers = FieldNames(HeaderFields.hopByHop, ["traceparent"])
  /// The gateway in `via`.
  private static let pseudonym: StaticString = "rig"

  /// What else is to be known of a request.
  struct Context {
    /// Whether the client came over TLS.
    var isTLS: Bool
    /// Host and perhaps port of the service, as the field `host` has them.
    var authority: String
    /// Set last, in this order.
    var addedHeaders: [(name: String, value: String)]
    /// Whether the peer is a proxy whose forwarding fields are kept and continued; otherwise they are replaced.
    var isPeerTrusted: Bool
    /// The address that the connection came from.
    var peer: String
    /// Ours, that it came to.
    var local: String
  }

  /// The fields of the request to the service.
  static func toService(_ request: HTTPRequest, _ context: Context) -> HTTPFields {
    let given = request.headers
    let named = ConnectionOptions(given)
    let (trusted, lists) = (context.isPeerTrusted, Lists(given, areContinued: context.isPeerTrusted))
    var fields = HTTPFields()
    fields.reserveCapacity(given.count + Self.ownFields + context.addedHeaders.count)
    fields.reserveBytes(given.wireBlock.count + Self.ownBytes)
    fields.add(name: "host") { $0 += context.authority.utf8 }
    var position = -1
    fields.add(contentsOf: given) { name, _ in
      position += 1
      return !ownInRequests.contains(name) && !named.contains(name)
        && (!HeaderFields.isForwarding(name)
          || trusted && !name.contains(UInt8(ascii: "_")) && !lists.positions.contains(position))
    }
    if !request.traceparent.isEmpty { fields.add(name: "traceparent") { $0 += request.traceparent.utf8 } }
    // The client's own, which it is only beside the client's own traceparent (W3C Trace Context §3.3.1).
    if let state = request.tracestate { fields.add(name: "tracestate", value: state) }
    addForwarding(of: request, context, lists, to: &fields)
    for header in context.addedHeaders
    where !HeaderFields.hopByHop.contains(header.name) && !HeaderFields.framing.contains(header.name) {
      fields.removeAll { HeaderFields.isSame($0.name, header.name) }
      fields.add(name: header.name, value: header.value)
    }
    return fields
  }

  /// The fields of an answer for the client.
  static func toClient(_ fields: HTTPFields) -> HTTPFields {
    let named = ConnectionOptions(fields)
    return fields.filtered { name in
      if ownInAnswers.contains(name) || named.contains(name) { return false }
      // Another spelling of the length may be another length to somebody.
      return !HeaderFields.framing.contains(name) || HTTPOctets.matches(name, "content-length")
    }
  }

  // MARK: Forwarding fields

  /// `host`, trace context and the five forwarding fields.
  private static let ownFields = 8
  private static let ownBytes = 384

  /// The last field of each list that every proxy on the way adds to: ours goes on with it.
  private struct Lists {
    private(set) var positions: [Int] = []
    private(set) var forwarded: [UInt8] = []
    private(set) var forwardedFor: [UInt8] = []
    private(set) var via: [UInt8] = []

    /// - Parameter areContinued: lists that came from a trusted proxy are; others are begun anew.
    init(_ fields: HTTPFields, areContinued: Bool) {
      guard areContinued else { return }
      forwarded = take("forwarded", fields)
      forwardedFor = take("x-forwarded-for", fields)
      via = take("via", fields)
    }

    private mutating func take(_ name: StaticString, _ fields: HTTPFields) -> [UInt8] {
      guard let position = fields.lastIndex(where: { $0.nameIs(name) }) else { return [] }
      positions.append(position)
      return Array(fields[position].valueOctets) + ", ".utf8
    }
  }

  private static func addForwarding(
    of request: HTTPRequest, _ context: Context, _ lists: Lists, to fields: inout HTTPFields
  ) {
    let scheme: StaticString = context.isTLS ? "https" : "http"
    let host = request.headers.octets(of: "host") ?? []
    fields.add(name: "forwarded") { value in
      value += lists.forwarded
      append("for=", to: &value)
      appendNode(context.peer, to: &value)
      append(";by=", to: &value)
      appendNode(context.local, to: &value)
      append(";proto=", to: &value)
      append(scheme, to: &value)
      if !host.isEmpty, host.allSatisfy(isPlain) {
        append(";host=", to: &value)
        value += host
      } else if !host.isEmpty, host.allSatisfy(isQuotable) {
        append(";host=\"", to: &value)
        value += host
        value.append(UInt8(ascii: "\""))
      }
    }
    if !context.peer.isEmpty {
      fields.add(name: "x-forwarded-for") { value in
        value += lists.forwardedFor
        value += context.peer.utf8
      }
    }
    // What the first proxy has seen counts; a later one doesn't know it better.
    if !host.isEmpty, !(context.isPeerTrusted && request.headers.contains(name: "x-forwarded-host")) {
      fields.add(name: "x-forwarded-host") { $0 += host }
    }
    if !(context.isPeerTrusted && request.headers.contains(name: "x-forwarded-proto")) {
      fields.add(name: "x-forwarded-proto") { append(scheme, to: &$0) }
    }
    let received: StaticString = request.isHTTP2 ? "2 " : request.version == .http1_0 ? "1.0 " : "1.1 "
    fields.add(name: "via") { value in
      value += lists.via
      append(received, to: &value)
      append(pseudonym, to: &value)
    }
  }

  private static func append(_ text: StaticString, to octets: inout [UInt8]) {
    octets.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// A node of the field `forwarded` (RFC 7239 §6): addresses of IPv6 are quoted.
  private static func appendNode(_ address: String, to octets: inout [UInt8]) {
    if address.isEmpty {
      append("unknown", to: &octets)
    } else if address.utf8.contains(UInt8(ascii: ":")) {
      append("\"[", to: &octets)
      octets += address.utf8
      append("]\"", to: &octets)
    } else {
      octets += address.utf8
    }
  }

  private static func isPlain(_ octet: UInt8) -> Bool {
    switch octet {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private static func isQuotable(_ octet: UInt8) -> Bool {
    (0x21...0x7e).contains(octet) && octet != UInt8(ascii: "\"") && octet != UInt8(ascii: "\\")
  }
}

/// What of a request says who its client is, and where it may go (contract §8). An endpoint with `forward_credentials` gets all of it.
/// An event is kept and read by many; so are the logs of services, which have the query of each request in them.
///
///                                             service by HTTP   event for Kafka
///   authorization, cookie                     yes               no
///   the header that the API's auth names      yes               no
///   the parameter that the API's auth names   no                no
///   the parameter `jwt` (contract §6.1)       yes               no
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

  /// The headers for an event, names in lower case as RIG has them.
  func eventHeaders(_ fields: HTTPFields) -> [(name: String, value: String)] {
    fields.strings.filter { areForwarded || !isCredential($0.name) }
      .map { (name: $0.name.lowercased(), value: $0.value) }
  }

  private func isCredential(_ name: String) -> Bool {
    HeaderFields.credentials.contains(name) || headers.contains { HeaderFields.isSame($0, name) }
  }
}

extension HTTPResponse {
  /// A service's response as the client gets it.
  init(_ response: ServiceResponse) {
    self.init(
      status: HTTPResponseStatus(statusCode: Int(response.status)),
      headers: ForwardedHead.toClient(HTTPFields(wireBlock: response.fields) ?? [:]),
      body: ByteBuffer(bytes: response.body))
  }
}
