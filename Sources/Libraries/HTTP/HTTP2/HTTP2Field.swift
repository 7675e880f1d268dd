// Fields of HTTP/2: what they may look like (RFC 9113 §8.2), how much of them fits into a frame, and those of responses. Pure.

import Kit
import NIOCore
import NIOHPACK
import NIOHTTP1

public enum HTTP2Field {
  /// Fields that describe one connection of HTTP/1 and mean nothing here (§8.2.2).
  public static func isConnectionSpecific(_ name: String) -> Bool {
    switch name.utf8.count {
    case 7: name == "upgrade"
    case 10: name == "connection" || name == "keep-alive"
    case 14: name == "http2-settings"
    case 16: name == "proxy-connection"
    case 17: name == "transfer-encoding"
    default: false
    }
  }

  /// Checks an ordinary field of a request.
  static func check(_ name: String, _ value: String) throws(HTTP2RequestHead.Failure) {
    guard isName(name) else { throw .malformed("field name \(name.prefix(32))") }
    guard !isConnectionSpecific(name) else { throw .malformed("field \(name)") }
    guard isValue(value) else { throw .malformed("value of \(name)") }
  }

  /// A token (RFC 9110 §5.6.2) in lower case.
  public static func isName(_ text: String) -> Bool {
    HTTPOctets.isToken(text.utf8)
      && !text.utf8.contains { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }
  }

  /// No control characters but tabs, no blank at either end.
  public static func isValue(_ text: String) -> Bool {
    let bytes = text.utf8
    guard let first = bytes.first, let last = bytes.last else { return true }
    return !HTTPOctets.isBlank(first) && !HTTPOctets.isBlank(last) && HTTPOctets.isFieldValue(bytes)
  }
}

/// Makes the field lists of responses.
enum HTTP2Encoder {
  private static let notImplemented = 501

  /// Of the head of a response, and whether nothing follows; nil: HTTP can't be left on this stream.
  ///
  /// - Parameter isTunnel: the request has asked for one (RFC 8441): 200 is what opens it, and any other success isn't one.
  static func fields(_ head: OutgoingHead, isTunnel: Bool) -> (fields: HPACKHeaders, isEnd: Bool)? {
    let code = Int(head.status.code)
    let isUpgrade = head.framing == nil
    let status: Int
    switch (isUpgrade, isTunnel) {
    case (true, false): return nil
    case (true, true): status = 200
    // To the client a success would say that the tunnel is open.
    case (false, true): status = (200..<300).contains(code) ? notImplemented : code
    case (false, false): status = code
    }
    var fields = beginning(status)
    if head.needsDate { add("date", head.date, to: &fields) }
    if !head.request.traceparent.isEmpty { add("traceparent", head.request.traceparent, to: &fields) }
    head.forEachField { field in
      // HTTP/2 has no key that it would be the answer to.
      if isUpgrade, field.nameIs("sec-websocket-accept") { return }
      add(field, to: &fields)
    }
    if let length = head.framing?.announced { add("content-length", String(length), to: &fields) }
    return (fields, head.framing?.isWhole ?? false)
  }

  /// Of an interim response.
  static func fields(interim status: HTTPResponseStatus, _ given: HTTPFields) -> HPACKHeaders {
    var fields = beginning(Int(status.code))
    for field in given where OutgoingHead.interimKeeps(field) { add(field, to: &fields) }
    return fields
  }

  static func trailers(_ given: HTTPFields) -> HPACKHeaders {
    var fields = HPACKHeaders()
    for field in given { add(field, to: &fields) }
    return fields
  }

  private static func beginning(_ status: Int) -> HPACKHeaders {
    var fields = HPACKHeaders()
    fields.add(name: ":status", value: String(status))
    return fields
  }

  /// Fields whose values are few. Only they enter the table that both ends keep: the client says how large it may get, and NIO
  /// believes it, so whatever is different in many answers would fill the memory of a connection that lives long.
  private static let indexed: Set<String> = [
    "accept-ranges", "cache-control", "content-encoding", "content-type", "server", "vary",
    "x-accel-buffering", "x-content-type-options",
  ]

  /// Adds a field unless it is one that HTTP/2 doesn't have.
  private static func add(_ field: HTTPFields.Field, to fields: inout HPACKHeaders) {
    let name = field.name.lowercased()
    if !HTTP2Field.isConnectionSpecific(name) { add(name, field.value, to: &fields) }
  }

  private static func add(_ name: String, _ value: String, to fields: inout HPACKHeaders) {
    if name == "set-cookie" {
      fields.add(name: name, value: value, indexing: .neverIndexed)
    } else {
      fields.add(name: name, value: value, indexing: indexed.contains(name) ? .indexable : .nonIndexable)
    }
  }
}

/// Whether a head fits into one frame.
///
/// NIO writes a head as one HEADERS frame, and when it is too large for one throws it away *after* its compressor has entered the
/// fields into the table that both ends keep: from then on the client would take other answers' fields for something else. So
/// no head may be given to NIO that could turn out too large. How large it gets is known only by compressing it; this is an upper
/// bound (RFC 7541 §5.2: NIO always uses the Huffman code, in which rare bytes grow up to 30 bits).
public enum HTTP2HeadSize {
  /// What every client takes (RFC 9113 §4.2).
  private static let frameBytes = 16 * 1024
  /// Kind, index and two lengths of a field, and a change of the table's size.
  private static let fieldBytes = 16
  private static let longestCodeBytes = 4

  /// Whether these fields may be given to NIO.
  public static func fits(_ headers: HPACKHeaders) -> Bool {
    var text = 0
    for (name, value, _) in headers { text += name.utf8.count + value.utf8.count }
    let overhead = (headers.count + 1) * fieldBytes
    if text * longestCodeBytes + overhead <= frameBytes { return true }
    guard text / 2 + overhead <= frameBytes else { return false }
    var bits = 0
    for (name, value, _) in headers {
      for byte in name.utf8 { bits += mostBits(byte) }
      for byte in value.utf8 { bits += mostBits(byte) }
    }
    return bits / 8 + overhead <= frameBytes
  }

  /// Length of the byte's code, or a little more.
  private static func mostBits(_ byte: UInt8) -> Int {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: " "), UInt8(ascii: "%"), UInt8(ascii: "-"),
      UInt8(ascii: "."), UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: ";"), UInt8(ascii: "="),
      UInt8(ascii: "_"), UInt8(ascii: "&"), UInt8(ascii: "*"), UInt8(ascii: ","):
      8
    case UInt8(ascii: "\\"): 19
    case 0x21...0x7e: 15
    default: 30
    }
  }
}
