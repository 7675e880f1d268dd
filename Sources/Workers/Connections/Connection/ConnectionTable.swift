// Everything that the delivery loop looks at, one dense column each, by connection index.
//
//   index            0      1      2      3
//   transports     sse    sse    none   webSocket
//   descriptors     17     21     -1    -1            -1: not directly sendable (free, stalled, closing)
//   lastTraffic    …      second of the last byte out, for the heartbeat sweep
//   deadlines       0     second at which the connection wants to be asked, 0: never
//   expiries        0     second since 1970 at which a token of the connection ends, 0: never
//   privileges      …     whether it gets presence events
//   entries         3     in the ledger; none: it ends with its worker
//   areBehind       …     whether it reads on from the rings at its own pace, and gets nothing live meanwhile
//   connections   object, for everything that isn't "send these bytes"
//
// The loop over a thousand subscribers touches three small arrays and no object. Indices are reused; the serial of a
// connection never is, so a token that names a former owner of an index is recognised. A serial says at which index its
// connection was opened. One that another process of the place has opened may find that taken here: it is entered elsewhere.

import IPC

/// How events are encoded for a connection.
enum Transport: UInt8, CaseIterable {
  case none
  /// A stream that ends with its connection (HTTP/1.0), or with its HTTP/2 stream.
  case sse
  /// A stream of HTTP/1.1.
  case chunkedSSE
  case webSocket
  /// WebSocket with the extension attribute `rigcursor` in every event.
  case webSocketWithCursor
  /// WebSocket whose events are compressed.
  case deflatedWebSocket
  case deflatedWebSocketWithCursor
  case longPolling

  static func webSocket(withCursors: Bool, isDeflated: Bool) -> Transport {
    switch (withCursors, isDeflated) {
    case (false, false): .webSocket
    case (true, false): .webSocketWithCursor
    case (false, true): .deflatedWebSocket
    case (true, true): .deflatedWebSocketWithCursor
    }
  }

  /// Whether its events go out as they come, and heartbeats between them.
  var isStream: Bool { self != .none && self != .longPolling }

  /// Value of the label `transport`.
  var label: String {
    switch self {
    case .none: "none"
    case .sse, .chunkedSSE: "sse"
    case .webSocket, .webSocketWithCursor, .deflatedWebSocket, .deflatedWebSocketWithCursor: "ws"
    case .longPolling: "longpolling"
    }
  }

  /// nil: it gets no event as bytes on a stream.
  var encoding: EventEncoding? {
    switch self {
    case .none, .longPolling: nil
    case .sse: .serverSentEvents
    case .chunkedSSE: .chunkedServerSentEvents
    case .webSocket: .webSocket
    case .webSocketWithCursor: .webSocketWithCursor
    case .deflatedWebSocket: .deflatedWebSocket
    case .deflatedWebSocketWithCursor: .deflatedWebSocketWithCursor
    }
  }
}

struct ConnectionTable {
  private(set) var transports: ContiguousArray<Transport> = []
  var descriptors: ContiguousArray<CInt> = []
  var lastTraffic: ContiguousArray<UInt32> = []
  var deadlines: ContiguousArray<UInt32> = []
  var expiries: ContiguousArray<UInt32> = []
  var privileges: ContiguousArray<Bool> = []
  var entries: ContiguousArray<LedgerEntry> = []
  private(set) var areBehind: ContiguousArray<Bool> = []
  /// Connections that are behind.
  private(set) var behindCount = 0
  private var connections: ContiguousArray<Connection?> = []
  private var free: ContiguousArray<ConnectionIndex> = []
  private var uses: ContiguousArray<UInt32> = []
  /// Indices of adopted connections, by serial: where those aren't told by it.
  private var adopted: [UInt64: ConnectionIndex] = [:]
  private var countByTransport = [Int](repeating: 0, count: Transport.allCases.count)

  /// Serial of a connection: incarnation of the place (16 bits) | uses of the index (28 bits) | index (20 bits).
  /// None repeats in the life of the gateway, short of 65,536 processes in one place or 268 million uses of one index.
  private let serialBase: UInt64
  private static let indexBits: UInt64 = 20
  private static let usesBits: UInt64 = 28
  private static let alwaysDue: UInt32 = 1
  /// More connections than a worker may have descriptors for, by far.
  static let maximumConnections = 1 << Int(indexBits)

