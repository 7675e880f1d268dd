// The state ring as a log that holds what is true: which sessions are dead and until when, which users are online with which
// roles, which APIs are defined. Whoever reads the retained records from their beginning knows it, also after this process was killed at any place.
//
//        head            clean                                   position
//   ------+----------------+----------------------------------------+-------->  positions
//         | dead, or       | the newest record of everything that   |
//         | repeated later | is true, between records that aren't   |
//                          |<------------ ≤ 7/8 capacity ---------->|
//
// Head follows the position at a distance of at least 15/16 of the capacity, because a record has at most a 64th of it. So
// head never passes clean, and nothing that is true is lost. A record is repeated only if it is the newest about its
// key: the copies of one thing don't multiply.

import IPC
import Kit
import Links

final class StateLog {
  /// What became of something that was to be kept or said.
  enum Outcome: Equatable {
    /// It is published, or was before; readers that have passed `end` know it.
    case kept(end: UInt64)
    /// A reader leaves no room now.
    case full
    /// There is no place for one more.
    case tooMany
  }

  struct BlacklistEntry {
    /// Seconds of the boot clock.
    var until: UInt32
    /// End of its newest record: readers that have passed it know it.
    var end: UInt64
  }

  private struct OnlineUser {
    var roles: [String]
    var end: UInt64
    /// Of its record in the ring.
    var bytes: Int
  }

  struct KeptAPI {
    /// Place in the order of creation.
    var order: UInt64
    var json: [UInt8]
    var end: UInt64
    /// Of its record in the ring.
    var bytes: Int
  }

  let ring: RingWriter
  private let limits: StateLimits
  private(set) var sessions: [SessionDigest: BlacklistEntry] = [:]
  private var users: [Name: OnlineUser] = [:]
  private(set) var apis: [Name: KeptAPI] = [:]
  /// Bytes of the newest records of all that is kept; of them those of users and of APIs.
  private var liveBytes: Int { sessions.count * StateLimits.blacklistBytes + userBytes + apiBytes }
  private var userBytes = 0
  private var apiBytes = 0
  /// Records before it are dead or repeated.
  private(set) var clean: UInt64
  /// The ring can't be walked: somebody has scribbled over it. Nothing more is written.
  private(set) var failure: IPCError?
  /// Whether there was nothing in the ring when this writer began: the gateway's first, or formatted anew.
  private(set) var isNew = true
  /// End of the last record.
  private var lastEnd: UInt64
  /// No entry expires before.
  private var nextExpiry = UInt32.max

  /// Continues the log of whoever wrote before.
  ///
  /// - Parameter now: seconds of the boot clock, as for every `now` and `until` here.
  init(_ ring: RingWriter, maxBlacklistEntries: Int, now: UInt32) throws(IPCError) {
    self.ring = ring
    limits = StateLimits(capacity: ring.capacity, maxBlacklistEntries: maxBlacklistEntries)
    clean = ring.oldestRetained
    lastEnd = ring.oldestRetained
    var last = lastEnd
    try ring.forEachRetained { record in
      last = record.end
      isNew = false
      if let said = try? StateRecord(type: record.type, record.bytes) {
        learn(said, end: record.end, bytes: StateLimits.bytes(payload: record.bytes.count), now: now)
      }
    }
    lastEnd = last
  }

  private func learn(_ record: StateRecord, end: UInt64, bytes: Int, now: UInt32) {
    switch record {
    case .blacklisted(let session, let until):
      if until > now, until >= sessions[session]?.until ?? 0 { keep(session, until: until, end: end) }
    case .online(let user, let roles):
      keep(Name(user), OnlineUser(roles: roles, end: end, bytes: bytes))
    case .offline(let user):
      forget(Name(user))
    case .apiDefined(let id, let order, let json):
      keep(Name(id), KeptAPI(order: order, json: json, end: end, bytes: bytes))
    case .apiRemoved(let id): forgetAPI(Name(id))
    case .apisForgotten:
      apis = [:]
      apiBytes = 0
    case .closeUser, .closeConnection, .reportConnections: break
    }
  }

  private func keep(_ session: SessionDigest, until: UInt32, end: UInt64) {
    sessions[session] = BlacklistEntry(until: until, end: end)
    nextExpiry = min(nextExpiry, until)
  }

  private func keep(_ user: Name, _ online: OnlineUser) {
    userBytes += online.bytes - (users.updateValue(online, forKey: user)?.bytes ?? 0)
  }

  private func forget(_ user: Name) {
    userBytes -= users.removeValue(forKey: user)?.bytes ?? 0
  }

  private func keep(_ id: Name, _ api: KeptAPI) {
    apiBytes += api.bytes - (apis.updateValue(api, forKey: id)?.bytes ?? 0)
  }

  private func forgetAPI(_ id: Name) {
    apiBytes -= apis.removeValue(forKey: id)?.bytes ?? 0
  }

