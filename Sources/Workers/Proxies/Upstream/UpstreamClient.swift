// The HTTP client of the reverse proxy: exchanges with upstreams over connections that are kept.
//
//   begin ──▶ pool of the origin ──┬─ session (HTTP/2, by TLS only) with room: another stream
//                                  ├─ idle connection: head is written at once
//                                  ├─ room for another: an attempt ──▶ connection or session
//                                  └─ none: waits, bounded
//
// All on one event loop, so nothing here locks. Has no timer of its own: the owner calls `tick` about once a second, and an
// idle client causes no wake-up. Follows no redirects, keeps no cookies, changes no field: the caller says all.

import Kit
import NIOCore

/// Bounds and time-outs. Times are checked by `UpstreamClient.tick`: what is due is found at the next one.
struct UpstreamLimits {
  /// Name, connection and, for https, handshake; also the wait for a connection when there are `maximumPerOrigin`.
  var connectTimeoutNs: UInt64 = 5_000_000_000
  /// From the last byte of the request, or the last that the upstream took, to the head of the answer.
  var answerTimeoutNs: UInt64 = 5_000_000_000
  /// Between two pieces of an answer that is asked for; also how long a caller may take between two of a request's body.
  var idleTimeoutNs: UInt64 = 60_000_000_000
  /// After so long without use a connection is closed.
  var keepAliveNs: UInt64 = 30_000_000_000
  var maximumIdlePerOrigin = 100
  /// Connections to one origin: being made, in use, idle, and being closed.
  var maximumPerOrigin = 1000
  /// Connections to all origins together, each with a descriptor.
  var maximumOpen = Int.max
  /// Of a request's body, kept until its answer begins so that the request can be sent again. A longer one isn't.
  var maximumKeptBytes = 64 << 10
  /// ...of all requests together: what is kept for a rare case shall not be a worker's memory, whatever MAX_RETRY_BODY_BYTES says.
  var maximumKeptBytesInAll = 64 << 20
  /// Requests that wait for a connection to one origin.
  var maximumWaitingPerOrigin = 1000
  /// Status line and fields of an answer; trailers have the same bound.
  var maximumHeadBytes = 64 << 10
  /// Interim answers (1xx) to one request.
  var maximumInterimAnswers = 100
}

/// The connections to one origin, and the requests that wait for one.
///
///   open = attempts + busy (no tunnels) + idle + closing + sessions ≤ maximumPerOrigin; a request waits only while `open` is at its bound, or
///   where it may soon share a connection: one that is being made, while its upstream may choose HTTP/2, or a session that hasn't
///   heard how much it may.
final class UpstreamPool {
  let origin: UpstreamOrigin
  fileprivate var open = 0
  /// The upstream has chosen HTTP/1.1 when it was last asked.
  fileprivate var isHTTP1: Bool
  /// HTTP/2, in the order in which they are filled.
  fileprivate var sessions: [UpstreamSession] = []
  /// A stack, so that those which aren't needed grow old at its bottom.
  fileprivate var idle: [UpstreamConnection] = []
  fileprivate var waiting = CircularBuffer<UpstreamExchange>(initialCapacity: 0)

  fileprivate init(_ origin: UpstreamOrigin) {
    self.origin = origin
    isHTTP1 = origin.scheme == .http
  }
}

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on its loop only.
final class UpstreamClient: @unchecked Sendable {
  /// A buffer that has grown beyond this isn't kept for the next head.
  private static let maximumScratchBytes = 64 << 10

  let loop: EventLoop
  let limits: UpstreamLimits
  let nowNs: () -> UInt64
  /// Requests that were sent a second time, since the start.
  private(set) var retries = 0
  /// Of bodies that may have to be sent a second time, of all exchanges.
  private(set) var keptBytes = 0

  private let tls: UpstreamTLS
  private var pools: [UpstreamOrigin: UpstreamPool] = [:]
  private var attempts = ObjectTable<UpstreamAttempt>()
  private var connections = ObjectTable<UpstreamConnection>()
  private var tunnels = ObjectTable<UpstreamConnection>()
  private var sessions: [UpstreamSession] = []
  private var turn: [any UpstreamTransport] = []
  private var isTurnScheduled = false
  private var scratch = ByteBuffer()
  private var closed: EventLoopPromise<Void>?
  private lazy var endOfTurn: () -> Void = { [weak self] in self?.endTurn() }

