// A long-polling connection between its polls: a bounded buffer of events, numbered from 1, and at most one poll that
// waits. An answer takes nothing out of the buffer: entries go when the client's next poll acknowledges them, so that
// an answer that never arrived is given again.
//
//      acknowledged        first                    last
//   ────────●················┌───┬───┬───┬───┬───────┐
//           │   dropped      │   │   │   │   │       │     dropped = first - 1 - acknowledged → rig.events_lost
//   ────────┴················└───┴───┴───┴───┴───────┘
//
// Past its bounds the buffer drops its oldest entries: a client that comes back late is told how many are missing.
// Pure: times are values of a monotonic clock, in ns; polls have ids of the caller's choosing.

import DequeModule
import Kit
import Settings

struct LongPollSession {
  struct Limits: Equatable, Sendable {
    /// Buffered entries (design §10).
    var maximumEvents = 200
    /// Buffered bytes of JSON when another event comes: one may always be added, however large.
    var maximumBytes = 1 << 20
    /// Bytes of events in one answer, and yet at least one event: the rest comes with the next poll.
    var maximumAnswerBytes = 256 << 10
    /// How long a poll waits for an event.
    var waitNs: UInt64 = 20_000_000_000
    /// How long a session lives without a poll.
    var idleNs: UInt64 = 300_000_000_000
  }

  /// An answer to one poll.
  struct Answer: Equatable, Sendable {
    /// The poll, as the caller named it.
    let poll: UInt64
    /// What the body and the cookie give as `last_event_id`.
    let lastEventID: String
    /// `{"last_event_id":"…","events":[…]}`
    let body: [UInt8]
  }

  /// What became of time.
  enum Tick: Equatable {
    case nothing
    /// The waiting poll has waited long enough.
    case answer(Answer)
    /// Nobody has polled for too long: the session ends.
    case expired
  }

  private struct Entry {
    let json: [UInt8]
    /// Where the history of all rings stands once this entry is known.
    let cursor: Cursor
  }

  private struct WaitingPoll {
    let id: UInt64
    let deadlineNs: UInt64
  }

  private let limits: Limits
  private var entries = Deque<Entry>()
  private var bufferedBytes = 0
  /// Number of the first entry in the buffer, or the next one to come.
  private var firstEntry: UInt64 = 1
  private var acknowledged: UInt64 = 0
  /// Where the client stands with what it has acknowledged.
  private var acknowledgedCursor: Cursor
  private var waiting: WaitingPoll?
  private var lastPollNs: UInt64
  /// The session has ended while no poll was waiting: the next one is told why.
  var owesFarewell = false
  /// Entries dropped unread in the life of the session, for the metric.
  private(set) var droppedEntries: UInt64 = 0

  /// - Parameter cursor: where the session begins in the history of all rings.
  init(limits: Limits, cursor: Cursor, nowNs: UInt64) {
    self.limits = limits
    acknowledgedCursor = cursor
    lastPollNs = nowNs
  }

  var isWaiting: Bool { waiting != nil }
  /// The poll that waits, as the caller named it.
  var waitingPoll: UInt64? { waiting?.id }
  /// No more of the past is added: what comes live must find room.
  var isHalfFull: Bool {
    entries.count * 2 >= limits.maximumEvents || bufferedBytes * 2 > limits.maximumBytes
  }

  /// The `last_event_id` of the first answer, before any event.
  var initialEventID: String { LongPollPosition(cursor: acknowledgedCursor, entry: acknowledged).text }

  /// Buffers one event. It goes out with `flush` or with the next poll.
  ///
  /// - Parameter cursor: for a delivered event its cursor; for an own event nil.
  mutating func append(_ json: [UInt8], cursor: Cursor?) {
    let before = entries.last?.cursor ?? acknowledgedCursor
    entries.append(Entry(json: json, cursor: cursor ?? before))
    bufferedBytes += json.count
    while entries.count > limits.maximumEvents || bufferedBytes - json.count > limits.maximumBytes {
      guard removeFirst() != nil else { break }
      droppedEntries += 1
    }
  }

