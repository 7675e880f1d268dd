// A worker that keeps its ledger as a connection worker does, the sockets of its clients, and what must be true of them at any
// moment at which it may die: after each store to the ledger and each write to a socket.

import CLinux
import Testing

@testable import IPC
@testable import RingTool

/// What is true outside of any process: connections, their sockets, the ring.
struct LedgerOutside {
  struct Connection {
    /// Bytes that the kernel has taken.
    var kernel: UInt64 = 0
    /// What the client must still get, and the state that goes with it. More than one while a step is neither done nor not.
    var outcomes: [Outcome]
    /// Its entry is just being opened or closed.
    var mayBeMissing = true
  }

  struct Outcome: Equatable {
    var unsent: [UInt8] = []
    var state: UInt8 = 0
  }

  struct Turn {
    let position: UInt64
    let stretches: [UInt64: [UInt8]]
  }

  /// By serial.
  var connections: [UInt64: Connection] = [:]
  /// Position in the ring that the connections' outcomes go with.
  var position: UInt64 = 0
  var committed: UInt64 = 0
  /// A turn that may count, or not.
  var turn: Turn?
  var nextSerial: UInt64 = 1

  /// The kernel takes bytes.
  mutating func accept(_ bytes: ArraySlice<UInt8>, of serial: UInt64) throws {
    var connection = try #require(connections[serial])
    connection.outcomes = connection.outcomes.filter { $0.unsent.starts(with: bytes) }
    try #require(!connection.outcomes.isEmpty, "connection \(serial) gets what isn't for it")
    for index in connection.outcomes.indices { connection.outcomes[index].unsent.removeFirst(bytes.count) }
    connection.kernel += UInt64(bytes.count)
    connections[serial] = connection
  }

  /// What an heir finds in a ledger is one of the outcomes, for every connection. Returns what it says of each.
  func check(_ heir: Ledger, _ work: InterruptedWork) throws -> [UInt64: (InheritedEntry, Outcome)] {
    let found = work.positions?.first ?? committed
    let hasTurn = turn.map { $0.position == found } ?? false
    try #require(hasTurn || found == position, "the heir goes on at \(found), not \(position)")
    var seen: [UInt64: (InheritedEntry, Outcome)] = [:]
    for entry in heir.inherited() {
      try #require(!entry.isMalformed && seen[entry.serial] == nil)
      let connection = try #require(connections[entry.serial], "entry of nobody: \(entry.serial)")
      guard entry.isKept else {
        seen[entry.serial] = (entry, Outcome())
        continue
      }
      let cold = try #require(heir.cold(of: entry.entry))
      let due = entry.due(cold)
      let gone = Int(bitPattern: UInt(connection.kernel &- due.base))
      try #require((0...due.bytes.count).contains(gone), "\(entry.serial): \(gone) of \(due.bytes.count)")
      let outcome = Outcome(unsent: Array(due.bytes[gone...]), state: try #require(cold.state.first))
      let stretch = hasTurn ? turn?.stretches[entry.serial] ?? [] : []
      let expected = connection.outcomes.map { Outcome(unsent: $0.unsent + stretch, state: $0.state) }
      try #require(
        expected.contains(outcome),
        "\(entry.serial): \(outcome.unsent.count) bytes due, not \(expected.map(\.unsent.count)); \(work)")
      seen[entry.serial] = (entry, outcome)
    }
    for (serial, connection) in connections where !connection.mayBeMissing {
      try #require(seen[serial] != nil, "connection \(serial) is missing")
    }
    return seen
  }
}

/// One life of a worker.
final class LedgerLife {
  /// With so little memory that not everybody can be kept.
  static let sizes = sizes(arenaChunks: 3)

  static func sizes(arenaChunks: Int) -> LedgerSizes {
    LedgerSizes(
      entries: 12, spills: 64, encodings: 2, bufferBytes: 8192, intentBytes: 4096,
      arenaBytes: arenaChunks * LedgerArena.chunkBytes)
  }