  /// - Parameters:
  ///   - loop: where everything happens, this included.
  ///   - tls: for https origins.
  ///   - nowNs: a clock that never goes back.
  init(
    loop: EventLoop, limits: UpstreamLimits = UpstreamLimits(), tls: UpstreamTLS,
    nowNs: @escaping () -> UInt64 = { NIODeadline.now().uptimeNanoseconds }
  ) {
    self.loop = loop
    self.limits = limits
    self.tls = tls
    self.nowNs = nowNs
  }

  /// Connections: being made, in use, idle, and being closed.
  var openConnections: Int {
    attempts.members.count + connections.members.count + tunnels.members.count + sessions.count
  }
  var idleConnections: Int {
    pools.values.reduce(0) { $0 + $1.idle.count } + sessions.count { $0.streams.isEmpty }
  }
  /// Requests that wait for a connection.
  var waitingRequests: Int { pools.values.reduce(0) { $0 + $1.waiting.count } }

  /// Begins a request. `receiver` is held until its last call, which is never made before this has returned.
  func begin(_ request: UpstreamRequest, _ receiver: any UpstreamReceiver) -> UpstreamExchange {
    let exchange = UpstreamExchange(request, receiver, client: self)
    if closed != nil {
      failSoon(exchange, .closing)
    } else if let defect = request.defect {
      failSoon(exchange, .badRequest(defect))
    } else {
      admit(exchange)
    }
    return exchange
  }

  /// Looks at the time-outs. Call about once a second.
  func tick() {
    let now = nowNs()
    for pool in pools.values {
      let reason: UpstreamFailure.Reason = isForming(pool) ? .connectTimeout : .busy
      for exchange in pool.waiting where now >= exchange.movedNs + limits.connectTimeoutNs {
        if abandoned(exchange) { exchange.failed(reason) }
      }
    }
    for attempt in attempts.members { attempt.sweep(nowNs: now, timeoutNs: limits.connectTimeoutNs) }
    for connection in connections.members { connection.sweep(nowNs: now) }
    for session in sessions { session.sweep(nowNs: now) }
    for pool in pools.values where pool.open == 0 && pool.waiting.isEmpty { pools[pool.origin] = nil }
  }

  /// Fails what is in progress and closes everything. The future is fulfilled when the last connection is closed.
  func close() -> EventLoopFuture<Void> {
    if let closed { return closed.futureResult }
    let promise = loop.makePromise(of: Void.self)
    closed = promise
    for pool in pools.values {
      while let exchange = pool.waiting.popFirst() { exchange.failed(.closing) }
    }
    for attempt in attempts.members { attempt.fail(.closing) }
    for connection in connections.members + tunnels.members { connection.fail(.closing) }
    for session in sessions { session.fail(.closing) }
    succeedIfClosed()
    return promise.futureResult
  }

  private func succeedIfClosed() {
    if openConnections == 0 { closed?.succeed(()) }
  }

  // MARK: A transport for an exchange

  private func admit(_ exchange: UpstreamExchange) {
    let pool = pool(for: exchange.request.origin)
    if exchange.http2Head != nil, let session = liveSession(pool) {
      session.start(exchange)
    } else if let connection = popIdle(pool) {
      connection.start(exchange)
    } else if pool.open < limits.maximumPerOrigin, !mayShare(exchange, pool) {
      if hasDescriptor() { connect(exchange, pool) } else { failSoon(exchange, .busy) }
    } else if pool.waiting.count < limits.maximumWaitingPerOrigin {
      pool.waiting.append(exchange)
    } else {
      failSoon(exchange, .busy)
    }
  }

  private func pool(for origin: UpstreamOrigin) -> UpstreamPool {
    if let pool = pools[origin] { return pool }
    let pool = UpstreamPool(origin)
    pools[origin] = pool
    return pool
  }

