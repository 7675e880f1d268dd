// A request as the fields of HTTP/2 (RFC 9113 §8.3.1), from what HTTP/1.1 would have sent:
//
//   method, scheme, host, target   ──▶ :method :scheme :authority :path
//   connection, and what it names  ──▶ nothing (§8.2.2)
//   names                          ──▶ lower case
//
// The fields have been looked at by `defect` before.

import HTTP
import Kit
import NIOHPACK
import NIOHTTP1

extension UpstreamRequest {
  /// Whether it can't be a stream: it may become a tunnel, isn't in the clear, or has a form or a size for which HTTP/2 has no place here.
  var needsHTTP1: Bool {
    guard origin.scheme == .https else { return true }
    if headers.contains(name: "upgrade") || headers.namesConnectionOption("upgrade") { return true }
    let isPath = target.utf8.first == UInt8(ascii: "/") || (target == "*" && method == .OPTIONS)
    return !isPath || target.utf8.contains(UInt8(ascii: "#")) || !HTTP2HeadSize.fits(http2Fields)
  }

  var http2Fields: HPACKHeaders {
    var fields = HPACKHeaders()
    fields.reserveCapacity(headers.count + 5)
    fields.add(name: ":method", value: method.rawValue)
    fields.add(name: ":scheme", value: origin.scheme.rawValue)
    fields.add(name: ":authority", value: headers.first(name: "host") ?? authority)
    fields.add(name: ":path", value: target)
    Self.add(headers, to: &fields)
    if case .counted(let count) = body { fields.add(name: "content-length", value: "\(count)") }
    return fields
  }

  /// The trailers, as far as there is room for them; nil: none.
  static func http2Trailers(_ trailers: HTTPHeaders) -> HPACKHeaders? {
    var fields = HPACKHeaders()
    add(trailers, to: &fields)
    return !fields.isEmpty && HTTP2HeadSize.fits(fields) ? fields : nil
  }

  private var authority: String {
    let host = origin.bareHost
    return "\(host.contains(":") ? "[\(host)]" : host):\(origin.port)"
  }

  private static func add(_ headers: HTTPHeaders, to fields: inout HPACKHeaders) {
    let named = ConnectionOptions(headers)
    for (name, value) in headers {
      let name = name.lowercased()
      if name == "host" || HTTP2Field.isConnectionSpecific(name) || named.contains(name) { continue }
      let value = HTTPOctets.trimmed(value)
      if name == "te", value.lowercased() != "trailers" { continue }
      // What is secret stays out of the table that all requests of the connection share (RFC 7541 §7.1.3).
      let isSecret = HeaderFields.credentials.contains(name)
      fields.add(name: name, value: value, indexing: isSecret ? .neverIndexed : .indexable)
    }
  }
}

extension HPACKHeaders {
  /// The same fields, none of which is to be remembered.
  var withoutIndexing: HPACKHeaders {
    var fields = HPACKHeaders()
    fields.reserveCapacity(count)
    for (name, value, indexing) in self {
      fields.add(name: name, value: value, indexing: indexing == .neverIndexed ? indexing : .nonIndexable)
    }
    return fields
  }
}
