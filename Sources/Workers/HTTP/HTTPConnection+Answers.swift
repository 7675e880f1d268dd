// What goes out: answers are collected in `output` and written by the server at the end of the turn, so that the answers
// of one turn, on this and other connections, stand behind one `turnWillFlush`, and pipelined ones share a write.

import NIOCore
import NIOHTTP1

extension HTTPConnection {
  func write(_ response: HTTPResponse, for answer: AnswerContext, linger: Bool) {
    assembled = nil
    var answer = answer
    if server.isDraining || response.headers.closesConnection { answer.keepAlive = false }
    server.counters?.answered(response.status.code)
    append { ResponseWriter.append(response, for: answer, date: server.date.now(), to: &$0) }
    if answer.keepAlive {
      clock.answered(at: server.tick, isReceiving: assembly.isReceiving)
    } else {
      end(linger: linger)
    }
  }

  func append(_ body: (inout ByteBuffer) -> Void) {
    guard let context else { return }
    var buffer = output ?? context.channel.allocator.buffer(capacity: 0)
    output = nil
    body(&buffer)
    output = buffer
    schedule()
  }

  /// Ends the connection once everything that was answered has been written.
  func finish(linger: Bool) {
    end(linger: linger)
    if output == nil { output = ByteBuffer() }
    schedule()
  }

  /// The end of a turn: writes what it brought.
  func flush() {
    isScheduled = false
    guard let context else { return }
    let bytes = output ?? ByteBuffer()
    let hasOutput = output != nil
    let isFlushOwed = hasUnflushed
    output = nil
    hasUnflushed = false
    writtenBytes += bytes.readableBytes
    switch phase {
    case .open:
      if hasOutput {
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
      } else if isFlushOwed {
        context.flush()
      }
      if !isLeaving { pump() }
    case .finishing(let linger):
      guard hasOutput else { return }
      let written = context.eventLoop.makePromise(of: Void.self)
      written.futureResult.assumeIsolated().whenComplete { _ in self.lastAnswerWritten(linger: linger) }
      context.writeAndFlush(wrapOutboundOut(bytes), promise: written)
    case .lingering, .gone:
      break
    }
  }

  /// Gives the channel away, without a trace of HTTP in it.
  func leaveToNewOwner() {
    guard let context, let input, let takeOver else { return }
    if output != nil || hasUnflushed {
      isLeaving = true
      server.flushTurn()
      isLeaving = false
    }
    guard phase == .open else { return }
    guard !hasInputEnded else { return close() }
    let rest = takeOver.request.isUpgrade ? input.takeHeldBytes() : ByteBuffer()
    let owesRead = hasSuppressedRead
    let channel = context.channel
    self.takeOver = nil
    input.giveWay()
    channel.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    if hasStreamed {
      let mark = ChannelOptions.Types.WriteBufferWaterMark(
        low: Self.ordinaryUntakenBytes.lowerBound, high: Self.ordinaryUntakenBytes.upperBound)
      try? channel.syncOptions?.setOption(.writeBufferWaterMark, value: mark)
    }
    takeOver.body(channel, takeOver.request)
    if rest.readableBytes > 0, channel.isActive { input.pass(rest, to: channel) }
    if owesRead, channel.isActive { channel.read() }
  }

  func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    server.schedule(self)
  }

  private func end(linger: Bool) {
    guard phase == .open else { return }
    phase = .finishing(linger: linger)
    clock.finishing(at: server.tick)
    queue.removeAll()
  }

  private func lastAnswerWritten(linger: Bool) {
    guard phase != .gone, let context else { return }
    guard linger, !hasInputEnded else { return close() }
    phase = .lingering
    clock.lingering(at: server.tick)
    context.close(mode: .output, promise: nil)
    if hasSuppressedRead {
      hasSuppressedRead = false
      context.read()
    }
  }
}

extension HTTPHeaders {
  /// Whether the connection is to be closed after the answer that has these.
  var closesConnection: Bool {
    first(name: "connection").map { $0.lowercased() == "close" } ?? false
  }
}
