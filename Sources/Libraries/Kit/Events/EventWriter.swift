// Puts prepared events into the event ring of this worker. What is appended becomes visible with `publish`, so that the
// events of one turn cost one publication.

import IPC

/// The writing end of an event ring. One thread.
public final class EventWriter {
  public let ring: RingWriter

  /// The ring's name, for labels of metrics.
  public let name: String

  public init(_ ring: RingWriter, name: String = "") {
    self.ring = ring
    self.name = name
  }

  public enum Outcome: Equatable, Sendable {
    /// In the ring, invisible until `publish`. `end`: the position behind the last of the records.
    case appended(end: UInt64)
    /// No room now: hold the source back and try again.
    case full
    /// An event is larger than the ring takes, ever; or all of them together are.
    case tooLarge
  }

  public func append(_ event: PreparedEvent) -> Outcome { append(event, type: EventRecord.recordType) }

  /// Appends the word that events are missing here, of `PreparedEvent.eventsLost`.
  public func append(gap event: PreparedEvent) -> Outcome { append(event, type: EventRecord.gapRecordType) }

  private func append(_ event: PreparedEvent, type: UInt16) -> Outcome {
    let encoded = event.encoded()
    let length = encoded.prefixBytes + event.json.count
    switch ring.append(type: type, length: length, { event.encode(encoded, into: $0) }) {
    case .appended(_, let end): return .appended(end: end)
    case .full: return .full
    case .tooLarge: return .tooLarge
    }
  }

  /// Appends all of the events, or none.
  ///
  /// - Parameter acceptedAtNs: when they were accepted, by CLOCK_MONOTONIC in ns; nil: as they say themselves.
  public func appendAll(_ events: [PreparedEvent], acceptedAtNs: UInt64? = nil) -> Outcome {
    let mark = ring.mark
    var end: UInt64 = 0
    var bytes = 0
    for var event in events {
      if let acceptedAtNs { event.acceptedAtNs = acceptedAtNs }
      guard events.count > 1 else { return append(event) }
      bytes += event.encodedLength
      let outcome = bytes <= ring.capacity / 2 ? append(event) : .tooLarge
      guard case .appended(let position) = outcome else {
        ring.withdraw(to: mark)
        return outcome
      }
      end = position
    }
    return .appended(end: end)
  }

  /// Makes everything appended visible, and wakes those who wait for it.
  public func publish() {
    ring.publish()
  }
}
