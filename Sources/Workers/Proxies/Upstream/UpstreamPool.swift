// The connections to one origin, and the requests that wait for one.
//
//   open = being made + busy (no tunnels) + idle + closing + sessions ≤ maximumPerOrigin; the idle ones are a stack, so that those which
//   aren't needed grow old at its bottom; a request waits only while `open` is at its bound, or where it may soon share a
//   connection: one that is being made, while its upstream may choose HTTP/2, or a session that hasn't heard how much it may.

import NIOCore

/// Belongs to the client.
final class UpstreamPool {
  let origin: UpstreamOrigin
  var open = 0
  /// Connections being made that may turn out to be shared.
  var forming = 0
  /// The upstream has chosen HTTP/1.1 when it was last asked.
  var isHTTP1 = false
  /// HTTP/2, in the order in which they are filled.
  private(set) var sessions: [UpstreamSession] = []
  private(set) var idle: [UpstreamConnection] = []
  private(set) var waiting = CircularBuffer<UpstreamExchange>(initialCapacity: 0)

  init(_ origin: UpstreamOrigin) {
    self.origin = origin
    isHTTP1 = origin.scheme == .http
  }

  var isUnused: Bool { open == 0 && waiting.isEmpty }

  /// There will be room that can't be told yet.
  var isForming: Bool { !isHTTP1 && (forming > 0 || sessions.contains { $0.isNew }) }

  /// One that takes another stream.
  var session: UpstreamSession? { sessions.first { $0.hasRoom } }

  func add(_ session: UpstreamSession) { sessions.append(session) }

  func remove(_ session: UpstreamSession) { sessions.removeAll { $0 === session } }

  func push(_ connection: UpstreamConnection) { idle.append(connection) }

  func pop() -> UpstreamConnection? { idle.popLast() }

  /// Takes out one that isn't needed any more.
  func remove(_ connection: UpstreamConnection) {
    if let index = idle.lastIndex(where: { $0 === connection }) { idle.remove(at: index) }
  }

  func wait(_ exchange: UpstreamExchange) { waiting.append(exchange) }

  func nextWaiting() -> UpstreamExchange? { waiting.popFirst() }

  /// The first that can be a stream.
  func nextWaitingForStream() -> UpstreamExchange? {
    guard let index = waiting.firstIndex(where: { !$0.request.needsHTTP1 }) else { return nil }
    return waiting.remove(at: index)
  }

  /// False: it doesn't wait here.
  func remove(_ exchange: UpstreamExchange) -> Bool {
    guard let index = waiting.firstIndex(where: { $0 === exchange }) else { return false }
    waiting.remove(at: index)
    return true
  }
}
