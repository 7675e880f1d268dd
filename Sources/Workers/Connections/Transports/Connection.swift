// One open connection of a frontend, whatever carries it: what travels with it, and this worker's end of it.
//
//   state      everything that another worker needs to go on with it (ConnectionState)
//   replay     its way to the present, while it is behind
//   outlet     the way out of a stream           polls       of a long-polling session: the poll that waits
//   webSocket  of a WebSocket: its messages
//
// What the delivery loop needs of it is in the ConnectionTable. A stream is the last handler of a channel whose HTTP
// handlers have gone:
//
//   open ──────────► closing: farewell behind what waits ──► output closed ──► inactive
//                       └───────────── at most `lingerSeconds` ─────────────────┘
//
// Ending in this order lets the client read everything, the reason included, before the connection is gone. A client
// that doesn't go along is cut off.

import Kit
import NIOCore

final class Connection: ChannelInboundHandler, OutletOwner {
  typealias InboundIn = ByteBuffer

  /// How long a client has to read the farewell and to go.
  static let lingerSeconds: UInt32 = 5
  /// Past what waits here, or half of the bound on unsent bytes, no more of the past is sent: live events still fit behind.
  private static let congestionBytes = 256 << 10
  /// Bytes of the past that go out together.
  private static let gatheredBytes = 32 << 10

  let index: ConnectionIndex
  /// The hub outlives its connections.
  unowned let hub: Hub
  /// What travels with it.
  var state: ConnectionState
  /// Of a stream; nil: it is polled.
  let outlet: Outlet?
  private(set) var webSocket: WebSocketEnd?
  private(set) var polls: PollEnd?
  /// While `state.resuming` tells where it is on its way to live delivery: what it needs for that.
  private(set) var replay: Replay?
  /// Those of the identity, as the hub has entered them.
  var sessions: [SessionDigest] = []
  /// Whether the hub has entered the connection among the followers of users: addressed events come live.
  var isFollowing = false
  /// Whether a change of its subscriptions is being made.
  var isChanging = false
  /// Whether the hub looks at what waits here, once per second.
  var isWatched = false
  /// Set when the connection has been told that it ends: it gets nothing more.
  private(set) var isClosing = false
  /// Events of the past that go out together; nil: whatever is sent goes out at once.
  private var gathered: [UInt8]?

  /// A stream.
  ///
  /// - Parameters:
  ///   - descriptor: the channel's socket, borrowed; -1: nothing may be written past the channel (TLS, HTTP/2).
  ///   - application: of a WebSocket's messages.
  init(
    _ state: ConnectionState, at index: ConnectionIndex, of hub: Hub, on channel: Channel, descriptor: CInt,
    application: (any WebSocketApplication)? = nil
  ) {
    self.state = state
    self.index = index
    self.hub = hub
    let outlet = Outlet(channel: channel, descriptor: descriptor, limitBytes: hub.settings.maxUnsentBytes)
    self.outlet = outlet
    outlet.owner = self
    if let application { webSocket = WebSocketEnd(self, application) }
  }

  /// A long-polling session.
  init(polled state: ConnectionState, at index: ConnectionIndex, of hub: Hub) {
    self.state = state
    self.index = index
    self.hub = hub
    outlet = nil
    polls = PollEnd(self)
  }

  var serial: UInt64 { state.serial }

  /// Who it belongs to; nil: nobody has said.
  var identity: ConnectionIdentity? { state.identity }

  /// How its events are encoded; nil: they are polled.
  var encoding: EventEncoding? { state.transport.kind.encoding }

  /// Where it stands in the history of all rings: it has been given everything up to there.
  var position: Cursor { state.resuming?.plan.seen ?? hub.events.own }

  /// It takes no part in live delivery until it has been given what came after `plan`.
  func resume(_ plan: ResumePlan, by replay: Replay) {
    state.resuming = ConnectionState.Resuming(plan: plan, isCatchingUp: replay.isCatchingUp)
    self.replay = replay
  }

  /// Nothing is left of its past: it is live, or ends.
  func reachPresent() {
    state.resuming = nil
    replay = nil
  }

  /// What waits for its socket, as its outlet sees it.
  var waiting: Backlog {
    _read { yield state.waiting }
    _modify { yield &state.waiting }
  }

  /// The name that the client knows the connection by.
  var token: String? {
    try? hub.tokens.seal(ConnectionToken(slot: UInt16(hub.slot), serial: serial))
  }

  // MARK: Sending

  /// Says one event of the gateway's own.
  func say(_ event: OwnEvent) {
    if let polls { return polls.append(event.json, cursor: nil) }
    guard let encoding else { return }
    if let cursor = event.cursor, encoding.hasCursors { webSocket?.told(cursor) }
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(event)
    send(buffer.bytes, hasCursor: event.cursor != nil)
  }

  /// Sends one event out of the past; `state.resuming` is already behind it.
  func send(replayed event: EventRecord, cursor: Cursor) {
    if let polls { return polls.append(Array(event.jsonBytes), cursor: cursor) }
    guard let encoding else { return }
    var buffer = TurnBuffer(encoding: encoding)
    _ = buffer.append(event, cursor: cursor)
    send(buffer.bytes)
  }