  private static let mostConnections = 7
  /// No connection's serial.
  private static let withoutEntry: UInt64 = 0

  /// What a death leaves.
  struct Remains {
    let bytes: [UInt8]
    let outside: LedgerOutside
  }

  let ledger: Ledger
  private let incarnation: UInt64
  private let segment: Vandal
  private let copy: LedgerCopy
  private(set) var outside: LedgerOutside
  private(set) var remains: Remains?
  private(set) var moments = 0
  private(set) var failure: (any Error)?
  /// Moments at which somebody wasn't kept.
  private(set) var lossyMoments = 0
  private let dyingMoment: Int
  private var random: SplitMix
  private var entries: [UInt64: LedgerEntry] = [:]
  /// What waits of each, as its worker knows it.
  private var waiting: [UInt64: [UInt8]] = [:]
  private var states: [UInt64: UInt8] = [:]

  /// - Parameters:
  ///   - dyingMoment: number of the moment that is the last one; what comes after is without effect.
  ///   - inherited: what is left of the life before.
  init(
    _ fd: CInt, incarnation: UInt64, after inherited: LedgerOutside, dyingMoment: Int, seed: UInt64
  ) throws {
    segment = try Vandal(fd)
    copy = try LedgerCopy(of: segment)
    ledger = try Ledger(attaching: fd, incarnation: incarnation)
    outside = inherited
    self.incarnation = incarnation
    self.dyingMoment = dyingMoment
    random = SplitMix(seed: seed)
    ledger.onStore = { [unowned self] in moment() }
  }

  var isAlive: Bool { remains == nil && failure == nil }

  /// The worker may die here.
  private func moment() {
    guard isAlive else { return }
    moments += 1
    do {
      let heir = try copy.heir(incarnation: incarnation + 1)
      let found = try outside.check(heir, heir.settleInterrupted())
      if found.values.contains(where: { !$0.0.isKept }) { lossyMoments += 1 }
      if moments % 7 == 0 { try checkHeirsHeir() }
    } catch { failure = error }
    if moments == dyingMoment { remains = Remains(bytes: Array(segment.bytes), outside: outside) }
  }

  /// The heir dies too, at each of its stores, before it has adopted anybody.
  private func checkHeirsHeir() throws {
    let heir = try copy.heir(incarnation: incarnation + 1)
    let second = try LedgerCopy(of: try Vandal(copy.fd))
    var failure: (any Error)?
    heir.onStore = { [outside, incarnation] in
      guard failure == nil else { return }
      do {
        let next = try second.heir(incarnation: incarnation + 2)
        _ = try outside.check(next, next.settleInterrupted())
      } catch { failure = error }
    }
    _ = heir.settleInterrupted()
    heir.onStore = nil
    if let failure { throw failure }
  }

  private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

