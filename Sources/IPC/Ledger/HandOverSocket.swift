// By which the two living processes of a place hand connections over: the heir asks, the incumbent gives. The socket pair is the
// supervisor's and outlives them both, so that what is read may be of a process that has died, or for one.
//
//   heir ── ask ──► incumbent     as often as it likes with one number, which is answered once
//        ◄── batch ──             entries of the incumbent's ledger, and a descriptor for each that has a socket
//        ── taken ──►             what it has claimed of that batch is its own, and it claims no more of it
//        ◄── over ──              nothing more will come
//
//   version, 1 | kind, 1 | entries, 2 | positions, 2 | sockets, 2 | from, 8 | to, 8 | number, 8 | orders, 8 | position, 8 … | entry, 4 …
//
// in the machine's order. The first of the entries, so many as there are sockets, have one each, in SCM_RIGHTS.

import CLinux
import Glibc

public enum HandOverMessage: Equatable, Sendable {
  /// - number: the next one of this heir, once it has dealt with the batch before.
  /// - positions: its event rings', by their places in cursors.
  case ask(number: UInt64, positions: [UInt64])
  case batch(HandOverBatch)
  case taken(number: UInt64)
  case over
}

/// Connections that an incumbent offers. Each of them is the heir's when it has claimed its entry, and not before.
public struct HandOverBatch: Equatable, Sendable {
  public static let mostEntries = 250
  public static let mostPositions = Int(RIG_LEDGER_POSITIONS)

  public struct Entry: Equatable, Sendable {
    /// Its number in the incumbent's ledger.
    public var number: UInt32
    /// Its socket; nil: it has none. Received ones are the receiver's own, close-on-exec.
    public var descriptor: CInt?

    public init(_ number: UInt32, descriptor: CInt? = nil) {
      self.number = number
      self.descriptor = descriptor
    }
  }

  /// Of the ask that it answers.
  public var number: UInt64
  /// Where the connections stand in the event rings that aren't behind, by the rings' places in cursors.
  public var positions: [UInt64]
  /// The last record of the state ring that they were subject to.
  public var orders: UInt64
  /// At most `mostEntries`.
  public var entries: [Entry]
  /// Entries whose sockets didn't fit under the receiver's limit.
  public var lost: [UInt32] = []

  public init(number: UInt64, positions: [UInt64], orders: UInt64, entries: [Entry]) {
    self.number = number
    self.positions = positions
    self.orders = orders
    self.entries = entries
  }
}

/// One process's end. Nothing here waits.
public final class HandOverSocket {
  /// Messages that are looked at in one call of `receive`, of which all but the last made no sense.
  private static let mostLooked = 64
  private static let version: UInt8 = 1
  private static let headBytes = 40
  private static let mostBytes =
    headBytes + HandOverBatch.mostPositions * 8 + HandOverBatch.mostEntries * 4

  private enum Kind {
    static let ask: UInt8 = 1
    static let batch: UInt8 = 2
    static let taken: UInt8 = 3
    static let over: UInt8 = 4
  }

  public let incarnation: UInt64
  private let descriptor: CInt
  private let wake: CInt?
  /// Room for a byte more than any message has: one that is longer isn't cut.
  private let received = UnsafeMutableRawBufferPointer.allocate(byteCount: mostBytes + 1, alignment: 8)
  private let receivedSockets = UnsafeMutableBufferPointer<CInt>.allocate(
    capacity: HandOverBatch.mostEntries)
  /// Messages that made no sense, or were for another process.
  public private(set) var droppedCount = 0

  /// - Parameters:
  ///   - descriptor: the manifest's; stays the caller's.
  ///   - incarnation: of this process.
  ///   - wake: the other process's eventfd; nil: it looks by itself.
  public init(_ descriptor: CInt, incarnation: UInt64, wake: CInt?) {
    self.descriptor = descriptor
    self.incarnation = incarnation
    self.wake = wake
  }

  deinit {
    received.deallocate()
    receivedSockets.deallocate()
  }

  // MARK: Sending

  /// Whoever serves the other seat is asked.
  ///
  /// - Returns: false: there is no room; to be tried again.
  @discardableResult
  public func ask(_ number: UInt64, positions: [UInt64]) -> Bool {
    send(Kind.ask, to: 0, number: number, positions: positions)
  }

  /// - Parameter heir: incarnation of the process that has asked.
  /// - Returns: false: there is no room, and nothing was sent.
  public func send(_ batch: HandOverBatch, to heir: UInt64) -> Bool {
    let sockets = batch.entries.filter { $0.descriptor != nil }
    let others = batch.entries.filter { $0.descriptor == nil }
    return send(
      Kind.batch, to: heir, number: batch.number, orders: batch.orders, positions: batch.positions,
      entries: (sockets + others).map(\.number), descriptors: sockets.compactMap(\.descriptor))
  }

