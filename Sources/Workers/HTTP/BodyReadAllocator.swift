// Receive buffers while a streamed body is read: as large as the client is fast, and none kept.
//
// The pool of a NIO channel never gives back what it has grown to, so one upload would leave its buffers with an idle
// connection. Without a hint of the next size the pool isn't used, and as long as a buffer "may grow" it allocates a new one,
// which it keeps only if it may keep more than one: maxMessagesPerRead is 1 meanwhile. The buffers go to the exchange, which
// passes them on, so there would be nothing to reuse anyway.

import NIOCore

struct BodyReadAllocator: RecvByteBufferAllocator {
  /// Four of the pieces that an exchange gets: what wakes the worker up, and whoever takes the piece, costs more than the read.
  static let mostBytes = 4 * AnswerStream.maxPieceBytes

  private(set) var bytes = HTTPServer.receiveBufferBytes

  func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: bytes) }

  mutating func record(actualReadBytes: Int) -> Bool {
    if actualReadBytes >= bytes {
      bytes = min(bytes * 2, Self.mostBytes)
    } else if actualReadBytes < bytes / 4 {
      bytes = max(bytes / 2, HTTPServer.receiveBufferBytes)
    }
    return true
  }
}
