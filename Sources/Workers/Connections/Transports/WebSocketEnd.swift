// This worker's end of a WebSocket (RFC 6455, contract §2.2) after its opening handshake.
//
//   open ── we close: close frame ─────────► waits for the client's close frame ──► output closed ──► inactive
//     └──── client closes or breaks a rule: close frame in answer ─────────────────►
//
// What is known of the client's side is in the connection's state (WebSocketState, pure); this object sends, and keeps the times.
// Whatever the client sends, what is kept for it is bounded: one message by the assembler, answers by the outlet. Compressed
// messages, of which one read may hold many that become large, are read a few in each turn; nothing more is taken from the client
// while some are left.

import HTTP
import Kit
import NIOCore

/// What a WebSocket's messages are for: the gateway's own, or echo in the conformance test.
protocol WebSocketApplication: AnyObject {
  /// A whole message; text is valid UTF-8.
  func received(_ message: [UInt8], isText: Bool, on connection: Connection)
}

final class WebSocketEnd {
  private unowned let connection: Connection
  private let intake: MessageIntake
  /// Bytes that the client has sent, those included that are kept.
  private(set) var consumed: UInt64 = 0
  /// Nothing is kept of them, as far as the ledger knows.
  private var isNotedAtRest = true
  /// What is kept of messages, of the worker's budget; nil: nothing is.
  private var hold: AssemblyHold?

  init(_ connection: Connection, _ intake: MessageIntake) {
    self.connection = connection
    self.intake = intake
  }

  private var connections: OpenConnections { connection.connections }

  @discardableResult
  private func withState<R>(_ body: (inout WebSocketState) -> R?) -> R? {
    connection.state.transport.withWebSocket(body)
  }

  // MARK: Out

  /// What the client has been told of where it stands; nil: nothing.
  func told(_ cursor: Cursor?) { withState { $0.toldCursor = cursor } }

  /// Asks the client for a sign of life, and tells one that resumes where it stands if that has changed.
  func beat(second: UInt32) {
    let position = connection.position
    if connection.encoding?.hasCursors == true,
      connection.state.transport.webSocket?.value.toldCursor != position
    {
      connection.say(OwnEvents.moved(to: position, stamp: .now()))
    }
    let place = Int(connection.index)
    if connections.table.deadlines[place] == 0 {
      connections.table.deadlines[place] = second + pongTimeoutSeconds
    }
    connection.send(WebSocketFrame.encode(.ping, EmptyCollection()))
  }

  private var pongTimeoutSeconds: UInt32 { UInt32(clamping: intake.pongTimeoutSeconds) }

  func deadlinePassed(second: UInt32) {
    guard connection.outlet?.isWaiting == true else {
      return close(.policyViolation, reason: "no pong for \(pongTimeoutSeconds) s", dropping: true)
    }
    // It has yet to read up to the ping. Whether it reads at all is what SLOW_CONSUMER_S is about.
    connections.table.deadlines[Int(connection.index)] = second + pongTimeoutSeconds
  }

  /// Tells the client why, and waits for its close frame.
  func end(_ reason: ClosingReason) {
    var frame: [UInt8] = []
    if reason == .sessionKilled {
      frame += WebSocketFrame.encode(.text, OwnEvents.farewell(reason, stamp: .now()).json)
    }
    frame += WebSocketFrame.close(reason.webSocketCode, reason: reason.rawValue)
    connection.finish(with: frame, dropping: reason == .slowConsumer)
  }

  /// Says goodbye by a close frame of our own.
  private func close(_ code: WebSocketCloseCode?, reason: String = "", dropping: Bool = false) {
    guard connections.retire(connection) else { return }
    connection.finish(with: WebSocketFrame.close(code, reason: reason), dropping: dropping)
  }

  /// Whether both sides have said goodbye once ours has.
  var mayCloseOutput: Bool { connection.state.transport.webSocket?.value.hasClientClosed ?? true }

  // MARK: In the ledger

  /// The most that is noted of what the client has said and that is kept here; with more the connection ends with its worker.
  private static let mostNotedBytes = 64 << 10

  var isTooMuchToNote: Bool {
    (connection.state.transport.webSocket?.value.keptBytes ?? 0) > Self.mostNotedBytes
  }

  /// So many bytes were read from the socket before those that this end is given.
  func begin(after consumed: UInt64) { self.consumed = consumed }

  /// Nothing is kept of what has been read.
  var isAtRest: Bool { connection.state.transport.webSocket?.value.isAtRest ?? true }

  /// What has been read has had its effect, or stands in the connection's state.
  func noteInput() {
    let isAtRest = isAtRest
    if isAtRest, isNotedAtRest {
      connection.outlet?.entry?.note(consumed: consumed)
    } else {
      connection.commit()
      if !isAtRest { StopPoint.frameHalfRead.reached() }
    }
    isNotedAtRest = isAtRest
  }

  /// Goes on with what the client has said to another process.
  ///
  /// - Parameter consumed: bytes that it had read, those included that are kept.
  func goOn(after consumed: UInt64) {
    begin(after: consumed)
    isNotedAtRest = isAtRest
    noteKept()
    noteMessage(hasEnded: false)
    let held = withState { state -> HeldMessages? in
      defer { state.held = nil }
      return state.held
    }
    if let held {
      intake.application.received(held.checked, isText: true, on: connection)
      for message in held.messages where !connection.isClosing {
        intake.application.received(message.bytes, isText: message.isText, on: connection)
      }
      noteInput()
    }
    readInTurns()
  }

