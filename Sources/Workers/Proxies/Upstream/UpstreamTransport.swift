// What carries an exchange: a connection of HTTP/1.1, or one stream of an HTTP/2 connection.
//
//   UpstreamExchange ── write, end, readMore, cancel ──▶ UpstreamConnection
//                                                   └──▶ UpstreamStream ──▶ UpstreamSession (one connection, many streams)

import Glibc
import NIOCore

/// Belongs to the client's loop.
protocol UpstreamTransport: AnyObject {
  /// Whether another piece of the body may be written.
  var hasRoom: Bool { get }
  /// The exchange has become a tunnel.
  var isTunnel: Bool { get }
  /// It has served before: the upstream may have ended it without knowing of the exchange.
  var isReused: Bool { get }
  /// The upstream may say of an exchange that it didn't look at it.
  var mayRefuseUnheard: Bool { get }
  /// A piece of the body, which the transport frames. The bytes are always taken; false: enough for now.
  func write(_ bytes: ByteBuffer) -> Bool
  /// The exchange's request is whole: its end is written, and nothing is to be waited for.
  func requestEnded()
  /// The caller writes no more into the tunnel.
  func endTunnel()
  /// Does what has become possible with what has come.
  func run()
  /// The caller has given its exchange up.
  func abandon()
  func fail(_ reason: UpstreamFailure.Reason)
  /// The end of the turn in which it was scheduled.
  func endTurn()
}

extension UpstreamTransport {
  func endTunnel() {}
}

/// Asks the kernel about a socket that is about to be used again: what has come since may not have been seen by the loop yet.
///
/// Made once for a connection: NIO looks for its descriptor by casts, which cost four times what asking does. Good as long as the
/// channel is active.
struct SocketLook {
  /// Linux's POLLRDHUP, which Glibc's module doesn't show.
  private static let peerHasEnded: Int16 = 0x2000

  /// nil: the channel has no socket (tests).
  private let descriptor: CInt?
  private let events: Int16

  /// - Parameter mayHaveInput: input alone proves nothing, as with TLS, whose records come at any time.
  init(_ channel: Channel, mayHaveInput: Bool) {
    descriptor = try? channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: CInt.self, { $0 })
    events = mayHaveInput ? Self.peerHasEnded : Int16(POLLIN) | Self.peerHasEnded
  }

  /// Whether the peer has ended the connection, or sent something unasked.
  var hasEnded: Bool {
    guard let descriptor else { return false }
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    return poll(&entry, 1, 0) > 0
  }
}
