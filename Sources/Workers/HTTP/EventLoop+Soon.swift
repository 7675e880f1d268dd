// A moment later, on the same loop.

import NIOCore

extension EventLoop {
  /// Calls the closure on this loop, on which the caller is, after about a millisecond.
  public func soon(_ body: @escaping () -> Void) {
    assumeIsolated().scheduleTask(in: .milliseconds(1), body)
  }
}