  /// - Parameter incarnation: which of the processes this is that have served the place.
  init(incarnation: UInt64) {
    serialBase = incarnation << (Self.indexBits + Self.usesBits)
  }

  /// Indices in use or free to be used again: all are below.
  var capacity: Int { connections.count }
  /// Open connections of all transports.
  var count: Int { connections.count - free.count }

  func count(of transport: Transport) -> Int { countByTransport[Int(transport.rawValue)] }

  subscript(index: ConnectionIndex) -> Connection? {
    Int(index) < connections.count ? connections[Int(index)] : nil
  }

  /// The connection with this serial, if it is still open.
  func find(serial: UInt64) -> Connection? {
    let index = adopted[serial] ?? Self.index(of: serial)
    guard let found = self[index], found.serial == serial else { return nil }
    return found
  }

  private static func index(of serial: UInt64) -> ConnectionIndex {
    ConnectionIndex(serial & (1 << indexBits - 1))
  }

  /// Enters a connection that `make` builds for the index and serial it is given.
  mutating func insert(second: UInt32, _ make: (ConnectionIndex, UInt64) -> Connection) -> Connection {
    let index = free.popLast() ?? append()
    uses[Int(index)] &+= 1
    let use = UInt64(uses[Int(index)]) & (1 << Self.usesBits - 1)
    let connection = make(index, serialBase | use << Self.indexBits | UInt64(index))
    enter(connection, second)
    return connection
  }

  /// Enters a connection with the serial that it has from another process of the place; `make` builds it for the index it is given.
  /// nil: it is here already.
  mutating func adopt(
    serial: UInt64, second: UInt32, _ make: (ConnectionIndex) -> Connection
  ) -> Connection? {
    guard find(serial: serial) == nil else { return nil }
    let index = free.popLast() ?? append()
    if index != Self.index(of: serial) { adopted[serial] = index }
    let connection = make(index)
    enter(connection, second)
    return connection
  }

  private mutating func enter(_ connection: Connection, _ second: UInt32) {
    let index = Int(connection.index)
    let transport = connection.state.transport.kind
    connections[index] = connection
    transports[index] = transport
    lastTraffic[index] = second
    forgetFormerOwner(of: index)
    // The session itself knows what time has brought.
    if transport == .longPolling { deadlines[index] = Self.alwaysDue }
    countByTransport[Int(transport.rawValue)] += 1
  }

  /// The connection gets nothing live, or does again.
  mutating func setBehind(_ index: ConnectionIndex, _ isBehind: Bool) {
    guard areBehind[Int(index)] != isBehind else { return }
    areBehind[Int(index)] = isBehind
    behindCount += isBehind ? 1 : -1
  }

  /// Removes the connection; false if it isn't in the table any more.
  @discardableResult
  mutating func remove(_ connection: Connection) -> Bool {
    let index = Int(connection.index)
    guard index < connections.count, connections[index] === connection else { return false }
    countByTransport[Int(transports[index].rawValue)] -= 1
    connections[index] = nil
    transports[index] = .none
    if !adopted.isEmpty { adopted[connection.serial] = nil }
    forgetFormerOwner(of: index)
    free.append(connection.index)
    return true
  }

  private mutating func forgetFormerOwner(of index: Int) {
    descriptors[index] = -1
    deadlines[index] = 0
    expiries[index] = 0
    privileges[index] = false
    entries[index] = .none
    setBehind(ConnectionIndex(index), false)
  }

  /// Appends everybody who takes part in live delivery.
  func appendLive(to indices: inout [ConnectionIndex]) {
    for case let connection? in connections where connection.state.resuming == nil && !connection.isClosing {
      indices.append(connection.index)
    }
  }

  /// All open connections.
  var all: [Connection] { connections.compactMap { $0 } }

  private mutating func append() -> ConnectionIndex {
    connections.append(nil)
    transports.append(.none)
    descriptors.append(-1)
    lastTraffic.append(0)
    deadlines.append(0)
    expiries.append(0)
    privileges.append(false)
    entries.append(.none)
    areBehind.append(false)
    uses.append(0)
    return ConnectionIndex(connections.count - 1)
  }
}
