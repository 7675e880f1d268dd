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
  private static let pseudonym = "rig"

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

  /// Names and values, alternately, of the request to the service.
  static func toService(_ request: HTTPRequest, _ context: Context) -> [String] {
    let named = ConnectionOptions(request.headers)
    var fields: [(name: String, value: String)] = [("host", context.authority)]
    fields.reserveCapacity(request.headers.count + 7 + context.addedHeaders.count)
    for (name, value) in request.headers.strings {
      guard !ownInRequests.contains(name), !named.contains(name),
        !HeaderFields.isForwarding(name) || (context.isPeerTrusted && !name.utf8.contains(UInt8(ascii: "_")))
      else { continue }
      fields.append((name, value))
    }
    if !request.traceparent.isEmpty { fields.append(("traceparent", request.traceparent)) }
    // The client's own, which it is only beside the client's own traceparent (W3C Trace Context §3.3.1).
    if let state = request.tracestate { fields.append(("tracestate", state)) }
    append(forwardingFields(request, context), to: &fields, mayContinue: context.isPeerTrusted)
    for header in context.addedHeaders
    where !HeaderFields.hopByHop.contains(header.name) && !HeaderFields.framing.contains(header.name) {
      fields.removeAll { HeaderFields.isSame($0.name, header.name) }
      fields.append(header)
    }
    var pairs: [String] = []
    pairs.reserveCapacity(2 * fields.count)
    for field in fields {
      pairs.append(field.name)
      pairs.append(field.value)
    }
    return pairs
  }

  /// The fields of an answer for the client.
  static func toClient(_ pairs: [String]) -> HTTPFields {
    var headers = HTTPFields()
    headers.reserveCapacity(pairs.count / 2)
    let positions = stride(from: 0, to: pairs.count - 1, by: 2)
    var named = ConnectionOptions()
    for position in positions { named.note(pairs[position], pairs[position + 1]) }
    for position in positions {
      let name = pairs[position]
      if ownInAnswers.contains(name) || named.contains(name) { continue }
      // Another spelling of the length may be another length to somebody.
      if HeaderFields.framing.contains(name), !name.isField("content-length") { continue }
      headers.add(name: name, value: pairs[position + 1])
    }
    return headers
  }

  // MARK: Forwarding fields

  private static func forwardingFields(_ request: HTTPRequest, _ context: Context) -> [(
    name: String, value: String, isList: Bool
  )] {
    let scheme = context.isTLS ? "https" : "http"
    let host = request.header("host") ?? ""
    var element = "for=" + node(context.peer) + ";by=" + node(context.local) + ";proto=" + scheme
    if isPlainHost(host) {
      element += ";host=" + host
    } else if isQuotable(host) {
      element += ";host=\"\(host)\""
    }
    var fields = [(name: "forwarded", value: element, isList: true)]
    if !context.peer.isEmpty { fields.append(("x-forwarded-for", context.peer, true)) }
    // What the first proxy has seen counts; a later one doesn't know it better.
    if !host.isEmpty, !(context.isPeerTrusted && request.headers.contains(name: "x-forwarded-host")) {
      fields.append(("x-forwarded-host", host, false))
    }
    if !(context.isPeerTrusted && request.headers.contains(name: "x-forwarded-proto")) {
      fields.append(("x-forwarded-proto", scheme, false))
    }
    let received = request.isHTTP2 ? "2" : request.version == .http1_0 ? "1.0" : "1.1"
    fields.append(("via", "\(received) \(pseudonym)", true))
    return fields
  }

  /// Continues lists that came from a trusted proxy; those of others have been dropped.
  private static func append(
    _ more: [(name: String, value: String, isList: Bool)], to fields: inout [(name: String, value: String)],
    mayContinue: Bool
  ) {
    for field in more {
      if mayContinue, field.isList, let last = fields.lastIndex(where: { $0.name.lowercased() == field.name })
      {
        fields[last].value += ", \(field.value)"
      } else {
        fields.append((field.name, field.value))
      }
    }
  }

  /// A node of the field `forwarded` (RFC 7239 §6): addresses of IPv6 are quoted.
  private static func node(_ address: String) -> String {
    if address.isEmpty { return "unknown" }
    return address.utf8.contains(UInt8(ascii: ":")) ? "\"[\(address)]\"" : address
  }

  private static func isPlainHost(_ text: String) -> Bool {
    !text.isEmpty
      && text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
          true
        default: false
        }
      }
  }

  private static func isQuotable(_ text: String) -> Bool {
    !text.isEmpty
      && text.utf8.allSatisfy {
        (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
      }
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

  /// The headers for an event, names in lower case as RIG has them; names and values, alternately.
  func eventHeaders(_ pairs: [String]) -> [String] {
    stride(from: 0, to: pairs.count - 1, by: 2).filter { areForwarded || !isCredential(pairs[$0]) }
      .flatMap { [pairs[$0].lowercased(), pairs[$0 + 1]] }
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
      headers: ForwardedHead.toClient(response.headers), body: ByteBuffer(bytes: response.body))
  }
}
