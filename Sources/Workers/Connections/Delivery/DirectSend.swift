// send(2) and sendmsg(2) as the delivery path uses them: never blocking, never a SIGPIPE.
//
// Both give the number of bytes that the socket took, or -1. Why it took none is left to NIO, which is given the rest:
// a full socket makes it wait until there is room, a broken one makes it close the channel.

import Glibc
import IPC

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

/// Socket options of a stream, set when it is taken over from HTTP.
enum StreamOptions {
  /// Unsent bytes that the kernel takes: what waits beyond is counted here, where the slow-consumer bound is.
  private static let notSentLowWaterBytes: CInt = 128 << 10

  /// - Parameter userTimeoutSeconds: after so long without any acknowledgement the peer is gone: half-open connections end though
  ///   nobody closes them.
  static func apply(to descriptor: CInt, userTimeoutSeconds: Int) {
    set(descriptor, TCP_NOTSENT_LOWAT, notSentLowWaterBytes)
    set(descriptor, TCP_USER_TIMEOUT, CInt(clamping: userTimeoutSeconds * 1000))
  }

  /// Failure is no reason to refuse a connection: sockets of tests aren't TCP.
  private static func set(_ descriptor: CInt, _ option: CInt, _ value: CInt) {
    var value = value
    setsockopt(descriptor, CInt(IPPROTO_TCP), option, &value, socklen_t(MemoryLayout<CInt>.size))
  }
}

/// Who is asked what only the kernel knows of a stream's socket: a test's sockets aren't TCP.
struct SocketAccounts {
  var written: (CInt) -> UInt64? = { SocketCounts.written($0) }
  var read: (CInt) -> UInt64? = { SocketCounts.read($0) }
  var cookie: (CInt) -> UInt64? = { SocketCounts.cookie($0) }
}
