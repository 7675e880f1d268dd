// How many connections one user, and one address, may have open at the node (MAX_CONNECTIONS_PER_USER, MAX_CONNECTIONS_PER_ADDRESS).
//
//   own connections ──► ConnectionTally, exact         shown to the others in SharedTally of the own status page
//   those of the other workers ◄── their SharedTally
//
// A worker shows a new connection before it looks at the others, so that of two that count the same user at once at least one sees
// both. Who asks another worker to close one says since when its own is open, and only an older one is closed: of two that are
// opened at once one stays. While workers open some in the same instant, by clocks that differ by a turn, there may be as many too
// many, or too many closed; who opens the next ones has those closed that are still too many, a few each. One worker alone is exact.
// A worker that has died counts until the next has taken its place.
//
//   CONNECTION_LIMIT_CLOSES=oldest    one more is opened, and the oldest on the node closed, by the worker that holds it
//   CONNECTION_LIMIT_CLOSES=newest    one more is refused

import COpenSSL
import FoundationEssentials
import IPC
import Kit
import Settings

/// Belongs to the worker's loop.
final class ConnectionLimits {
  /// What connections are counted by.
  enum Subject: String, CaseIterable {
    case user
    case address

    var setting: String {
      switch self {
      case .user: "MAX_CONNECTIONS_PER_USER"
      case .address: "MAX_CONNECTIONS_PER_ADDRESS"
      }
    }

    /// Why a connection is closed for another one's sake.
    var reason: ClosingReason {
      switch self {
      case .user: .tooManyOfUser
      case .address: .tooManyOfAddress
      }
    }
  }

  /// A connection too many, and who has to close it.
  enum Excess: Equatable {
    case ours(ConnectionIndex, Subject)
    /// `since`: in ms, when the connection was opened that it has to be older than.
    case theirs(worker: UInt16, key: UInt64, since: UInt64)
  }

  /// More than allowed.
  struct Refusal: Equatable {
    let subject: Subject
    let limit: Int

    var detail: String {
      "\(limit) connections of this \(subject.rawValue) are open, the limit \(subject.setting)"
    }
  }

  let closesOldest: Bool
  private let limits: [Subject: Int]
  private let slot: Int
  private let pages: [StatusPage]
  private let tallies: [SharedTally]
  private let hash: KeyedHash
  private let unseen: Metric?
  private var tally = ConnectionTally()

  private static let seedBytes = 8
  private static let nsPerMs: UInt64 = 1_000_000
  /// Closed for the sake of one that is opened. The others' counts may be wrong, or nobody there does as it is told: what is still
  /// too many is up to the next ones that open.
  static let mostClosedPerOpening = 8

  /// nil: nothing is limited.
  ///
  /// - Parameters:
  ///   - slot: the number of this worker's seat.
  ///   - pages: status pages of the connection workers' seats, by number.
  ///   - secret: the same in all workers, so that they know keys by the same numbers, and clients don't know them.
  init?(_ settings: Settings, slot: Int, pages: [StatusPage], secret: Data) {
    limits = [.user: settings.maxConnectionsPerUser, .address: settings.maxConnectionsPerAddress].filter {
      $0.value > 0
    }
    guard !limits.isEmpty, pages.indices.contains(slot) else { return nil }
    closesOldest = settings.connectionLimitCloses == "oldest"
    self.slot = slot
    self.pages = pages
    tallies = pages.map { SharedTally(of: $0) }
    var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    let text = Array("connection limits".utf8) + Array(secret)
    SHA256(text, text.count, &digest)
    hash = KeyedHash(seed: digest.prefix(Self.seedBytes).reduce(0) { $0 << 8 | UInt64($1) })
    unseen = pages[slot].metric(.counter, "rig_connection_limit_overflows_total")
  }

  // MARK: Before a connection is opened

  /// Whether one more connection may be opened, or become another user's; always, if the oldest is closed for it.
  ///
  /// - Parameter address: nil: it is counted for its address already.
  func refusal(users: [String], address: String? = nil) -> Refusal? {
    guard !closesOldest else { return nil }
    for key in users.map({ key(.user, $0) })
      + (address.map { [key(.address, Self.network($0))] } ?? [])
    {
      let subject = Self.subject(of: key)
      if let limit = limits[subject], total(of: key) >= limit {
        return Refusal(subject: subject, limit: limit)
      }
    }
    return nil
  }

  // MARK: Connections

  /// The connection is open, from this address.
  ///
  /// - Parameter sinceNs: of the monotonic clock.
  /// - Returns: which connections are too many now; never this one.
  func opened(_ connection: ConnectionIndex, from address: String, sinceNs: UInt64) -> [Excess] {
    address.isEmpty ? [] : add(connection, key(.address, Self.network(address)), sinceNs)
  }

