// What a connection's socket did not take, in order: events, and what the gateway says itself.
//
//   items   [ event 7 ][ event 8 ][ event 9 ] …
//             ^ offset: bytes of the first item that the kernel (or NIO) already has
//
// An item is one whole event and is shared by reference between all connections that wait for it: a thousand slow
// clients hold one copy. An event that has been begun must be completed (half an SSE event or half a frame would
// corrupt the stream), so dropping leaves the begun one in place. Pure: it moves no bytes itself.

import Kit

struct Backlog {
  /// What one waiting item costs besides its bytes: the object and its entry. Counted, so that many tiny events are
  /// bounded as well as a few large ones.
  static let itemOverheadBytes = 64

  private var items: ContiguousArray<SharedBytes?> = []
  private var first = 0
  private var offset = 0
  /// Bytes that nobody has taken yet, with `itemOverheadBytes` for every waiting item.
  private(set) var costBytes = 0
  /// The same for what no ring holds.
  private(set) var ownCostBytes = 0

  var isEmpty: Bool { first == items.count }
  /// Number of items that are waiting, a begun one included.
  var count: Int { items.count - first }

  /// What was waiting when the newest item came. The bound is on this: one event may always wait, however large.
  var costBeforeNewest: Int {
    guard count > 1, case let newest?? = items.last else { return 0 }
    return costBytes - newest.count - Self.itemOverheadBytes
  }

  /// Bytes that nobody has taken yet.
  var byteCount: Int { costBytes - count * Self.itemOverheadBytes }

  /// The same, in order.
  var bytes: [UInt8] {
    [UInt8](unsafeUninitializedCapacity: byteCount) { target, count in
      copy(to: UnsafeMutableRawBufferPointer(target))
      count = target.count
    }
  }

  /// Copies them to memory of `byteCount` bytes.
  func copy(to target: UnsafeMutableRawBufferPointer) {
    var rest = target
    forEachStretch(atMost: count) { stretch in
      rest.copyMemory(from: stretch)
      rest = UnsafeMutableRawBufferPointer(rebasing: rest[stretch.count...])
    }
  }

  /// Adds an event. `sent`: how many of its bytes have gone out already, 0 unless nothing is waiting.
  mutating func append(_ item: SharedBytes, sent: Int = 0) {
    assert(sent == 0 || isEmpty, "only the first item can have been begun")
    guard sent < item.count else { return }
    if isEmpty { offset = sent }
    items.append(item)
    account(for: item, item.count - sent + Self.itemOverheadBytes)
  }

  private mutating func account(for item: SharedBytes, _ bytes: Int) {
    costBytes += bytes
    if !item.isInRing { ownCostBytes += bytes }
  }

  /// Forgets every event of which nothing has gone out and that a ring holds. The number of events that were dropped.
  ///
  /// - Parameter lent: bytes in front that are on their way out: what they are of has begun.
  @discardableResult
  mutating func dropEvents(lent: Int = 0) -> Int {
    var begun = first
    var rest = offset + lent
    while rest > 0, begun < items.count {
      rest -= items[begun]?.count ?? 0
      begun += 1
    }
    let before = items.count
    let kept = items[begun...].filter { $0?.isInRing == false }
    for case let item? in items[begun...] where item.isInRing {
      account(for: item, -item.count - Self.itemOverheadBytes)
    }
    items.replaceSubrange(begun..., with: kept)
    if isEmpty { reset() }
    return before - begun - kept.count
  }

  /// Calls `body` with each waiting stretch of bytes, in order, at most `limit` of them. The addresses are good until
  /// the backlog is next changed.
  func forEachStretch(atMost limit: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
    var start = offset
    for item in items[first...].prefix(limit) {
      if let item { body(UnsafeRawBufferPointer(rebasing: item.bytes[start...])) }
      start = 0
    }
  }

  /// Notes that `count` bytes, in order, have been taken.
  mutating func advance(by count: Int) {
    var rest = count
    while rest > 0, first < items.count, let item = items[first] {
      let left = item.count - offset
      if rest < left {
        offset += rest
        account(for: item, -rest)
        break
      }
      rest -= left
      account(for: item, -left - Self.itemOverheadBytes)
      items[first] = nil
      first += 1
      offset = 0
    }
    if isEmpty { reset() } else { compact() }
  }

  /// Emptied entries in front before it is worth moving the rest.
  private static let compactionThreshold = 256

  private mutating func compact() {
    guard first >= Self.compactionThreshold, first * 2 > items.count else { return }
    items.removeFirst(first)
    first = 0
  }

  /// Gives the memory back too: most connections never wait again.
  private mutating func reset() {
    items = []
    first = 0
    offset = 0
    costBytes = 0
    ownCostBytes = 0
  }

  // MARK: Encoding

  /// bytes of the first that have gone out, 4 | count, 4 | is in a ring, 1, bytes …
  func encode(into fields: inout FieldWriter) {
    fields.append(UInt32(clamping: offset))
    fields.append(UInt32(clamping: count))
    for case let item? in items[first...] {
      fields.append(UInt8(item.isInRing ? 1 : 0))
      fields.append(Array(item.bytes))
    }
  }

  init() {}

  /// nil: it is none.
  init?(_ fields: inout FieldReader) {
    guard let sent = fields.number(UInt32.self), let count = fields.number(UInt32.self) else { return nil }
    for number in 0..<count {
      guard let isInRing = fields.flag(), let bytes = fields.data(), !bytes.isEmpty,
        number > 0 || Int(sent) < bytes.count
      else { return nil }
      let item = bytes.withUnsafeBytes { SharedBytes(copying: $0, isInRing: isInRing) }
      append(item, sent: number == 0 ? Int(sent) : 0)
    }
  }
}

/// The bytes of one event, or of something else that is said, that had to be kept because a socket did not take them.
///
/// Made at most once per event and encoding in a turn, then referred to by every connection that waits for it.
/// The address is stable for the life of the object, so that it can stand in an iovec.
final class SharedBytes {
  let bytes: UnsafeRawBufferPointer
  /// Whether an event ring holds it too, so that it can be had again.
  let isInRing: Bool

  /// Copies `source`.
  init(copying source: UnsafeRawBufferPointer, isInRing: Bool) {
    self.isInRing = isInRing
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 1)
    memory.copyMemory(from: source)
    bytes = UnsafeRawBufferPointer(memory)
  }

  deinit { bytes.deallocate() }

  var count: Int { bytes.count }
}