  /// At the end of a turn: the waiting poll's answer, if there is an event for it.
  mutating func flush(own: Cursor, stamp: @autoclosure () -> Stamp) -> Answer? {
    guard let waiting, !entries.isEmpty || lostEntries > 0 else { return nil }
    self.waiting = nil
    return answer(poll: waiting.id, own: own, stamp: stamp)
  }

  /// A poll has come. A poll that was waiting is answered with nothing: the client has given up on it.
  ///
  /// - Parameters:
  ///   - lastEventID: as the client sent it; what isn't this session's acknowledges nothing.
  ///   - isAskedAgain: nobody can answer the poll that waits, and this is it: it doesn't wait longer.
  ///   - own: what the worker has read. The session has been given everything up to there that it gets.
  /// - Returns: answers to send now, at most one for each of the two polls.
  mutating func poll(
    id: UInt64, lastEventID: String?, isAskedAgain: Bool = false, nowNs: UInt64, own: Cursor,
    stamp: @autoclosure () -> Stamp
  ) -> [Answer] {
    var answers: [Answer] = []
    if let waiting, !isAskedAgain { answers.append(emptyAnswer(poll: waiting.id, own: own)) }
    let deadlineNs = min(nowNs &+ limits.waitNs, isAskedAgain ? waiting?.deadlineNs ?? .max : .max)
    waiting = nil
    lastPollNs = nowNs
    acknowledge(lastEventID)
    if entries.isEmpty, lostEntries == 0 {
      waiting = WaitingPoll(id: id, deadlineNs: deadlineNs)
    } else {
      answers.append(answer(poll: id, own: own, stamp: stamp))
    }
    return answers
  }

  /// The client of a poll has gone.
  mutating func cancel(poll id: UInt64, nowNs: UInt64) {
    guard waiting?.id == id else { return }
    waiting = nil
    lastPollNs = nowNs
  }

  /// Time has passed.
  mutating func tick(nowNs: UInt64, own: Cursor) -> Tick {
    if let waiting {
      guard nowNs >= waiting.deadlineNs else { return .nothing }
      self.waiting = nil
      lastPollNs = nowNs
      return .answer(emptyAnswer(poll: waiting.id, own: own))
    }
    let idleNs = nowNs > lastPollNs ? nowNs - lastPollNs : 0
    return idleNs >= limits.idleNs ? .expired : .nothing
  }

  /// The session ends: the waiting poll's answer, with what there is.
  mutating func end(own: Cursor, stamp: @autoclosure () -> Stamp) -> Answer? {
    guard let waiting else { return nil }
    self.waiting = nil
    return answer(poll: waiting.id, own: own, stamp: stamp)
  }

  // MARK: Buffer

  private var lastEntry: UInt64 { firstEntry + UInt64(entries.count) - 1 }
  private var lostEntries: UInt64 { firstEntry - 1 - acknowledged }

  private mutating func removeFirst() -> Entry? {
    guard let entry = entries.popFirst() else { return nil }
    bufferedBytes -= entry.json.count
    firstEntry += 1
    return entry
  }

  private mutating func acknowledge(_ lastEventID: String?) {
    guard let lastEventID, let position = LongPollPosition(lastEventID),
      position.cursor.epoch == acknowledgedCursor.epoch, position.entry <= lastEntry,
      position.entry > acknowledged
    else { return }
    acknowledged = position.entry
    acknowledgedCursor = position.cursor
    while firstEntry <= acknowledged, removeFirst() != nil {}
  }

  // MARK: Answers

  private func answer(poll: UInt64, own: Cursor, stamp: () -> Stamp) -> Answer {
    var texts: [[UInt8]] = []
    if lostEntries > 0 {
      let lost = OwnEvents.eventsLost(
        count: lostEntries, reason: "the session's buffer was full before the client polled", stamp: stamp())
      texts.append(lost.json)
    }
    var bytes = 0
    var taken = 0
    while taken < entries.count {
      let json = entries[taken].json
      if taken > 0, bytes + json.count > limits.maximumAnswerBytes { break }
      bytes += json.count
      texts.append(json)
      taken += 1
    }
    let cursor = taken == entries.count ? own : entries[taken - 1].cursor
    let position = LongPollPosition(cursor: cursor, entry: firstEntry - 1 + UInt64(taken))
    return Self.answer(poll: poll, position: position, texts: texts)
  }

