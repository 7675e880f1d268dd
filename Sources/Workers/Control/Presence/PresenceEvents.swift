// Joins and leaves as events for whoever has subscribed to them:
//
//   {"specversion":"1.0","type":"rig.presence.join","source":"rig","id":"…","time":"…","data":{"user":"alice","node":"…"}}
//
// They wait while the event ring is full. The wait is bounded: what doesn't fit is counted and dropped.

import IPC
import Kit
import Settings

final class PresenceEvents {
  enum Kind: String {
    case join = "rig.presence.join"
    case leave = "rig.presence.leave"
  }

  /// Some megabytes.
  static let maximumWaiting = 10_000

  private let writer: EventWriter
  private let parser: EventParser
  private let node: String
  private let dropped: Metric?
  private var waiting: [PreparedEvent] = []

  init(writer: EventWriter, settings: Settings, node: String, status: StatusPage) {
    self.writer = writer
    self.node = node
    parser = EventParser(settings: settings)
    dropped = status.metric(.counter, "rig_presence_events_dropped_total")
  }

  func add(_ kind: Kind, user: Name, stamp: Stamp, nowNs: UInt64) {
    guard waiting.count < Self.maximumWaiting else {
      dropped?.add(1)
      return
    }
    let json = Self.json(kind, user: user, node: node, stamp: stamp)
    let event = parser.own(kind.rawValue, id: stamp.uuid, json, acceptedAtNs: nowNs)
    waiting.append(event)
  }

  static func json(_ kind: Kind, user: Name, node: String, stamp: Stamp) -> [UInt8] {
    var json = Array(#"{"specversion":"1.0","type":"\#(kind.rawValue)","source":"rig","id":"#.utf8)
    JSONText.appendString(stamp.uuid, to: &json)
    json.append(contentsOf: #","time":"#.utf8)
    JSONText.appendString(stamp.rfc3339, to: &json)
    json.append(contentsOf: #","data":{"user":"#.utf8)
    JSONText.appendString(user.text, to: &json)
    json.append(contentsOf: #","node":"#.utf8)
    JSONText.appendString(node, to: &json)
    json.append(contentsOf: "}}".utf8)
    return json
  }

  /// Puts into the ring what it takes, and publishes it.
  func flush() {
    guard !waiting.isEmpty else { return }
    var written = 0
    for event in waiting {
      let outcome = writer.append(event)
      if outcome == .full { break }
      if outcome == .tooLarge { dropped?.add(1) }
      written += 1
    }
    waiting.removeFirst(written)
    writer.publish()
  }
}
