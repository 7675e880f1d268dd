// How many of something a worker has, by key, for all other workers to see: the last part of its status page.
//
//   16,384 buckets × 8 entries of 16 bytes:   +0 key | +8 count (24 bits) · since when the oldest (40 bits)
//
// The worker alone writes. A key lies in one of two buckets, in the emptier when it was entered, so that hardly ever there is no room
// before the table is nearly full. An entry whose count is 0 is free, and its key may be replaced; a reader looks at the key before
// and behind the number, and so never takes one key's number for another's.

import CLinux
import Glibc

/// A worker's table of counts; for the worker to write and for the others to read.
public struct SharedTally: Sendable {
  /// Times up to here can be told, in whatever unit the worker uses.
  public static let latest: UInt64 = (1 << sinceBits) - 1
  public static let mostCount = (1 << 24) - 1
  private static let sinceBits: UInt64 = 40

  private let page: StatusPage

  public init(of page: StatusPage) { self.page = page }

  /// Says how many there are with `key`, and since when the oldest is there. Everything that this process reads of other tables
  /// afterwards is read after the others can see it.
  ///
  /// - Returns: false if there is no room for the key: the others know nothing of it.
  @discardableResult
  public func set(_ key: UInt64, count: Int, since: UInt64) -> Bool {
    let key = max(1, key)
    guard let entry = entry(of: key) ?? (count > 0 ? free(for: key) : nil) else { return count <= 0 }
    if rig_load_relaxed(page.base + StatusLayout.tallyUseOffset) == 0 {
      rig_store_release(page.base + StatusLayout.tallyUseOffset, 1)
    }
    if rig_load_relaxed(entry) != key { rig_store_release(entry, key) }
    let value =
      count <= 0 ? 0 : UInt64(min(count, Self.mostCount)) << Self.sinceBits | min(since, Self.latest)
    _ = rig_exchange_seq_cst(entry + StatusLayout.tallyValueOffset, value)
    return true
  }

  /// How many there are with `key`, and since when the oldest is there.
  public func read(_ key: UInt64) -> (count: Int, since: UInt64) {
    let key = max(1, key)
    guard let entry = entry(of: key) else { return (0, 0) }
    let value = rig_load_acquire(entry + StatusLayout.tallyValueOffset)
    guard rig_load_acquire(entry) == key else { return (0, 0) }
    return (Int(value >> Self.sinceBits), value & Self.latest)
  }

  private func entry(of key: UInt64) -> UnsafeMutableRawPointer? {
    for bucket in Self.buckets(key) {
      for place in 0..<StatusLayout.tallyBucketEntries {
        let entry = page.base + StatusLayout.tallyEntry(bucket, place)
        if rig_load_acquire(entry) == key { return entry }
      }
    }
    return nil
  }

  /// A free entry in the emptier of the key's buckets.
  private func free(for key: UInt64) -> UnsafeMutableRawPointer? {
    var best: (entry: UnsafeMutableRawPointer, free: Int)?
    for bucket in Self.buckets(key) {
      var free: [UnsafeMutableRawPointer] = []
      for place in 0..<StatusLayout.tallyBucketEntries {
        let entry = page.base + StatusLayout.tallyEntry(bucket, place)
        if rig_load_relaxed(entry + StatusLayout.tallyValueOffset) == 0 { free.append(entry) }
      }
      if let first = free.first, free.count > best?.free ?? 0 { best = (first, free.count) }
    }
    return best?.entry
  }

  private static func buckets(_ key: UInt64) -> [Int] {
    let mask = UInt64(StatusLayout.tallyBuckets - 1)
    return [Int(key >> 8 & mask), Int(key >> 40 & mask)]
  }
}
