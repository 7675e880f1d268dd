// A place in the gateway's event history, as a client holds it between two connections.
//
// There is one position per event ring (which one, says the ring table: the same in every worker and release), each the
// sequence number of the last record of that ring that the client is past. Sequences begin at 1, so 0 means
// "nothing of this ring yet". The text goes out in every SSE `id:` field and comes back from untrusted
// clients: parsing must never trap, and must bound what it allocates.
//
//   <epoch> "-" <position of ring 0> "-" <position of ring 1> … "-" <ring 65>     base 36, lower case
//           "~" <position of ring 66> "~" <ring 67> …
//
//   trailing rings at position 0 are left out of both lists: "k3v9x0q1z" is the beginning of history. The second list is there
//   if a kind of writer is that was added behind the connection workers; cursors of gateways without one are what they always were.
//
// The epoch is drawn at random when the gateway starts: a cursor of an earlier life is recognised and never
// misread as a place in this one.

/// The last record seen of each event ring, within one life of the gateway.
struct Cursor: Hashable, Sendable {
  /// Of the first list: streams, control, and as many connection workers as a ring has readers.
  private static let firstRings = 66
  /// Event rings a cursor can speak of: as many again as a ring has readers, for writers of kinds to come.
  static let maximumRings = firstRings + 64
  /// Longest text that is looked at: every position at its widest (13 digits and a dash), and the epoch.
  static let maximumTextBytes = 13 + maximumRings * 14

  /// Names the life of the gateway that the positions belong to.
  let epoch: UInt64
  /// Invariant: the last element isn't 0, so that equal cursors have equal arrays.
  private(set) var positions: [UInt64]

  /// A cursor at the given positions; rings that `positions` doesn't reach are at 0.
  init(epoch: UInt64, positions: [UInt64] = []) {
    self.epoch = epoch
    self.positions = positions
    dropTrailingZeros()
  }

  /// The position in one ring. Reading beyond the known rings gives 0; writing there extends the cursor.
  subscript(ring: Int) -> UInt64 {
    get { ring < positions.count ? positions[ring] : 0 }
    set {
      if ring < positions.count {
        positions[ring] = newValue
        if newValue == 0 { dropTrailingZeros() }
      } else if newValue != 0 {
        positions.append(contentsOf: repeatElement(0, count: ring - positions.count))
        positions.append(newValue)
      }
    }
  }

  /// Whether it is past everything that the other one is past, of the same life.
  func isAtLeast(_ other: Cursor) -> Bool {
    other.positions.indices.allSatisfy { self[$0] >= other[$0] }
  }

  private mutating func dropTrailingZeros() {
    while positions.last == 0 { positions.removeLast() }
  }
}

extension Cursor {
  /// Parses the text form; nil for anything that `write` can't have produced (but leading zeros are forgiven).
  init?(_ text: String) {
    var text = text
    let parsed = text.withUTF8 { Cursor.parse(UnsafeRawBufferPointer($0)) }
    guard let parsed else { return nil }
    self = parsed
  }

  private static let mark = (first: UInt8(ascii: "-"), second: UInt8(ascii: "~"))

  private static func parse(_ bytes: UnsafeRawBufferPointer) -> Cursor? {
    guard bytes.count <= maximumTextBytes else { return nil }
    let secondAt = bytes.firstIndex(of: mark.second) ?? bytes.endIndex
    guard let first = numbers(bytes[..<secondAt], mark.first, atMost: 1 + firstRings) else { return nil }
    var cursor = Cursor(epoch: first[0], positions: Array(first.dropFirst()))
    guard secondAt < bytes.endIndex else { return cursor }
    guard let second = numbers(bytes[(secondAt + 1)...], mark.second, atMost: maximumRings - firstRings)
    else {
      return nil
    }
    for (ring, position) in second.enumerated() { cursor[firstRings + ring] = position }
    return cursor
  }

  /// At least one; nil if there are more, or something else.
  private static func numbers(
    _ bytes: Slice<UnsafeRawBufferPointer>, _ mark: UInt8, atMost most: Int
  ) -> [UInt64]? {
    var numbers: [UInt64] = []
    var start = bytes.startIndex
    while true {
      let end = bytes[start...].firstIndex(of: mark) ?? bytes.endIndex
      guard numbers.count < most, let number = Base36.parse(bytes[start..<end]) else { return nil }
      numbers.append(number)
      if end == bytes.endIndex { return numbers }
      start = end + 1
    }
  }

  /// Appends the text form to `bytes`: at most `maximumTextBytes`, of characters that need no escape in SSE, JSON and URLs.
  /// Allocates nothing if there is room.
  func write(to bytes: inout [UInt8]) {
    Base36.append(epoch, to: &bytes)
    let first = positions.prefix(Self.firstRings)
    for position in first[..<((first.lastIndex { $0 != 0 } ?? -1) + 1)] {
      bytes.append(Self.mark.first)
      Base36.append(position, to: &bytes)
    }
    for position in positions.dropFirst(Self.firstRings) {
      bytes.append(Self.mark.second)
      Base36.append(position, to: &bytes)
    }
  }
}
