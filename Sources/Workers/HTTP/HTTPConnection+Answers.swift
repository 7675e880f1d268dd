// What goes out: parts of responses are sent to `output` and flushed by the server at the end of the turn, so that the responses
// of one turn, on this and other connections, stand behind one `turnWillFlush`.

import NIOCore
import NIOHTTP1

extension HTTPConnection {
  func write(_ response: HTTPResponse, for request: ResponseContext, linger: Bool) {
    assembled = nil
    var request = request
    if server.isDraining || response.headers.closesConnection { request.keepAlive = false }
    let framing = ResponseFraming(response, for: request)
    sendHead(response.status, response.headers, .own(framing), for: request)
    if !framing.isWhole { send(.body(response.body, isLast: true)) }
    if request.keepAlive {
      clock.answered(at: server.tick, isReceiving: assembly.isReceiving)
    } else {
      end(linger: linger)
    }
  }

  func sendHead(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind,
    for request: ResponseContext
  ) {
    server.counters?.answered(status.code)
    send(.head(head(status, fields, kind, for: request)))
  }

  func send(_ part: ResponsePart) {
    output?.send(part)
    schedule()
  }

  /// Ends the connection once everything that was answered has been written.
  func finish(linger: Bool) {
    end(linger: linger)
    schedule()
  }

  /// The end of a turn: writes what it brought.
  func flush() {
    isScheduled = false
    guard let context, let output else { return }
    guard owesEnd else {
      output.flush(nil)
      if phase == .open, !isLeaving { pump() }
      return
    }
    guard case .finishing(let linger) = phase else { return }
    owesEnd = false
    let taken = context.eventLoop.makePromise(of: Void.self)
    taken.futureResult.assumeIsolated().whenComplete { _ in self.lastAnswerWritten(linger: linger) }
    output.flush(taken)
  }

  /// Gives the channel away, without a trace of HTTP in it.
  func leaveToNewOwner() {
    guard let context, let input, let takeOver, let output else { return }
    if isScheduled {
      isLeaving = true
      server.flushTurn()
      isLeaving = false
    }
    guard phase == .open else { return }
    guard !hasInputEnded else { return close() }
    let request = takeOver.request
    let rest = request.isUpgrade ? input.takeHeldBytes() : ByteBuffer()
    let owesRead = hasSuppressedRead
    let channel = context.channel
    self.takeOver = nil
    let head = output.leave(behind: takeOverHead(takeOver))
    let hasWritten = output.writtenBytes > 0
    input.giveWay()
    channel.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    if hasStreamed { SocketOptions.endStreaming(on: channel) }
    takeOver.body(
      TakenChannel(channel: channel, request: request, head: head, socket: socket, mayHoldOutput: hasWritten))
    if rest.readableBytes > 0, channel.isActive { input.pass(rest, to: channel) }
    if owesRead, channel.isActive { channel.read() }
  }

  private func takeOverHead(_ takeOver: TakeOver) -> OutgoingHead {
    var request = ResponseContext(takeOver.request)
    switch takeOver.head {
    case .stream(let fields):
      request.keepAlive = false
      return head(.ok, fields, .own(.stream(for: request)), for: request)
    case .upgrade(let name, let fields):
      return head(.switchingProtocols, fields, .upgrade(to: name), for: request)
    }
  }

  private func head(
    _ status: HTTPResponseStatus, _ fields: HTTPFields, _ kind: OutgoingHead.Kind,
    for request: ResponseContext
  ) -> OutgoingHead {
    OutgoingHead(status: status, fields: fields, kind: kind, request: request, date: server.date.now())
  }

  func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    server.schedule(self)
  }

  private func end(linger: Bool) {
    guard phase == .open else { return }
    phase = .finishing(linger: linger)
    owesEnd = true
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

extension HTTPFields {
  /// Whether the connection is to be closed after the response that has these.
  var closesConnection: Bool { contains { $0.nameIs("connection") && $0.valueIs("close") } }
}