  /// Sends a whole piece on a stream: an event, a frame.
  ///
  /// - Parameter hasCursor: whether it tells a client that resumes where it stands. What doesn't puts off no heartbeat, which does.
  func send(_ bytes: [UInt8], hasCursor: Bool = true) {
    guard isOpen else { return }
    if gathered != nil {
      gather(bytes)
    } else {
      send(bytes, isInRing: false, hasCursor: hasCursor)
    }
  }

  private func send(_ bytes: [UInt8], isInRing: Bool, hasCursor: Bool = true) {
    outlet?.send(bytes, isInRing: isInRing)
    if hasCursor || encoding?.hasCursors == false { hub.table.lastTraffic[Int(index)] = hub.clock.second }
    outletDidChange()
  }

  /// What `replay` sends of the past may go out as one piece.
  func sendTogether(_ replay: () -> Void) {
    guard outlet != nil else { return replay() }
    gathered = []
    replay()
    let rest = gathered ?? []
    gathered = nil
    if !rest.isEmpty, isOpen { send(rest, isInRing: true) }
  }

  private func gather(_ bytes: [UInt8]) {
    gathered?.append(contentsOf: bytes)
    guard let whole = gathered, whole.count >= Self.gatheredBytes else { return }
    gathered = []
    send(whole, isInRing: true)
  }

  /// Whether the client has yet to take what it was sent: no more of the past for now.
  var isCongested: Bool {
    guard let outlet else { return polls?.isCongested ?? false }
    let most = min(Self.congestionBytes, hub.settings.maxUnsentBytes / 2)
    return outlet.waitingBytes + (gathered?.count ?? 0) > most
  }

  // MARK: The outlet

  /// Something was given to the outlet: lets the delivery loop send directly or not. A client that doesn't keep up gets events at
  /// its own pace from then on; one that doesn't take what it asked for is ended.
  func outletDidChange() {
    guard isOpen, let outlet else { return }
    hub.table.descriptors[Int(index)] = outlet.directDescriptor
    if outlet.isWaiting { hub.watch(self) }
    if outlet.isOverfullOfAnswers {
      hub.close(self, .slowConsumer)
    } else if outlet.isOverfull {
      hub.fallBehind(self)
    }
  }

  /// What a delivery couldn't send directly is in the outlet now.
  func deliveryWasKept() {
    guard let outlet else { return }
    outlet.resume()
    // Over TLS everything comes this way, and nothing waits unless the client is slow.
    if outlet.waitingBytes == 0 { hub.table.lastTraffic[Int(index)] = hub.clock.second }
    outletDidChange()
  }

  func outletDidDrain() {
    if isOpen { hub.table.lastTraffic[Int(index)] = hub.clock.second }
    outletDidChange()
    if hub.replayer.resume(self) { hub.scheduleTurn() }
  }

  func outletDidFinish() {
    if webSocket?.mayCloseOutput ?? true { closeOutput() }
  }

  // MARK: Time

  /// Whether a heartbeat would go out at once: behind what waits it would say nothing.
  var mayBeat: Bool { isOpen && outlet?.isIdle ?? false }

  /// Nothing has gone out for the heartbeat time.
  func beat(second: UInt32) {
    if let webSocket { return webSocket.beat(second: second) }
    guard let encoding else { return }
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(block: ServerSentEvents.heartbeat(at: position))
    send(buffer.bytes)
  }

  /// The second in the table's `deadlines` has come.
  func deadlinePassed(second: UInt32) {
    if let polls {
      polls.deadlinePassed()
    } else if let webSocket, !isClosing {
      webSocket.deadlinePassed(second: second)
    } else {
      outlet?.channel.close(promise: nil)
    }
  }

  // MARK: Ending

  /// Whether the connection is in the table and hasn't been told that it ends.
  private var isOpen: Bool { !isClosing && hub.table[index] === self }

  /// Marks the connection as told.
  func markClosing() { isClosing = true }

  /// Tells the client and ends. Call `Hub.close(_:_:)`, which takes the connection out of delivery first.
  func end(_ reason: ClosingReason) {
    if let polls { return polls.end(reason) }
    if let webSocket { return webSocket.end(reason) }
    guard let encoding else { return }
    var buffer = TurnBuffer(encoding: encoding)
    buffer.append(OwnEvents.farewell(reason, stamp: .now()), retryMs: hub.retryMs(after: reason))
    finish(with: buffer.bytes + encoding.end, dropping: reason == .slowConsumer)
  }

  /// Sends the last bytes and then ends the stream.
  func finish(with farewell: [UInt8], dropping: Bool) {
    hub.table.deadlines[Int(index)] = hub.clock.second + Self.lingerSeconds
    outlet?.finish(with: farewell, dropping: dropping)
  }

  /// Nothing more will be sent: the client sees the end of the stream.
  func closeOutput() {
    outlet?.channel.close(mode: .output, promise: nil)
  }

  // MARK: Channel

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    // What a client sends on an event stream means nothing.
    webSocket?.read(unwrapInboundIn(data))
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? ChannelEvent, event == .inputClosed else {
      return context.fireUserInboundEventTriggered(event)
    }
    // A socket's channel closes by itself then; a stream of HTTP/2 leaves that to its owner.
    if let webSocket { webSocket.inputEnded() } else { context.close(promise: nil) }
  }

  func channelInactive(context: ChannelHandlerContext) {
    webSocket?.forgetInput()
    outlet?.close()
    hub.closed(self)
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}