  /// Something of what the client has said to another process isn't known, perhaps the rest of a frame.
  func inputIsLost() { giveUp(.serviceRestart, "what was said last may be lost") }

  // MARK: In

  /// Bytes have come.
  func read(_ bytes: ByteBuffer) {
    let isReadOn = hasUnread
    consumed &+= UInt64(bytes.readableBytes)
    withState { $0.take(bytes) }
    StopPoint.inputRead.reached()
    guard !isReadOn else {
      noteKept()
      return noteInput()
    }
    intake.work.spend(readSome())
    readInTurns()
  }

  /// Reads what is left in shares of turns, and nothing more meanwhile.
  private func readInTurns() {
    guard hasUnread else { return }
    try? connection.outlet?.channel?.syncOptions?.setOption(.autoRead, value: false)
    intake.work.start(isOurOwn: true) { [weak connection] units in
      connection?.webSocket?.readOn(&units) ?? true
    }
  }

  private var hasUnread: Bool { connection.state.transport.webSocket?.value.hasUnread ?? false }

  /// Reads until the units are used up. Whether nothing is left.
  private func readOn(_ units: inout Int) -> Bool {
    while units > 0, hasUnread { units -= readSome() }
    guard !hasUnread else { return false }
    guard let channel = connection.outlet?.channel, channel.isActive else { return true }
    try? channel.syncOptions?.setOption(.autoRead, value: true)
    channel.read()
    if connection.state.transport.webSocket?.value.hasInputEnded == true { inputEnded() }
    return true
  }

  /// Reads as much as the assembler takes at once. Returns the units of work that it cost.
  private func readSome() -> Int {
    var actions: [WebSocketAction] = []
    let units = withState { $0.read(into: &actions) } ?? 0
    if !connection.isClosing { connections.table.deadlines[Int(connection.index)] = 0 }
    for action in actions { perform(action) }
    noteKept()
    noteMessage(hasEnded: actions.contains(where: \.isMessage))
    noteInput()
    return units
  }

  /// The client sends no more.
  func inputEnded() {
    guard !hasUnread else {
      withState { $0.hasInputEnded = true }
      return
    }
    withState { $0.hasClientClosed = true }
    if !connection.isClosing {
      connection.outlet?.channel?.close(promise: nil)
    } else if connection.outlet?.hasFinished == true {
      connection.closeOutput()
    }
  }

  /// The channel has closed.
  func forgetInput() {
    withState { $0.forgetUnread() }
    intake.ended(connection.index)
  }

  /// Counts what is kept, and ends the connection if that is too much.
  private func noteKept() {
    let bytes = connection.state.transport.webSocket?.value.keptBytes ?? 0
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
    let isUnfinished = connection.state.transport.webSocket?.value.assembler.isUnfinished ?? false
    guard isUnfinished else { return intake.ended(connection.index) }
    if hasEnded { intake.ended(connection.index) }
    connections.clock.refresh()
    intake.begun(connection.index, second: connections.clock.second)
  }

  /// A message has begun and hasn't become whole in its time.
  func messageIsOverdue() {
    giveUp(.policyViolation, "message not complete after \(intake.wholeWithinSeconds) s")
  }

  /// Nothing more is taken from the client, not even its close frame: it may be in the middle of another one.
  private func giveUp(_ code: WebSocketCloseCode, _ reason: String) {
    withState { $0.giveUp() }
    hold = nil
    intake.ended(connection.index)
    end(answering: code, reason: reason)
  }

  private func perform(_ action: WebSocketAction) {
    switch action {
    case .text(let message):
      if !connection.isClosing { intake.application.received(message, isText: true, on: connection) }
    case .binary(let message):
      if !connection.isClosing { intake.application.received(message, isText: false, on: connection) }
    case .ping(let payload):
      connection.send(WebSocketFrame.encode(.pong, payload), hasCursor: false)
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
    withState { $0.hasClientClosed = true }
    if !connection.isClosing {
      close(code, reason: reason)
    } else if connection.outlet?.hasFinished == true {
      connection.closeOutput()
    }
  }

  // MARK: Messages that are being checked

  /// Whether a message is being checked: what comes meanwhile is held.
  var isChecking: Bool { connection.state.transport.webSocket?.value.held != nil }

  /// `Authorization` values for check services; empty unless one is configured.
  var authorization: [String] {
    get { connection.state.transport.webSocket?.value.authorization ?? [] }
    set { withState { $0.authorization = newValue } }
  }

  /// A message is being checked from here on.
  func beginChecking(_ message: [UInt8]) {
    withState { $0.held = HeldMessages(checking: message) }
    noteKept()
  }

  /// The check is over: what was said meanwhile. An heir couldn't tell whether the message has had its effect, until that is noted.
  func endChecking() -> [HeldMessages.Message] {
    connection.outlet?.entry?.note(state: nil, consumed: consumed)
    isNotedAtRest = false
    let held = withState { state -> HeldMessages? in
      defer { state.held = nil }
      return state.held
    }
    noteKept()
    return held?.messages ?? []
  }

  /// Holds what was said meanwhile. False: there is no room.
  func hold(_ message: [UInt8], isText: Bool) -> Bool {
    let isHeld = withState { $0.held?.add(message, isText: isText) } ?? false
    if isHeld { noteKept() }
    return isHeld
  }
}
