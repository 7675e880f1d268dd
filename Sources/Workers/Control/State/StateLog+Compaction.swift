// Moves clean towards the tail: the oldest records are dropped, or repeated where they are still true.
//
// With every record a few times its bytes are walked, so that room comes back before it is needed: at most three quarters
// of the region are alive, so that eight bytes walked for each that is written win more than they cost. A repetition is
// published before clean passes the original, hence before head can.

import IPC
import Kit

extension StateLog {
  /// Bytes walked for each byte that is written.
  private static let pace = 8

  /// Makes room for a record of `size` bytes. False: there is none, because a reader lags or the ring is damaged.
  func compact(for size: Int, now: UInt32) -> Bool {
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