  /// One that takes another stream. One without streams is looked at like an idle connection.
  private func liveSession(_ pool: UpstreamPool) -> UpstreamSession? {
    while let session = pool.sessions.first(where: { $0.hasRoom }) {
      guard session.streams.isEmpty, session.hasEndedUnseen else { return session }
      session.fail(.closing)
    }
    return nil
  }

  private func popIdle(_ pool: UpstreamPool) -> UpstreamConnection? {
    while let connection = pool.idle.popLast() {
      guard connection.hasEndedUnseen else { return connection }
      connection.close()
    }
    return nil
  }

  /// Whether there is a descriptor for another connection, perhaps because one that isn't needed is given up for it.
  private func hasDescriptor() -> Bool {
    if openConnections < limits.maximumOpen { return true }
    guard let unneeded = pools.values.first(where: { !$0.idle.isEmpty })?.idle.first else { return false }
    unneeded.close()
    return true
  }

  /// Whether it waits for a connection that it may share rather than have its own.
  private func mayShare(_ exchange: UpstreamExchange, _ pool: UpstreamPool) -> Bool {
    exchange.http2Head != nil && isForming(pool) && pool.waiting.count < limits.maximumWaitingPerOrigin
  }

  /// There will be room that can't be told yet.
  private func isForming(_ pool: UpstreamPool) -> Bool {
    guard !pool.isHTTP1 else { return false }
    return pool.sessions.contains { $0.isNew }
      || attempts.members.contains { $0.pool === pool && $0.isForming }
  }

  private func failSoon(_ exchange: UpstreamExchange, _ reason: UpstreamFailure.Reason) {
    loop.assumeIsolated().execute { exchange.failed(reason) }
  }

  // MARK: Attempts

  /// Makes a connection for this exchange, which others may share if it turns out so.
  private func connect(_ exchange: UpstreamExchange, _ pool: UpstreamPool) {
    let attempt = UpstreamAttempt(for: exchange, pool, nowNs: nowNs())
    pool.open += 1
    attempts.insert(attempt)
    exchange.isConnecting(by: attempt)
    // Behind `begin`: it may fail at once.
    loop.assumeIsolated().execute { [self] in
      attempt.begin(on: loop, tls, timeoutNs: limits.connectTimeoutNs) { self.ended(attempt, $0) }
    }
  }

  private func ended(_ attempt: UpstreamAttempt, _ outcome: UpstreamAttempt.Outcome) {
    let pool = attempt.pool
    attempts.remove(attempt)
    pool.open -= 1
    switch outcome {
    case .nothing: break
    case .http1(let channel, let exchange):
      if attempt.offersHTTP2 { pool.isHTTP1 = true }
      opened(UpstreamConnection(client: self, pool: pool, channel: channel), channel, exchange)
    case .http2(let channel, let exchange):
      pool.isHTTP1 = false
      openedSession(pool, channel, exchange)
    }
    freed(pool)
    succeedIfClosed()
  }

  private func opened(_ connection: UpstreamConnection, _ channel: Channel, _ exchange: UpstreamExchange) {
    do {
      try channel.pipeline.syncOperations.addHandler(connection)
    } catch {
      channel.close(promise: nil)
      return exchange.failed(.unreachable("\(error)"))
    }
    connection.pool.open += 1
    connections.insert(connection)
    connection.start(exchange)
  }

  private func openedSession(_ pool: UpstreamPool, _ channel: Channel, _ exchange: UpstreamExchange) {
    do {
      let session = try UpstreamSession(client: self, pool: pool, channel: channel)
      pool.open += 1
      pool.sessions.append(session)
      sessions.append(session)
      session.start(exchange)
      fill(session)
    } catch {
      channel.close(promise: nil)
      exchange.failed(.unreachable("\(error)"))
    }
  }

  // MARK: For connections

  /// Both sides of its exchange are done: somebody waits for it, or it is kept.
  func release(_ connection: UpstreamConnection) {
    let pool = connection.pool
    if let next = pool.waiting.popFirst() { return connection.start(next) }
    guard closed == nil, pool.idle.count < limits.maximumIdlePerOrigin else { return connection.close() }
    pool.idle.append(connection)
  }

