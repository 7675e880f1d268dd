// Writes an answer's bytes (RFC 9112 §4): status line, fields, body, one buffer.
//
//   HTTP/1.1 202 Accepted␍␊
//   date, traceparent, connection        ours
//   …                                    the response's own fields
//   content-length                       from the body; absent for 1xx, 204 and 304, and for the HEAD of a stream
//   ␍␊ body                              no body for HEAD, 1xx, 204, 304
//
// Pure: bytes in, bytes out. A line break or NUL inside a field value, whoever put it there, goes out as a space, so that
// no value can begin a field or a message of its own.

import Kit
import NIOCore
import NIOHTTP1

/// What the writer must know about the request that is answered.
struct AnswerContext: Equatable {
  var isHead: Bool
  var isHTTP10: Bool
  var keepAlive: Bool
  var traceparent: String
}

extension AnswerContext {
  init(_ request: HTTPRequest) {
    self.init(
      isHead: request.method == .HEAD, isHTTP10: request.version == .http1_0, keepAlive: request.keepAlive,
      traceparent: request.traceparent)
  }
}

enum ResponseWriter {
  static let continueLine: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"

  /// Fields that describe the connection or the framing, which are the writer's own.
  private static let ownFields = FieldNames(
    HeaderFields.framing, ["connection", "keep-alive", "proxy-connection", "date", "traceparent"])

  /// Appends one answer to `out`.
  static func append(
    _ response: HTTPResponse, for request: AnswerContext, date: String, to out: inout ByteBuffer
  ) {
    let code = response.status.code
    let isBodiless = code < 200 || code == 204 || code == 304
    out.reserveCapacity(minimumWritableBytes: estimate(response))
    out.writeStaticString("HTTP/1.1 ")
    out.writeString(String(code))
    out.writeStaticString(" ")
    writeClean(response.status.reasonPhrase, to: &out)
    out.writeStaticString("\r\ndate: ")
    out.writeString(date)
    if !request.traceparent.isEmpty {
      out.writeStaticString("\r\ntraceparent: ")
      writeClean(request.traceparent, to: &out)
    }
    if !request.keepAlive {
      out.writeStaticString("\r\nconnection: close")
    } else if request.isHTTP10 {
      out.writeStaticString("\r\nconnection: keep-alive")
    }
    for (name, value) in response.headers where !ownFields.contains(name) {
      out.writeStaticString("\r\n")
      writeClean(name, to: &out)
      out.writeStaticString(": ")
      writeClean(value, to: &out)
    }
    if !isBodiless && !response.isHeadOfStream {
      out.writeStaticString("\r\ncontent-length: ")
      out.writeString(String(response.body.readableBytes))
    }
    out.writeStaticString("\r\n\r\n")
    if !isBodiless && !request.isHead {
      out.writeImmutableBuffer(response.body)
    }
  }

  /// Room for the whole answer, so that the buffer grows once.
  private static func estimate(_ response: HTTPResponse) -> Int {
    let fixedBytes = 192
    return response.headers.reduce(fixedBytes + response.body.readableBytes) { sum, field in
      sum + field.name.utf8.count + field.value.utf8.count + 4
    }
  }

  static func writeClean(_ text: String, to out: inout ByteBuffer) {
    var text = text
    text.withUTF8 { bytes in
      if bytes.contains(where: isForbidden) {
        _ = out.writeBytes(bytes.map { isForbidden($0) ? UInt8(ascii: " ") : $0 })
      } else {
        _ = out.writeBytes(UnsafeRawBufferPointer(bytes))
      }
    }
  }

  private static func isForbidden(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n") || byte == 0
  }
}
