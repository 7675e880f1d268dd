// A WebSocket (RFC 6455, contract §2.2) after its opening handshake.
//
//   open ── we close: close frame ─────────► waits for the client's close frame ──► output closed ──► inactive
//     └──── client closes or breaks a rule: close frame in answer ─────────────────►
//
// Frames are taken apart by the assembler (pure); this class sends, and keeps the times. Whatever the client sends,
// what is kept for it is bounded: one message by the assembler, answers by the outlet. Compressed messages, of which one read may
// hold many that become large, are read a few in each turn; nothing more is taken from the client while some are left.

import HTTP
import Kit
import NIOCore

/// What a WebSocket's messages are for: the gateway's own, or echo in the conformance test.
protocol WebSocketApplication: AnyObject {
  /// A whole message; text is valid UTF-8.
  func received(_ message: [UInt8], isText: Bool, on connection: WebSocketConnection)
}

final class WebSocketConnection: StreamConnection {
  /// What is expanded, and then read, for one unit of a turn's work.
  private static let expandedBytesPerUnit = 256

  private let intake: MessageIntake
  private let application: any WebSocketApplication
  private var assembler: WebSocketAssembler
  /// The client has sent its close frame, or can't be expected to send one that makes sense.
  private var clientHasClosed = false
  /// `Authorization` values for check services; empty unless one is configured.
  var authorization: [String]
  /// Messages that wait for the check of an earlier one; nil: none is being checked.
  var heldMessages: HeldMessages? {
    didSet { noteKept() }
  }
  /// What greeting, loss or heartbeat has last told of `position`; nil: nothing, or the client doesn't want to know.
  var toldCursor: Cursor?
  /// What is kept of messages, of the worker's budget; nil: nothing is.
  private var hold: AssemblyHold?
  /// What has come and waits for its turn.
  private var unread = ByteBuffer()
  /// The client has ended its side behind what is unread.
  private var hasInputEnded = false

  init(
    index: ConnectionIndex, serial: UInt64, _ connections: OpenConnections, _ intake: MessageIntake,
    channel: Channel, descriptor: CInt, application: any WebSocketApplication, authorization: [String] = [], isDeflated: Bool = false
  ) {
    self.intake = intake
    self.application = application
    self.authorization = authorization
    assembler = WebSocketAssembler(
      maximumMessageBytes: intake.maximumMessageBytes, inflater: isDeflated ? intake.inflater : nil)
    super.init(index: index, serial: serial, connections, channel: channel, descriptor: descriptor)
  }

  // MARK: Out

  override func say(_ event: OwnEvent) {
    if let cursor = event.cursor, encoding.hasCursors { toldCursor = cursor }
    super.say(event)
  }

  /// Asks the client for a sign of life, and tells one that resumes where it stands if that has changed.
  override func beat(second: UInt32) {
    if encoding.hasCursors, toldCursor != position { say(OwnEvents.moved(to: position, stamp: .now())) }
    if connections.table.deadlines[Int(index)] == 0 {
      let timeout = UInt32(clamping: intake.pongTimeoutSeconds)
      connections.table.deadlines[Int(index)] = second + timeout
    }
    send(WebSocketFrame.encode(.ping, EmptyCollection()))
  }

  override func deadlinePassed(second: UInt32) {
    if isClosing {
      super.deadlinePassed(second: second)
    } else if outlet.isWaiting {
      // It has yet to read up to the ping. Whether it reads at all is what SLOW_CONSUMER_S is about.
      connections.table.deadlines[Int(index)] = second + UInt32(clamping: intake.pongTimeoutSeconds)
    } else {
      let timeout = intake.pongTimeoutSeconds
      close(.policyViolation, reason: "no pong for \(timeout) s", dropping: true)
    }
  }

  override func end(_ reason: ClosingReason, retryMs: Int?) {
    var frame: [UInt8] = []
    if reason == .sessionKilled {
      frame += WebSocketFrame.encode(.text, OwnEvents.farewell(reason, stamp: .now()).json)
    }
    frame += WebSocketFrame.close(reason.webSocketCode, reason: reason.rawValue)
    finish(with: frame, dropping: reason == .slowConsumer)
  }

  /// Says goodbye by a close frame of our own.
  private func close(_ code: WebSocketCloseCode?, reason: String = "", dropping: Bool = false) {
    guard connections.retire(self) else { return }
    finish(with: WebSocketFrame.close(code, reason: reason), dropping: dropping)
  }

