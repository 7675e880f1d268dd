// The texts of an SSE stream (WHATWG HTML §9.2) that aren't delivered events: what opens it, what keeps it alive, and the
// gateway's own events. Delivered events are encoded in TurnBuffer.
//
//   retry: <ms>\n \n
//   :heartbeat\n id: <cursor>\n \n                       dispatches nothing, and moves the client's last event id
//   id: <cursor>\n event: <type>\n data: <json>\n \n     `id` only if the event has a cursor

import Kit

enum ServerSentEvents {
  /// First bytes of the stream: how long a browser waits before it comes back.
  static func preamble(retryMs: Int) -> [UInt8] { Array("retry: \(retryMs)\n\n".utf8) }

  /// Keeps the stream alive and the client's cursor fresh.
  static func heartbeat(at cursor: Cursor) -> [UInt8] {
    var bytes = Array(":heartbeat\nid: ".utf8)
    cursor.write(to: &bytes)
    bytes.append(contentsOf: "\n\n".utf8)
    return bytes
  }

  /// Appends an own event. Without a cursor of its own the client keeps the last that it was told.
  ///
  /// - Parameter retryMs: how long the client waits, from now on, before it comes back; nil: as before.
  static func append(_ event: OwnEvent, retryMs: Int? = nil, to bytes: inout [UInt8]) {
    if let retryMs { bytes.append(contentsOf: "retry: \(retryMs)\n".utf8) }
    if let cursor = event.cursor {
      bytes.append(contentsOf: "id: ".utf8)
      cursor.write(to: &bytes)
      bytes.append(UInt8(ascii: "\n"))
    }
    bytes.append(contentsOf: "event: ".utf8)
    bytes.append(contentsOf: event.type.utf8)
    bytes.append(contentsOf: "\ndata: ".utf8)
    bytes.append(contentsOf: event.json)
    bytes.append(contentsOf: "\n\n".utf8)
  }
}

/// Frames of the chunked coding (RFC 9112 §7.1).
enum Chunk {
  /// The last chunk: the body has come to its end, and wasn't cut.
  static let last = Array("0\r\n\r\n".utf8)

  /// Appends what stands before `count` bytes of data, at least one.
  static func appendHead(_ count: Int, to bytes: inout [UInt8]) {
    var shift = Int.bitWidth - count.leadingZeroBitCount
    shift = (shift + 3) / 4 * 4
    while shift > 0 {
      shift -= 4
      bytes.append(HTTPOctets.hexadecimalDigit(UInt8(truncatingIfNeeded: count >> shift & 0xF)))
    }
    appendEnd(to: &bytes)
  }

  /// Appends what stands behind the data.
  static func appendEnd(to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\r"))
    bytes.append(UInt8(ascii: "\n"))
  }
}
