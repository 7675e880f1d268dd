// The HTTP client of the reverse proxy: exchanges with upstreams over connections that are kept.
//
//   begin ──▶ pool of the origin ──┬─ session (HTTP/2, by TLS only) with room: another stream
//                                  ├─ idle connection: head is written at once
//                                  ├─ room for another: connector ──▶ connection
//                                  └─ none: waits, bounded
//
// All on one event loop, so nothing here locks. Has no timer of its own: the owner calls `tick` about once a second, and an
// idle client causes no wake-up. Follows no redirects, keeps no cookies, changes no field: the caller says all.

import Kit
import NIOCore
import NIOHTTP1

extension UpstreamConnection: TableMember {}

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on its loop only.
final class UpstreamClient: @unchecked Sendable {
  /// A buffer that has grown beyond this isn't kept for the next head.
  private static let maximumScratchBytes = 64 << 10

  let loop: EventLoop
  let limits: UpstreamLimits
  let nowNs: () -> UInt64
  /// Connections: being made, in use, idle, and being closed.
  var openConnections: Int { table.members.count + sessions.count }
  var idleConnections: Int { idleHTTP1 + sessions.count { $0.streams.isEmpty } }
  /// Requests that wait for a connection.
  var waitingRequests = 0
  /// Requests that were sent a second time, since the start.
  var retries = 0
  /// Of bodies that may have to be sent a second time, of all exchanges.
  var keptBytes = 0

