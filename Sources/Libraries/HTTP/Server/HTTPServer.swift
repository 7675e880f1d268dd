// The HTTP front of one port: connections of one event loop, their turns, their time-outs. HTTP/2: see HTTP2Connection.
//
//   Acceptor (thread) ──▶ (TLSFront) ──▶ [HTTPInput][ConnectionWire] ── HTTPConnection ──▶ Responder
//                                          │ answers of a turn
//        end of the turn:  turnWillFlush() ▼ flush of every connection that has one
//
// Everything but `Acceptor` lives on one event loop, so nothing here locks. Has no timer of its own: the worker's
// heartbeat calls `sweep` once a second, and an idle front causes no wake-up.

import IPC
import Kit
import NIOCore
import NIOHTTP1
import NIOPosix
import Settings

/// An HTTP/1.x and HTTP/2 server on an inherited listening socket. Use it on its event loop only.
///
/// `@unchecked Sendable`: the acceptor's thread and NIO's closures carry references to it; all of them get onto the
/// loop before they touch it.
public final class HTTPServer: @unchecked Sendable {
  /// Size of one read from a connection, and of the receive buffer that an idle one keeps.
  static let receiveBufferBytes = 2048

  /// Why a connection isn't taken in: as many are open as may be.
  struct Full: Error {}

  public let loop: EventLoop
  public let limits: HTTPLimits
  /// What is spoken below HTTP; nil: nothing.
  public let tls: TLSFront?
  /// Connections that are open now, those that were taken over included; with the streams of HTTP/2, and with those of the servers
  /// that share its room, never more than `limits.maxOpenConnections`.
  public private(set) var openConnections = 0
  /// Whether `drain` was called.
  public private(set) var isDraining = false
  /// Whether `retire` was called.
  public private(set) var isRetiring = false
  /// Called when accepting has ended because the socket failed; the text says how.
  public var onAcceptFailure: ((String) -> Void)?
  /// Called at most once a second while connections can't be accepted for want of descriptors or memory: why, and how often since
  /// the call before.
  public var onAcceptExhausted: ((String, Int) -> Void)?

  let responder: any Responder
  /// Where plain connections of HTTP/1.x are noted; nil: nobody goes on with them.
  let journal: (any ConnectionJournal)?
  let counters: HTTPCounters?
  var trace = TraceSource()
  var date = HTTPDate()
  /// Seconds since the server was made, as of the last sweep.
  private(set) var tick = 0

  let budget: AssemblyBudget
  /// Shared with the other servers of the same loop.
  let inputTurns: InputTurns
  private let room: ConnectionRoom
  private let started: NIODeadline
  private let listening: CInt
  private var acceptor: Acceptor?
  private var acceptingEnded: EventLoopPromise<Void>?
  /// Failures to accept that haven't been told, and when the last was.
  private var untoldExhaustions = 0
  private var exhaustionTold: NIODeadline?
  /// When draining began.
  private var drainTick: Int?
  private var table = ObjectTable<HTTPConnection>()
  private var http2Table = ObjectTable<HTTP2Connection>()
  /// Streams of HTTP/2 connections that are open now.
  private(set) var openStreams = 0
  private var turn: [HTTPConnection] = []
  private var isTurnScheduled = false
  private lazy var endOfTurn: () -> Void = { [unowned self] in self.flushTurn() }
  /// Makes channels of accepted sockets.
  private lazy var bootstrap = ClientBootstrap(group: loop).channelInitializer { [unowned self] channel in
    channel.eventLoop.makeCompletedFuture { try self.take(channel) }
  }
  /// Makes channels of sockets on which somebody else goes on, behind HTTP.
  private lazy var streams = ClientBootstrap(group: loop).channelInitializer { [unowned self] channel in
    channel.eventLoop.makeCompletedFuture {
      try self.count(channel)
      try channel.pipeline.syncOperations.addHandler(InputPacer(self.inputTurns))
      self.made = channel
    }
  }
  private var made: Channel?
  /// The socket whose channel is being made; nil: the channel that is being prepared is of another origin.
  private var adopted: (socket: CInt, origin: AdoptedSocket)?

  /// - Parameters:
  ///   - listening: a listening stream socket, which stays the caller's; it may be shared with other processes.
  ///   - loop: the loop on which everything happens.
  ///   - tls: for connections that are encrypted.
  ///   - room: shared with the other servers of the same loop whose connections count together.
  ///   - budget: shared with everything of the same loop that assembles bodies or messages.
  ///   - journal: of plain connections of HTTP/1.x, for whoever goes on with them.
  public init(
    listening: CInt, loop: EventLoop, limits: HTTPLimits = HTTPLimits(), responder: any Responder,
    counters: HTTPCounters? = nil, tls: TLSFront? = nil, room: ConnectionRoom = ConnectionRoom(),
    budget: AssemblyBudget = AssemblyBudget(Settings()), journal: (any ConnectionJournal)? = nil,
    now: NIODeadline = .now()
  ) {
    self.listening = listening
    self.loop = loop
    self.limits = limits
    self.responder = responder
    self.counters = counters
    self.tls = tls
    self.room = room
    inputTurns = room.turns
    self.budget = budget
    self.journal = journal
    started = now
  }

