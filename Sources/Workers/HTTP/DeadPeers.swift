// Finds peers of quiet connections that have gone without a word: the kernel asks them (TCP keep-alive, RFC 9293 §3.8.4). Costs
// nothing while bytes flow, and ends no connection whose peer answers, however long it is quiet.

import Glibc
import NIOCore

public enum DeadPeers {
  /// Seconds without a byte before the first question.
  private static let idleSeconds = 60
  /// Seconds between two, and how many aren't answered before the connection ends.
  private static let intervalSeconds = 15
  private static let questions = 4

  /// Failure is no reason to refuse a connection: channels of tests aren't TCP.
  public static func find(on channel: Channel) {
    guard let options = channel.syncOptions else { return }
    try? options.setOption(.socketOption(.so_keepalive), value: 1)
    for (name, value) in [
      (TCP_KEEPIDLE, idleSeconds), (TCP_KEEPINTVL, intervalSeconds), (TCP_KEEPCNT, questions),
    ] {
      let option = ChannelOptions.Types.SocketOption(
        level: .tcp, name: NIOBSDSocket.Option(rawValue: name))
      try? options.setOption(option, value: value)
    }
  }
}
