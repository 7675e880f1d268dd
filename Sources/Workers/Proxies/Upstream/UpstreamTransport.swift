// What carries an exchange: a connection of HTTP/1.1, or one stream of an HTTP/2 connection.
//
//   UpstreamExchange ── write, end, readMore, cancel ──▶ UpstreamConnection
//                                                   └──▶ UpstreamStream ──▶ UpstreamSession (one connection, many streams)

import NIOCore
import NIOHTTP1

/// Belongs to the client's loop.
protocol UpstreamTransport: AnyObject {
  /// Whether another piece of the body may be written.
  var hasRoom: Bool { get }
  /// The exchange has become a tunnel.
  var isTunnel: Bool { get }
  /// The bytes are always taken; false: enough for now.
  func write(_ bytes: ByteBuffer, asChunk: Bool) -> Bool
  /// The exchange's request is whole: its end is written, and nothing is to be waited for.
  func requestEnded()
  /// The caller writes no more into the tunnel.
  func endTunnel()
  /// Does what has become possible with what has come.
  func pump()
  /// The caller has given its exchange up.
  func abandon()
  func fail(_ reason: UpstreamFailure.Reason)
  /// The end of the turn in which it was scheduled.
  func endTurn()
}

extension UpstreamTransport {
  func endTunnel() {}
}
