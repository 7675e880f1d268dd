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
import Links
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
  /// All of this worker's, which outlive each.
  unowned let connections: OpenConnections
  /// What travels with it.
  var state: ConnectionState
  /// Of a stream; nil: it is polled.
  let outlet: Outlet?
  private var side = Side.stream
  /// While `state.resuming` tells where it is on its way to live delivery: what it needs for that.
  private(set) var replay: Replay?
  /// Those of the identity, as they are entered in Identities.
  var sessions: [SessionDigest] = []
  /// Whether it is entered among the followers of users: addressed events come live.
  var isFollowing = false
  /// Whether a change of its subscriptions is being made.
  var isChanging = false
  /// Whether it is looked at what waits here, once per second.
  var isWatched = false
  /// It is to be in the ledger, as soon as nothing waits that isn't counted.
  private var awaitsEntry = false
  /// It is being passed to another process: it is left alone until that is over (ConnectionOffers).
  var isSuspended = false
  /// Set when the connection has been told that it ends: it gets nothing more.
  private(set) var isClosing = false

  /// What else a transport has in this worker.
  private enum Side {
    case stream
    case webSocket(WebSocketEnd)
    case polls(PollEnd)
  }

  /// A stream.
  ///
  /// - Parameters:
  ///   - descriptor: the channel's socket, borrowed; -1: nothing may be written past the channel (TLS, HTTP/2).
  ///   - intake: of a WebSocket's messages; nil: it is none.
  init(
    _ state: ConnectionState, at index: ConnectionIndex, of connections: OpenConnections, on channel: Channel,
    descriptor: CInt, intake: MessageIntake? = nil
  ) {
    self.state = state
    self.index = index
    self.connections = connections
    let outlet = Outlet(channel: channel, descriptor: descriptor, limitBytes: connections.maxUnsentBytes)
    self.outlet = outlet
    outlet.owner = self
    if let intake { side = .webSocket(WebSocketEnd(self, intake)) }
  }

  /// A stream on a socket that another process has accepted.
  ///
  /// - Parameters:
  ///   - make: a channel of the socket; nil: none can be made, and the socket is closed.
  ///   - intake: as above.
  init(
    _ state: ConnectionState, at index: ConnectionIndex, of connections: OpenConnections, socket: CInt,
    intake: MessageIntake?, channel make: @escaping () -> Channel?
  ) {
    self.state = state
    self.index = index
    self.connections = connections
    let outlet = Outlet(socket: socket, limitBytes: connections.maxUnsentBytes)
    self.outlet = outlet
    outlet.owner = self
    if let intake { side = .webSocket(WebSocketEnd(self, intake)) }
    attach(make)
  }

  /// Where its channel comes from when it is needed; until then nothing is read from the socket.
  ///
  /// - Parameter make: as above.
  func attach(_ make: @escaping () -> Channel?) {
    outlet?.whenNeeded { [unowned self] in
      guard let channel = make() else { return nil }
      guard (try? channel.pipeline.syncOperations.addHandler(self)) != nil else {
        channel.close(promise: nil)
        return nil
      }
      return channel
    }
  }

  /// A long-polling session.
  init(
    polled state: ConnectionState, at index: ConnectionIndex, of connections: OpenConnections, _ all: Polls
  ) {
    self.state = state
    self.index = index
    self.connections = connections
    outlet = nil
    side = .polls(PollEnd(self, all))
  }

  var serial: UInt64 { state.serial }

  /// nil: it is no WebSocket.
  var webSocket: WebSocketEnd? { if case .webSocket(let end) = side { end } else { nil } }

  /// nil: it is a stream.
  var polls: PollEnd? { if case .polls(let end) = side { end } else { nil } }

  /// Who it belongs to; nil: nobody has said.
  var identity: ConnectionIdentity? { state.identity }

  /// How its events are encoded; nil: they are polled.
  var encoding: EventEncoding? { state.transport.kind.encoding }

  /// Where it stands in the history of all rings: it has been given everything up to there.
  var position: Cursor { state.resuming?.plan.seen ?? connections.events.own }

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

  // MARK: Opening

  /// Opens a stream: what `begin` makes of the connection and the first bytes are one step.
  ///
  /// - Parameters:
  ///   - mayHoldOutput: NIO may still hold some of earlier responses, behind which they have to go.
  ///   - written: bytes written to the socket before; nil: the kernel has to be asked.
  func open(with bytes: [UInt8], mayHoldOutput: Bool, written: UInt64? = nil, _ begin: () -> Void) {
    guard let outlet, outlet.hold() else { return begin() }
    outlet.send(bytes)
    begin()
    if mayHoldOutput { awaitsEntry = true } else { connections.enterLedger(self, written: written) }
    if outlet.entry != nil { StopPoint.greeting.reached() }
    outlet.release(throughChannel: mayHoldOutput)
    outletDidChange()
  }

  // MARK: In the ledger

  /// Whether another process can go on with it, now or when what waits has gone.
  var mayOutlive: Bool { awaitsEntry || connections.table.entries[Int(index)] != .none }

  /// What is known of the connection is in the ledger as it is now.
  func commit() {
    if let polls { return polls.commit() }
    guard let outlet, let entry = outlet.entry, !outlet.isHeld else { return }
    entry.note(state: encodedState, consumed: webSocket?.consumed ?? 0)
  }

  /// What changes within `body` and what is sent there are one step, for whoever goes on with the connection.
  func step(_ body: () -> Void) {
    guard let outlet else {
      body()
      return commit()
    }
    guard outlet.entry != nil, outlet.hold() else { return body() }
    body()
    outlet.noteAll(state: encodedState, consumed: webSocket?.consumed ?? 0)
    outlet.release()
    outletDidChange()
  }

  /// nil: there is more of it than is noted.
  var encodedState: [UInt8]? {
    (webSocket?.isTooMuchToNote ?? false) ? nil : state.encoded(withWaiting: false)
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
    if replay?.gathered != nil {
      gather(bytes)
    } else {
      send(bytes, isInRing: false, hasCursor: hasCursor)
    }
  }

  private func send(_ bytes: [UInt8], isInRing: Bool, hasCursor: Bool = true) {
    outlet?.send(bytes, isInRing: isInRing)
    if hasCursor || encoding?.hasCursors == false {
      connections.table.lastTraffic[Int(index)] = connections.clock.second
    }
    outletDidChange()
  }

  /// What `replay` sends of the past may go out as one piece.
  func sendTogether(_ replay: () -> Void) {
    guard outlet != nil else { return replay() }
    self.replay?.gathered = []
    replay()
    let rest = self.replay?.gathered ?? []
    self.replay?.gathered = nil
    if !rest.isEmpty, isOpen { sendReplayed(rest) }
  }

  private func gather(_ bytes: [UInt8]) {
    replay?.gathered?.append(contentsOf: bytes)
    guard let whole = replay?.gathered, whole.count >= Self.gatheredBytes else { return }
    replay?.gathered = []
    sendReplayed(whole)
  }

  /// Together with the place up to which it brings the client.
  private func sendReplayed(_ bytes: [UInt8]) {
    step { send(bytes, isInRing: true) }
  }

  /// Whether the client has yet to take what it was sent: no more of the past for now.
  var isCongested: Bool {
    guard let outlet else { return polls?.isCongested ?? false }
    let most = min(Self.congestionBytes, connections.maxUnsentBytes / 2)
    return outlet.waitingBytes + (replay?.gathered?.count ?? 0) > most
  }

  // MARK: The outlet

  /// Something was given to the outlet: lets the delivery loop send directly or not. A client that doesn't keep up gets events at
  /// its own pace from then on; one that doesn't take what it asked for is ended.
  func outletDidChange() {
    guard isOpen, let outlet, !outlet.isHeld else { return }
    connections.table.descriptors[Int(index)] = outlet.directDescriptor
    if outlet.isWaiting { connections.watch(self) }
    if outlet.isOverfullOfAnswers {
      connections.close(self, .slowConsumer)
    } else if outlet.isOverfull {
      connections.fallBehind(self)
    }
  }

  /// What a delivery couldn't send directly is in the outlet now.
  ///
  /// - Parameters:
  ///   - turn: the delivery's.
  ///   - sent: bytes that it could send.
  func deliveryWasKept(turn: UInt64, sent: Int) {
    guard let outlet else { return }
    outlet.resume(turn: turn, sent: sent)
    // Over TLS everything comes this way, and nothing waits unless the client is slow.
    if outlet.waitingBytes == 0 { connections.table.lastTraffic[Int(index)] = connections.clock.second }
    outletDidChange()
  }

  func outletDidDrain() {
    if isOpen { connections.table.lastTraffic[Int(index)] = connections.clock.second }
    if awaitsEntry {
      awaitsEntry = false
      connections.enterLedger(self)
    }
    outletDidChange()
    connections.resume(self)
  }

  func outletDidFinish() {
    if webSocket?.mayCloseOutput ?? true { closeOutput() }
  }

  func outletHasNoChannel() {
    outlet?.close()
    connections.closed(self)
  }

  // MARK: Time

  /// Whether a heartbeat would go out at once: behind what waits it would say nothing.
  var mayBeat: Bool { isOpen && !isSuspended && outlet?.isIdle ?? false }

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
    guard !isSuspended else { return }
    if let polls {
      polls.deadlinePassed()
    } else if let webSocket, !isClosing {
      webSocket.deadlinePassed(second: second)
    } else {
      outlet?.channel?.close(promise: nil)
    }
  }

  // MARK: Ending

  private var isOpen: Bool { connections.isOpen(self) }

  /// Marks the connection as told.
  func markClosing() { isClosing = true }

  /// Tells the client and ends. Call `OpenConnections.close`, which takes the connection out of delivery first.
  ///
  /// - Parameters:
  ///   - position: where a stream's client shall go on; nil: as it was told before.
  ///   - retryMs: when it shall come back; nil: as it was told before.
  func end(_ reason: ClosingReason, at position: Cursor?, retryMs: Int?) {
    if let polls { return polls.end(reason) }
    if let webSocket { return webSocket.end(reason) }
    guard let encoding else { return }
    var buffer = TurnBuffer(encoding: encoding)
    var farewell = OwnEvents.farewell(reason, stamp: .now())
    farewell.cursor = position
    buffer.append(farewell, retryMs: retryMs)
    finish(with: buffer.bytes + encoding.end, dropping: reason == .slowConsumer)
  }

  /// Sends the last bytes and then ends the stream.
  func finish(with farewell: [UInt8], dropping: Bool) {
    connections.table.deadlines[Int(index)] = connections.clock.second + Self.lingerSeconds
    outlet?.finish(with: farewell, dropping: dropping)
  }

  /// Nothing more will be sent: the client sees the end of the stream.
  func closeOutput() {
    outlet?.channel?.close(mode: .output, promise: nil)
  }

  // MARK: Channel

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    // What a client sends on an event stream means nothing.
    guard let webSocket else { return }
    // Should the worker die of it, this connection dies with it.
    connections.ledger.plan.suspect(serial: serial)
    webSocket.read(unwrapInboundIn(data))
    connections.ledger.plan.noConnection()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? ChannelEvent, event == .inputClosed else {
      return context.fireUserInboundEventTriggered(event)
    }
    // A socket's channel closes by itself then; a stream of HTTP/2 leaves that to its owner.
    if let webSocket { webSocket.inputEnded() } else { context.close(promise: nil) }
  }

  func channelInactive(context: ChannelHandlerContext) {
    if outlet?.hasLeft(context.channel) ?? false { return context.fireChannelInactive() }
    webSocket?.forgetInput()
    outlet?.close()
    connections.closed(self)
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }
}
