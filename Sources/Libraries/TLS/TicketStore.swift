// Sessions that a client may resume, by target: bounded in targets and in sessions for each.
//
// One of TLS 1.3 is taken away by who uses it, since whoever sees it twice knows that it is the same client (RFC 8446 §C.4); one of
// TLS 1.2 serves until a newer one comes.

import COpenSSL

/// Owns OpenSSL's object.
final class TLSTicket {
  let session: OpaquePointer
  /// When the server's certificate was believed, in seconds since 1970.
  let certificateSeconds: Int

  /// - Parameter session: a reference that is this one's from here on.
  init(taking session: OpaquePointer, certificateSeconds: Int) {
    self.session = session
    self.certificateSeconds = certificateSeconds
  }

  deinit { SSL_SESSION_free(session) }

  fileprivate var isForOneUse: Bool { SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION }
  fileprivate var isGood: Bool { SSL_SESSION_is_resumable(session) == 1 }
}

struct TicketStore {
  /// Of one more the target is forgotten that got its last ticket longest ago.
  static let mostTargets = 256
  /// A server of TLS 1.3 mostly gives two with each handshake; of more the oldest goes.
  static let mostPerTarget = 4

  private struct Entry {
    var tickets: [TLSTicket] = []
    var lastGiven = 0
  }

  private var entries: [TLSTarget: Entry] = [:]
  /// Counts tickets.
  private var given = 0

  var targets: Int { entries.count }

  func count(for target: TLSTarget) -> Int { entries[target]?.tickets.count ?? 0 }

  mutating func keep(_ ticket: TLSTicket, for target: TLSTarget) {
    if entries[target] == nil, entries.count >= Self.mostTargets,
      let oldest = entries.min(by: { $0.value.lastGiven < $1.value.lastGiven })
    {
      entries[oldest.key] = nil
    }
    given += 1
    var entry = entries.removeValue(forKey: target) ?? Entry()
    entry.lastGiven = given
    if !ticket.isForOneUse { entry.tickets = [] }
    entry.tickets.append(ticket)
    if entry.tickets.count > Self.mostPerTarget { entry.tickets.removeFirst() }
    entries[target] = entry
  }

  /// The newest one whose server was believed at `seconds` or later; nil: there is none.
  mutating func take(for target: TLSTarget, issuedSince seconds: Int) -> TLSTicket? {
    guard var entry = entries.removeValue(forKey: target) else { return nil }
    entry.tickets.removeAll { !$0.isGood || $0.certificateSeconds < seconds }
    guard let ticket = entry.tickets.last else { return nil }
    if ticket.isForOneUse { entry.tickets.removeLast() }
    if !entry.tickets.isEmpty { entries[target] = entry }
    return ticket
  }

  mutating func forget(_ target: TLSTarget) { entries[target] = nil }
}
