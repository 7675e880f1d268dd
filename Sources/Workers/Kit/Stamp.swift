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
  public var uuid: String {
    let high = (self.high & ~0xF000) | 0x4000
    let low = (self.low & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000
    let digits = Self.hex(high) + Self.hex(low)
    var text: [UInt8] = []
    for (index, digit) in digits.enumerated() {
      if [8, 12, 16, 20].contains(index) { text.append(UInt8(ascii: "-")) }
      text.append(digit)
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// RFC 3339 in UTC with milliseconds: `2026-02-28T23:59:59.042Z`. Years 0000 to 9999; times outside are clamped.
  public var rfc3339: String {
    let millisecondsPerDay: Int64 = 86_400_000
    let clamped = min(max(unixMs, -62_167_219_200_000), 253_402_300_799_999)
    var days = clamped / millisecondsPerDay
    var rest = clamped % millisecondsPerDay
    if rest < 0 {
      rest += millisecondsPerDay
      days -= 1
    }
    let date = CivilDate(daysSinceEpoch: days)
    return Self.padded(date.year, 4) + "-" + Self.padded(date.month, 2) + "-" + Self.padded(date.day, 2) + "T"
      + Self.padded(rest / 3_600_000, 2) + ":" + Self.padded(rest / 60_000 % 60, 2) + ":"
      + Self.padded(rest / 1000 % 60, 2) + "." + Self.padded(rest % 1000, 3) + "Z"
  }

  private static func padded(_ value: Int64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
  }

  private static func hex(_ value: UInt64) -> [UInt8] {
    let digits = Array(String(value, radix: 16).utf8)
    return [UInt8](repeating: UInt8(ascii: "0"), count: 16 - digits.count) + digits
  }
}
