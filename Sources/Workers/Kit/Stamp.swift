// The time and the identity of an event that the worker itself makes. They come in as values, so that tests choose
// them; `now()` is the edge.

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

/// The `id` and `time` of an own event.
public struct Stamp: Equatable, Sendable {
  /// Milliseconds since 1970-01-01T00:00:00Z.
  public let unixMs: Int64
  /// 128 random bits; version and variant are set when it is written.
  public let high: UInt64
  public let low: UInt64

  public init(unixMs: Int64, high: UInt64, low: UInt64) {
    self.unixMs = unixMs
    self.high = high
    self.low = low
  }

  /// A new identity at the present time.
  public static func now() -> Stamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Stamp(
      unixMs: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000,
      high: .random(in: 0 ... .max), low: .random(in: 0 ... .max))
  }

  /// UUID version 4 (RFC 9562 §5.4), lower case.
  public var uuid: String { Self.text { appendUUID(to: &$0) } }

  /// RFC 3339 in UTC with milliseconds: `2026-02-28T23:59:59.042Z`. Years 0000 to 9999; times outside are clamped.
  public var rfc3339: String { Self.text { appendRFC3339(to: &$0) } }

  /// Appends the beginning of an event of the gateway's own, which the caller goes on with or closes:
  ///
  ///     {"specversion":"1.0","type":"<type>","source":"rig","id":"<uuid>","time":"<RFC 3339>"
  public func appendEvent(ofType type: String, to json: inout [UInt8]) {
    json.append(contentsOf: #"{"specversion":"1.0","type":""#.utf8)
    json.append(contentsOf: type.utf8)
    json.append(contentsOf: #"","source":"rig","id":""#.utf8)
    appendUUID(to: &json)
    json.append(contentsOf: #"","time":""#.utf8)
    appendRFC3339(to: &json)
    json.append(UInt8(ascii: "\""))
  }

  private func appendUUID(to text: inout [UInt8]) {
    let high = (self.high & ~0xF000) | 0x4000
    let low = (self.low & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000
    for index in 0..<32 {
      if index == 8 || index == 12 || index == 16 || index == 20 { text.append(UInt8(ascii: "-")) }
      let word = index < 16 ? high : low
      let digit = UInt8(truncatingIfNeeded: word >> UInt64(60 - 4 * (index % 16)) & 0xF)
      text.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + (digit - 10))
    }
  }

  private func appendRFC3339(to text: inout [UInt8]) {
    let millisecondsPerDay: Int64 = 86_400_000
    let clamped = min(max(unixMs, -62_167_219_200_000), 253_402_300_799_999)
    var days = clamped / millisecondsPerDay
    var rest = clamped % millisecondsPerDay
    if rest < 0 {
      rest += millisecondsPerDay
      days -= 1
    }
    let date = CivilDate(daysSinceEpoch: days)
    Self.append(date.year, 1000, to: &text, UInt8(ascii: "-"))
    Self.append(date.month, 10, to: &text, UInt8(ascii: "-"))
    Self.append(date.day, 10, to: &text, UInt8(ascii: "T"))
    Self.append(rest / 3_600_000, 10, to: &text, UInt8(ascii: ":"))
    Self.append(rest / 60_000 % 60, 10, to: &text, UInt8(ascii: ":"))
    Self.append(rest / 1000 % 60, 10, to: &text, UInt8(ascii: "."))
    Self.append(rest % 1000, 100, to: &text, UInt8(ascii: "Z"))
  }

  /// Appends decimal digits, the first of them worth `unit`, and an octet behind them.
  private static func append(_ value: Int64, _ unit: Int64, to text: inout [UInt8], _ end: UInt8) {
    var unit = unit
    while unit > 0 {
      text.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / unit % 10))
      unit /= 10
    }
    text.append(end)
  }

  private static func text(_ append: (inout [UInt8]) -> Void) -> String {
    var text: [UInt8] = []
    append(&text)
    return String(decoding: text, as: UTF8.self)
  }
}
