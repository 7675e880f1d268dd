// Measures the turns of a worker's NIO loop. A tick of NIO is the tasks of a turn alone; from the end of one tick to that of
// the next one lie its sockets too.

import Kit
import NIOCore
import NIOPosix

/// Tells a meter of each turn of the one loop of its group.
public struct LoopTurns: NIOEventLoopMetricsDelegate {
  private let meter: TurnMeter

  public init(_ meter: TurnMeter) {
    self.meter = meter
  }

  public func processedTick(info: NIOEventLoopTickInfo) {
    meter.turnEnded(wallNs: info.endTime.uptimeNanoseconds)
  }
}
