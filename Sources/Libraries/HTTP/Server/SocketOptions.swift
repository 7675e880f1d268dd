// Options of a connection's channel, which change with what the connection is doing. Failure is never a reason to refuse one: channels
// of tests aren't TCP.

import Glibc
import NIOCore

enum SocketOptions {
  /// NIO's own number of reads in a row.
  private static let readsInRow: UInt = 4
  /// NIO's own bounds of what is written and not taken.
  private static let untakenBytes = ChannelOptions.Types.WriteBufferWaterMark(low: 32 * 1024, high: 64 * 1024)
  /// Those of streamed responses.
  private static let streamedUntakenBytes = ChannelOptions.Types.WriteBufferWaterMark(
    low: ResponseStream.resumeUntakenBytes, high: ResponseStream.maxUntakenBytes)
  /// TCP_NOTSENT_LOWAT and TCP_USER_TIMEOUT, for which NIO has no names.
  private static let unsentBound = ChannelOptions.Types.SocketOption(
    level: .tcp, name: NIOBSDSocket.Option(rawValue: 25))
  private static let peerTimeout = ChannelOptions.Types.SocketOption(
    level: .tcp, name: NIOBSDSocket.Option(rawValue: 18))

  /// A connection that waits for requests of HTTP/1.
  static func setHTTP1(on channel: Channel) {
    guard let options = channel.syncOptions else { return }
    setReading(options)
    try? options.setOption(.allowRemoteHalfClosure, value: true)
  }

  /// One that speaks HTTP/2.
  static func setHTTP2(on channel: Channel, _ limits: HTTPLimits) {
    guard let options = channel.syncOptions else { return }
    setReadingBody(options)
    try? options.setOption(.allowRemoteHalfClosure, value: false)
    try? options.setOption(unsentBound, value: ResponseStream.maxUnsentBytes)
    try? options.setOption(peerTimeout, value: limits.userTimeoutSeconds * 1000)
    // Streams may be quiet, all of them.
    DeadPeers.find(on: channel, within: limits.userTimeoutSeconds)
  }

  /// One that has left HTTP: an end of input closes it, and it keeps one receive buffer.
  static func setTakenOver(on channel: Channel) {
    guard let options = channel.syncOptions else { return }
    try? options.setOption(.allowRemoteHalfClosure, value: false)
    try? options.setOption(.maxMessagesPerRead, value: 1)
  }

  /// It gets a streamed response, which may be silent for as long as it likes.
  static func setStreaming(
    _ options: any NIOSynchronousChannelOptions, on channel: Channel?, _ limits: HTTPLimits
  ) {
    try? options.setOption(.writeBufferWaterMark, value: streamedUntakenBytes)
    // Else the kernel takes megabytes from which a slow client lives for minutes, in which nothing seems to move here.
    try? options.setOption(unsentBound, value: ResponseStream.maxUnsentBytes)
    if let channel { DeadPeers.find(on: channel, within: limits.userTimeoutSeconds) }
  }

  /// It has left HTTP behind a streamed response.
  static func endStreaming(on channel: Channel) {
    try? channel.syncOptions?.setOption(.writeBufferWaterMark, value: untakenBytes)
  }

  /// A streamed body comes.
  static func setReadingBody(_ options: any NIOSynchronousChannelOptions) {
    try? options.setOption(.maxMessagesPerRead, value: 1)
    try? options.setOption(.recvAllocator, value: BodyReadAllocator())
  }

  /// The streamed body has ended.
  static func endReadingBody(_ options: any NIOSynchronousChannelOptions) {
    setReading(options)
    try? options.setOption(.maxMessagesPerRead, value: readsInRow)
  }

  private static func setReading(_ options: any NIOSynchronousChannelOptions) {
    let allocator = FixedSizeRecvByteBufferAllocator(capacity: HTTPServer.receiveBufferBytes)
    try? options.setOption(.recvAllocator, value: allocator)
  }
}

/// Finds peers of quiet connections that have gone without a word: the kernel asks them (TCP keep-alive, RFC 9293 §3.8.4). Costs
/// nothing while bytes flow, and ends no connection whose peer answers, however long it is quiet.
public enum DeadPeers {
  /// Questions that aren't answered before the connection ends.
  private static let questions = 4

  /// Half of the time passes before the first question. A channel without a socket of its own, a stream of HTTP/2, is left to its
  /// connection.
  ///
  /// - Parameter seconds: after which a dead peer's connection has ended.
  public static func find(on channel: Channel, within seconds: Int = 120) {
    guard channel.parent == nil, let options = channel.syncOptions else { return }
    try? options.setOption(.socketOption(.so_keepalive), value: 1)
    let half = max(1, seconds / 2)
    for (name, value) in [
      (TCP_KEEPIDLE, half), (TCP_KEEPINTVL, max(1, half / questions)), (TCP_KEEPCNT, questions),
    ] {
      let option = ChannelOptions.Types.SocketOption(
        level: .tcp, name: NIOBSDSocket.Option(rawValue: name))
      try? options.setOption(option, value: value)
    }
  }
}

/// Receive buffers while a streamed body is read: as large as the client is fast, and none kept.
///
/// The pool of a NIO channel never gives back what it has grown to, so one upload would leave its buffers with an idle
/// connection. Without a hint of the next size the pool isn't used, and as long as a buffer "may grow" it allocates a new one,
/// which it keeps only if it may keep more than one: maxMessagesPerRead is 1 meanwhile. The buffers go to the exchange, which
/// passes them on, so there would be nothing to reuse anyway.
struct BodyReadAllocator: RecvByteBufferAllocator {
  /// Four of the pieces that an exchange gets: what wakes the worker up, and whoever takes the piece, costs more than the read.
  static let mostBytes = 4 * ResponseStream.maxPieceBytes

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