  @discardableResult
  public func taken(_ number: UInt64, from incumbent: UInt64) -> Bool {
    send(Kind.taken, to: incumbent, number: number)
  }

  @discardableResult
  public func over(to heir: UInt64) -> Bool { send(Kind.over, to: heir, number: 0) }

  private func send(
    _ kind: UInt8, to receiver: UInt64, number: UInt64, orders: UInt64 = 0, positions: [UInt64] = [],
    entries: [UInt32] = [], descriptors: [CInt] = []
  ) -> Bool {
    guard positions.count <= HandOverBatch.mostPositions, entries.count <= HandOverBatch.mostEntries else {
      return false
    }
    var bytes: [UInt8] = [Self.version, kind]
    bytes.reserveCapacity(Self.headBytes + positions.count * 8 + entries.count * 4)
    func append(_ value: some FixedWidthInteger) {
      withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    }
    append(UInt16(entries.count))
    append(UInt16(positions.count))
    append(UInt16(descriptors.count))
    for word in [incarnation, receiver, number, orders] + positions { append(word) }
    for entry in entries { append(entry) }
    let sent = rig_message_send_with(descriptor, bytes, bytes.count, descriptors, CInt(descriptors.count))
    guard sent == bytes.count else { return false }
    if let wake { EventFD.signal(wake) }
    return true
  }

  // MARK: Receiving

  /// The next message for this process, and who it is from; nil: nothing now. What is for another process, or makes no sense, is
  /// closed and counted.
  public func receive() -> (from: UInt64, message: HandOverMessage)? {
    for _ in 0..<Self.mostLooked {
      var count = CInt(receivedSockets.count)
      let bytes = rig_message_receive(
        descriptor, received.baseAddress, received.count, receivedSockets.baseAddress, &count)
      if bytes < 0, errno != EMSGSIZE { return nil }
      let own = bytes < 0 ? [] : Array(receivedSockets.prefix(Int(count)))
      let message = UnsafeRawBufferPointer(rebasing: received.prefix(max(0, bytes)))
      if let known = understand(message, own) { return known }
      for descriptor in own { close(descriptor) }
      droppedCount += 1
      // The end of the pair is the end of the gateway.
      if bytes == 0 { return nil }
    }
    return nil
  }

  private func understand(
    _ bytes: UnsafeRawBufferPointer, _ descriptors: [CInt]
  ) -> (from: UInt64, message: HandOverMessage)? {
    guard bytes.count >= Self.headBytes, bytes[0] == Self.version else { return nil }
    func read<Value: FixedWidthInteger>(_ type: Value.Type, at offset: Int) -> Value {
      bytes.loadUnaligned(fromByteOffset: offset, as: Value.self)
    }
    let counts = (0..<3).map { Int(read(UInt16.self, at: 2 + $0 * 2)) }
    let (entryCount, positionCount, socketCount) = (counts[0], counts[1], counts[2])
    let entriesAt = Self.headBytes + positionCount * 8
    guard bytes.count == entriesAt + entryCount * 4, entryCount <= HandOverBatch.mostEntries,
      positionCount <= HandOverBatch.mostPositions, socketCount <= entryCount,
      descriptors.count <= socketCount
    else { return nil }
    let words = (0..<4).map { read(UInt64.self, at: 8 + $0 * 8) }
    let (from, to, number) = (words[0], words[1], words[2])
    let positions = (0..<positionCount).map { read(UInt64.self, at: Self.headBytes + $0 * 8) }
    guard from != 0, from != incarnation, to == (bytes[1] == Kind.ask ? 0 : incarnation) else { return nil }
    switch bytes[1] {
    case Kind.ask where entryCount == 0: return (from, .ask(number: number, positions: positions))
    case Kind.batch:
      let entries = (0..<entryCount).map { read(UInt32.self, at: entriesAt + $0 * 4) }
      var batch = HandOverBatch(number: number, positions: positions, orders: words[3], entries: [])
      batch.entries =
        zip(entries, descriptors).map { HandOverBatch.Entry($0, descriptor: $1) }
        + entries[socketCount...].map { HandOverBatch.Entry($0) }
      batch.lost = Array(entries[descriptors.count..<socketCount])
      return (from, .batch(batch))
    case Kind.taken where entryCount == 0: return (from, .taken(number: number))
    case Kind.over where entryCount == 0: return (from, .over)
    default: return nil
    }
  }
}
