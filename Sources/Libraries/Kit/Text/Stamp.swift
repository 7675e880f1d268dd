// The time and the identity of an event that the worker itself makes. They come in as values, so that tests choose
// them; `now()` is the edge.

import CLinux

/// The system's random numbers, without a system call for each.
public struct PooledRandom: RandomNumberGenerator, Sendable {
  public init() {}

  public mutating func next() -> UInt64 { rig_random() }
}

/// The `id` and `time` of an own event.
public struct Stamp: Equatable, Sendable {
  public let unixMs: Int64
  /// 128 random bits; version and variant are set when it is written.
  public let high: UInt64
  public let low: UInt64

  public init(unixMs: Int64, high: UInt64, low: UInt64) {
    self.unixMs = unixMs
    self.high = high
    self.low = low
  }

  public static func now() -> Stamp {
    Stamp(unixMs: WallClock.milliseconds(), high: rig_random(), low: rig_random())
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

/// Reads the times of RFC 3339 §5.6: 2026-01-31T12:00:00.5+02:00. By hand, so that no formatter and no locale is involved.
enum Timestamp {
  /// Milliseconds since 1970; nil for anything that isn't such a time. A leap second counts as the second before it.
  static func unixMilliseconds(_ text: String) -> Int64? {
    var reader = Reader(Array(text.utf8))
    guard let year = reader.number(4), reader.take("-"), let month = reader.number(2), reader.take("-"),
      let day = reader.number(2), reader.take("T") || reader.take("t") || reader.take(" "),
      let hour = reader.number(2), reader.take(":"), let minute = reader.number(2), reader.take(":"),
      let second = reader.number(2), let fraction = reader.fraction(), let offset = reader.offsetMinutes(),
      reader.isAtEnd
    else { return nil }
    guard (1...12).contains(month), day >= 1, day <= daysIn(month, year), hour < 24, minute < 60, second <= 60
    else {
      return nil
    }
    let days = CivilDate(year: year, month: month, day: day).daysSinceEpoch
    let minutes = (days * 24 + hour) * 60 + minute - offset
    return (minutes * 60 + min(second, 59)) * 1000 + fraction
  }

  private static func daysIn(_ month: Int64, _ year: Int64) -> Int64 {
    switch month {
    case 2: (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  private struct Reader {
    private let bytes: [UInt8]
    private var index = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { index == bytes.count }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard index < bytes.count, bytes[index] == UInt8(ascii: character) else { return false }
      index += 1
      return true
    }

    mutating func digit() -> Int64? {
      guard index < bytes.count, bytes[index] &- UInt8(ascii: "0") < 10 else { return nil }
      index += 1
      return Int64(bytes[index - 1] - UInt8(ascii: "0"))
    }

    mutating func number(_ digits: Int) -> Int64? {
      var value: Int64 = 0
      for _ in 0..<digits {
        guard let digit = digit() else { return nil }
        value = value * 10 + digit
      }
      return value
    }

    /// Milliseconds of an optional fraction, the rest cut off.
    mutating func fraction() -> Int64? {
      guard take(".") else { return 0 }
      guard let first = digit() else { return nil }
      var milliseconds = first * 100
      var weight: Int64 = 10
      while let digit = digit() {
        milliseconds += digit * weight
        weight /= 10
      }
      return milliseconds
    }

    mutating func offsetMinutes() -> Int64? {
      if take("Z") || take("z") { return 0 }
      let sign: Int64 = take("-") ? -1 : 1
      guard sign < 0 || take("+"), let hours = number(2), take(":"), let minutes = number(2), hours < 24,
        minutes < 60
      else { return nil }
      return sign * (hours * 60 + minutes)
    }
  }
}

// The calendar, by hand, so that no formatter and no locale is involved.
//
// Years are counted from March, so that the leap day is a year's last; 400 years have 146,097 days.

/// A day of the proleptic Gregorian calendar.
public struct CivilDate: Equatable, Sendable {
  private static let daysPerEra: Int64 = 146_097
  /// From 0000-03-01 to 1970-01-01.
  private static let daysToEpoch: Int64 = 719_468

  public var year: Int64
  public var month: Int64
  public var day: Int64

  public init(year: Int64, month: Int64, day: Int64) {
    self.year = year
    self.month = month
    self.day = day
  }

  /// - Parameter daysSinceEpoch: days since 1970-01-01; before it below 0.
  public init(daysSinceEpoch: Int64) {
    let days = daysSinceEpoch + Self.daysToEpoch
    let era = (days >= 0 ? days : days - (Self.daysPerEra - 1)) / Self.daysPerEra
    let dayOfEra = days - era * Self.daysPerEra
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
    year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
  }

  public var daysSinceEpoch: Int64 {
    let yearFromMarch = month <= 2 ? year - 1 : year
    let era = (yearFromMarch >= 0 ? yearFromMarch : yearFromMarch - 399) / 400
    let yearOfEra = yearFromMarch - era * 400
    let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    return era * Self.daysPerEra + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
      - Self.daysToEpoch
  }
}
