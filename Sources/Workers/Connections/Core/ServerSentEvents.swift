// The fixed texts of an SSE stream (WHATWG HTML §9.2): what opens it, what keeps it alive, and the gateway's own
// events. Delivered events are encoded in TurnBuffer.

enum ServerSentEvents {
  /// First bytes of the stream: how long a browser waits before it comes back.
  static func preamble(retryMs: Int) -> [UInt8] { Array("retry: \(retryMs)\n\n".utf8) }

  /// A comment, which clients ignore.
  static let heartbeat = Array(":heartbeat\n\n".utf8)

  /// Appends an own event: no `id:`, so that the client keeps the cursor of the last delivered one.
  ///
  /// - Parameter retryMs: how long the client waits, from now on, before it comes back; nil: as before.
  static func append(_ event: OwnEvent, retryMs: Int? = nil, to bytes: inout [UInt8]) {
    if let retryMs { bytes.append(contentsOf: "retry: \(retryMs)\n".utf8) }
    bytes.append(contentsOf: "event: ".utf8)
    bytes.append(contentsOf: event.type.utf8)
    bytes.append(contentsOf: "\ndata: ".utf8)
    bytes.append(contentsOf: event.json)
    bytes.append(contentsOf: "\n\n".utf8)
  }
}
