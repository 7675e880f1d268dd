// What comes in: from bytes to calls of the receiver, as far as it has asked for them.

import HTTP
import NIOCore
import NIOHTTP1

extension UpstreamConnection {
  /// Does what has become possible: the next steps of the answer, its end, the next read.
  func pump() {
    guard !isPumping else { return }
    isPumping = true
    defer { isPumping = false }
    while let exchange = current {
      do throws(AnswerDefect) {
        let step = try parser.next(&input, isWanted: exchange.isWanted)
        switch step {
        case .interim(let head): exchange.informed(head)
        case .answer(let head): exchange.answered(head)
        case .tunnel(let head): try enterTunnel(exchange, head)
        case .piece(let bytes): exchange.sent(bytes)
        case .end(let trailers): finish(exchange, trailers)
        case .held: return
        case .needsInput:
          guard hasInputEnded else { return readMore(for: exchange) }
          inputEnded(exchange)
        }
      } catch {
        fail(.malformed(error.detail))
      }
    }
    if phase == .idle { context?.read() }
  }

  private func readMore(for exchange: UpstreamExchange) {
    guard parser.isAwaitingHead || exchange.isWanted else { return }
    context?.read()
  }

  private func enterTunnel(_ exchange: UpstreamExchange, _ head: HTTPResponseHead) throws(AnswerDefect) {
    guard exchange.isRequestEnded else { throw AnswerDefect("101 before the request has ended") }
    // A tunnel may live for days: it takes nothing from the requests of its origin.
    client.leavePool(self)
    if let context { DeadPeers.find(on: context.channel) }
    exchange.upgraded(head)
  }

  private func finish(_ exchange: UpstreamExchange, _ trailers: HTTPHeaders) {
    current = nil
    if mayServeAgain(exchange) { client.release(self) } else { close() }
    exchange.ended(trailers)
  }

  /// Whether both sides are done, and nothing else is there.
  private func mayServeAgain(_ exchange: UpstreamExchange) -> Bool {
    phase == .busy && !hasInputEnded && parser.keepsAlive && exchange.isRequestEnded
      && input.readableBytes == 0 && output == nil && !exchange.request.closesConnection
      && (!exchange.request.hasBody || queuedBytes == 0)
  }

  /// There is no more input, and something is missing, unless the end is what was waited for.
  private func inputEnded(_ exchange: UpstreamExchange) {
    if parser.mayEndHere, !isTruncated || parser.isTunnel {
      guard lastError == nil || parser.isTunnel else { return failClosed(exchange) }
      return finish(exchange, [:])
    }
    failClosed(exchange)
  }

  private func failClosed(_ exchange: UpstreamExchange) {
    current = nil
    close()
    if isReused, exchange.mayStartAgain, client.startsAgain(exchange) { return }
    exchange.failed(closedReason(exchange))
  }

  private func closedReason(_ exchange: UpstreamExchange) -> UpstreamFailure.Reason {
    let detail = lastError.map { ": \($0)" } ?? ""
    return .closedEarly(
      (exchange.hasReceived ? "in the middle of an answer" : "before an answer") + detail)
  }
}
