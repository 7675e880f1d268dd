// What comes in: from frames to calls of the receiver, as far as it has asked for them.

import NIOCore
import NIOHTTP1
import NIOHTTP2

extension UpstreamStream {
  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    frames += 1
    guard let exchange = current, !isReset else { return }
    exchange.moved(at: client.nowNs())
    // Whoever asks for more from here has it at the end of the read.
    let wasPumping = isPumping
    isPumping = true
    defer { isPumping = wasPumping }
    do throws(AnswerDefect) {
      switch unwrapInboundIn(data) {
      case .headers(let headers):
        exchange.receivedBytes(at: client.nowNs())
        switch try answer.receive(headers.headers, isEnd: headers.endStream) {
        case .interim(let head): exchange.informed(head)
        case .answer(let head): exchange.answered(head)
        case .trailers(let fields): trailers = fields
        }
      case .data(let data):
        guard case .byteBuffer(var bytes) = data.data else { return }
        try answer.receive(dataBytes: bytes.readableBytes, isEnd: data.endStream)
        if input.readableBytes == 0 {
          input = bytes
        } else {
          input.discardReadBytes()
          input.writeBuffer(&bytes)
        }
      case .rstStream: isResetByPeer = true
      default: break
      }
    } catch {
      fail(.malformed(error.detail))
    }
  }

  func pump() {
    guard !isPumping else { return }
    isPumping = true
    defer { isPumping = false }
    while let exchange = current {
      if input.readableBytes > 0 {
        guard exchange.isWanted else { return }
        let piece = input
        input = ByteBuffer()
        exchange.sent(piece)
      } else if answer.hasEnded {
        finish(exchange)
      } else if isGone {
        failClosed(exchange)
      } else {
        guard exchange.isWanted || answer.isAwaitingHead || answer.isAwaitingEnd else { return }
        // What waits in the channel comes before this returns.
        let before = frames
        context?.read()
        guard frames > before || isGone else { return }
      }
    }
  }

  private func finish(_ exchange: UpstreamExchange) {
    current = nil
    // Whoever has given its answer doesn't need the rest of the request (RFC 9113 §8.1).
    if !isEndWritten || unsent > 0 { reset(.cancel) }
    exchange.ended(trailers)
  }

  /// The stream is closed, and something is missing.
  private func failClosed(_ exchange: UpstreamExchange) {
    current = nil
    let mayStartAgain =
      if resetCode == .refusedStream {
        exchange.mayStartAgainUnheard
      } else {
        resetCode == nil && !isFirst && exchange.mayStartAgain
      }
    if mayStartAgain, client.startsAgainElsewhere(exchange) { return }
    exchange.failed(closedReason(exchange))
  }

  private func closedReason(_ exchange: UpstreamExchange) -> UpstreamFailure.Reason {
    let error = resetCode.map { "\($0)" } ?? (session.lastError ?? lastError).map { "\($0)" }
    let place = exchange.hasReceived ? "in the middle of an answer" : "before an answer"
    return .closedEarly(error.map { "\(place): \($0)" } ?? place)
  }
}
