// The client's part in HTTP/2: which exchange becomes a stream of which connection.

extension UpstreamClient {
  /// The upstream has chosen HTTP/2.
  func opened(_ session: UpstreamSession, insteadOf connection: UpstreamConnection) {
    let pool = session.pool
    let exchange = connection.giveWay()
    pool.isHTTP1 = false
    pool.open += 1
    pool.add(session)
    sessions.append(session)
    if let exchange { session.start(exchange) }
    hasRoom(session)
  }

  /// It takes more streams than it did: those who wait may begin.
  func hasRoom(_ session: UpstreamSession) {
    fill(session)
    freed(session.pool)
  }

  func fill(_ session: UpstreamSession) {
    while closed == nil, session.hasRoom, let next = session.pool.nextWaitingForStream() {
      waitingRequests -= 1
      session.start(next)
    }
  }

  /// It takes no more streams, though it may have some.
  func retired(_ session: UpstreamSession) { session.pool.remove(session) }

  /// It is no more.
  func remove(_ session: UpstreamSession) {
    guard let index = sessions.firstIndex(where: { $0 === session }) else { return }
    sessions.remove(at: index)
    session.pool.remove(session)
    session.pool.open -= 1
    freed(session.pool)
    succeedIfClosed()
  }

  /// The upstream has said that it didn't look at it, or its session has ended before a byte of the answer: as if it were new.
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
}
