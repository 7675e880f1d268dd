// The body of a streamed request between the parser and the exchange. Pure.
//
//   parser ──append, end──▶ pending (at most one read) ──next, when asked──▶ exchange
//
// It says when the socket may be read: only while something was asked for and nothing is here. So it holds no more than what
// one read has brought, however large the body is.

import NIOCore
import NIOHTTP1

struct StreamedBody {
  enum Delivery {
    case bytes(ByteBuffer)
    case end(HTTPFields)
  }

  /// A client waits for `100 Continue`.
  var isInvitationOwed: Bool
  private var pending: ByteBuffer
  private var isAsked = false
  private var trailers: HTTPFields?
  private var isEndDelivered = false

  /// `bytes`: what has come already; `trailers`: not nil if that is all of it.
  init(_ bytes: ByteBuffer = ByteBuffer(), trailers: HTTPFields? = nil, isInvitationOwed: Bool = false) {
    pending = bytes
    self.trailers = trailers
    self.isInvitationOwed = isInvitationOwed && bytes.readableBytes == 0 && trailers == nil
  }

  /// Whether the whole body has come.
  var hasEnd: Bool { trailers != nil }

  /// Whether more bytes may be read and parsed.
  var wantsBytes: Bool { isAsked && !hasEnd && pending.readableBytes == 0 }

  /// Whether `next` has something.
  var hasNext: Bool {
    pending.readableBytes > 0 ? isAsked : hasEnd && !isEndDelivered
  }

  /// The exchange asks; false: it has asked already, or nothing is left to ask for.
  mutating func ask() -> Bool {
    guard !isAsked, pending.readableBytes > 0 || !hasEnd else { return false }
    isAsked = true
    return true
  }

  mutating func append(_ piece: ByteBuffer) {
    isInvitationOwed = false
    if pending.readableBytes == 0 {
      pending = piece
    } else {
      pending.writeImmutableBuffer(piece)
    }
  }

  mutating func end(trailers: HTTPFields) {
    isInvitationOwed = false
    self.trailers = trailers
  }

  mutating func next() -> Delivery? {
    guard hasNext else { return nil }
    isAsked = false
    let count = min(pending.readableBytes, ResponseStream.maxPieceBytes)
    if count > 0, let piece = pending.readSlice(length: count) {
      // An empty buffer that kept its storage would hold a whole read.
      if pending.readableBytes == 0 { pending = ByteBuffer() }
      return .bytes(piece)
    }
    isEndDelivered = true
    return .end(trailers ?? [:])
  }
}
