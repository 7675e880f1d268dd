// Connections that another process of the place has had and that are on their way to this one, and who waits for them.
//
//   begin(expected) ─► expected ──arrived──► here       what was ordered meanwhile is done, then who waits goes on
//                         │ └─────lost─────► gone       who waits is told so
//                         └───────end──────► gone       all that are left
//
// Nothing that is expected is answered by "no such connection": it waits, for a bounded time. Orders that were given since the
// former process died are remembered here, and their ring isn't committed while anybody is expected: a next process reads them again.

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
  /// Called when nobody is expected any more.
  var ended: () -> Void = {}

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

  /// The connection has been entered here, and takes part in everything.
  func arrived(_ connection: Connection) {
    guard expected.remove(connection.serial) != nil else { return }
    let users = connection.identity?.users ?? []
    if closedSerials.contains(connection.serial) || users.contains(where: closedUsers.contains) {
      connection.connections.close(connection, .closedByOperator)
    }
    settle(connection.serial)
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
  func close(user: String) {
    if isOpen { closedUsers.insert(user) }
  }

  /// The connection is to be closed when it arrives.
  func close(_ serial: UInt64) {
    if expects(serial) { closedSerials.insert(serial) }
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
