// Whom to ask for a connection of a place at whose two seats processes may sit: one after the other, until somebody has it. Pure.
//
// Connections move one way only, from a process that retires to its heir. So the one that retires is asked first: what it hasn't any
// more, the other one has. While nobody is seen to retire yet one may begin to meanwhile, and whoever was asked first is asked again.

struct SeatsToAsk: Equatable {
  /// A seat of the place at which somebody sits.
  struct Seat: Equatable {
    /// As `WorkerIdentity.number`.
    let number: UInt16
    let isRetiring: Bool
  }

  private var asked: [UInt16] = []
  /// Who was asked first retired.
  private var isInOrder = false

  /// The next one to be asked; nil: nobody has the connection.
  ///
  /// - Parameter seats: as they are now.
  mutating func next(among seats: [Seat]) -> UInt16? {
    let new = seats.filter { !asked.contains($0.number) }
    if let next = new.first(where: \.isRetiring) ?? new.first {
      if asked.isEmpty { isInOrder = next.isRetiring }
      asked.append(next.number)
      return next.number
    }
    guard let first = asked.first, asked.count == 2, !isInOrder, seats.contains(where: { $0.number == first })
    else { return nil }
    asked.append(first)
    return first
  }
}