  /// No events. If there are none to give, the client is up to date; else it stays where it was.
  private func emptyAnswer(poll: UInt64, own: Cursor) -> Answer {
    let isUpToDate = entries.isEmpty && lostEntries == 0
    let position = LongPollPosition(cursor: isUpToDate ? own : acknowledgedCursor, entry: acknowledged)
    return Self.answer(poll: poll, position: position, texts: [])
  }

  private static func answer(poll: UInt64, position: LongPollPosition, texts: [[UInt8]]) -> Answer {
    let lastEventID = position.text
    var body: [UInt8] = []
    body.reserveCapacity(texts.reduce(64 + lastEventID.utf8.count) { $0 + $1.count + 1 })
    body.append(contentsOf: #"{"last_event_id":"#.utf8)
    JSONText.appendString(lastEventID, to: &body)
    body.append(contentsOf: #","events":"#.utf8)
    JSONText.appendArray(texts, to: &body) { $1.append(contentsOf: $0) }
    body.append(UInt8(ascii: "}"))
    return Answer(poll: poll, lastEventID: lastEventID, body: body)
  }
}

extension LongPollSession.Limits {
  init(_ settings: Settings) {
    maximumEvents = settings.longpollingMaxEvents
    maximumBytes = settings.longpollingMaxBytes
    waitNs = Self.ns(settings.longpollingWaitSeconds - Self.tickSeconds)
    idleNs = Self.ns(settings.longpollingTimeoutSeconds)
  }

  /// A poll's wait is checked once per second: one second less keeps it within its bound.
  private static let tickSeconds = 1

  private static func ns(_ seconds: Int) -> UInt64 {
    UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000).partialValue
  }
}

// MARK: Encoding

//   entry acknowledged, 8 | cursor | first entry, 8 | dropped, 8 | owes farewell, 1 | last poll, 8 | is waiting, 1 | poll, 8 | deadline, 8
//   | count, 4 | entry: JSON, cursor …

extension LongPollSession {
  func encode(into fields: inout FieldWriter) {
    fields.append(acknowledged)
    acknowledgedCursor.encode(into: &fields)
    fields.append(firstEntry)
    fields.append(droppedEntries)
    fields.append(UInt8(owesFarewell ? 1 : 0))
    fields.append(lastPollNs)
    fields.append(UInt8(waiting == nil ? 0 : 1))
    fields.append(waiting?.id ?? 0)
    fields.append(waiting?.deadlineNs ?? 0)
    fields.append(UInt32(clamping: entries.count))
    for entry in entries {
      fields.append(entry.json)
      entry.cursor.encode(into: &fields)
    }
  }

  /// nil: it is none. `limits`: what the worker that goes on with it allows.
  init?(_ fields: inout FieldReader, limits: Limits) {
    guard let acknowledged = fields.number(UInt64.self), let cursor = Cursor(&fields),
      let first = fields.number(UInt64.self), first > acknowledged, first <= .max / 2,
      let dropped = fields.number(UInt64.self), dropped <= .max / 2, let owesFarewell = fields.flag(),
      let lastPollNs = fields.number(UInt64.self), let isWaiting = fields.flag(),
      let poll = fields.number(UInt64.self), poll <= .max / 2, let deadlineNs = fields.number(UInt64.self),
      let count = fields.number(UInt32.self)
    else { return nil }
    self.init(limits: limits, cursor: cursor, nowNs: lastPollNs)
    self.acknowledged = acknowledged
    firstEntry = first
    droppedEntries = dropped
    self.owesFarewell = owesFarewell
    if isWaiting { waiting = WaitingPoll(id: poll, deadlineNs: deadlineNs) }
    for _ in 0..<count {
      guard let json = fields.data(), let cursor = Cursor(&fields) else { return nil }
      entries.append(Entry(json: json, cursor: cursor))
      bufferedBytes += json.count
    }
  }
}