  private func bytes(_ range: ClosedRange<Int>) -> [UInt8] {
    (0..<Int.random(in: range, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
  }

  private func anyConnection() -> (UInt64, LedgerEntry)? {
    entries.sorted { $0.key < $1.key }.randomElement(using: &random)
  }

  private func change(_ serial: UInt64, _ body: (inout LedgerOutside.Connection) -> Void) throws {
    var connection = try #require(outside.connections[serial])
    body(&connection)
    outside.connections[serial] = connection
  }

  // MARK: Taking over

  /// Goes on with what the life before has left, as an heir does.
  func takeOver() throws {
    let work = ledger.settleInterrupted()
    let found = try outside.check(ledger, work)
    // From here on one outcome is the true one.
    outside.committed = work.positions?.first ?? outside.committed
    outside.position = outside.committed
    outside.turn = nil
    for serial in outside.connections.keys.sorted() {
      guard let (entry, outcome) = found[serial], entry.isKept else {
        try change(serial) { $0.mayBeMissing = true }
        if let entry = found[serial]?.0 { ledger.drop(entry.entry) }
        outside.connections[serial] = nil
        continue
      }
      try change(serial) {
        $0.outcomes = [outcome]
        $0.mayBeMissing = false
      }
      entries[serial] = entry.entry
      waiting[serial] = outcome.unsent
      states[serial] = outcome.state
    }
    moment()
    ledger.forgetInterrupted()
    for (serial, entry) in entries.sorted(by: { $0.key < $1.key }) {
      let kernel = try #require(outside.connections[serial]).kernel
      ledger.adopt(entry, descriptor: CInt(serial), written: kernel, consumed: 0)
      moment()
    }
  }

  // MARK: Living

  func step() throws {
    switch Int.random(in: 0..<10, using: &random) {
    case 0: try open()
    case 1: try close()
    case 2...5: try turn()
    case 6: try piece()
    case 7: try pieceWithState()
    case 8: try changeState()
    default: try drain(fully: chance(30))
    }
  }

  private func open() throws {
    guard entries.count < Self.mostConnections else { return }
    let serial = outside.nextSerial
    outside.nextSerial += 1
    outside.connections[serial] = LedgerOutside.Connection(
      kernel: UInt64.random(in: 0...1000, using: &random), outcomes: [LedgerOutside.Outcome()])
    let kernel = try #require(outside.connections[serial]).kernel
    entries[serial] = ledger.open(
      serial % 2 == 0 ? .eventStream : .webSocket, serial: serial, socket: (CInt(serial), serial + 1000),
      written: kernel, cold: LedgerCold(written: kernel, state: [0] + bytes(0...300)))
    waiting[serial] = []
    states[serial] = 0
    try change(serial) { $0.mayBeMissing = false }
  }

  private func close() throws {
    guard let (serial, entry) = anyConnection(), chance(60) else { return }
    try change(serial) { $0.mayBeMissing = true }
    ledger.close(entry)
    entries[serial] = nil
    outside.connections[serial] = nil
  }

  /// The socket takes what it has room for.
  private func send(_ bytes: [UInt8], to serial: UInt64) throws -> Int {
    let room = chance(60) ? bytes.count : Int.random(in: 0...bytes.count, using: &random)
    if isAlive { try outside.accept(bytes[..<room], of: serial) }
    moment()
    return room
  }

  private func turn() throws {
    let plan = ledger.plan
    let number = plan.begin()
    var fanout = TestFanout(plan, UInt32(truncatingIfNeeded: number))
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      for encoding in 0..<plan.encodings {
        let event = fanout.append(bytes(1...900), encoding)
        for (serial, entry) in entries.sorted(by: { $0.key < $1.key })
        where serial % 2 == UInt64(encoding) && chance(70) {
          fanout.add(serial, entry, event, encoding)
        }
        // One without an entry, as over TLS.
        if chance(20) { fanout.add(Self.withoutEntry, .none, event, encoding) }
      }
    }
    let touched = fanout.touched
    outside.turn = LedgerOutside.Turn(
      position: outside.position + 1, stretches: fanout.stretches.filter { entries[$0.key] != nil })
    if let first = touched.first, first.entry != .none { plan.setBase(0, ledger.written(first.entry)) }
    plan.markSending(
      touched: touched.count, spills: fanout.spills, lengths: fanout.lengths,
      positions: [outside.position + 1])
    try commitOutside()
    var partly: [(serial: UInt64, sent: Int)] = []
    for (index, one) in touched.enumerated() {
      if one.entry != .none { try send(one, index, &partly, fanout) }
      if index + 1 < touched.count, touched[index + 1].entry != .none {
        plan.setBase(index + 1, ledger.written(touched[index + 1].entry))
      }
      plan.sent(index + 1)
    }
    for (serial, sent) in partly { try settle(serial, sent, number, fanout) }
    outside.committed = outside.position
    moment()
    plan.end(lengths: fanout.lengths, spills: fanout.spills)
  }

  /// The turn counts from now on.
  private func commitOutside() throws {
    guard isAlive, let turn = outside.turn else { return }
    for (serial, stretch) in turn.stretches {
      try change(serial) { connection in
        for index in connection.outcomes.indices { connection.outcomes[index].unsent += stretch }
      }
    }
    outside.position = turn.position
    outside.turn = nil
  }

  private func send(
    _ one: TestFanout.Touched, _ index: Int, _ partly: inout [(serial: UInt64, sent: Int)],
    _ fanout: TestFanout
  ) throws {
    let stretch = fanout.stretches[one.serial] ?? []
    let sent = waiting[one.serial, default: []].isEmpty ? try send(stretch, to: one.serial) : 0
    if sent == stretch.count, sent > 0 {
      ledger.advance(one.entry, by: sent)
    } else {
      ledger.plan.stalled(index)
      partly.append((one.serial, sent))
    }
  }

  private func settle(_ serial: UInt64, _ sent: Int, _ turn: UInt64, _ fanout: TestFanout) throws {
    guard let entry = entries[serial], let stretch = fanout.stretches[serial] else { return }
    let written = ledger.written(entry)
    if chance(50) {
      // What has gone of it isn't in the block.
      waiting[serial, default: []] += stretch[sent...]
      ledger.commit(
        waiting: waiting[serial, default: []], written: written + UInt64(sent), turn: turn, to: entry)
      ledger.setWritten(entry, written + UInt64(sent))
    } else {
      waiting[serial, default: []] += stretch
      ledger.commit(waiting: waiting[serial, default: []], written: written, turn: turn, to: entry)
      ledger.advance(entry, by: sent)
      waiting[serial]?.removeFirst(sent)
    }
  }

  private func piece() throws {
    guard let (serial, entry) = anyConnection() else { return }
    let piece = bytes(1...500)
    // It counts, or it doesn't.
    try change(serial) { connection in
      connection.outcomes += connection.outcomes.map { .init(unsent: $0.unsent + piece, state: $0.state) }
    }
    if waiting[serial, default: []].isEmpty {
      let number = try #require(ledger.intend(entry, piece))
      let sent = try send(piece, to: serial)
      if sent == piece.count {
        ledger.advance(entry, by: sent)
      } else {
        let written = ledger.written(entry) + UInt64(sent)
        waiting[serial] = Array(piece[sent...])
        ledger.commit(waiting: Array(piece[sent...]), written: written, intent: number, to: entry)
        ledger.setWritten(entry, written)
      }
      ledger.intentDone()
    } else {
      waiting[serial, default: []] += piece
      ledger.commit(waiting: waiting[serial, default: []], written: ledger.written(entry), to: entry)
    }
    try settleOutside(serial)
  }

  /// A piece and a state that belong together.
  private func pieceWithState() throws {
    guard let (serial, entry) = anyConnection() else { return }
    let piece = bytes(1...500)
    let state = states[serial, default: 0] &+ 1
    try change(serial) { connection in
      connection.outcomes += connection.outcomes.map { .init(unsent: $0.unsent + piece, state: state) }
    }
    let wasWaiting = !waiting[serial, default: []].isEmpty
    waiting[serial, default: []] += piece
    states[serial] = state
    var cold = ledger.cold(of: entry) ?? LedgerCold()
    cold.written = ledger.written(entry)
    cold.waiting = waiting[serial, default: []]
    cold.state = [state] + bytes(0...300)
    ledger.commit(cold, to: entry)
    if !wasWaiting {
      let sent = try send(piece, to: serial)
      waiting[serial]?.removeFirst(sent)
      ledger.advance(entry, by: sent)
      if sent == piece.count, chance(50) { ledger.waitingHasGone(entry) }
    }
    try settleOutside(serial)
  }

  private func changeState() throws {
    guard let (serial, entry) = anyConnection() else { return }
    let state = states[serial, default: 0] &+ 1
    try change(serial) { connection in
      connection.outcomes += connection.outcomes.map { .init(unsent: $0.unsent, state: state) }
    }
    states[serial] = state
    ledger.commit(state: [state] + bytes(0...2000), to: entry)
    try settleOutside(serial)
  }

  /// The step is done: what it is about is what is so.
  private func settleOutside(_ serial: UInt64) throws {
    guard isAlive else { return }
    let outcome = LedgerOutside.Outcome(
      unsent: waiting[serial, default: []], state: states[serial, default: 0])
    try change(serial) { $0.outcomes = [outcome] }
  }

  private func drain(fully: Bool) throws {
    for (serial, entry) in entries.sorted(by: { $0.key < $1.key }) {
      guard let waits = waiting[serial], !waits.isEmpty else { continue }
      let sent = fully ? waits.count : Int.random(in: 0...waits.count, using: &random)
      if isAlive { try outside.accept(waits[..<sent], of: serial) }
      moment()
      waiting[serial] = Array(waits[sent...])
      ledger.advance(entry, by: sent)
      if sent == waits.count, chance(50) { ledger.waitingHasGone(entry) }
    }
  }

  /// Everything goes out.
  func finish() throws {
    try drain(fully: true)
    for (serial, connection) in outside.connections {
      try #require(connection.outcomes.map(\.unsent) == [[]], "connection \(serial)")
    }
  }
}

/// As `Fanout` does it, on the plan's memory.
struct TestFanout {
  struct Touched {
    let serial: UInt64
    let entry: LedgerEntry
  }