  /// Begins to accept connections. Call once.
  public func start() throws(IPCError) {
    let acceptor = try Acceptor(listening: listening)
    self.acceptor = acceptor
    let loop = self.loop
    try acceptor.start { event in
      loop.execute { self.handle(event) }
    }
  }

  /// Accepts no more. The future is fulfilled when the last accepted connection has been taken in.
  @discardableResult
  public func stopAccepting() -> EventLoopFuture<Void> {
    guard let acceptor else { return loop.makeSucceededVoidFuture() }
    if let acceptingEnded { return acceptingEnded.futureResult }
    let promise = loop.makePromise(of: Void.self)
    acceptingEnded = promise
    acceptor.stop()
    return promise.futureResult
  }

  /// Accepts no more, closes idle connections, and closes the others after their next answer. Requests that come from now on are
  /// refused (503), or their connections closed without an answer (`Responder.answersWhenDraining`).
  ///
  /// - Parameter idleMayAsk: a connection on which nothing is going on is closed a second later, so that a request that is on its way
  ///   gets its refusal and not a reset.
  public func drain(idleMayAsk: Bool = false) {
    isDraining = true
    stopAccepting()
    tls?.closeHandshaking()
    drainTick = tick
    if !idleMayAsk { endIdle() }
    for connection in http2Table.members { connection.drain() }
  }

  // MARK: Going on elsewhere

  /// Accepts no more, because another process goes on with the connections. Until then their requests are served as ever; those that
  /// nobody can go on with (TLS, HTTP/2) end with their next response, or by `sendAway`.
  public func retire() {
    isRetiring = true
    stopAccepting()
  }

  /// Gives away connections on which nothing is going on but waiting. Each is closed here, which its client doesn't see.
  ///
  /// - Parameters:
  ///   - most: so many at most.
  ///   - take: called with a connection's entry in the journal and another descriptor of its socket, which is the callee's if it
  ///     returns true. Else the connection goes on here.
  /// - Returns: how many were taken.
  public func release(_ most: Int, to take: (JournalEntry, CInt) -> Bool) -> Int {
    var taken = 0
    for connection in table.members where connection.release(take) {
      taken += 1
      if taken == most { break }
    }
    return taken
  }

  /// Connections that nobody can go on with and that haven't been asked to go: of HTTP/2, and others between two requests.
  public var stayingConnections: Int {
    http2Table.members.count { $0.isOpen } + table.members.count { $0.isIdleForGood }
  }

  /// Asks so many of them to go.
  public func sendAway(_ most: Int) {
    let connections = http2Table.members.lazy.filter(\.isOpen).prefix(most)
    let idle = table.members.lazy.filter(\.isIdleForGood).prefix(max(0, most - connections.count))
    for connection in Array(connections) { connection.drain() }
    for connection in Array(idle) { connection.endIfIdle() }
  }

  /// Connections of HTTP/2, and requests that are being served.
  public var http2Connections: Int { http2Table.members.count }
  public var requestsInProgress: Int { table.members.count { $0.isBusy } }

  private func endIdle() {
    drainTick = nil
    for connection in table.members { connection.endIfIdle() }
  }

  /// Whether an answer that comes while the server drains is not to be given: its client would take it for the end of all attempts.
  func endsSilently(_ request: HTTPRequest, _ status: HTTPResponseStatus) -> Bool {
    isDraining && status == .serviceUnavailable && !responder.answersWhenDraining(request)
  }

  /// - Parameter request: what is refused, if so much of it is known.
  func response(_ refusal: Refusal, of request: HTTPRequest?) -> HTTPResponse {
    if refusal.status == .requestTimeout { counters?.timeouts?.add(1) }
    var headers = request.map { responder.crossOriginHeaders(for: $0) } ?? [:]
    headers.add(contentsOf: refusal.fields)
    return .problem(refusal.status, refusal.detail, headers: headers)
  }

  /// Closes every connection that hasn't been taken over, answered or not.
  public func closeAll() {
    tls?.closeHandshaking()
    for connection in table.members { connection.close() }
    for connection in http2Table.members { connection.close() }
  }

  /// Checks the time-outs. Call once a second.
  public func sweep(now: NIODeadline = .now()) {
    tick = Int((now - started).nanoseconds / 1_000_000_000)
    for connection in table.members { connection.sweep(at: tick) }
    // The second in which it began may have been nearly over.
    if let drainTick, tick > drainTick + 1 { endIdle() }
    tls?.tick()
    for connection in http2Table.members { connection.sweep(at: tick) }
    acceptor?.lookAgainIfWaiting()
  }

  /// Puts the HTTP handlers into a connected channel of this loop. Throws `Full` when it is one too many; who made the
  /// channel closes it then.
  ///
  /// - Parameter socket: the channel's; nil: it has none, or encrypts.
  func install(on channel: Channel, socket: CInt? = nil, origin: AdoptedSocket = .untouched) throws {
    do {
      try count(channel)
    } catch {
      if let noted = origin.noted { journal?.remove(noted.entry) }
      throw error
    }
    try beginHTTP1(on: channel, socket: socket, origin: origin)
  }

