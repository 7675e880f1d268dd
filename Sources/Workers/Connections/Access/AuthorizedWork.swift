// What tokens have authorised and is under way: requests to services, tunnels, requests that wait for a check or for a response. It
// ends with its session, or with its token (contract §6.2). Connections are not among it: they have places of their own.
//
//   begin ─▶ under way ─┬─ finish     it is over by itself
//                       ├─ end        its session has been ended
//                       └─ sweep      its token has expired
//
// What no token has authorised never comes here. No timers: a sweep once per second, and only when something is due.

import Kit
import Links

/// Belongs to the worker's loop.
final class AuthorizedWork {
  /// Names some work that has begun.
  struct Ticket {
    fileprivate let number: UInt64
  }

  private struct Work {
    let sessions: [SessionDigest]
    /// Seconds since 1970; 0: never.
    let validUntil: UInt32
    let end: (AuthorizationEnd) -> Void
  }

  private var work: [UInt64: Work] = [:]
  private var numbers: [SessionDigest: Set<UInt64>] = [:]
  private var nextNumber: UInt64 = 1
  /// Nothing expires before this second.
  private var earliestEnd = UInt32.max

  var count: Int { work.count }

  /// Some work begins. `end` is called once, unless it is finished before.
  ///
  /// - Returns: nil for what nothing can end: it shows no token, or one that has neither session nor end.
  func begin(_ authorization: Authorization, _ end: @escaping (AuthorizationEnd) -> Void) -> Ticket? {
    let validUntil = authorization.validUntil
    guard !authorization.sessions.isEmpty || validUntil != 0 else { return nil }
    let number = nextNumber
    nextNumber += 1
    work[number] = Work(sessions: authorization.sessions, validUntil: validUntil, end: end)
    for session in authorization.sessions { numbers[session, default: []].insert(number) }
    if validUntil != 0 { earliestEnd = min(earliestEnd, validUntil) }
    return Ticket(number: number)
  }

  /// It is over by itself; later calls do nothing.
  func finish(_ ticket: Ticket?) {
    if let ticket { _ = take(ticket.number) }
  }

  /// Ends whatever the session has authorised. How much that was.
  func end(_ session: SessionDigest) -> Int {
    // Ending one may end others, or begin new ones: none of them is looked at twice.
    let ended = (numbers[session] ?? []).sorted()
    for number in ended { take(number)?.end(.sessionEnded) }
    return ended.count
  }

  /// Ends what tokens have authorised that are over at `unixSecond`. How much that was.
  func sweep(unixSecond: UInt32) -> Int {
    guard unixSecond >= earliestEnd else { return 0 }
    var ended: [UInt64] = []
    earliestEnd = .max
    for (number, work) in work where work.validUntil != 0 {
      if work.validUntil <= unixSecond {
        ended.append(number)
      } else {
        earliestEnd = min(earliestEnd, work.validUntil)
      }
    }
    for number in ended.sorted() { take(number)?.end(.tokenExpired) }
    return ended.count
  }

  private func take(_ number: UInt64) -> Work? {
    guard let found = work.removeValue(forKey: number) else { return nil }
    for session in found.sessions {
      numbers[session]?.remove(number)
      if numbers[session]?.isEmpty == true { numbers[session] = nil }
    }
    return found
  }
}
