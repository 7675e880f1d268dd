// The connections to one origin, and the requests that wait for one.
//
//   open = being made + busy (no tunnels) + idle + closing ≤ maximumPerOrigin; the idle ones are a stack, so that those which aren't needed
//   grow old at its bottom; a request waits only while `open` is at its bound.

import NIOCore

/// Belongs to the client.
final class UpstreamPool {
  let origin: UpstreamOrigin
  var open = 0
  private(set) var idle: [UpstreamConnection] = []
  private(set) var waiting = CircularBuffer<UpstreamExchange>(initialCapacity: 0)

  init(_ origin: UpstreamOrigin) { self.origin = origin }

  var isUnused: Bool { open == 0 && waiting.isEmpty }

  func push(_ connection: UpstreamConnection) { idle.append(connection) }

  func pop() -> UpstreamConnection? { idle.popLast() }

  /// Takes out one that isn't needed any more.
  func remove(_ connection: UpstreamConnection) {
    if let index = idle.lastIndex(where: { $0 === connection }) { idle.remove(at: index) }
  }

  func wait(_ exchange: UpstreamExchange) { waiting.append(exchange) }

  func nextWaiting() -> UpstreamExchange? { waiting.popFirst() }

  /// False: it doesn't wait here.
  func remove(_ exchange: UpstreamExchange) -> Bool {
    guard let index = waiting.firstIndex(where: { $0 === exchange }) else { return false }
    waiting.remove(at: index)
    return true
  }
}
