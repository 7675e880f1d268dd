// What an heir makes of a connection, wherever its worker died: a model of the worker's stores, stopped behind each of them.

import TestSupport
import Testing

@testable import Connections
@testable import Kit

/// One connection as its worker writes it down, store by store, and as its socket takes it.
private struct DyingWorker {
  /// What its client must get of all that was noted.
  var promised: [UInt8] = []
  var sent = 0
  // The ledger.
  var noted = Recovery.Noted(written: 0, base: 0)
  var waiting: [UInt8] = []
  var intent: (number: UInt64, bytes: [UInt8], base: UInt64)?
  var turn: (number: UInt64, bytes: [UInt8], base: UInt64?, isDue: Bool)?
  private var intents: UInt64 = 0
  private var turns: UInt64 = 0
  private var byte: UInt8 = 0
  /// Called behind each store.
  let died: (DyingWorker) -> Void

  init(_ died: @escaping (DyingWorker) -> Void) { self.died = died }

  private mutating func piece(_ random: inout SeededRandom) -> [UInt8] {
    (0..<Int.random(in: 1...9, using: &random)).map { _ in
      byte &+= 1
      return byte
    }
  }

  /// What the worker itself knows to wait: it has seen what has gone.
  private var rest: [UInt8] {
    let start = Int(noted.base)
    let gone = max(0, Int(noted.written) - start)
    return gone >= waiting.count ? [] : Array(waiting[gone...])
  }

  private mutating func commit(_ bytes: [UInt8], base: UInt64) {
    waiting = bytes
    noted.base = base
  }

  /// A greeting, a heartbeat, a response.
  mutating func say(_ random: inout SeededRandom) {
    let bytes = piece(&random)
    guard rest.isEmpty else {
      promised += bytes
      return commitBehind(bytes)
    }
    intents += 1
    let base = max(noted.written, noted.base)
    intent = (intents, bytes, base)
    promised += bytes
    died(self)
    let taken = Int.random(in: 0...bytes.count, using: &random)
    sent += taken
    died(self)
    if taken == bytes.count {
      noted.written = base + UInt64(taken)
    } else {
      commit(Array(bytes[taken...]), base: base + UInt64(taken))
      noted.intent = intents
    }
    died(self)
    intent = nil
    died(self)
  }

  private mutating func commitBehind(_ bytes: [UInt8]) {
    let rest = rest
    commit(rest + bytes, base: max(noted.written, noted.base))
    died(self)
  }

  /// The socket takes some of what waits.
  mutating func drain(_ random: inout SeededRandom) {
    let start = max(noted.written, noted.base)
    let taken = Int.random(in: 0...rest.count, using: &random)
    guard taken > 0 else { return }
    sent += taken
    died(self)
    noted.written = start + UInt64(taken)
    died(self)
  }

  /// A turn with something for the connection.
  mutating func turn(_ random: inout SeededRandom) {
    let bytes = piece(&random)
    turns += 1
    died(self)
    promised += bytes
    turn = (turns, bytes, nil, true)
    died(self)
    let rest = rest
    let base = max(noted.written, noted.base)
    guard rest.isEmpty else {
      // Nothing is sent past what waits.
      return settle(rest + bytes, base: base)
    }
    turn?.base = base
    died(self)
    let taken = Int.random(in: 0...bytes.count, using: &random)
    sent += taken
    died(self)
    if taken == bytes.count {
      noted.written = base + UInt64(taken)
      died(self)
      turn?.base = nil
      turn?.isDue = false
      died(self)
      turn = nil
      died(self)
    } else {
      turn?.base = nil
      died(self)
      settle(Array(bytes[taken...]), base: base + UInt64(taken))
    }
  }

  private mutating func settle(_ bytes: [UInt8], base: UInt64) {
    commit(bytes, base: base)
    noted.turn = turns
    died(self)
    turn = nil
    died(self)
  }
}

extension DyingWorker {
  /// What the ledger tells an heir.
  var interruptedTurn: Recovery.Interrupted? {
    guard let turn, turn.isDue, noted.turn != turn.number else { return nil }
    return Recovery.Interrupted(number: turn.number, bytes: turn.bytes, base: turn.base)
  }

  var interruptedIntent: Recovery.Interrupted? {
    guard let intent, noted.intent != intent.number else { return nil }
    return Recovery.Interrupted(number: intent.number, bytes: intent.bytes, base: intent.base)
  }

  var state: ConnectionState {
    var state = ConnectionState(serial: 1, .eventStream(isChunked: false))
    if !waiting.isEmpty {
      state.waiting.append(waiting.withUnsafeBytes { SharedBytes(copying: $0, isInRing: false) })
    }
    return state
  }
}