  func noLongerIdle(_ connection: UpstreamConnection) {
    let index = connection.pool.idle.lastIndex { $0 === connection }
    if let index { connection.pool.idle.remove(at: index) }
  }

  /// The connection is a tunnel now, which counts no more for its origin.
  func becameTunnel(_ connection: UpstreamConnection) {
    guard connections.remove(connection) else { return }
    tunnels.insert(connection)
    connection.pool.open -= 1
    freed(connection.pool)
  }

  /// The connection is no more.
  func remove(_ connection: UpstreamConnection) {
    noLongerIdle(connection)
    if connections.remove(connection) {
      connection.pool.open -= 1
    } else {
      tunnels.remove(connection)
    }
    succeedIfClosed()
  }

  /// One connection less: those who wait may have another.
  func freed(_ pool: UpstreamPool) {
    for session in pool.sessions { fill(session) }
    while closed == nil, pool.open < limits.maximumPerOrigin, !isForming(pool),
      let next = pool.waiting.popFirst()
    {
      connect(next, pool)
    }
  }

  // MARK: For sessions

  /// It takes more streams than it did: those who wait may begin.
  func hasRoom(_ session: UpstreamSession) {
    fill(session)
    freed(session.pool)
  }

  private func fill(_ session: UpstreamSession) {
    let pool = session.pool
    while closed == nil, session.hasRoom, let index = pool.waiting.firstIndex(where: { $0.http2Head != nil })
    {
      session.start(pool.waiting.remove(at: index))
    }
  }

  /// It takes no more streams, though it may have some.
  func retired(_ session: UpstreamSession) { session.pool.sessions.removeAll { $0 === session } }

  /// It is no more.
  func remove(_ session: UpstreamSession) {
    guard let index = sessions.firstIndex(where: { $0 === session }) else { return }
    sessions.remove(at: index)
    retired(session)
    session.pool.open -= 1
    freed(session.pool)
    succeedIfClosed()
  }

  // MARK: For exchanges

  /// The exchange's connection was closed before a byte of the response: another one is made. False: it can't be.
  func startsAgain(_ exchange: UpstreamExchange) -> Bool {
    guard closed == nil else { return false }
    retries += 1
    connect(exchange, pool(for: exchange.request.origin))
    return true
  }

  /// The upstream has said that it didn't look at it, or its session has ended before a byte of the response: as if it were new.
  func startsAgainElsewhere(_ exchange: UpstreamExchange) -> Bool {
    guard startsElsewhere(exchange) else { return false }
    retries += 1
    return true
  }

  /// Nothing of it was sent. False: it can't be.
  func startsElsewhere(_ exchange: UpstreamExchange) -> Bool {
    guard closed == nil else { return false }
    exchange.isWaiting()
    admit(exchange)
    return true
  }

  /// An exchange without a connection is given up. False: it doesn't wait for one.
  @discardableResult
  func abandoned(_ exchange: UpstreamExchange) -> Bool {
    guard let pool = pools[exchange.request.origin],
      let index = pool.waiting.firstIndex(where: { $0 === exchange })
    else { return false }
    pool.waiting.remove(at: index)
    return true
  }

  /// Whether so many more bytes of bodies were kept.
  func keep(_ count: Int) -> Bool {
    guard keptBytes + count <= limits.maximumKeptBytesInAll else { return false }
    keptBytes += count
    return true
  }

  func forget(_ count: Int) { keptBytes -= count }

  // MARK: Turns

  func schedule(_ connection: any UpstreamTransport) {
    turn.append(connection)
    guard !isTurnScheduled else { return }
    isTurnScheduled = true
    loop.assumeIsolated().execute(endOfTurn)
  }

  private func endTurn() {
    isTurnScheduled = false
    let connections = turn
    turn.removeAll(keepingCapacity: true)
    for connection in connections { connection.endTurn() }
  }

  /// An empty buffer, mostly the one of the head before.
  func takeScratch() -> ByteBuffer {
    var buffer = scratch
    scratch = ByteBuffer()
    buffer.clear()
    return buffer
  }

  func giveBack(scratch buffer: ByteBuffer) {
    if buffer.capacity <= Self.maximumScratchBytes { scratch = buffer }
  }
}