  override func outletDidFinish() {
    if clientHasClosed { closeOutput() }
  }

  // MARK: In

  override func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    guard unread.readableBytes == 0 else {
      unread.writeBuffer(&bytes)
      return noteKept()
    }
    unread = bytes
    intake.work.spend(readSome())
    guard unread.readableBytes > 0 else { return }
    try? channel.syncOptions?.setOption(.autoRead, value: false)
    intake.work.start(isOurOwn: true) { [weak self] units in self?.readOn(&units) ?? true }
  }

  /// Reads until the units are used up. Whether nothing is left.
  private func readOn(_ units: inout Int) -> Bool {
    while units > 0, unread.readableBytes > 0 { units -= readSome() }
    guard unread.readableBytes == 0 else { return false }
    guard channel.isActive else { return true }
    try? channel.syncOptions?.setOption(.autoRead, value: true)
    channel.read()
    if hasInputEnded { inputEnded() }
    return true
  }

  /// Reads as much as the assembler takes at once. Returns the units of work that it cost.
  private func readSome() -> Int {
    var actions: [WebSocketAction] = []
    let count = unread.withUnsafeReadableBytes { assembler.receive($0, into: &actions) }
    unread.moveReaderIndex(forwardBy: count)
    // It would keep the buffer of a read.
    if unread.readableBytes == 0 { unread = ByteBuffer() }
    if !isClosing { connections.table.deadlines[Int(index)] = 0 }
    for action in actions { perform(action) }
    noteKept()
    noteMessage(hasEnded: actions.contains(where: \.isMessage))
    return assembler.expandedBytes / Self.expandedBytesPerUnit
  }

  override func inputEnded() {
    guard unread.readableBytes == 0 else {
      hasInputEnded = true
      return
    }
    clientHasClosed = true
    if !isClosing {
      super.inputEnded()
    } else if outlet.hasFinished {
      closeOutput()
    }
  }

  override func channelInactive(context: ChannelHandlerContext) {
    unread = ByteBuffer()
    intake.ended(index)
    super.channelInactive(context: context)
  }

  /// Counts what is kept, and ends the connection if that is too much.
  private func noteKept() {
    let bytes = assembler.keptBytes + (heldMessages?.keptBytes ?? 0) + unread.readableBytes
    guard bytes > 0 else {
      hold = nil
      return
    }
    let hold = hold ?? AssemblyHold(AssemblyShare(intake.budget))
    self.hold = hold
    switch hold.resize(to: bytes) {
    case nil: break
    case .connection(let limit)?:
      giveUp(.tooBig, "unfinished and waiting messages may have at most \(limit) bytes")
    case .worker?: giveUp(.tryAgainLater, "MAX_ASSEMBLY_BYTES_PER_WORKER is reached, try again later")
    }
  }

  /// Keeps the time of a message that isn't whole, from its first byte on.
  private func noteMessage(hasEnded: Bool) {
    guard assembler.isUnfinished else { return intake.ended(index) }
    if hasEnded { intake.ended(index) }
    connections.clock.refresh()
    intake.begun(index, second: connections.clock.second)
  }

  /// A message has begun and hasn't become whole in its time.
  func messageIsOverdue() {
    giveUp(.policyViolation, "message not complete after \(intake.wholeWithinSeconds) s")
  }

  /// Nothing more is taken from the client, not even its close frame: it may be in the middle of another one.
  private func giveUp(_ code: WebSocketCloseCode, _ reason: String) {
    assembler.stop()
    unread = ByteBuffer()
    heldMessages = nil
    intake.ended(index)
    end(answering: code, reason: reason)
  }

  private func perform(_ action: WebSocketAction) {
    switch action {
    case .text(let message):
      if !isClosing { application.received(message, isText: true, on: self) }
    case .binary(let message):
      if !isClosing { application.received(message, isText: false, on: self) }
    case .ping(let payload):
      send(WebSocketFrame.encode(.pong, payload), hasCursor: false)
    case .pong:
      break
    case .close(let code, _):
      end(answering: code)
    case .fail(let code, let reason):
      end(answering: code, reason: reason)
    }
  }

  /// The client's side is over: answers with a close frame, or ends if ours has been sent.
  private func end(answering code: WebSocketCloseCode?, reason: String = "") {
    clientHasClosed = true
    if isClosing {
      if outlet.hasFinished { closeOutput() }
    } else {
      close(code, reason: reason)
    }
  }
}