extension ConnectionState {
  fileprivate var waitingBytes: [UInt8] {
    var bytes: [UInt8] = []
    waiting.forEachStretch(atMost: .max) { bytes.append(contentsOf: $0) }
    return bytes
  }
}

@Suite("16.5 What an heir makes of a connection")
struct RecoveryTests {
  private func state(waiting: String = "") -> ConnectionState {
    var state = ConnectionState(serial: 1, .eventStream(isChunked: false))
    if !waiting.isEmpty {
      state.waiting.append(
        Array(waiting.utf8).withUnsafeBytes { SharedBytes(copying: $0, isInRing: false) })
    }
    return state
  }

  @Test(
    "16.5 wherever the worker died, the client gets the rest of what was noted, and nothing twice",
    arguments: 1...40 as ClosedRange<UInt64>)
  func everyStep(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var deaths = 0
    var late = 0
    var worker = DyingWorker { worker in
      deaths += 1
      var state = worker.state
      var noted = worker.noted
      do {
        try Recovery.complete(
          &state, &noted, turn: worker.interruptedTurn, intent: worker.interruptedIntent)
        if worker.interruptedTurn != nil || worker.interruptedIntent != nil { late += 1 }
        // What an heir has written down is enough for the next one.
        let (once, onceNoted) = (state, noted)
        try Recovery.settle(&state, &noted, Recovery.Counts(written: UInt64(worker.sent), read: 0))
        #expect(state.waitingBytes == Array(worker.promised[worker.sent...]))
        #expect(noted.written == UInt64(worker.sent) && noted.base == noted.written)
        var (again, againNoted) = (once, onceNoted)
        try Recovery.settle(&again, &againNoted, Recovery.Counts(written: UInt64(worker.sent), read: 0))
        #expect(again.waitingBytes == state.waitingBytes && againNoted == noted)
      } catch {
        Issue.record("dropped by \(error) after \(worker.sent) bytes")
      }
    }
    for _ in 0..<60 {
      switch Int.random(in: 0..<4, using: &random) {
      case 0: worker.say(&random)
      case 1: worker.turn(&random)
      default: worker.drain(&random)
      }
    }
    #expect(deaths > 60 && late > 10)
  }

  @Test("16.5 what the kernel can't have written isn't believed")
  func impossibleCounts() {
    for (written, isPossible) in [(9, false), (10, true), (13, true), (14, false)] as [(UInt64, Bool)] {
      var state = state(waiting: "abc")
      var noted = Recovery.Noted(written: 10, base: 10)
      if isPossible {
        #expect(throws: Never.self) {
          try Recovery.settle(&state, &noted, Recovery.Counts(written: written, read: 0))
        }
        #expect(state.waitingBytes == Array("abc".utf8.dropFirst(Int(written) - 10)))
      } else {
        #expect(throws: Recovery.Drop.counts) {
          try Recovery.settle(&state, &noted, Recovery.Counts(written: written, read: 0))
        }
      }
    }
  }

  @Test("16.5 numbers that don't fit together are malformed, and none is too large to be looked at")
  func malformed() {
    let piece = Recovery.Interrupted(number: 1, bytes: [1, 2], base: 5)
    for (written, base) in [(.max, 0), (0, .max), (1 << 60, 3), (6, 0), (4, 0)] as [(UInt64, UInt64)] {
      var state = state()
      var noted = Recovery.Noted(written: written, base: base)
      #expect(throws: Recovery.Drop.malformed, "written \(written), base \(base)") {
        try Recovery.complete(&state, &noted, turn: nil, intent: piece)
      }
    }
    var state = state(waiting: "abc")
    var noted = Recovery.Noted(written: 0, base: 0)
    let far = Recovery.Interrupted(number: 1, bytes: [1], base: .max)
    #expect(throws: Recovery.Drop.malformed) {
      try Recovery.complete(&state, &noted, turn: far, intent: nil)
    }
  }

  @Test(
    "16.5 input is whole if all that was read is noted; the client's end is no input",
    arguments: [
      (10, 10, false, true), (11, 10, false, false), (9, 10, false, false), (11, 10, true, true),
      (10, 10, true, true), (12, 10, true, false), (.max, 10, true, false),
    ] as [(UInt64, UInt64, Bool, Bool)])
  func input(read: UInt64, consumed: UInt64, hasEnded: Bool, isWhole: Bool) {
    let counts = Recovery.Counts(written: 0, read: read, hasEnded: hasEnded)
    #expect(Recovery.hasWholeInput(consumed: consumed, counts) == isWhole)
  }
}
