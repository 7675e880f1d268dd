// The date of the `date` header (IMF-fixdate, RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT.
//
// Made once per second and kept, because every answer carries it.

import Glibc
import Kit

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
    let date = CivilDate(daysSinceEpoch: Int64(seconds / secondsPerDay))
    let inDay = seconds % secondsPerDay
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let month = months[Int(date.month) - 1]
    return "\(weekdays[seconds / secondsPerDay % 7]), \(two(Int(date.day))) \(month) \(date.year) "
      + "\(two(inDay / 3600)):\(two(inDay / 60 % 60)):\(two(inDay % 60)) GMT"
  }
}