  private let plan: LedgerPlan
  private let turn: UInt32
  private(set) var touched: [Touched] = []
  private(set) var spills = 0
  private(set) var lengths: [Int]
  /// What each is to get, collected otherwise.
  private(set) var stretches: [UInt64: [UInt8]] = [:]

  init(_ plan: LedgerPlan, _ turn: UInt32) {
    self.plan = plan
    self.turn = turn
    lengths = [Int](repeating: 0, count: plan.encodings)
  }

  mutating func append(_ event: [UInt8], _ encoding: Int) -> Range<Int> {
    let range = lengths[encoding]..<lengths[encoding] + event.count
    UnsafeMutableRawBufferPointer(rebasing: plan.buffer(encoding)[range]).copyBytes(from: event)
    lengths[encoding] = range.upperBound
    return range
  }

  mutating func add(_ serial: UInt64, _ entry: LedgerEntry, _ event: Range<Int>, _ encoding: Int) {
    let index = entry == .none ? plan.capacity - 1 : Int(entry.rawValue)
    let (start, end) = (UInt32(event.lowerBound), UInt32(event.upperBound))
    if stretches[serial] == nil {
      plan.slots[index] = LedgerSlot(turn: turn, start: start, end: end, chain: -1)
      plan.touched[touched.count] = LedgerTouched(
        connection: UInt32(index | encoding << 24), entry: entry.rawValue)
      touched.append(Touched(serial: serial, entry: entry))
    } else if plan.slots[index].end == start {
      plan.slots[index].end = end
    } else {
      let slot = plan.slots[index]
      plan.spill[spills] = LedgerSpill(start: slot.start, end: slot.end, previous: slot.chain)
      plan.slots[index] = LedgerSlot(turn: turn, start: start, end: end, chain: Int32(spills))
      spills += 1
    }
    stretches[serial, default: []] += plan.buffer(encoding)[event]
  }
}

/// A copy of a segment that an heir may change.
final class LedgerCopy {
  let fd: CInt
  private let descriptor: Descriptor
  private let original: Vandal
  private let memory: SharedMemory

  init(of original: Vandal) throws {
    self.original = original
    descriptor = try SharedMemory.create(name: "test-copy", bytes: original.bytes.count)
    fd = descriptor.rawValue
    memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: 0)
  }

  /// An heir of what the segment is at this moment.
  func heir(incarnation: UInt64) throws -> Ledger {
    UnsafeMutableRawBufferPointer(start: memory.base, count: memory.bytes).copyMemory(
      from: UnsafeRawBufferPointer(original.bytes))
    return try Ledger(attaching: fd, incarnation: incarnation)
  }
}
