// Numbers in status pages are whole; these names hold parts of their unit as nanoseconds.

public enum MetricScale {
  /// What the stored value of a series has to be divided by to be in the unit that its name says.
  public static func divisor(ofSeriesNamed name: Substring) -> Double {
    if name.hasSuffix("_seconds_sum") || name.hasSuffix("_seconds_total")
      || name.hasSuffix("_longest_seconds")
    {
      return 1e9
    }
    if name.hasSuffix("_milliseconds_sum") { return 1e6 }
    return 1
  }
}
