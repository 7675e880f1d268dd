// What goes out: head and body in one write where both are there, flushed at the end of the turn or of the request.

import NIOCore

extension UpstreamConnection {
  /// Bodies of at most so many bytes are copied behind what stands before them; larger ones are written as they are.
  private static let maximumCopiedBytes = 16 << 10

  var hasRoom: Bool { isWritable && (output?.readableBytes ?? 0) < Self.highWaterBytes }

  /// Begins an exchange; the connection is idle, or has just been made.
  func start(_ exchange: UpstreamExchange) {
    endForming()
    phase = .busy
    current = exchange
    exchanges += 1
    unsentBytes = 0
    let request = exchange.request
    parser = AnswerParser(
      limits: client.limits, method: request.method,
      mayUpgrade: request.headers.namesConnectionOption("upgrade"))
    var early = exchange.activate(self)
    var buffer = client.takeScratch()
    request.writeHead(to: &buffer)
    if let count = early?.readableBytes {
      if request.body == .chunked { buffer.writeString("\(String(count, radix: 16))\r\n") }
      Self.move(&early, behind: &buffer)
      if request.body == .chunked { buffer.writeStaticString("\r\n") }
    }
    if exchange.isRequestEnded { Self.writeEnd(of: exchange, to: &buffer) }
    output = buffer
    // A write may fail at once, and `begin` doesn't call back: those that can begin again are the ones that don't need to.
    if exchange.isRequestEnded, exchange.mayStartAgain || !isReused { flushOutput() } else { schedule() }
    if exchanges == 1 { context?.read() }
  }

  /// False: enough for now.
  func write(_ bytes: ByteBuffer, asChunk: Bool) -> Bool {
    guard phase == .busy, let context else { return true }
    if bytes.readableBytes <= Self.maximumCopiedBytes {
      Self.append(bytes, asChunk: asChunk, to: &output)
      // So that what is copied stays small.
      if let output, output.readableBytes > 4 * Self.maximumCopiedBytes { hand(output, to: context) }
    } else {
      if asChunk {
        var head = output ?? ByteBuffer()
        output = nil
        head.writeString("\(String(bytes.readableBytes, radix: 16))\r\n")
        output = head
      }
      if let output { hand(output, to: context) }
      hand(bytes, to: context)
      if asChunk { output = ByteBuffer(staticString: "\r\n") }
    }
    schedule()
    return hasRoom
  }

  private func hand(_ bytes: ByteBuffer, to context: ChannelHandlerContext) {
    output = nil
    context.write(wrapOutboundOut(bytes), promise: nil)
  }

  static func append(_ bytes: ByteBuffer, asChunk: Bool, to output: inout ByteBuffer?) {
    var buffer = output ?? ByteBuffer()
    output = nil
    if asChunk { buffer.writeString("\(String(bytes.readableBytes, radix: 16))\r\n") }
    buffer.writeImmutableBuffer(bytes)
    if asChunk { buffer.writeStaticString("\r\n") }
    output = buffer
  }

  private static func move(_ early: inout ByteBuffer?, behind buffer: inout ByteBuffer) {
    guard var bytes = early else { return }
    early = nil
    buffer.writeBuffer(&bytes)
  }

  private func takeOutput() -> ByteBuffer? {
    defer { output = nil }
    return output
  }

  /// The request is whole: nothing is to be waited for.
  func requestEnded() {
    guard phase == .busy, let current else { return }
    var tail = takeOutput()
    if current.request.body == .chunked {
      var buffer = tail ?? ByteBuffer()
      tail = nil
      Self.writeEnd(of: current, to: &buffer)
      output = buffer
    } else {
      output = tail
    }
    flushOutput()
  }

  private static func writeEnd(of exchange: UpstreamExchange, to buffer: inout ByteBuffer) {
    guard exchange.request.body == .chunked else { return }
    UpstreamRequest.writeEnd(exchange.trailers, to: &buffer)
  }

  /// The caller writes no more into the tunnel.
  func endTunnel() {
    guard isTunnel, !hasOutputEnded else { return }
    hasOutputEnded = true
    flushOutput()
    context?.close(mode: .output, promise: nil)
  }

  private func schedule() {
    guard !isScheduled else { return }
    isScheduled = true
    client.schedule(self)
  }

  /// The end of the turn.
  func endTurn() {
    isScheduled = false
    guard phase == .busy else { return }
    flushOutput()
    if isWritable, phase == .busy { current?.invite() }
  }

  private func flushOutput() {
    guard let context else { return }
    guard let bytes = takeOutput() else {
      context.flush()
      return
    }
    context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    client.giveBack(scratch: bytes)
  }
}
