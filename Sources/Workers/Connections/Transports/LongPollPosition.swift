// The `last_event_id` of a long-polling client: which entries of its session it has (exact while the session lives),
// and the cursor to go on from when the session is gone.
//
//   <cursor> "." <number of the session's last entry, base 36>

struct LongPollPosition: Equatable, Sendable {
  /// Of no life of the gateway: who comes back with it without having polled is told of a loss again.
  static let unknown = LongPollPosition(cursor: Cursor(epoch: 0), entry: 0)

  /// Where the events answered so far end in the history of all rings.
  let cursor: Cursor
  /// Number of the last entry answered; entries are counted from 1, so 0 means none.
  let entry: UInt64

  init(cursor: Cursor, entry: UInt64) {
    self.cursor = cursor
    self.entry = entry
  }

  /// Parses the text form; nil for anything else. Clients that saved the value as JSON may send it with its quotes.
  init?(_ text: String) {
    var text = text[...]
    if text.count >= 2, text.hasPrefix("\""), text.hasSuffix("\"") { text = text.dropFirst().dropLast() }
    guard let dot = text.lastIndex(of: "."), let cursor = Cursor(String(text[..<dot])),
      let entry = Base36.parse(text[text.index(after: dot)...].utf8)
    else { return nil }
    self.init(cursor: cursor, entry: entry)
  }

  /// Characters that need no escape in cookies, JSON and URLs.
  var text: String {
    var bytes: [UInt8] = []
    cursor.write(to: &bytes)
    bytes.append(UInt8(ascii: "."))
    Base36.append(entry, to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
  }
}
