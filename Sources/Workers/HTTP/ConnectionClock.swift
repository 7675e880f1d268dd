// How long a connection may take for what it does now. Pure: ticks in, verdicts out; a tick is a second.
//
//   firstByte ─byte▶ head ─end▶ body ─end▶ reply ─answered▶ idle ─byte▶ head …        finishing, lingering: at the end
//
// Ticks come from the server, which sweeps all connections once a second: an idle connection costs no timer.

/// The time-outs of one connection.
struct ConnectionClock {
  enum Waiting: Equatable {
    case firstByte, head, body, reply, idle, finishing, lingering
  }

  enum Verdict: Equatable {
    case fine
    /// Close without a word: nothing was asked, or nobody reads.
    case close
    /// Answer 408 with this detail.
    case timeout(String)
  }

  private(set) var waiting = Waiting.firstByte
  /// Bytes received since the head began.
  private(set) var headBytes = 0
  private var since: Int
  private var bodySince: Int
  private var unwritableSince: Int?

  init(tick: Int) {
    since = tick
    bodySince = tick
  }

  mutating func received(_ count: Int, at tick: Int) {
    if waiting == .firstByte || waiting == .idle {
      waiting = .head
      since = tick
      headBytes = 0
    }
    if waiting == .head { headBytes += count }
  }

  mutating func headEnded(at tick: Int) {
    waiting = .body
    since = tick
    bodySince = tick
    headBytes = 0
  }

  mutating func bodyMoved(at tick: Int) { since = tick }

  /// A streamed exchange waits for its client's body.
  mutating func bodyAwaited(at tick: Int) {
    waiting = .body
    since = tick
    bodySince = tick
  }

  /// The client has taken some of what was written.
  mutating func outputMoved(at tick: Int) {
    if unwritableSince != nil { unwritableSince = tick }
    if waiting == .finishing || waiting == .idle { since = tick }
  }

  /// Nothing more is expected from the client for now.
  mutating func requestEnded() {
    waiting = .reply
    headBytes = 0
  }

  /// An answer was given; `isReceiving`: the body of the next request is on its way.
  mutating func answered(at tick: Int, isReceiving: Bool) {
    waiting = isReceiving ? .body : .idle
    since = tick
    bodySince = tick
  }

  mutating func finishing(at tick: Int) {
    waiting = .finishing
    since = tick
  }

  mutating func lingering(at tick: Int) {
    waiting = .lingering
    since = tick
  }

  mutating func writable(_ isWritable: Bool, at tick: Int) {
    unwritableSince = isWritable ? nil : (unwritableSince ?? tick)
  }

  func verdict(at tick: Int, limits: HTTPLimits) -> Verdict {
    if let unwritableSince, tick - unwritableSince >= limits.writeStallSeconds { return .close }
    let elapsed = tick - since
    switch waiting {
    case .firstByte: return elapsed >= limits.headSeconds ? .close : .fine
    case .idle: return elapsed >= limits.idleSeconds ? .close : .fine
    case .finishing: return elapsed >= limits.writeStallSeconds ? .close : .fine
    case .lingering: return elapsed >= limits.lingerSeconds ? .close : .fine
    case .reply: return .fine
    case .head:
      guard elapsed >= limits.headSeconds else { return .fine }
      return .timeout("request head not complete \(limits.headSeconds) s after its first byte")
    case .body:
      if elapsed >= limits.bodyStallSeconds {
        return .timeout("no byte of the request body for \(limits.bodyStallSeconds) s")
      }
      guard tick - bodySince >= limits.bodySeconds else { return .fine }
      return .timeout("request body not complete after \(limits.bodySeconds) s")
    }
  }
}
