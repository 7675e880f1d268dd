// Replies that have to wait for somebody else: a check service, or the keys of tokens.

import HTTP
import NIOCore

enum Deferred {
  /// A reply that comes later, once. If the client goes first, it is given up.
  ///
  /// - Parameter start: begins what the reply waits for; it is given what takes the reply, and returns what gives it up.
  static func reply(
    on loop: EventLoop, _ start: (_ complete: @escaping (Reply) -> Void) -> (() -> Void)?
  ) -> Reply {
    let promise = loop.makePromise(of: Reply.self)
    var isSettled = false
    func settle(_ result: Result<Reply, any Error>) {
      guard !isSettled else { return }
      isSettled = true
      promise.assumeIsolated().completeWith(result)
    }
    let giveUp = start { settle(.success($0)) }
    return .eventually(
      promise.futureResult,
      onClientGone: {
        giveUp?()
        settle(.failure(ClientGone()))
      })
  }
}

/// The client didn't wait for its answer; nobody sees this.
struct ClientGone: Error {}
