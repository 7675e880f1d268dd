// What a reader can't read. Two releases share rings during an upgrade: what another release may have written is no sign of
// damage, it is counted and passed over.
//
//   known       with flags and fields that a later release has added: they are passed over
//   unknown     a type, kind, form or version that this release doesn't have: counted in rig_unknown_records_total
//   malformed   no release writes it: the writer can't be trusted, the ring is reported

import IPC

/// Why a record, or a message in records, isn't understood.
public enum RecordFault: Error, Equatable, Sendable {
  /// Another release may have written it. `kind`: what is unknown about it, for people.
  case unknown(kind: String)
  case malformed

  /// Of a layout in a version that isn't the one of this release. Versions begin with 1.
  public static func version(_ found: UInt8, of layout: String) -> RecordFault {
    found == 0 ? .malformed : .unknown(kind: "\(layout).v\(found)")
  }
}

/// Counts on a worker's status page what it has passed over.
public final class UnknownRecords {
  private static let mostKinds = 20
  private let status: StatusPage
  private var counters: [String: LabelledCounter] = [:]

  public init(_ status: StatusPage) { self.status = status }

  /// - Parameter ring: its name.
  public func count(_ kind: String, of ring: String) {
    let counter =
      counters[ring]
      ?? LabelledCounter(
        status, "rig_unknown_records_total", labels: [("ring", ring)], label: "kind", limit: Self.mostKinds)
    counters[ring] = counter
    counter.add(1, kind)
  }
}
