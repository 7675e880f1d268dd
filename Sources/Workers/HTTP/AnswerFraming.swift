// How the body of a streamed answer is delimited (RFC 9112 §6.3), and that what is written keeps to it. Pure.
//
//   none         HEAD, 204, 304: whatever is written is dropped
//   counted      one valid content-length: never a byte more; less must not end
//   chunked      else, for HTTP/1.1
//   untilClose   else, for HTTP/1.0

import Kit
import NIOCore
import NIOHTTP1

struct AnswerFraming: Equatable {
  enum Kind: Equatable {
    case none, counted, chunked, untilClose
  }

  let kind: Kind
  /// Value of the content-length field; nil: there is none.
  let announced: Int?
  /// More was written than announced, and dropped: whoever wrote it is not to be trusted with this connection.
  private(set) var isOverrun = false
  private var left: Int

  init(status: HTTPResponseStatus, headers: HTTPHeaders, isHead: Bool, isHTTP10: Bool) {
    let length = Self.length(headers)
    announced = status.code == 204 ? nil : length
    left = length ?? 0
    if isHead || status.code == 204 || status.code == 304 {
      kind = .none
    } else if length != nil {
      kind = .counted
    } else {
      kind = isHTTP10 ? .untilClose : .chunked
    }
  }

  /// Whether the answer is complete if it ends now.
  var mayEnd: Bool { kind != .counted || left == 0 }

  /// What of `bytes` may go out.
  mutating func take(_ bytes: ByteBuffer) -> ByteBuffer {
    switch kind {
    case .none: return ByteBuffer()
    case .chunked, .untilClose: return bytes
    case .counted:
      if bytes.readableBytes <= left {
        left -= bytes.readableBytes
        return bytes
      }
      isOverrun = true
      let rest = bytes.getSlice(at: bytes.readerIndex, length: left) ?? ByteBuffer()
      left = 0
      return rest
    }
  }

  /// The one length that all content-length fields agree on; nil: none, or nonsense.
  private static func length(_ headers: HTTPHeaders) -> Int? {
    var length: String?
    for (name, value) in headers where name.isField("content-length") {
      guard length == nil || length == value else { return nil }
      length = value
    }
    guard let length, length.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    return Int(length)
  }
}