  /// Counts a channel as open until it closes.
  func count(_ channel: Channel) throws(Full) {
    guard room.taken < limits.maxOpenConnections, room.sockets < limits.maxSockets else {
      counters?.refused?.add(1)
      throw Full()
    }
    openConnections += 1
    room.taken += 1
    room.sockets += 1
    counters?.open?.set(Int64(openConnections))
    channel.closeFuture.assumeIsolated().whenComplete { _ in
      self.openConnections -= 1
      self.room.taken -= 1
      self.room.sockets -= 1
      self.counters?.open?.set(Int64(self.openConnections))
    }
  }

  /// Puts the handlers of HTTP/1.x into a channel that counts already.
  ///
  func beginHTTP1(on channel: Channel, socket: CInt? = nil, origin: AdoptedSocket = .untouched) throws {
    let connection = HTTPConnection(server: self, share: AssemblyShare(budget), origin: origin)
    let input = HTTPInput(connection: connection, limits: limits, isFirst: origin.isSilent)
    let wire = connection.attach(input, socket: socket)
    SocketOptions.setHTTP1(on: channel)
    do {
      try channel.pipeline.syncOperations.addHandlers([input, wire])
    } catch {
      connection.detach()
      throw error
    }
  }
}

// MARK: Sockets on which somebody else goes on

extension HTTPServer {
  /// How many more connections there is room for.
  var freeRoom: Int { min(limits.maxOpenConnections - room.taken, limits.maxSockets - room.sockets) }

  /// A channel of a connected socket, without handlers of HTTP, that counts as open. nil: there is no room for it, and the socket is
  /// closed.
  func channel(of socket: CInt) -> Channel? {
    made = nil
    defer { made = nil }
    _ = streams.withConnectedSocket(socket)
    return made.flatMap { $0.isActive ? $0 : nil }
  }
}

// MARK: Table and turns, for HTTPConnection

extension HTTPConnection: TableMember {}
extension HTTP2Connection: TableMember {}

extension HTTPServer {
  func add(_ connection: HTTPConnection) { table.insert(connection) }
  func remove(_ connection: HTTPConnection) { table.remove(connection) }
  func add(_ connection: HTTP2Connection) { http2Table.insert(connection) }
  func remove(_ connection: HTTP2Connection) { http2Table.remove(connection) }

  /// A stream takes as much memory as a connection of HTTP/1: both count for the bound on open connections.
  var hasRoomForStream: Bool { room.taken < limits.maxOpenConnections }

  func streamOpened() {
    openStreams += 1
    room.taken += 1
    counters?.http2Streams?.add(1)
    counters?.openStreams?.set(Int64(openStreams))
  }

  func streamClosed() {
    openStreams -= 1
    room.taken -= 1
    counters?.openStreams?.set(Int64(openStreams))
  }

  /// The connection has something to flush at the end of this turn.
  func schedule(_ connection: HTTPConnection) {
    turn.append(connection)
    guard !isTurnScheduled else { return }
    isTurnScheduled = true
    loop.assumeIsolated().execute(endOfTurn)
  }

  /// Ends the turn: makes true what the answers promise, then writes them.
  func flushTurn() {
    isTurnScheduled = false
    guard !turn.isEmpty else { return }
    responder.turnWillFlush()
    let connections = turn
    turn.removeAll(keepingCapacity: true)
    for connection in connections { connection.flush() }
  }
}

// MARK: Accepting

extension HTTPServer {
  func handle(_ event: Acceptor.Event, now: NIODeadline = .now()) {
    switch event {
    case .accepted(let sockets):
      counters?.accepted?.add(Int64(sockets.count))
      for socket in sockets { adopt(socket, .untouched) }
      acceptor?.taken(sockets.count)
    case .exhausted(let errno):
      counters?.exhausted?.add(1)
      untoldExhaustions += 1
      guard exhaustionTold.map({ now - $0 >= .seconds(1) }) ?? true else { return }
      exhaustionTold = now
      onAcceptExhausted?(IPCError.system(call: "accept4", errno: errno).description, untoldExhaustions)
      untoldExhaustions = 0
    case .ended(let errno):
      acceptor = nil
      if errno != 0 { onAcceptFailure?(IPCError.system(call: "accept4", errno: errno).description) }
      acceptingEnded?.succeed(())
    }
  }

  private func take(_ channel: Channel) throws {
    try channel.pipeline.syncOperations.addHandler(InputPacer(inputTurns))
    guard let tls else {
      return try install(on: channel, socket: adopted?.socket, origin: adopted?.origin ?? .untouched)
    }
    // One of a batch that was on its way when draining began.
    guard !isDraining else { throw Full() }
    try count(channel)
    try tls.prepare(channel, for: self)
  }

  /// Serves a socket from here on, or closes it if there is no room.
  ///
  /// - Parameter socket: connected and non-blocking; encrypted ones must be untouched.
  func adopt(_ socket: CInt, _ origin: AdoptedSocket) {
    adopted = (socket, origin)
    _ = bootstrap.withConnectedSocket(socket)
    adopted = nil
  }
}
