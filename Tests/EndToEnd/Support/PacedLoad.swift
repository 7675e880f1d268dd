// Load at an even rate, in the one thread that also reads for all clients.

extension ClientFleet {
  /// Publishes the numbered events of `numbers`, evenly spaced as far as the machine keeps up, and reads meanwhile.
  ///
  /// - Parameter faults: what is done before a number is published.
  func pump(
    publishing numbers: Range<Int>, perSecond rate: Int, faults: [Int: () throws -> Void] = [:],
    _ publish: (Int) throws -> Void
  ) throws {
    let start = Deadline.now
    let interval = 1_000_000_000 / UInt64(rate)
    for number in numbers {
      try faults[number]?()
      try publish(number)
      let due = start + UInt64(number - numbers.lowerBound + 1) * interval
      let now = Deadline.now
      try pump(until: Deadline(after: due > now ? Double(due - now) / 1e9 : 0))
    }
  }

  /// The members' accounts that are not as they should be, for the message of an expectation.
  var flaws: [Int: Account] {
    Dictionary(uniqueKeysWithValues: accounts.enumerated().filter { !$1.isFlawless }.map { ($0, $1) })
  }
}