  /// The connection is one of `user` from now on, or has been.
  func joined(_ connection: ConnectionIndex, _ user: String, sinceNs: UInt64) -> [Excess] {
    add(connection, key(.user, user), sinceNs)
  }

  /// The connection has been told that it ends.
  func closed(_ connection: ConnectionIndex) {
    for key in tally.remove(connection) { show(key) }
  }

  /// The users of `all` that the connection isn't counted for.
  func newUsers(_ connection: ConnectionIndex, among all: [String]) -> [String] {
    let known = tally.keys(of: connection)
    return all.filter { !known.contains(key(.user, $0)) }
  }

  /// Whether the connection, which was just opened, is one too many; never, if the oldest is closed for it.
  func surplus(_ connection: ConnectionIndex) -> Subject? {
    guard !closesOldest else { return nil }
    return tally.keys(of: connection).lazy.map { (Self.subject(of: $0), $0) }
      .first { subject, key in self.total(of: key) > self.limits[subject] ?? .max }?.0
  }

  /// Another worker has opened one too many, at `since`: our oldest, if there are still too many and it was opened before; of two
  /// of the same millisecond that of the lower slot counts as the older one.
  func oldest(
    of key: UInt64, before since: UInt64, from worker: UInt16
  ) -> (connection: ConnectionIndex, subject: Subject)? {
    let subject = Self.subject(of: key)
    guard let limit = limits[subject], total(of: key) > limit, let oldest = tally.oldest(of: key),
      (oldest.since, slot) < (since, Int(worker))
    else { return nil }
    return (oldest.connection, subject)
  }

  // MARK: Counting

  private func add(_ connection: ConnectionIndex, _ key: UInt64, _ sinceNs: UInt64) -> [Excess] {
    let subject = Self.subject(of: key)
    let since = sinceNs / Self.nsPerMs
    guard let limit = limits[subject], tally.add(connection, for: key, since: since) else { return [] }
    show(key)
    guard closesOldest else { return [] }
    let count = min(total(of: key) - limit, Self.mostClosedPerOpening)
    return excess(count, of: key, for: connection, since: since)
  }

  /// The oldest `count` of a key, whoever holds them, without the connection that they go for: by workers' clocks it may be as old
  /// as another one. Several are too many where workers opened some in the same instant.
  ///
  /// Of another worker's only its oldest is known: its others count as being as old.
  private func excess(
    _ count: Int, of key: UInt64, for connection: ConnectionIndex, since: UInt64
  ) -> [Excess] {
    guard count > 0 else { return [] }
    let subject = Self.subject(of: key)
    var ours = tally.oldest(count + 1, of: key).filter { $0.connection != connection }[...]
    var theirs = others(key).filter { $0.theirs.count > 0 }.sorted { $0.theirs.since < $1.theirs.since }[...]
    var taken = 0
    var excess: [Excess] = []
    while excess.count < count {
      let next = theirs.first
      if let own = ours.first, next.map({ own.since <= $0.theirs.since }) ?? true {
        ours.removeFirst()
        excess.append(.ours(own.connection, subject))
      } else if let next {
        excess.append(.theirs(worker: UInt16(clamping: next.worker), key: key, since: since))
        taken += 1
        if taken == next.theirs.count {
          theirs.removeFirst()
          taken = 0
        }
      } else {
        break
      }
    }
    return excess
  }

  private func show(_ key: UInt64) {
    let since = tally.oldest(of: key)?.since ?? 0
    if !tallies[slot].set(key, count: tally.count(of: key), since: since) { unseen?.add() }
  }

  private func total(of key: UInt64) -> Int {
    others(key).reduce(tally.count(of: key)) { $0 + $1.theirs.count }
  }

  /// What the other workers have, but for those that are being born.
  private func others(_ key: UInt64) -> [(worker: Int, theirs: (count: Int, since: UInt64))] {
    pages.indices.filter { $0 != slot && pages[$0].state != .starting }.map { ($0, tallies[$0].read(key)) }
  }

  // MARK: Keys

  /// What is no address is counted as it is.
  private static func network(_ address: String) -> String { AddressPrefix(address)?.description ?? address }

  /// The lowest bit tells the subject.
  private func key(_ subject: Subject, _ name: String) -> UInt64 {
    let digest = Array(name.utf8).withUnsafeBytes { hash.hash($0) }
    return digest << 1 | (subject == .user ? 1 : 0)
  }

  private static func subject(of key: UInt64) -> Subject { key & 1 == 1 ? .user : .address }
}
