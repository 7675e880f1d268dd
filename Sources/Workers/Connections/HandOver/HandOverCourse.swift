// In which order a hand-over goes, seen from the process that gives. Pure: whoever holds this does what it says.
//
//   unasked ── ask ──► asked ── something is at rest ──► in the air ── taken, a later ask, or time is up ──► answered ── next ask ──► asked
//
// A number is answered once, whatever becomes of the batch: whoever is late with claiming one finds every entry taken back, and
// none that has been offered anew.

struct HandOverCourse {
  struct Ask: Equatable {
    /// Incarnation of the process that asks.
    var heir: UInt64
    var number: UInt64
    /// Where it stands in the event rings, by their places in cursors.
    var positions: [UInt64]
  }

  enum State: Equatable {
    case unasked
    case asked(Ask, sinceNs: UInt64)
    case inTheAir(Ask, sinceNs: UInt64)
    /// The last number.
    case answered(heir: UInt64, number: UInt64)
  }

  /// What is in the air is decided: each entry is claimed by now, or is taken back.
  enum Settlement: Equatable {
    /// The heir claims nothing more of it: what it hasn't claimed it doesn't want.
    case taken
    /// It may be on the point of claiming more.
    case takenBack
  }

  private(set) var state = State.unasked

  /// nil: nobody has asked yet.
  var heir: UInt64? {
    switch state {
    case .unasked: nil
    case .asked(let ask, _), .inTheAir(let ask, _): ask.heir
    case .answered(let heir, _): heir
    }
  }

  var isInTheAir: Bool { if case .inTheAir = state { true } else { false } }

  mutating func asked(_ ask: Ask, nowNs: UInt64) -> Settlement? {
    switch state {
    case .unasked: break
    case .asked(let before, _):
      guard ask.heir > before.heir || (ask.heir == before.heir && ask.number > before.number) else {
        return nil
      }
    case .inTheAir(let before, _):
      guard ask.heir >= before.heir else { return nil }
      if ask.heir == before.heir, ask.number <= before.number { return nil }
      state = .asked(ask, sinceNs: nowNs)
      // Whoever asks for the next has dealt with this one; whoever comes after it finds what it has claimed in its ledger.
      return ask.heir == before.heir ? .taken : .takenBack
    case .answered(let heir, let number):
      guard ask.heir > heir || (ask.heir == heir && ask.number > number) else { return nil }
    }
    state = .asked(ask, sinceNs: nowNs)
    return nil
  }

  /// A batch has been sent: the answer to what was asked.
  mutating func sent(nowNs: UInt64) {
    guard case .asked(let ask, _) = state else { return }
    state = .inTheAir(ask, sinceNs: nowNs)
  }

  mutating func taken(_ number: UInt64, by heir: UInt64) -> Settlement? {
    guard case .inTheAir(let ask, _) = state, ask.heir == heir, ask.number == number else { return nil }
    state = .answered(heir: heir, number: number)
    return .taken
  }

  /// Time has passed.
  ///
  /// - Parameter patienceNs: how long a batch may be in the air.
  mutating func look(nowNs: UInt64, patienceNs: UInt64) -> Settlement? {
    guard case .inTheAir(_, let sinceNs) = state, nowNs &- sinceNs >= patienceNs else { return nil }
    return stop()
  }

  /// What is in the air comes down now.
  mutating func stop() -> Settlement? {
    guard case .inTheAir(let ask, _) = state else { return nil }
    state = .answered(heir: ask.heir, number: ask.number)
    return .takenBack
  }
}
