// The table of numbers in a status page.
//
// A new entry is written behind the last one and becomes visible when the count is stored with release order; from
// then on only its value changes. A worker that dies before that leaves nothing.

import CLinux

extension StatusPage {
  /// The number called `name` with `labels`, found or created; call it once and keep the result.
  ///
  /// - Returns: nil when the table (4096 entries) is full, or the series' text (`name{a="b"}`, escaped) has more than
  ///   200 bytes or control characters. An entry of the other kind, left by another release, becomes one of this
  ///   kind and begins at 0.
  public func metric(_ kind: MetricKind, _ name: String, labels: [(String, String)] = []) -> Metric? {
    let series = MetricSeries.text(name, labels)
    return known.withLock { known in
      if let index = known[series] {
        let entry = base + StatusLayout.entry(index)
        if Self.kind(of: rig_load_relaxed(entry + StatusLayout.kindOffset)) != kind {
          rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
          rig_store_release(
            entry + StatusLayout.kindOffset, Self.description(kind, keyBytes: series.utf8.count))
        }
        return Metric(word: entry + StatusLayout.valueOffset, memory: memory)
      }
      guard let index = append(kind, series) else { return nil }
      known[series] = index
      return Metric(word: base + StatusLayout.entry(index) + StatusLayout.valueOffset, memory: memory)
    }
  }

  /// Every number on the page, in the order of creation.
  public func metrics() -> [(kind: MetricKind, series: String, value: Int64)] {
    let count = Self.count(in: base)
    var metrics: [(kind: MetricKind, series: String, value: Int64)] = []
    metrics.reserveCapacity(count)
    for index in 0..<count {
      guard let (kind, series) = Self.key(ofEntry: index, in: base) else { continue }
      let value = rig_load_relaxed(base + StatusLayout.entry(index) + StatusLayout.valueOffset)
      metrics.append((kind, series, Int64(bitPattern: value)))
    }
    return metrics
  }

  func resetGauges() {
    for index in 0..<Self.count(in: base) {
      let entry = base + StatusLayout.entry(index)
      guard Self.kind(of: rig_load_relaxed(entry + StatusLayout.kindOffset)) == .gauge else { continue }
      rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
    }
  }

  /// The entries that can be true, by series. The first of two with the same series counts.
  static func entries(in base: UnsafeMutableRawPointer, count: Int) -> [String: Int] {
    var entries: [String: Int] = [:]
    for index in 0..<count {
      guard let (_, series) = key(ofEntry: index, in: base), entries[series] == nil else { continue }
      entries[series] = index
    }
    return entries
  }

  private func append(_ kind: MetricKind, _ series: String) -> Int? {
    var key = series
    return key.withUTF8 { bytes -> Int? in
      let index = Self.count(in: base)
      guard index < StatusLayout.maximumEntries, Self.isSeries(UnsafeRawBufferPointer(bytes)) else {
        return nil
      }
      let entry = base + StatusLayout.entry(index)
      rig_store_relaxed(entry + StatusLayout.valueOffset, 0)
      rig_store_relaxed(entry + StatusLayout.kindOffset, Self.description(kind, keyBytes: bytes.count))
      UnsafeMutableRawBufferPointer(
        start: entry + StatusLayout.keyOffset, count: StatusLayout.maximumKeyBytes
      ).copyMemory(from: UnsafeRawBufferPointer(bytes))
      rig_store_release(base + StatusLayout.countOffset, UInt64(index + 1))
      return index
    }
  }

  private static func count(in base: UnsafeMutableRawPointer) -> Int {
    let count = rig_load_acquire(base + StatusLayout.countOffset)
    return Int(min(count, UInt64(StatusLayout.maximumEntries)))
  }

  /// An entry's second word.
  private static func description(_ kind: MetricKind, keyBytes: Int) -> UInt64 {
    UInt64(kind.rawValue) | UInt64(keyBytes) << 16
  }

  private static func kind(of description: UInt64) -> MetricKind? {
    MetricKind(rawValue: UInt8(truncatingIfNeeded: description))
  }

  /// Kind and series of an entry below the count; nil if they can't be true.
  private static func key(
    ofEntry index: Int, in base: UnsafeMutableRawPointer
  ) -> (kind: MetricKind, series: String)? {
    let entry = base + StatusLayout.entry(index)
    let description = rig_load_acquire(entry + StatusLayout.kindOffset)
    let length = Int(truncatingIfNeeded: description >> 16)
    guard let kind = kind(of: description), length <= StatusLayout.maximumKeyBytes, length >= 0 else {
      return nil
    }
    // A private copy: what is checked is what is used.
    let copy = [UInt8](UnsafeRawBufferPointer(start: entry + StatusLayout.keyOffset, count: length))
    guard copy.withUnsafeBytes(isSeries), let series = String(validating: copy, as: UTF8.self) else {
      return nil
    }
    return (kind, series)
  }

  /// Whether the bytes may be a key: 1 to 200 of them, no control characters (a line feed would end the line of
  /// /metrics).
  private static func isSeries(_ bytes: UnsafeRawBufferPointer) -> Bool {
    !bytes.isEmpty && bytes.count <= StatusLayout.maximumKeyBytes
      && bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
  }
}