  // MARK: What is kept

  /// Until when the session's tokens are dead; nil: they aren't at `now`.
  func blacklisted(_ session: SessionDigest, now: UInt32) -> UInt32? {
    sessions[session].flatMap { $0.until > now ? $0.until : nil }
  }

  /// Users that are online and their roles.
  var online: [(user: Name, roles: [String])] { users.map { ($0.key, $0.value.roles) } }

  // MARK: Changes

  /// The session's tokens are dead until `until`; an earlier time than the one known changes nothing.
  func blacklist(_ session: SessionDigest, until: UInt32, now: UInt32) -> Outcome {
    if let known = sessions[session] {
      if known.until >= until { return .kept(end: known.end) }
    } else if !hasRoom(forEntryAt: now) {
      return .tooMany
    }
    guard let end = append(.blacklisted(session, until: until), now: now) else { return .full }
    keep(session, until: until, end: end)
    return .kept(end: end)
  }

  private func hasRoom(forEntryAt now: UInt32) -> Bool {
    if isFull { dropExpired(now: now) }
    return !isFull
  }

  private var isFull: Bool {
    sessions.count >= limits.maxBlacklistEntries
      || liveBytes + StateLimits.blacklistBytes > limits.liveBytes
  }

  /// The user has connections. Roles that don't fit a record are left out, the last first.
  func setOnline(_ user: Name, roles: [String], now: UInt32) -> Outcome {
    var roles = roles
    var record = StateRecord.online(user: user.text, roles: roles)
    while !roles.isEmpty, StateLimits.bytes(payload: record.encoded.count) > limits.recordBytes {
      roles.removeLast((roles.count + 1) / 2)
      record = .online(user: user.text, roles: roles)
    }
    let known = users[user]
    if let known, Self.areSame(known.roles, roles) { return .kept(end: known.end) }
    let bytes = StateLimits.bytes(payload: record.encoded.count)
    let growth = bytes - (known?.bytes ?? 0)
    guard bytes <= limits.recordBytes, userBytes + growth <= limits.userBytes,
      liveBytes + growth <= limits.liveBytes
    else { return .tooMany }
    guard let end = append(record, now: now) else { return .full }
    keep(user, OnlineUser(roles: roles, end: end, bytes: bytes))
    return .kept(end: end)
  }

  private static func areSame(_ a: [String], _ b: [String]) -> Bool {
    a.elementsEqual(b) { $0.utf8.elementsEqual($1.utf8) }
  }

  /// The user has gone.
  func setOffline(_ user: Name, now: UInt32) -> Outcome {
    guard users[user] != nil else { return .kept(end: lastEnd) }
    guard let end = append(.offline(user: user.text), now: now) else { return .full }
    forget(user)
    return .kept(end: end)
  }

  /// The API is defined, from now on or anew. `.tooMany`: the definition is too large, or there are too many.
  func setAPI(_ id: Name, order: UInt64, json: [UInt8], now: UInt32) -> Outcome {
    let record = StateRecord.apiDefined(id: id.text, order: order, json: json)
    let bytes = StateLimits.bytes(payload: record.encoded.count)
    let growth = bytes - (apis[id]?.bytes ?? 0)
    guard bytes <= limits.recordBytes, apiBytes + growth <= limits.apiBytes,
      liveBytes + growth <= limits.liveBytes
    else { return .tooMany }
    guard let end = append(record, now: now) else { return .full }
    keep(id, KeptAPI(order: order, json: json, end: end, bytes: bytes))
    return .kept(end: end)
  }

  /// The bytes that the definition will take, if they fit with `promised` ones of others; nil: they don't.
  func room(forAPI id: Name, order: UInt64, json: [UInt8], promised: Int) -> Int? {
    let record = StateRecord.apiDefined(id: id.text, order: order, json: json)
    let bytes = StateLimits.bytes(payload: record.encoded.count)
    let growth = bytes - (apis[id]?.bytes ?? 0)
    guard bytes <= limits.recordBytes, apiBytes + promised + growth <= limits.apiBytes,
      liveBytes + promised + growth <= limits.liveBytes
    else { return nil }
    return bytes
  }

  func removeAPI(_ id: Name, now: UInt32) -> Outcome {
    guard apis[id] != nil else { return .kept(end: lastEnd) }
    guard let end = append(.apiRemoved(id: id.text), now: now) else { return .full }
    forgetAPI(id)
    return .kept(end: end)
  }

  /// Says something that isn't kept.
  func say(_ record: StateRecord, now: UInt32) -> Outcome {
    guard StateLimits.bytes(payload: record.encoded.count) <= limits.recordBytes else { return .tooMany }
    return append(record, now: now).map { .kept(end: $0) } ?? .full
  }

  /// Forgets entries that have expired, if there can be some. Takes some 20 ns for each entry.
  func dropExpired(now: UInt32) {
    guard nextExpiry <= now else { return }
    sessions = sessions.filter { $0.value.until > now }
    nextExpiry = sessions.values.lazy.map(\.until).min() ?? .max
  }

