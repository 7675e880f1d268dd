// Bytes of answers that come in pieces: interim heads, heads, chunks (RFC 9112 §4, §7.1).
//
// Same rules as for whole answers: no field value can begin a field of its own, and what describes the connection or the
// framing is never taken from the exchange. Fields that a message has once are written once, whoever gave them.

import Kit
import NIOCore
import NIOHTTP1

extension ResponseWriter {
  static let lineEnd: StaticString = "\r\n"

  /// Fields that are never taken from an exchange.
  private static let dropped = FieldNames(HeaderFields.hopByHop, HeaderFields.framing, ["traceparent"])

  /// Appends a 1xx head.
  static func append(interim status: HTTPResponseStatus, _ headers: HTTPHeaders, to out: inout ByteBuffer) {
    append(statusLine: status, to: &out)
    for (name, value) in headers where !dropped.contains(name) { append(field: name, value, to: &out) }
    out.writeStaticString("\r\n\r\n")
  }

  /// Appends the head of an answer 101 (RFC 9110 §15.2.2).
  static func append(
    upgradeTo name: String, _ headers: HTTPHeaders, traceparent: String, to out: inout ByteBuffer
  ) {
    append(statusLine: .switchingProtocols, to: &out)
    append(field: "connection", "upgrade", to: &out)
    append(field: "upgrade", name, to: &out)
    for (name, value) in headers where !dropped.contains(name) {
      append(field: name, value, to: &out)
    }
    if !traceparent.isEmpty { append(field: "traceparent", traceparent, to: &out) }
    out.writeStaticString("\r\n\r\n")
  }

  /// Appends the head of an answer. A date and a server that are given replace ours; only the first of each is written.
  static func append(
    head status: HTTPResponseStatus, _ headers: HTTPHeaders, framing: AnswerFraming,
    for request: AnswerContext, date: String, to out: inout ByteBuffer
  ) {
    append(statusLine: status, to: &out)
    var hasDate = false
    var hasServer = false
    for (name, value) in headers where !dropped.contains(name) {
      switch name.utf8.count {
      case 4 where name.isField("date"):
        if hasDate { continue }
        hasDate = true
      case 6 where name.isField("server"):
        if hasServer { continue }
        hasServer = true
      default: break
      }
      append(field: name, value, to: &out)
    }
    if !hasDate { append(field: "date", date, to: &out) }
    if !request.traceparent.isEmpty { append(field: "traceparent", request.traceparent, to: &out) }
    if !request.keepAlive {
      out.writeStaticString("\r\nconnection: close")
    } else if request.isHTTP10 {
      out.writeStaticString("\r\nconnection: keep-alive")
    }
    if framing.kind == .chunked {
      out.writeStaticString("\r\ntransfer-encoding: chunked")
    } else if let length = framing.announced {
      out.writeStaticString("\r\ncontent-length: ")
      out.writeString(String(length))
    }
    out.writeStaticString("\r\n\r\n")
  }

  /// Appends what stands before a chunk of `count` bytes; `lineEnd` stands behind it.
  static func append(chunkHead count: Int, to out: inout ByteBuffer) {
    out.writeString(String(count, radix: 16))
    out.writeStaticString("\r\n")
  }

  /// Appends the last chunk and the trailer section.
  static func append(lastChunkWith trailers: HTTPHeaders, to out: inout ByteBuffer) {
    out.writeStaticString("0")
    for (name, value) in trailers { append(field: name, value, to: &out) }
    out.writeStaticString("\r\n\r\n")
  }

  private static func append(statusLine status: HTTPResponseStatus, to out: inout ByteBuffer) {
    out.writeStaticString("HTTP/1.1 ")
    out.writeString(String(status.code))
    out.writeStaticString(" ")
    writeClean(status.reasonPhrase, to: &out)
  }

  private static func append(field name: String, _ value: String, to out: inout ByteBuffer) {
    out.writeStaticString("\r\n")
    writeClean(name, to: &out)
    out.writeStaticString(": ")
    writeClean(value, to: &out)
  }
}
