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
    var asker: Asker
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

  /// Who waits for an answer of `peer` under this correlation; nil: nobody.
  public func asker(_ correlation: UInt64, of peer: Int) -> Asker? {
    waiting[correlation].flatMap { $0.peer == peer ? $0.asker : nil }
  }

  public subscript(correlation: UInt64) -> Asker? { waiting[correlation]?.asker }

  /// As it was, with another asker.
  public mutating func replace(_ correlation: UInt64, _ asker: Asker) { waiting[correlation]?.asker = asker }

  /// The answer of `peer` has come: its asker, who waits no more.
  public mutating func take(_ correlation: UInt64, of peer: Int) -> Asker? {
    guard asker(correlation, of: peer) != nil else { return nil }
    return waiting.removeValue(forKey: correlation)?.asker
  }

  /// The asker has gone, or asks no more.
  @discardableResult
  public mutating func cancel(_ correlation: UInt64) -> Asker? { waiting.removeValue(forKey: correlation)?.asker }

  /// Everyone whose answer hasn't come in time, oldest first. Costs a look at each: call it once per second.
  public mutating func expire(nowNs: UInt64) -> [Asker] { remove { $0.deadlineNs <= nowNs } }

  /// Everyone who waits for `peer`, oldest first.
  public mutating func abandon(_ peer: Int) -> [Asker] { remove { $0.peer == peer } }

  /// Everyone, oldest first.
  public mutating func endAll() -> [Asker] { remove { _ in true } }

  private mutating func remove(_ isOver: (Waiting) -> Bool) -> [Asker] {
    let over = waiting.filter { isOver($0.value) }.sorted { $0.key < $1.key }
    for (correlation, _) in over { waiting[correlation] = nil }
    return over.map(\.value.asker)
  }
}
