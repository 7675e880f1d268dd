// Sends the events of one turn: each is encoded once per encoding in use, and each connection gets all of its events in one
// system call.
//
//   add      event → encodings (once per encoding in use) ; connection → range in its encoding's buffer
//   send     for each touched connection: send(descriptor, buffer + range)        ← the whole cost of a delivery
//   settle   the few whose socket didn't take everything, and those over TLS: the rest into their outlet, events shared by
//            reference
//
// In the loop of `send` nothing is allocated, counted or looked up in a dictionary; objects are touched only for
// connections that are stalled.

import Glibc
import Kit

final class Delivery {
  /// A connection whose socket took `sent` of its bytes and no more.
  private struct Stall {
    let connection: ConnectionIndex
    let encoding: EventEncoding
    let sent: Int
  }

  /// Sends between two calls of `progress`: well under the watchdog's time even if each takes a millisecond.
  private static let sendsPerProgress = 1024

  private var fanout = Fanout()
  private var encodings = TurnEncodings()
  /// The events that somebody has to wait for, by encoding and number of the event.
  private var kept = [[SharedBytes?]](repeating: [], count: EventEncoding.allCases.count)
  private var stalled: ContiguousArray<Stall> = []

  /// Bytes that are to be sent in this turn.
  private(set) var pendingBytes = 0

  /// What was compressed since the last call.
  func takeDeflateCounts() -> DeflateCounts { encodings.deflater.counts.take() }

  /// Forgets the turn before.
  ///
  /// - Parameter connections: size of the connection table.
  func beginTurn(connections: Int) {
    fanout.clear()
    fanout.reserve(connections: connections)
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
    var range: Range<Int>?
    for connection in matches {
      let own = table.transports[Int(connection)]
      if own != transport {
        transport = own
        range = own.encoding.map { encodings.range(of: event, cursor: cursor, in: $0) }
      }
      guard let range else {
        if own == .longPolling { polled(connection) }
        continue
      }
      fanout.add(connection, range)
      pendingBytes += range.count
    }
  }

  /// Sends everything that was added.
  ///
  /// - Parameters:
  ///   - second: the present time in `lastTraffic`.
  ///   - progress: called now and then, so that a turn with very many connections isn't taken for a hang.
  func send(_ table: inout ConnectionTable, second: UInt32, progress: () -> Void) {
    guard !fanout.touched.isEmpty else { return }
    encodings.withBuffers { buffers in
      var untilProgress = Self.sendsPerProgress
      for connection in fanout.touched {
        let index = Int(connection)
        guard let encoding = table.transports[index].encoding else { continue }
        let descriptor = table.descriptors[index]
        let (isComplete, sent) =
          descriptor >= 0 ? send(to: connection, descriptor, buffers[encoding.rawValue]) : (false, 0)
        if isComplete {
          table.lastTraffic[index] = second
        } else {
          stalled.append(Stall(connection: connection, encoding: encoding, sent: sent))
        }
        untilProgress -= 1
        if untilProgress == 0 {
          progress()
          untilProgress = Self.sendsPerProgress
        }
      }
    }
  }

  @inline(__always)
  private func send(
    to connection: ConnectionIndex, _ descriptor: CInt, _ base: UnsafeRawBufferPointer
  ) -> (isComplete: Bool, sent: Int) {
    guard let range = fanout.single(connection) else { return sendStretches(connection, descriptor, base) }
    let sent = DirectSend.send(UnsafeRawBufferPointer(rebasing: base[range]), to: descriptor)
    return (sent == range.count, max(0, sent))
  }

  @inline(never)
  private func sendStretches(
    _ connection: ConnectionIndex, _ descriptor: CInt, _ base: UnsafeRawBufferPointer
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
      connection.deliveryWasKept()
    }
  }

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

  private func sharedBytes(_ event: Int, _ range: Range<Int>, _ encoding: EventEncoding) -> SharedBytes {
    let index = encoding.rawValue
    if kept[index].isEmpty {
      kept[index] = Array(repeating: nil, count: encodings.ends(encoding).count)
    }
    if let bytes = kept[index][event] { return bytes }
    let bytes = encodings.withBytes(encoding, range) { SharedBytes(copying: $0, isInRing: true) }
    kept[index][event] = bytes
    return bytes
  }
}
