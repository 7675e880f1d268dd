// Questions to other workers that wait for their answer: bounded in number, in time and in bytes. An answer that comes
// late, twice or from nowhere finds nothing here and is dropped.

/// - `Asker`: what the caller needs to go on with, such as the promise of an HTTP response.
struct PendingRequests<Asker> {
  /// Most questions waiting at once (design §10: waiting correlated requests).
  static var maximumWaiting: Int { 10_000 }
  /// Most bytes of one answer, unless the owner says otherwise: many times those of a poll with events of usual size.
  static var defaultMaximumAnswerBytes: Int { 2 << 20 }

  private struct Pending {
    let asker: Asker
    let target: UInt16
    let deadlineNs: UInt64
    var body: [UInt8] = []
  }

  private var waiting: [UInt64: Pending] = [:]
  private var nextCorrelation: UInt64
  private let maximumAnswerBytes: Int

  /// - Parameters:
  ///   - generation: the worker's, so that answers to a predecessor's questions match none of ours.
  ///   - maximumAnswerBytes: bytes of one answer over all its parts; a larger one is given up.
  init(generation: UInt64, maximumAnswerBytes: Int = Self.defaultMaximumAnswerBytes) {
    nextCorrelation = (generation << 40) | 1
    self.maximumAnswerBytes = maximumAnswerBytes
  }

  var count: Int { waiting.count }

  /// A new question to `target`; its correlation, or nil when too many wait already (503).
  mutating func begin(_ asker: Asker, target: UInt16, deadlineNs: UInt64) -> UInt64? {
    guard waiting.count < Self.maximumWaiting else { return nil }
    let correlation = nextCorrelation
    nextCorrelation &+= 1
    waiting[correlation] = Pending(asker: asker, target: target, deadlineNs: deadlineNs)
    return correlation
  }

  /// An answer, or a part of one, from worker `slot`: the asker and the whole answer once that is complete. One that has
  /// lost a part, or is too large, ends as a 502.
  mutating func receive(
    _ answer: WorkerAnswer, correlation: UInt64, from slot: UInt16
  ) -> (asker: Asker, answer: WorkerAnswer)? {
    guard var pending = waiting[correlation], pending.target == slot else { return nil }
    func giveUp(_ reason: String) -> (asker: Asker, answer: WorkerAnswer) {
      waiting[correlation] = nil
      return (pending.asker, WorkerAnswer(status: 502, text: "worker \(slot) \(reason)"))
    }
    guard answer.offset == pending.body.count else {
      return giveUp("answered with bytes from \(answer.offset) on, expected \(pending.body.count)")
    }
    guard answer.body.count <= maximumAnswerBytes - pending.body.count else {
      return giveUp("answered with more than \(maximumAnswerBytes) bytes")
    }
    guard answer.hasMore else {
      waiting[correlation] = nil
      var whole = answer
      if !pending.body.isEmpty { whole.body = pending.body + answer.body }
      whole.offset = 0
      return (pending.asker, whole)
    }
    waiting[correlation] = nil  // so that the body is appended in place
    pending.body.append(contentsOf: answer.body)
    waiting[correlation] = pending
    return nil
  }

  /// The asker has gone, or asks no more.
  @discardableResult
  mutating func cancel(_ correlation: UInt64) -> Asker? {
    waiting.removeValue(forKey: correlation)?.asker
  }

  /// Everyone whose answer hasn't come in time, oldest question first. Costs a look at each: call once per second.
  mutating func expire(nowNs: UInt64) -> [Asker] {
    let late = waiting.filter { $0.value.deadlineNs <= nowNs }.sorted { $0.key < $1.key }
    for (correlation, _) in late { waiting[correlation] = nil }
    return late.map(\.value.asker)
  }

  /// Everyone, oldest question first: no answer is waited for any more.
  mutating func endAll() -> [Asker] {
    let all = waiting.sorted { $0.key < $1.key }
    waiting.removeAll()
    return all.map(\.value.asker)
  }

  /// Everyone who waits for worker `slot`, which has died: what they asked for is gone with it.
  mutating func abandon(target slot: UInt16) -> [Asker] {
    let lost = waiting.filter { $0.value.target == slot }.sorted { $0.key < $1.key }
    for (correlation, _) in lost { waiting[correlation] = nil }
    return lost.map(\.value.asker)
  }
}
