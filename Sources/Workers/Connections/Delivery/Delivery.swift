// Sends the events of one turn: each is encoded once per transport, and each connection gets all of its events in one
// system call.
//
//   add      event → encodings (once per transport in use) ; connection → range in its transport's buffer
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
    let transport: Transport
    let sent: Int
  }

  /// Sends between two calls of `progress`: well under the watchdog's time even if each takes a millisecond.
  private static let sendsPerProgress = 1024

  private var fanout = Fanout()
  private var encodings = TurnEncodings()
  /// Ends of the events in each transport's buffer, ascending.
  private var ends = [[Int]](repeating: [], count: Transport.allCases.count)
  /// The events that somebody has to wait for, by transport and number of the event.
  private var kept = [[SharedBytes?]](repeating: [], count: Transport.allCases.count)
  private var stalled: ContiguousArray<Stall> = []

  /// Bytes encoded in this turn.
  private(set) var encodedBytes = 0
  /// Bytes that are to be sent in this turn.
  private(set) var pendingBytes = 0

  /// Forgets the turn before.
  ///
  /// - Parameter connections: size of the connection table.
  func beginTurn(connections: Int) {
    fanout.clear()
    fanout.reserve(connections: connections)
    encodings.reset()
    for index in ends.indices {
      ends[index].removeAll(keepingCapacity: true)
      kept[index].removeAll(keepingCapacity: true)
    }
    stalled.removeAll(keepingCapacity: true)
    encodedBytes = 0
    pendingBytes = 0
  }

  /// Adds `event` for all of `matches` that have a stream; the others are given to `polled`.
  func add(
    _ event: EventRecord, cursor: Cursor, to matches: [ConnectionIndex], _ table: borrowing ConnectionTable,
    polled: (ConnectionIndex) -> Void
  ) {
    encodings.beginEvent()
    var sse: Range<Int>?
    var webSocket: Range<Int>?
    var withCursor: Range<Int>?
    for connection in matches {
      let range: Range<Int>
      switch table.transports[Int(connection)] {
      case .sse:
        range = sse ?? encode(event, cursor, .sse, .serverSentEvents)
        sse = range
      case .webSocket:
        range = webSocket ?? encode(event, cursor, .webSocket, .webSocket)
        webSocket = range
      case .webSocketWithCursor:
        range = withCursor ?? encode(event, cursor, .webSocketWithCursor, .webSocketWithCursor)
        withCursor = range
      case .longPolling:
        polled(connection)
        continue
      case .none:
        continue
      }
      fanout.add(connection, range)
      pendingBytes += range.count
    }
  }

  private func encode(
    _ event: EventRecord, _ cursor: Cursor, _ transport: Transport, _ encoding: EventEncoding
  ) -> Range<Int> {
    let range = encodings.range(of: event, cursor: cursor, in: encoding)
    ends[Int(transport.rawValue)].append(range.upperBound)
    encodedBytes += range.count
    return range
  }

  /// Sends everything that was added.
  ///
  /// - Parameters:
  ///   - second: the present time in `lastTraffic`.
  ///   - progress: called now and then, so that a turn with very many connections isn't taken for a hang.
  func send(_ table: inout ConnectionTable, second: UInt32, progress: () -> Void) {
    guard !fanout.touched.isEmpty else { return }
    withBuffers { sse, webSocket, withCursor in
      var untilProgress = Self.sendsPerProgress
      for connection in fanout.touched {
        let index = Int(connection)
        let transport = table.transports[index]
        let descriptor = table.descriptors[index]
        let base = transport == .sse ? sse : transport == .webSocket ? webSocket : withCursor
        let (isComplete, sent) = descriptor >= 0 ? send(to: connection, descriptor, base) : (false, 0)
        if isComplete {
          table.lastTraffic[index] = second
        } else {
          stalled.append(Stall(connection: connection, transport: transport, sent: sent))
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

  private func withBuffers(
    _ body: (
      _ sse: UnsafeRawBufferPointer, _ webSocket: UnsafeRawBufferPointer, _ withCursor: UnsafeRawBufferPointer
    )
      -> Void
  ) {
    encodings.buffer(.serverSentEvents).bytes.withUnsafeBytes { sse in
      encodings.buffer(.webSocket).bytes.withUnsafeBytes { webSocket in
        encodings.buffer(.webSocketWithCursor).bytes.withUnsafeBytes { body(sse, webSocket, $0) }
      }
    }
  }

  /// Gives what the sockets didn't take to the connections' outlets; those past their bound take part in delivery no more.
  ///
  /// - Parameter connection: nil for one that has closed meanwhile.
  func settle(_ connection: (ConnectionIndex) -> StreamConnection?) {
    for stall in stalled {
      guard let connection = connection(stall.connection), !connection.isClosing else { continue }
      keep(stall, in: connection.outlet)
      connection.deliveryWasKept()
    }
  }

  /// Cuts what is left into events: a connection that has to be closed may drop whole ones.
  private func keep(_ stall: Stall, in outlet: Outlet) {
    let transport = Int(stall.transport.rawValue)
    var sent = stall.sent
    for range in fanout.stretches(stall.connection) {
      guard sent < range.count else {
        sent -= range.count
        continue
      }
      var position = range.lowerBound + sent
      sent = 0
      var event = firstEvent(endingAfter: position, transport)
      while position < range.upperBound, event < ends[transport].count {
        let start = event == 0 ? 0 : ends[transport][event - 1]
        outlet.keep(sharedBytes(event, start, transport), sent: position - start)
        position = ends[transport][event]
        event += 1
      }
    }
  }

  private func firstEvent(endingAfter position: Int, _ transport: Int) -> Int {
    var low = 0
    var high = ends[transport].count
    while low < high {
      let middle = (low + high) / 2
      if ends[transport][middle] <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func sharedBytes(_ event: Int, _ start: Int, _ transport: Int) -> SharedBytes {
    if kept[transport].isEmpty { kept[transport] = Array(repeating: nil, count: ends[transport].count) }
    if let bytes = kept[transport][event] { return bytes }
    let range = start..<ends[transport][event]
    let bytes = withBuffers(transport) {
      SharedBytes(copying: UnsafeRawBufferPointer(rebasing: $0[range]), isInRing: true)
    }
    kept[transport][event] = bytes
    return bytes
  }

  private func withBuffers<R>(_ transport: Int, _ body: (UnsafeRawBufferPointer) -> R) -> R {
    let encoding: EventEncoding =
      switch Transport(rawValue: UInt8(transport)) {
      case .webSocket: .webSocket
      case .webSocketWithCursor: .webSocketWithCursor
      default: .serverSentEvents
      }
    return encodings.buffer(encoding).bytes.withUnsafeBytes(body)
  }
}
