// The restart intensity of a node, or of one of its children, as a sliding window: the moments of its latest restarts, never more of them
// than are allowed. Storage is reserved once; recording a restart allocates nothing.

/// Counts restarts within a period, as OTP's `add_restart` does: a restart belongs to the window as long as
/// `now <= then + period`.
struct RestartWindow: Sendable {
  let intensity: Int
  let period: Nanoseconds
  /// Oldest first, at most `intensity`.
  private var moments: [Nanoseconds] = []

  init(intensity: Int, period: Nanoseconds) {
    self.intensity = intensity
    self.period = period
    moments.reserveCapacity(intensity)
  }

  /// Records one restart. False when that is one more than allowed; the node must then give up.
  mutating func admit(at now: Nanoseconds) -> Bool {
    let expired = moments.prefix { moment in
      let (end, overflow) = moment.addingReportingOverflow(period)
      return !overflow && end < now
    }
    moments.removeFirst(expired.count)
    guard moments.count < intensity else { return false }
    moments.append(now)
    return true
  }

  /// Restarts recorded and not yet known to be expired.
  var count: Int { moments.count }

  /// A node that starts anew has no past.
  mutating func clear() {
    moments.removeAll(keepingCapacity: true)
  }
}
