// The bookkeeping of one connection's unsent bytes: one chunk is with the transport, the others wait, and together they
// are bounded. Chunks end at the end of an event, so that at any time the next thing sent can be a farewell: nothing
// that a client has begun to receive is ever cut.
//
//   offer →  [ waiting │ waiting │ waiting ]  →  in flight  →  sent
//            └──────── dropped by end ─────┘

import DequeModule

/// - `Chunk`: the caller's handle on the bytes, usually shared with other connections.
struct Outbox<Chunk> {
  enum Offer: Equatable {
    /// Nothing is in flight: hand it to the transport now, and call `sent` when it has gone.
    case sendNow
    /// It waits; `sent` will give it back in its turn.
    case waits
    /// The bound is passed: the chunk was not taken, the client is too slow. Call `end`.
    case tooSlow
    /// The outbox has ended: nothing is taken any more.
    case ended
  }

  private struct Waiting {
    let chunk: Chunk
    let bytes: Int
  }

  private let maximumBytes: Int
  private var waiting = Deque<Waiting>()
  private var waitingBytes = 0
  /// nil: nothing is in flight.
  private var inFlightBytes: Int?
  private var hasEnded = false

  /// - Parameter maximumBytes: most unsent bytes, in flight and waiting (`Limits.maxUnsentBytes`).
  init(maximumBytes: Int) { self.maximumBytes = maximumBytes }

  /// Bytes taken and not yet sent.
  var unsentBytes: Int { waitingBytes + (inFlightBytes ?? 0) }
  /// Whether everything taken has been sent.
  var isDrained: Bool { inFlightBytes == nil && waiting.isEmpty }

  /// A chunk of `bytes` bytes to be sent behind all others. One chunk is always taken, however large: the bound is
  /// about what heaps up behind a client that doesn't read.
  mutating func offer(_ chunk: Chunk, bytes: Int) -> Offer {
    if hasEnded { return .ended }
    if isDrained {
      inFlightBytes = bytes
      return .sendNow
    }
    guard unsentBytes + bytes <= maximumBytes else { return .tooSlow }
    waiting.append(Waiting(chunk: chunk, bytes: bytes))
    waitingBytes += bytes
    return .waits
  }

  /// The chunk in flight has been sent: the next one, which is in flight from now on.
  mutating func sent() -> Chunk? {
    inFlightBytes = nil
    guard let next = waiting.popFirst() else { return nil }
    waitingBytes -= next.bytes
    inFlightBytes = next.bytes
    return next.chunk
  }

  /// Ends the stream with `farewell`: what waits is dropped, the chunk in flight stays whole, then comes the farewell.
  ///
  /// - Returns: whether the farewell is to be handed to the transport now; else `sent` gives it.
  mutating func end(farewell: Chunk, bytes: Int) -> Bool {
    guard !hasEnded else { return false }
    waiting.removeAll()
    waitingBytes = 0
    hasEnded = true
    if inFlightBytes == nil {
      inFlightBytes = bytes
      return true
    }
    waiting.append(Waiting(chunk: farewell, bytes: bytes))
    waitingBytes = bytes
    return false
  }
}
