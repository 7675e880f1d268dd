// The gateway's word that events are missing: the same whoever says it, the worker that reads Kafka to everybody, or a connection
// worker to one client.

public enum LostEvents {
  /// Its type, and the name of its SSE event.
  public static let type = "rig.events_lost"

  /// The whole event as one line of JSON.
  ///
  ///     {"specversion":"1.0","type":"rig.events_lost","source":"rig","id":"<uuid>","time":"<RFC 3339>",
  ///      "data":{"count":900,"reason":"…","topic":"rig","partition":0}}
  ///
  /// - Parameters:
  ///   - count: nil when it can't be known.
  ///   - from: the partition of a source whose records they were; nil: not of one.
  public static func json(
    count: UInt64?, reason: String, from partition: (topic: String, number: Int32)? = nil, stamp: Stamp
  ) -> [UInt8] {
    var json: [UInt8] = []
    stamp.appendEvent(ofType: type, to: &json)
    json.append(contentsOf: #","data":{"count":"#.utf8)
    json.append(contentsOf: (count.map { String($0) } ?? "null").utf8)
    json.append(contentsOf: #","reason":"#.utf8)
    JSONText.appendString(reason, to: &json)
    if let partition {
      json.append(contentsOf: #","topic":"#.utf8)
      JSONText.appendString(partition.topic, to: &json)
      json.append(contentsOf: #","partition":\#(partition.number)"#.utf8)
    }
    json.append(contentsOf: "}}".utf8)
    return json
  }
}

extension PreparedEvent {
  /// Records of a partition are gone that nobody has read: for `EventWriter.append(gap:)`.
  ///
  /// - Parameters:
  ///   - origin: the last offset that is gone; the records behind it are read.
  ///   - acceptedAtNs: now, nanoseconds of CLOCK_MONOTONIC.
  public static func eventsLost(
    count: UInt64?, reason: String, before origin: EventOrigin, acceptedAtNs: UInt64, stamp: Stamp
  ) -> PreparedEvent {
    PreparedEvent(
      type: LostEvents.type, source: "rig", id: stamp.uuid,
      json: LostEvents.json(
        count: count, reason: reason, from: (origin.topic, origin.partition), stamp: stamp),
      origin: origin, acceptedAtNs: acceptedAtNs)
  }
}
