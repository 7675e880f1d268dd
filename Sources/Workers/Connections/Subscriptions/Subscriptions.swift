// What the connections of this worker subscribe to: the index, and lists on their way into it.
//
//   opening   the list is in the index, for nobody, before anything is opened (SubscriptionHold) ─► in force with `enforce`
//   changing  begun, made in shares of turns (SubscriptionChanges) ─► in force, all at once
//
// Until a list is in force the one before is, as if nothing had been asked for; so it is for good when the change is refused,
// or when the connection ends meanwhile.

import Kit
import Settings

/// A list of subscriptions that is in the index and in force for nobody yet. It goes when this does, unless it is taken.
final class SubscriptionHold {
  private weak var subscriptions: Subscriptions?
  private var draft: SubscriptionDraft?
  /// The list, as the index has it.
  let content: [UInt8]

  fileprivate init(_ subscriptions: Subscriptions, _ draft: SubscriptionDraft) {
    self.subscriptions = subscriptions
    content = subscriptions.index.content(of: draft)
    self.draft = draft
  }

  deinit {
    if let draft { subscriptions?.abandon(draft) }
  }

  /// Goes on making the set. Whether it is whole.
  fileprivate func advance(_ index: inout SubscriptionIndex, _ units: inout Int) throws(SubscriptionError)
    -> Bool
  {
    guard var draft else { return true }
    defer { self.draft = draft }
    var budget = max(1, units / TurnWork.unitsPerCondition)
    let before = budget
    defer { units -= (before - budget) * TurnWork.unitsPerCondition }
    try index.advance(&draft, &budget)
    return draft.isWhole
  }

  /// The draft, for whoever puts it in force.
  fileprivate func take() -> SubscriptionDraft? {
    defer { draft = nil }
    return draft
  }
}

/// Belongs to the worker's loop.
final class Subscriptions {
  let parser: SubscriptionParser
  private(set) var index: SubscriptionIndex
  private let metrics: WorkerMetrics

  init(_ settings: Settings, _ metrics: WorkerMetrics) {
    self.metrics = metrics
    parser = SubscriptionParser(settings: settings) { [metrics] in metrics.refused($0) }
    index = SubscriptionIndex(limits: SubscriptionIndex.Limits(settings), extracted: settings.extractors)
  }

  // MARK: Coming and going

  /// Puts a list into the index, for nobody yet.
  ///
  /// - Throws: 503 if there is no room for it.
  func hold(_ subscriptions: [Subscription]) throws(SubscriptionError) -> SubscriptionHold {
    try hold(content: SubscriptionContent.encode(subscriptions))
  }

  /// The same for a list as `SubscriptionContent.encode` gives it.
  func hold(content: [UInt8]) throws(SubscriptionError) -> SubscriptionHold {
    do throws(SubscriptionError) {
      return SubscriptionHold(self, try index.whole(content))
    } catch {
      if let limit = error.limit { metrics.refused(limit) }
      throw error
    }
  }

  /// Begins to take in a list, as `SubscriptionContent.encode` gives it.
  ///
  /// - Throws: 503 if there is no room for it.
  func begin(_ content: [UInt8]) throws(SubscriptionError) -> SubscriptionHold {
    SubscriptionHold(self, try index.begin(content))
  }

  /// Goes on with that, for at most so many units, which are taken off. Whether it is whole.
  func advance(_ hold: SubscriptionHold, _ units: inout Int) throws(SubscriptionError) -> Bool {
    try hold.advance(&index, &units)
  }

  /// What is held is the connection's from here on, instead of what it had; it must be whole.
  func enforce(_ hold: SubscriptionHold, for connection: ConnectionIndex) {
    if let draft = hold.take() { index.commit(draft, for: connection) }
  }

  /// The connection has no subscriptions any more.
  func remove(_ connection: ConnectionIndex) { index.remove(connection) }

  fileprivate func abandon(_ draft: SubscriptionDraft) { index.abandon(draft) }

  /// One turn's share of taking apart what nobody needs any more. Whether there is more to do.
  func takeApart() -> Bool {
    var clauses = TurnWork.unitsPerTurn / TurnWork.unitsPerCondition
    return index.takeApart(&clauses)
  }

  // MARK: Asking

  /// As `SubscriptionIndex.match`.
  func match(_ event: EventRecord, into connections: inout [ConnectionIndex]) {
    index.match(event, into: &connections)
  }

  /// As `SubscriptionIndex.matches`.
  func matches(_ event: EventRecord, _ connection: ConnectionIndex) -> Bool {
    index.matches(event, connection)
  }

  /// Subscriptions of all connections.
  var count: Int { index.subscriptionCount }

  /// Of all lists, those that are being made or taken apart included.
  var size: SubscriptionSize { index.size }

  /// Conditions and sets that events have been compared with since the beginning.
  var visited: UInt64 { index.matcher.visited }
}
