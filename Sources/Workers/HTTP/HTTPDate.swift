// The date of the `date` header (IMF-fixdate, RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT.
//
// Made once per second and kept, because every answer carries it. The calendar is computed by hand
// (proleptic Gregorian, days counted from 1970-01-01) so that no formatter and no locale is involved.

import Glibc

/// Keeps the current date as text. One per server, used on its loop only.
struct HTTPDate {
  private var second: Int = .min
  private var text = ""

  /// The date now.
  mutating func now() -> String {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME_COARSE, &time)
    return text(at: time.tv_sec)
  }

  /// The date at a Unix time in seconds.
  mutating func text(at unixSeconds: Int) -> String {
    if unixSeconds != second {
      second = unixSeconds
      text = Self.format(unixSeconds)
    }
    return text
  }

  private static let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]
  private static let secondsPerDay = 86400

  private static func format(_ unixSeconds: Int) -> String {
    let seconds = max(0, unixSeconds)
    let (year, month, day) = civil(daysSinceEpoch: seconds / secondsPerDay)
    let inDay = seconds % secondsPerDay
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    return "\(weekdays[seconds / secondsPerDay % 7]), \(two(day)) \(months[month - 1]) \(year) "
      + "\(two(inDay / 3600)):\(two(inDay / 60 % 60)):\(two(inDay % 60)) GMT"
  }

  /// Days to calendar date: years begin in March, so that the leap day is the last of a 400-year era's year.
  private static func civil(daysSinceEpoch: Int) -> (year: Int, month: Int, day: Int) {
    let daysPerEra = 146_097
    let shifted = daysSinceEpoch + 719_468
    let era = shifted / daysPerEra
    let dayOfEra = shifted % daysPerEra
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let marchMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
    let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day)
  }
}