  private let connector: UpstreamConnector
  private var pools: [UpstreamOrigin: UpstreamPool] = [:]
  private var table = ObjectTable<UpstreamConnection>()
  private var idleHTTP1 = 0
  var sessions: [UpstreamSession] = []
  private var turn: [any UpstreamTransport] = []
  private var isTurnScheduled = false
  private var scratch = ByteBuffer()
  var closed: EventLoopPromise<Void>?
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
    self.nowNs = nowNs
    connector = UpstreamConnector(loop: loop, tls: tls, timeoutNs: limits.connectTimeoutNs)
  }

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
      let reason: UpstreamFailure.Reason = pool.isForming ? .connectTimeout : .busy
      for exchange in pool.waiting where now >= exchange.movedNs + limits.connectTimeoutNs {
        if abandoned(exchange) { exchange.failed(reason) }
      }
    }
    for connection in table.members { connection.sweep(nowNs: now) }
    for session in sessions { session.sweep(nowNs: now) }
    for pool in pools.values {
      if pool.isUnused { pools[pool.origin] = nil }
    }
  }

  /// Fails what is in progress and closes everything. The future is fulfilled when the last connection is closed.
  func close() -> EventLoopFuture<Void> {
    if let closed { return closed.futureResult }
    let promise = loop.makePromise(of: Void.self)
    closed = promise
    for pool in pools.values {
      while let exchange = pool.nextWaiting() {
        waitingRequests -= 1
        exchange.failed(.closing)
      }
    }
    for connection in table.members { connection.fail(.closing) }
    for session in sessions { session.fail(.closing) }
    succeedIfClosed()
    return promise.futureResult
  }

  // MARK: Connections for exchanges

  func admit(_ exchange: UpstreamExchange) {
    let pool = pool(for: exchange.request.origin)
    if !exchange.request.needsHTTP1, let session = liveSession(pool) {
      session.start(exchange)
    } else if let connection = popIdle(pool) {
      connection.start(exchange)
    } else if pool.open < limits.maximumPerOrigin, !mayShare(exchange, pool) {
      if hasDescriptor() { connect(exchange, pool) } else { failSoon(exchange, .busy) }
    } else if pool.waiting.count < limits.maximumWaitingPerOrigin {
      pool.wait(exchange)
      waitingRequests += 1
    } else {
      failSoon(exchange, .busy)
    }
  }

  /// Whether there is a descriptor for another connection, perhaps because one that isn't needed is given up for it.
  private func hasDescriptor() -> Bool {
    if openConnections < limits.maximumOpen { return true }
    guard let unneeded = pools.values.first(where: { !$0.idle.isEmpty })?.idle.first else { return false }
    unneeded.close()
    return true
  }

  /// Whether so many more bytes may be kept.
  func mayKeep(_ count: Int) -> Bool { keptBytes + count <= limits.maximumKeptBytesInAll }

  /// Whether it waits for a connection that it may share rather than have its own.
  private func mayShare(_ exchange: UpstreamExchange, _ pool: UpstreamPool) -> Bool {
    !exchange.request.needsHTTP1 && pool.isForming && pool.waiting.count < limits.maximumWaitingPerOrigin
  }

  private func pool(for origin: UpstreamOrigin) -> UpstreamPool {
    if let pool = pools[origin] { return pool }
    let pool = UpstreamPool(origin)
    pools[origin] = pool
    return pool
  }

  /// Makes a connection for this exchange, which others may share if it turns out so.
  func connect(_ exchange: UpstreamExchange, _ pool: UpstreamPool) {
    let connection = UpstreamConnection(
      client: self, pool: pool, offersHTTP2: !exchange.request.needsHTTP1)
    pool.open += 1
    table.insert(connection)
    connection.current = exchange
    exchange.isConnecting(by: connection)
    // Behind `begin`: it may fail at once.
    loop.assumeIsolated().execute {
      guard connection.phase == .connecting else { return connection.neverConnected() }
      self.connector.connect(connection) { session in
        if let session {
          self.opened(session, insteadOf: connection)
        } else {
          self.opened(connection)
        }
      }
    }
  }

  private func opened(_ connection: UpstreamConnection) {
    let pool = connection.pool
    if connection.offersHTTP2 { pool.isHTTP1 = true }
    if let exchange = connection.take() { connection.start(exchange) }
    if connection.offersHTTP2 { freed(pool) }
  }

  private func failSoon(_ exchange: UpstreamExchange, _ reason: UpstreamFailure.Reason) {
    loop.assumeIsolated().execute { exchange.failed(reason) }
  }

  /// The exchange's connection was closed before a byte of the answer: another one is made. False: it can't be.
  func startsAgain(_ exchange: UpstreamExchange) -> Bool {
    guard closed == nil else { return false }
    retries += 1
    connect(exchange, pool(for: exchange.request.origin))
    return true
  }

  /// An exchange without a connection is given up. False: it doesn't wait for one.
  @discardableResult
  func abandoned(_ exchange: UpstreamExchange) -> Bool {
    guard let pool = pools[exchange.request.origin], pool.remove(exchange) else { return false }
    waitingRequests -= 1
    return true
  }

  // MARK: For connections

  /// Both sides of its exchange are done: somebody waits for it, or it is kept.
  func release(_ connection: UpstreamConnection) {
    let pool = connection.pool
    if let next = pool.nextWaiting() {
      waitingRequests -= 1
      return connection.start(next)
    }
    guard closed == nil, pool.idle.count < limits.maximumIdlePerOrigin else { return connection.close() }
    connection.phase = .idle
    connection.idleSinceNs = nowNs()
    pool.push(connection)
    idleHTTP1 += 1
  }

  /// One that takes another stream. One without streams is looked at like an idle connection.
  private func liveSession(_ pool: UpstreamPool) -> UpstreamSession? {
    while let session = pool.session {
      guard session.streams.isEmpty, session.hasEndedUnseen else { return session }
      session.fail(.closing)
    }
    return nil
  }

  private func popIdle(_ pool: UpstreamPool) -> UpstreamConnection? {
    while let connection = pool.idle.last {
      guard !connection.hasEndedUnseen else {
        connection.close()
        continue
      }
      idleHTTP1 -= 1
      return pool.pop()
    }
    return nil
  }

  func removeIdle(_ connection: UpstreamConnection) {
    connection.pool.remove(connection)
    idleHTTP1 -= 1
  }

  /// The connection is no more.
  func remove(_ connection: UpstreamConnection) {
    guard table.remove(connection) else { return }
    if connection.isPooled { connection.pool.open -= 1 }
    succeedIfClosed()
  }

  func succeedIfClosed() {
    if table.members.isEmpty, sessions.isEmpty { closed?.succeed(()) }
  }

  /// The connection is a tunnel now, which counts no more for its origin.
  func leavePool(_ connection: UpstreamConnection) {
    guard connection.isPooled else { return }
    connection.isPooled = false
    connection.pool.open -= 1
    freed(connection.pool)
  }

  /// One connection less: those who wait may have another.
  func freed(_ pool: UpstreamPool) {
    for session in pool.sessions { fill(session) }
    while closed == nil, pool.open < limits.maximumPerOrigin, !pool.isForming, let next = pool.nextWaiting() {
      waitingRequests -= 1
      connect(next, pool)
    }
  }

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