  private func append(_ record: StateRecord, now: UInt32) -> UInt64? {
    let payload = record.encoded
    guard compact(for: StateLimits.bytes(payload: payload.count), now: now) else { return nil }
    let appended = ring.append(type: record.type, length: payload.count) { $0.copyBytes(from: payload) }
    guard case .appended(_, let end) = appended else { return nil }
    ring.publish()
    lastEnd = end
    return end
  }

  // MARK: Compaction

  // Moves clean towards the tail: the oldest records are dropped, or repeated where they are still true.
  //
  // With every record a few times its bytes are walked, so that room comes back before it is needed: at most three quarters
  // of the region are alive, so that eight bytes walked for each that is written win more than they cost. A repetition is
  // published before clean passes the original, hence before head can.

  /// Bytes walked for each byte that is written.
  private static let pace = 8

  /// Makes room for a record of `size` bytes. False: there is none, because a reader lags or the ring is damaged.
  private func compact(for size: Int, now: UInt32) -> Bool {
    guard failure == nil else { return false }
    var walked = 0
    while true {
      let region = Int(ring.appendedEnd - clean) + size
      let isUrgent = region > limits.regionBytes
      guard isUrgent || (region > limits.calmBytes && walked < size * Self.pace) else { return true }
      do throws(IPCError) {
        guard let record = try ring.retained(from: clean) else { return true }
        let end = record.end
        guard settle(record, now: now) else { return !isUrgent }
        walked += Int(end - clean)
        clean = end
      } catch {
        failure = error
        return false
      }
    }
  }

  /// Repeats the record if it is still true. False: there is no room for that.
  private func settle(_ record: RingRecord, now: UInt32) -> Bool {
    guard let said = try? StateRecord(type: record.type, record.bytes) else { return true }
    switch said {
    case .blacklisted(let session, _):
      guard let entry = sessions[session], entry.end == record.end else { return true }
      guard entry.until > now else {
        sessions[session] = nil
        return true
      }
      guard let end = `repeat`(record) else { return false }
      sessions[session]?.end = end
    case .online(let user, _):
      let name = Name(user)
      guard let online = users[name], online.end == record.end else { return true }
      guard let end = `repeat`(record) else { return false }
      users[name]?.end = end
    case .apiDefined(let id, _, _):
      let name = Name(id)
      guard let api = apis[name], api.end == record.end else { return true }
      guard let end = `repeat`(record) else { return false }
      apis[name]?.end = end
    case .offline, .apiRemoved, .apisForgotten, .closeUser, .closeConnection, .reportConnections: break
    }
    return true
  }

  private func `repeat`(_ record: RingRecord) -> UInt64? {
    let appended = ring.append(type: record.type, length: record.bytes.count) {
      $0.copyMemory(from: record.bytes)
    }
    guard case .appended(_, let end) = appended else { return nil }
    ring.publish()
    return end
  }
}

/// How much the state log keeps, as shares of its ring. See the picture in StateLog.
struct StateLimits {
  private static let headerBytes = 16
  private static let alignment = 8
  private static let blacklistPayload = 20

  /// Bytes of a blacklist entry's record.
  static let blacklistBytes = bytes(payload: blacklistPayload)

  /// The largest record, header included.
  let recordBytes: Int
  /// From clean to the end of the last record.
  let regionBytes: Int
  /// From this length of the region on it is compacted a little with every record.
  let calmBytes: Int
  /// The newest records of everything that is kept: with more, compaction would find little to drop.
  let liveBytes: Int
  /// Of them those of users: however many are online, the blacklist has its half.
  let userBytes: Int
  /// Of them those of APIs.
  let apiBytes: Int
  let maxBlacklistEntries: Int

  init(capacity: Int, maxBlacklistEntries: Int) {
    recordBytes = capacity / 64
    regionBytes = capacity / 8 * 7
    calmBytes = capacity / 2
    liveBytes = regionBytes / 4 * 3
    userBytes = liveBytes / 2
    apiBytes = liveBytes / 4
    self.maxBlacklistEntries = maxBlacklistEntries
  }

  /// Bytes that a record takes in the ring.
  static func bytes(payload: Int) -> Int {
    (headerBytes + payload + alignment - 1) / alignment * alignment
  }
}

/// A user's or role's name as a key: equal if its bytes are. Swift's own strings are also equal if they look the same, and
/// two users must never become one.
struct Name: Hashable, Comparable {
  let text: String

  init(_ text: String) { self.text = text }

  static func == (a: Name, b: Name) -> Bool { a.text.utf8.elementsEqual(b.text.utf8) }

  static func < (a: Name, b: Name) -> Bool { a.text.utf8.lexicographicallyPrecedes(b.text.utf8) }

  func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
  }
}
