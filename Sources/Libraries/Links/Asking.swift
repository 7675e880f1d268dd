// What this worker has asked others and waits for: bounded in number and in time. What comes late, twice or from nowhere finds nothing
// here and is dropped.
//
//   begin ──► waiting ──┬── take: the answer came
//                       ├── cancel: nobody wants it any more
//                       ├── expire: not in time
//                       ├── abandon: the worker that was asked has died, and what was asked with it
//                       └── endAll: this worker ends

/// - `Asker`: what the caller needs to go on with, such as the promise of an HTTP response.
public struct Asking<Asker> {
  private struct Waiting {
    let asker: Asker
    let peer: Int
    let deadlineNs: UInt64
  }

  private var waiting: [UInt64: Waiting] = [:]
  private var next: UInt64
  private let mostWaiting: Int

  /// - Parameters:
  ///   - generation: the worker's, so that answers to a predecessor's questions match none of ours.
  ///   - mostWaiting: at once.
  public init(generation: UInt64, mostWaiting: Int) {
    next = Correlation.first(generation: generation)
    self.mostWaiting = mostWaiting
  }

  public var count: Int { waiting.count }
  public var isFull: Bool { waiting.count >= mostWaiting }

  /// The correlation of what comes next, to be given to `begin` when it is sent.
  public mutating func nextCorrelation() -> UInt64 {
    defer { next &+= 1 }
    return next
  }

  /// Waits for what was asked of `peer`.
  public mutating func begin(_ asker: Asker, of peer: Int, _ correlation: UInt64, deadlineNs: UInt64) {
    waiting[correlation] = Waiting(asker: asker, peer: peer, deadlineNs: deadlineNs)
  }

  /// The answer of `peer` has come: its asker, who waits no more; nil: nobody waits for it.
  public mutating func take(_ correlation: UInt64, of peer: Int) -> Asker? {
    guard waiting[correlation]?.peer == peer else { return nil }
    return waiting.removeValue(forKey: correlation)?.asker
  }

  /// Nobody wants the answer any more: who had asked, and whom.
  public mutating func cancel(_ correlation: UInt64) -> (asker: Asker, peer: Int)? {
    waiting.removeValue(forKey: correlation).map { ($0.asker, $0.peer) }
  }

  /// Everyone whose answer hasn't come in time, oldest first. Costs a look at each: call it once per second.
  public mutating func expire(nowNs: UInt64) -> [Asker] { remove { $0.deadlineNs <= nowNs } }

  /// Everyone who waits for `peer`, oldest first.
  public mutating func abandon(_ peer: Int) -> [Asker] { remove { $0.peer == peer } }

  /// Everyone who waits for `peer`, oldest first, and goes on waiting.
  public func waiting(for peer: Int) -> [(correlation: UInt64, asker: Asker)] {
    waiting.filter { $0.value.peer == peer }.sorted { $0.key < $1.key }.map { ($0.key, $0.value.asker) }
  }

  /// Everyone, oldest first.
  public mutating func endAll() -> [Asker] { remove { _ in true } }

  private mutating func remove(_ isOver: (Waiting) -> Bool) -> [Asker] {
    let over = waiting.filter { isOver($0.value) }.sorted { $0.key < $1.key }
    for (correlation, _) in over { waiting[correlation] = nil }
    return over.map(\.value.asker)
  }
}
