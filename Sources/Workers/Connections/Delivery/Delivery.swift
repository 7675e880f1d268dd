// Sends the events of one turn: each is encoded once per encoding in use, and each connection gets all of its events in one
// system call. What is to be sent is written down before the first byte goes out, and what has been sent behind each send, so that an
// heir goes on from any instruction (IPC/Ledger):
//
//   begin    planning: whoever finds this forgets it, nothing has been sent
//   add      event → encodings (once per encoding in use) ; connection → range in its encoding's region
//   send     positions ─ sending ─ for each touched connection: send(descriptor, region + range) ─ written or stalled ─ sent
//                                       ↑ the whole cost of a delivery
//   settle   the few whose socket didn't take everything, and those over TLS: the rest into their outlet, events shared by
//            reference, and noted as what waits for them
//   end      the rings' cursors are behind the turn
//
// In the loop of `send` nothing is allocated, counted or looked up in a dictionary; objects are touched only for
// connections that are stalled.

import Glibc
import IPC
import Kit

final class Delivery {
  /// A touched connection whose socket took `sent` of its bytes and no more.
  private struct Stall {
    let connection: ConnectionIndex
    /// Number of the encoding.
    let encoding: Int
    let sent: Int
  }

  /// Sends between two calls of `progress`: well under the watchdog's time even if each takes a millisecond.
  private static let sendsPerProgress = 1024

  private let ledger: Ledger
  private let plan: LedgerPlan
  private let largestEventBytes: Int
  private var fanout: Fanout
  private var encodings: TurnEncodings
  private var turn: UInt64 = 0
  /// The events that somebody has to wait for, by encoding and number of the event.
  private var kept = [[SharedBytes?]](repeating: [], count: EventEncoding.allCases.count)
  private var stalled: ContiguousArray<Stall> = []

  /// Bytes that are to be sent in this turn.
  private(set) var pendingBytes = 0

  /// What was compressed since the last call.
  func takeDeflateCounts() -> DeflateCounts { encodings.deflater.counts.take() }

  /// - Parameter largestEventBytes: that a record of the rings may have.
  /// - Throws: `.invalid` if the ledger has no room for an event of that size.
  init(_ ledger: Ledger, largestEventBytes: Int) throws(IPCError) {
    let plan = ledger.plan
    self.ledger = ledger
    self.largestEventBytes = largestEventBytes
    self.plan = plan
    let (encodings, needed) = (
      EventEncoding.allCases.count, largestEventBytes + TurnEncodings.mostBytesBesides
    )
    guard plan.encodings >= encodings, plan.bufferBytes >= needed else {
      throw .invalid(
        """
        the ledger has \(plan.encodings) turn buffers of \(plan.bufferBytes) bytes, expected \(encodings) of at \
        least \(needed) for the largest event
        """)
    }
    fanout = Fanout(on: plan)
    self.encodings = TurnEncodings(on: plan)
  }

  /// The turn can take no more: its memory is bounded.
  var isFull: Bool { !fanout.hasRoom || !encodings.hasRoom(forEventOf: largestEventBytes) }

  /// Forgets the turn before.
  func beginTurn() {
    turn = plan.begin()
    fanout.begin(turn: turn)
    encodings.reset()
    for index in kept.indices { kept[index].removeAll(keepingCapacity: true) }
    stalled.removeAll(keepingCapacity: true)
    pendingBytes = 0
  }

  /// Adds `event` for all of `matches` that have a stream; the others are given to `polled`.
  func add(
    _ event: EventRecord, cursor: Cursor, to matches: [ConnectionIndex], _ table: borrowing ConnectionTable,
    polled: (ConnectionIndex) -> Void
  ) {
    encodings.beginEvent()
    // Neighbours mostly get it in the same way.
    var transport = Transport.none
    var stretch: (range: Range<Int>, encoding: EventEncoding)?
    for connection in matches {
      let own = table.transports[Int(connection)]
      if own != transport {
        transport = own
        stretch = own.encoding.flatMap { encoding in
          encodings.range(of: event, cursor: cursor, in: encoding).map { (range: $0, encoding: encoding) }
        }
      }
      guard let stretch else {
        if own == .longPolling { polled(connection) }
        continue
      }
      fanout.add(connection, stretch.range, stretch.encoding, entry: table.entries[Int(connection)])
      pendingBytes += stretch.range.count
    }
  }

