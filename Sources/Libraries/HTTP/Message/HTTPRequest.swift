// A complete request: head and whole body, as a responder gets it.
//
// Bodies are bounded (HTTPLimits.maxBodyBytes) unless they are streamed (StreamedExchange: only the head is here then), so that a request is one value and a responder needs no state of its
// own while one arrives. The path is left as it came (percent-encoded): routes compare bytes, and decoding is
// the caller's decision. The query is decoded only when asked for.

import Kit
import NIOCore
import NIOHTTP1

/// Where a connection comes from. Made once for each connection, and read for every request.
public struct PeerAddress: Equatable, Sendable {
  /// `192.0.2.1`, `2001:db8::1`; IPv4 as such also of a socket for both families. Empty: the channel has no address (tests).
  public let text: String
  /// What it counts as where clients are counted; nil: it is no address.
  public let prefix: AddressPrefix?

  /// - Parameter text: an address; a socket for both families shows IPv4 as ::ffff:192.0.2.1.
  public init(_ text: String = "") {
    self.text = Self.plain(text)
    prefix = AddressPrefix(self.text)
  }

  /// - Parameter address: nil: there is none.
  init(_ address: SocketAddress?) { self.init(Self.text(of: address)) }

  /// Not by `inet_ntop` where it is IPv4, which costs as much as parsing a head.
  static func text(of address: SocketAddress?) -> String {
    switch address {
    case .v4(let four)?:
      return withUnsafeBytes(of: four.address.sin_addr) { dotted($0[...]) }
    case .v6(let six)?:
      return withUnsafeBytes(of: six.address.sin6_addr) { octets in
        octets.starts(with: mappedPrefix)
          ? dotted(octets[mappedPrefix.count...]) : address?.ipAddress ?? ""
      }
    case .unixDomainSocket?, nil: return ""
    }
  }

  /// Of ::ffff:192.0.2.1 (RFC 4291 §2.5.5.2).
  private static let mappedPrefix: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]

  private static func dotted(_ octets: Slice<UnsafeRawBufferPointer>) -> String {
    String(unsafeUninitializedCapacity: "255.255.255.255".utf8.count) { text in
      var end = 0
      for (position, octet) in octets.enumerated() {
        if position > 0 {
          text[end] = UInt8(ascii: ".")
          end += 1
        }
        for unit: UInt8 in [100, 10, 1] where octet >= unit || unit == 1 {
          text[end] = UInt8(ascii: "0") + octet / unit % 10
          end += 1
        }
      }
      return end
    }
  }

  static func plain(_ text: String) -> String {
    let mapped = "::ffff:"
    return text.hasPrefix(mapped) && text.utf8.contains(UInt8(ascii: "."))
      ? String(text.dropFirst(mapped.count)) : text
  }
}

/// One HTTP/1.x request.
public struct HTTPRequest: Sendable {
  public var method: HTTPMethod
  /// Path of the request target as it came, without query; of an absolute-form target what is behind its authority.
  public var path: String
  /// Authority of an absolute-form target; nil: another form.
  var targetAuthority: String?
  /// Query of the request target as it came, without the question mark; nil: none.
  public var rawQuery: String?
  public var headers: HTTPFields
  public var version: HTTPVersion
  /// Whether the client allows the connection to stay open after the answer (RFC 9112 §9.3).
  public var keepAlive: Bool
  /// The whole body; empty if there is none.
  public var body: ByteBuffer
  public var peer: PeerAddress
  /// Our address that the client has connected to, as a text; empty: the channel has none (tests).
  public internal(set) var localAddress = ""
  /// W3C trace context: the client's if it was valid, else a new one. The answer carries it too.
  public var traceparent: String
  /// The client's `tracestate`; nil when absent or when its `traceparent` was not valid.
  public var tracestate: String?
  /// Whether it came over TLS.
  public internal(set) var isTLS = false
  /// Whether it came by HTTP/2; `version` is that of HTTP/1.1 then.
  public internal(set) var isHTTP2 = false
  /// Whether the client asks to leave HTTP on this connection (`connection: upgrade`, or CONNECT): what follows the
  /// request isn't parsed unless the answer is an ordinary one.
  public internal(set) var isUpgrade = false
  /// The body as its head announces it; it never ends with the connection. `body` has it only when the request was assembled.
  public internal(set) var announcedBody = BodyFraming.none
  /// Trailer fields as they came, for a request that waits whole for its turn.
  var trailers: HTTPFields?
  /// Whether it is known not to be streamed, and within the bounds of what is assembled.
  var isDecided = false
  /// What its body holds of the budget; no responder gets it.
  var hold: AssemblyHold?

  public init(
    method: HTTPMethod, path: String, rawQuery: String? = nil, headers: HTTPFields = [:],
    version: HTTPVersion = .http1_1, keepAlive: Bool = true, body: ByteBuffer = ByteBuffer(),
    peer: PeerAddress = PeerAddress(), traceparent: String = "", tracestate: String? = nil
  ) {
    self.method = method
    self.path = path
    self.rawQuery = rawQuery
    self.headers = headers
    self.version = version
    self.keepAlive = keepAlive
    self.body = body
    self.peer = peer
    self.traceparent = traceparent
    self.tracestate = tracestate
  }

  /// Whom the request is for: the authority of its target, or else `Host` (RFC 9112 §3.2.2), in HTTP/2 `:authority`; nil: it
  /// doesn't say.
  public var authority: String? { targetAuthority ?? headers.first(name: "host") }

  /// The head of an HTTP/1.x request again, as text. An absolute-form target is told by its path and `Host`.
  public var head: [UInt8] {
    let target = path + (rawQuery.map { "?" + $0 } ?? "")
    let line = "\(method.rawValue) \(target) HTTP/\(version.major).\(version.minor)\r\n"
    return Array(line.utf8) + headers.wireBlock + Array("\r\n".utf8)
  }

  var withoutBody: HTTPRequest {
    var head = self
    head.body = ByteBuffer()
    head.hold = nil
    return head
  }

  /// Decoded query parameters in their order. Decodes at every call: keep the result if you need it twice.
  public var query: [(name: String, value: String)] {
    rawQuery.map { QueryString.decode($0) } ?? []
  }

  /// The first query parameter of that name; nil: there is none.
  public func queryValue(_ name: String) -> String? {
    query.first { $0.name == name }?.value
  }

  /// Names and values of the headers in their order.
  public var fields: some Sequence<(name: String, value: String)> {
    headers.lazy.map { (name: $0.name, value: $0.value) }
  }

  /// First value of a header, name in any case; nil: there is none.
  public func header(_ name: String) -> String? {
    headers.first(name: name)
  }
}
