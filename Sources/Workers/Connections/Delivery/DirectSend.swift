// send(2) and sendmsg(2) as the delivery path uses them: never blocking, never a SIGPIPE.
//
// Both give the number of bytes that the socket took, or -1. Why it took none is left to NIO, which is given the rest:
// a full socket makes it wait until there is room, a broken one makes it close the channel.

import Glibc

enum DirectSend {
  private static let flags = CInt(MSG_NOSIGNAL | MSG_DONTWAIT)
  /// Stretches in one call; more than a connection has in any turn but the oddest.
  static let vectorLimit = 64

  @inline(__always)
  static func send(_ bytes: UnsafeRawBufferPointer, to descriptor: CInt) -> Int {
    Glibc.send(descriptor, bytes.baseAddress, bytes.count, flags)
  }

  static func send(_ vectors: UnsafeMutableBufferPointer<iovec>, to descriptor: CInt) -> Int {
    var message = msghdr()
    message.msg_iov = vectors.baseAddress
    message.msg_iovlen = vectors.count
    return sendmsg(descriptor, &message, flags)
  }

  static func vector(_ bytes: UnsafeRawBufferPointer) -> iovec {
    iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
  }
}
