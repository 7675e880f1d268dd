// Asks the proxy worker that has the bucket of a rate limit whether a request may go on that needs no proxy worker otherwise.
//
//   ask ─► count ─► proxy worker ─► admitted, or limited          no proxy worker, no room, or its end: unknown

import HTTP
import Kit
import Links
import NIOCore

/// One question, asked once. Belongs to the worker's loop.
final class RateLimitQuestion: ExchangeReceiver {
  enum Verdict {
    case admitted
    /// Another request may go on in so many seconds.
    case limited(seconds: Int)
    /// Nobody can tell now.
    case unknown(reason: String)
  }

  private let limitKey: String
  private let exchanges: ProxyExchanges
  private var key: ProxyExchanges.Key?
  private var asker: ((Verdict) -> Void)?

  init(_ limitKey: String, _ exchanges: ProxyExchanges) {
    self.limitKey = limitKey
    self.exchanges = exchanges
  }

  /// `asker` is called once, perhaps at once, unless the question is cancelled before.
  func ask(_ asker: @escaping (Verdict) -> Void) {
    self.asker = asker
    do throws(ProxyExchanges.Refusal) {
      key = try exchanges.count(limitKey, self)
    } catch {
      switch error {
      case .noWorker: answer(.unknown(reason: "no proxy worker serves"))
      case .noRoom, .noPlace: answer(.unknown(reason: "the proxy workers are too busy"))
      }
    }
  }

  /// Nobody waits for the answer any more.
  func cancel() {
    asker = nil
    if let key { exchanges.endQuestion(key) }
    key = nil
  }

  func received(_ message: ExchangeMessage) {
    switch message {
    case .admitted: answer(.admitted)
    case .limited(let seconds): answer(.limited(seconds: Int(seconds)))
    case .failed(_, let reason): answer(.unknown(reason: reason))
    case .open, .cancel, .credit, .end, .informed, .answered, .upgraded, .count: break
    }
  }

  func received(fromService bytes: ByteBuffer) {}
  func ringHasRoom() {}

  private func answer(_ verdict: Verdict) {
    let asker = asker
    cancel()
    asker?(verdict)
  }
}