  /// Sends everything that was added.
  ///
  /// - Parameters:
  ///   - positions: of the rings, behind what was added.
  ///   - second: the present time in `lastTraffic`.
  ///   - progress: called now and then, so that a turn with very many connections isn't taken for a hang.
  func send(_ table: inout ConnectionTable, positions: Cursor, second: UInt32, progress: () -> Void) {
    // The loop looks at no property that somebody might be changing.
    let (fanout, ledger, plan) = (fanout, ledger, plan)
    let count = fanout.touchedCount
    guard count > 0 else { return }
    /// How much had gone to it before this turn.
    func noteBase(_ number: Int) {
      let entry = fanout.touched(number).entry
      if entry != .none { plan.setBase(number, ledger.written(entry)) }
    }
    StopPoint.planIncomplete.reached()
    noteBase(0)
    plan.markSending(
      touched: count, spills: fanout.spillCount, lengths: encodings.lengths, positions: positions.positions)
    StopPoint.planMarked.reached()
    var untilProgress = Self.sendsPerProgress
    for number in 0..<count {
      let (connection, encoding, entry) = fanout.touched(number)
      let index = Int(connection)
      let descriptor = table.descriptors[index]
      let (isComplete, sent) =
        descriptor >= 0
        ? Self.send(fanout, to: connection, descriptor, UnsafeRawBufferPointer(plan.buffer(encoding)))
        : (false, 0)
      StopPoint.sentUnnoted.reached()
      if isComplete {
        table.lastTraffic[index] = second
        if entry != .none { ledger.advance(entry, by: sent) }
      } else {
        stalled.append(Stall(connection: connection, encoding: encoding, sent: sent))
        plan.stalled(number)
      }
      if number + 1 < count { noteBase(number + 1) }
      plan.sent(number + 1)
      StopPoint.betweenSends.reached()
      untilProgress -= 1
      if untilProgress == 0 {
        progress()
        untilProgress = Self.sendsPerProgress
      }
    }
  }

  @inline(__always)
  private static func send(
    _ fanout: Fanout, to connection: ConnectionIndex, _ descriptor: CInt, _ base: UnsafeRawBufferPointer
  ) -> (isComplete: Bool, sent: Int) {
    guard let range = fanout.single(connection) else {
      return sendStretches(fanout, connection, descriptor, base)
    }
    let sent = DirectSend.send(UnsafeRawBufferPointer(rebasing: base[range]), to: descriptor)
    return (sent == range.count, max(0, sent))
  }

  @inline(never)
  private static func sendStretches(
    _ fanout: Fanout, _ connection: ConnectionIndex, _ descriptor: CInt, _ base: UnsafeRawBufferPointer
  ) -> (isComplete: Bool, sent: Int) {
    let stretches = fanout.stretches(connection)
    var vectors = stretches.prefix(DirectSend.vectorLimit).map { range in
      DirectSend.vector(UnsafeRawBufferPointer(rebasing: base[range]))
    }
    let sent = vectors.withUnsafeMutableBufferPointer { DirectSend.send($0, to: descriptor) }
    return (sent == stretches.reduce(0) { $0 + $1.count }, max(0, sent))
  }

  /// Gives what the sockets didn't take to the connections' outlets; those past their bound take part in delivery no more.
  ///
  /// - Parameter connection: nil for one that has closed meanwhile.
  func settle(_ connection: (ConnectionIndex) -> Connection?) {
    for stall in stalled {
      guard let connection = connection(stall.connection), !connection.isClosing,
        let outlet = connection.outlet
      else { continue }
      keep(stall, in: outlet)
      connection.deliveryWasKept(turn: turn, sent: stall.sent)
      StopPoint.settling.reached()
    }
    if fanout.touchedCount > 0 { StopPoint.beforeCommit.reached() }
  }

  /// The turn has had its effect, and the rings' cursors say so.
  func endTurn() { plan.end(lengths: encodings.lengths, spills: fanout.spillCount) }

  /// Cuts what is left into events: a connection that has to be closed may drop whole ones.
  private func keep(_ stall: Stall, in outlet: Outlet) {
    let ends = encodings.ends(stall.encoding)
    var sent = stall.sent
    for range in fanout.stretches(stall.connection) {
      guard sent < range.count else {
        sent -= range.count
        continue
      }
      var position = range.lowerBound + sent
      sent = 0
      var event = Self.firstEvent(endingAfter: position, ends)
      while position < range.upperBound, event < ends.count {
        let start = event == 0 ? 0 : ends[event - 1]
        outlet.keep(sharedBytes(event, start..<ends[event], stall.encoding), sent: position - start)
        position = ends[event]
        event += 1
      }
    }
  }

  private static func firstEvent(endingAfter position: Int, _ ends: [Int]) -> Int {
    var low = 0
    var high = ends.count
    while low < high {
      let middle = (low + high) / 2
      if ends[middle] <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func sharedBytes(_ event: Int, _ range: Range<Int>, _ encoding: Int) -> SharedBytes {
    if kept[encoding].isEmpty {
      kept[encoding] = Array(repeating: nil, count: encodings.ends(encoding).count)
    }
    if let bytes = kept[encoding][event] { return bytes }
    let bytes = SharedBytes(
      copying: UnsafeRawBufferPointer(rebasing: plan.buffer(encoding)[range]), isInRing: true)
    kept[encoding][event] = bytes
    return bytes
  }
}
