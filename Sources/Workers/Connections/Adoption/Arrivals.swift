// Connections that another process of the place has had and that are on their way to this one, and who waits for them.
//
//   begin(expected) ─► expected ──arrived──► here       what was ordered meanwhile is done, then who waits goes on
//                         │ └─────lost─────► gone       who waits is told so
//                         └───────end──────► gone       all that are left
//
// Nothing that is expected is answered by "no such connection": it waits, for a bounded time. Orders that were given since the
// former process died are remembered here, and their ring isn't committed while anybody is expected: a next process reads them again.
// Where the former process lives and passes its connections on, both read the orders: those that this one has read and that one hadn't
// when it passed a connection are carried out when it arrives.

import DequeModule

/// Belongs to the worker's loop.
final class Arrivals {
  /// What became of waiting for a connection.
  enum Outcome {
    /// It has arrived, or will not: whoever looks finds out.
    case settled
    /// It has taken too long: the client may ask again.
    case late
  }

  /// Names one that waits, to be given up.
  struct Ticket: Hashable {
    fileprivate let serial: UInt64
    fileprivate let number: UInt64
  }

  /// How long a request waits for its connection. Adoption takes less by far; a client, or the worker that asks for it, waits longer.
  static let patienceMs = 2_000
  /// That wait at once; more are answered as if they had waited too long.
  static let mostWaiting = 10_000

  private let after: (_ ms: Int, @escaping () -> Void) -> (() -> Void)
  private var expected: Set<UInt64> = []
  private var waiting: [UInt64: [UInt64: (Outcome) -> Void]] = [:]
  private var giveUpLater: [UInt64: () -> Void] = [:]
  private var nextNumber: UInt64 = 0
  private var closedSerials: Set<UInt64> = []
  private var closedUsers: Set<String> = []
  /// Latest orders, oldest first; nil: nobody passes connections on.
  private var orders: Deque<Order>?
  /// Called when nobody is expected any more.
  var ended: () -> Void = {}

  /// A record of the state ring: connections are to be closed.
  private struct Order {
    enum Target {
      case user(String)
      case connection(UInt64)
    }

    let sequence: UInt64
    let target: Target
  }

  /// Orders that are remembered for connections that a living process passes; the oldest are forgotten, which it has read long since.
  static let mostOrders = 10_000

  /// - Parameter after: as `LoopTasks.after`.
  init(after: @escaping (_ ms: Int, @escaping () -> Void) -> (() -> Void)) {
    self.after = after
  }

  /// Whether somebody may still come.
  private(set) var isOpen = false

  func expects(_ serial: UInt64) -> Bool { expected.contains(serial) }

  // MARK: Those who come

  /// These are on their way: call it before anything is served and before orders are read.
  func begin(expecting serials: some Sequence<UInt64>) {
    expected.formUnion(serials)
    isOpen = true
  }

  /// These are being passed by a process that lives: they arrive in a moment, or stay where they are.
  func expect(_ serials: some Sequence<UInt64>) { expected.formUnion(serials) }

  /// The connection has been entered here, and takes part in everything.
  ///
  /// - Parameter heeded: the last record of the state ring that it was subject to where it was; nil: nobody knows.
  func arrived(_ connection: Connection, heeded: UInt64? = nil) {
    guard expected.remove(connection.serial) != nil else { return }
    let users = connection.identity?.users ?? []
    if closedSerials.contains(connection.serial) || users.contains(where: closedUsers.contains)
      || heeded.map({ isConcerned(connection.serial, users, since: $0) }) ?? false
    {
      connection.connections.close(connection, .closedByOperator)
    }
    settle(connection.serial)
  }

  private func isConcerned(_ serial: UInt64, _ users: [String], since heeded: UInt64) -> Bool {
    (orders ?? []).contains { order in
      guard order.sequence > heeded else { return false }
      switch order.target {
      case .user(let user): return users.contains(user)
      case .connection(let named): return named == serial
      }
    }
  }

  /// The connection has ended with its process.
  func lost(_ serial: UInt64) {
    if expected.remove(serial) != nil { settle(serial) }
  }

  /// Nobody comes any more.
  func end() {
    guard isOpen else { return }
    isOpen = false
    expected = []
    closedSerials = []
    closedUsers = []
    for serial in Array(waiting.keys) { settle(serial) }
    ended()
  }

  // MARK: Orders

  /// Everything of the user is to be closed, whenever it arrives.
  ///
  /// - Parameters:
  ///   - sequence: of the order in its ring.
  ///   - isNew: no process of the place has carried it out. What was said long ago isn't meant for those who come from a dead one.
  func close(user: String, by sequence: UInt64, isNew: Bool) {
    if isOpen, isNew { closedUsers.insert(user) }
    remember(Order(sequence: sequence, target: .user(user)))
  }

  /// The connection is to be closed when it arrives.
  func close(_ serial: UInt64, by sequence: UInt64) {
    if isOpen, expects(serial) { closedSerials.insert(serial) }
    remember(Order(sequence: sequence, target: .connection(serial)))
  }

  /// A living process passes its connections on, from now until `forgetOrders`. To be called before orders are read.
  func rememberOrders() { orders = orders ?? [] }

  /// Whoever comes from now on was subject to the orders up to this one.
  func forgetOrders(upTo sequence: UInt64 = .max) {
    guard sequence < .max else {
      orders = nil
      return
    }
    while let first = orders?.first, first.sequence <= sequence { orders?.removeFirst() }
  }

  private func remember(_ order: Order) {
    guard orders != nil else { return }
    if orders?.count == Self.mostOrders { orders?.removeFirst() }
    orders?.append(order)
  }

  // MARK: Those who wait

  /// Calls `body` once: when it is known whether the connection comes, or after `patienceMs`.
  ///
  /// - Returns: for `cancel`; nil: `body` has been called.
  func wait(for serial: UInt64, _ body: @escaping (Outcome) -> Void) -> Ticket? {
    guard expects(serial) else {
      body(.settled)
      return nil
    }
    guard giveUpLater.count < Self.mostWaiting else {
      body(.late)
      return nil
    }
    let ticket = Ticket(serial: serial, number: nextNumber)
    nextNumber += 1
    waiting[serial, default: [:]][ticket.number] = body
    giveUpLater[ticket.number] = after(Self.patienceMs) { [weak self] in self?.take(ticket)?(.late) }
    return ticket
  }

  /// Whoever waits has gone.
  func cancel(_ ticket: Ticket) { _ = take(ticket) }

  private func take(_ ticket: Ticket) -> ((Outcome) -> Void)? {
    giveUpLater.removeValue(forKey: ticket.number)?()
    let body = waiting[ticket.serial]?.removeValue(forKey: ticket.number)
    if waiting[ticket.serial]?.isEmpty ?? false { waiting[ticket.serial] = nil }
    return body
  }

  /// In the order in which they came.
  private func settle(_ serial: UInt64) {
    for (number, body) in (waiting.removeValue(forKey: serial) ?? [:]).sorted(by: { $0.key < $1.key }) {
      giveUpLater.removeValue(forKey: number)?()
      body(.settled)
    }
  }
}

extension WorkerAnswer {
  /// The connection hasn't arrived in time.
  static let notYetHere = WorkerAnswer(
    status: 503, text: "the connection is on its way to another process of its worker: ask again")
}
