// Finds peers of quiet connections that have gone without a word: the kernel asks them (TCP keep-alive, RFC 9293 §3.8.4). Costs
// nothing while bytes flow, and ends no connection whose peer answers, however long it is quiet.

import Glibc
import NIOCore

public enum DeadPeers {
  /// Questions that aren't answered before the connection ends.
  private static let questions = 4

  /// Half of the time passes before the first question. A channel without a socket of its own, a stream of HTTP/2, is left to its
  /// connection.
  ///
  /// - Parameter seconds: after which a dead peer's connection has ended.
  public static func find(on channel: Channel, within seconds: Int = 120) {
    guard channel.parent == nil, let options = channel.syncOptions else { return }
    // Failure is no reason to refuse a connection: channels of tests aren't TCP.
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
