// A connection of HTTP/2 that looks like one of HTTP/1.1, so that whatever speaks that speaks this too.
//
//   send     "GET /a HTTP/1.1␍␊…"                 ──▶ HEADERS on the next stream; a body ──▶ DATA
//            "GET /ws …upgrade: websocket…"       ──▶ CONNECT with :protocol (RFC 8441); what follows ──▶ DATA
//   receive  "HTTP/1.1 200␍␊…", body              ◀── HEADERS, DATA; the end of the stream is the end of the connection,
//            "HTTP/1.1 101␍␊…", bytes             ◀── until the next request is sent
//
// Whoever doesn't receive doesn't open the window of the stream either.

import Foundation
import NIOCore
import NIOHPACK

final class HTTP2Wire: Wire {
  /// Fields that say in HTTP/1.1 what HTTP/2 says otherwise, or doesn't have.
  private static let droppedFields: Set<String> = ["connection", "upgrade", "host", "sec-websocket-key"]

  private var frames = ByteQueue()
  private var decoder = HPACKDecoder(allocator: ByteBufferAllocator())
  /// The beginning of a request whose head isn't whole.
  private var head = ByteQueue()
  private var stream = -1
  /// Of the request's body; nil: whatever is sent belongs to a tunnel.
  private var unsentBody: Int? = 0
  private var hasStreamEnded = true
  private var hasSettings = false
  /// What the server still takes: of all streams together by 0.
  private var windows = [0: HTTP2Frame.firstWindow]
  /// Whether the server has said that it takes CONNECT with :protocol (RFC 8441 §3).
  private(set) var allowsExtendedConnect = false
  /// The error code by which the server has reset the stream.
  private(set) var resetCode: Int?
  /// The error code of the last GOAWAY.
  private(set) var goAwayCode: Int?

  init(port: Int, receiveBuffer: Int? = nil, tls: TLSEnd? = nil) throws {
    try super.init(port: port, receiveBuffer: receiveBuffer, tls: tls)
    try super.send(HTTP2Frame.preface + HTTP2Frame(.settings).encoded)
    // The connection itself is never in the way of its streams.
    try post(HTTP2Frame(.windowUpdate, 0, 0, HTTP2Frame.bytes(1 << 30)))
  }

  override var isAtEnd: Bool { (hasStreamEnded && stream > 0) || super.isAtEnd }

  // MARK: Out

  @discardableResult
  override func send(_ bytes: [UInt8], _ deadline: Deadline = Deadline()) throws -> Int {
    guard hasStreamEnded else { return try sendData(bytes, deadline) }
    head.append(bytes)
    guard let length = head.distance(to: "\r\n\r\n") else { return bytes.count }
    try open(String(decoding: head.take(length + 4), as: UTF8.self), deadline)
    _ = try sendData(head.takeAll(), deadline)
    return bytes.count
  }

  override func endSending() {
    try? post(HTTP2Frame(.data, HTTP2Frame.endStream, stream))
  }

  /// Resets the stream: cancelled.
  func cancel() throws { try post(HTTP2Frame(.reset, 0, stream, HTTP2Frame.bytes(8))) }

  private func open(_ text: String, _ deadline: Deadline) throws {
    let lines = text.components(separatedBy: "\r\n")
    let parts = lines[0].split(separator: " ")
    guard parts.count == 3 else { throw TestFailure("no request line: \(lines[0])") }
    let fields = lines.dropFirst().compactMap { line -> (String, String)? in
      guard let colon = line.firstIndex(of: ":") else { return nil }
      return (line[..<colon].lowercased(), String(line[line.index(colon, offsetBy: 2)...]))
    }
    let isTunnel = fields.contains { $0.0 == "upgrade" && $0.1 == "websocket" }
    if isTunnel {
      while !hasSettings, try take(deadline) {}
      guard allowsExtendedConnect else { throw TestFailure("the server takes no CONNECT with :protocol") }
    }
    let length = fields.first { $0.0 == "content-length" }.flatMap { Int($0.1) } ?? 0
    stream += 2
    windows[stream] = HTTP2Frame.firstWindow
    (hasStreamEnded, resetCode, unsentBody) = (false, nil, isTunnel ? nil : length)
    let method =
      isTunnel ? [(":method", "CONNECT"), (":protocol", "websocket")] : [(":method", String(parts[0]))]
    let rest = [
      (":scheme", tls == nil ? "http" : "https"), (":path", String(parts[1])), (":authority", "localhost"),
    ]
    let ordinary = fields.filter { !Self.droppedFields.contains($0.0) }
    for frame in HTTP2Frame.head(
      method + rest + ordinary, on: stream, isEnd: !isTunnel && length == 0)
    {
      try post(frame)
    }
  }

  private func sendData(_ bytes: [UInt8], _ deadline: Deadline) throws -> Int {
    var sent = 0
    while sent < bytes.count, !hasStreamEnded {
      let room = min(windows[0, default: 0], windows[stream, default: 0], HTTP2Frame.maximumBytes)
      guard room > 0 else {
        guard try take(deadline) else { return sent }
        continue
      }
      let piece = Array(bytes[sent...].prefix(room))
      sent += piece.count
      for window in [0, stream] { windows[window, default: 0] -= piece.count }
      let left = unsentBody.map { $0 - piece.count }
      unsentBody = left
      try post(HTTP2Frame(.data, left == 0 ? HTTP2Frame.endStream : 0, stream, piece))
    }
    return sent
  }

  private func post(_ frame: HTTP2Frame) throws { _ = try super.send(frame.encoded) }

  // MARK: In

  @discardableResult
  override func receive(_ deadline: Deadline) throws -> Bool {
    let before = received.count
    while received.count == before {
      guard !isAtEnd, try take(deadline) else { return received.count > before }
    }
    return true
  }

  /// Takes one frame. False: none came.
  private func take(_ deadline: Deadline) throws -> Bool {
    while true {
      if let frame = HTTP2Frame(takenFrom: &frames) {
        try take(frame)
        return true
      }
      guard try receive(deadline, into: &frames) else { return false }
    }
  }

  private func take(_ frame: HTTP2Frame) throws {
    switch frame.kind {
    case .settings where !frame.isAck:
      hasSettings = true
      if frame.payload.contains(settings: 8, value: 1) { allowsExtendedConnect = true }
      try post(HTTP2Frame(.settings, HTTP2Frame.ack))
    case .ping where !frame.isAck: try post(HTTP2Frame(.ping, HTTP2Frame.ack, 0, frame.payload))
    case .windowUpdate: windows[frame.stream, default: 0] += HTTP2Frame.number(frame.payload)
    case .goAway: goAwayCode = HTTP2Frame.number(frame.payload[4..<8])
    case .reset where frame.stream == stream:
      resetCode = HTTP2Frame.number(frame.payload)
      hasStreamEnded = true
    case .headers:
      // The table changes, whosever head it is.
      var block = ByteBuffer(bytes: frame.payload)
      let fields = try decoder.decodeHeaders(from: &block)
      if frame.stream == stream { received.append(Array(text(of: fields).utf8)) }
    case .data where frame.stream == stream && !frame.payload.isEmpty:
      received.append(frame.payload)
      for window in frame.isEnd ? [0] : [0, stream] {
        try post(HTTP2Frame(.windowUpdate, 0, window, HTTP2Frame.bytes(frame.payload.count)))
      }
    default: break
    }
    if frame.isEnd, frame.stream == stream { hasStreamEnded = true }
  }

  private func text(of fields: HPACKHeaders) -> String {
    let status = fields.first(name: ":status") ?? ""
    let isOpened = unsentBody == nil && status == "200"
    return "HTTP/1.1 \(isOpened ? "101" : status) \r\n"
      + fields.filter { $0.name.first != ":" }.map { "\($0.name): \($0.value)\r\n" }.joined() + "\r\n"
  }
}

extension [UInt8] {
  /// Whether it is the payload of a SETTINGS frame with this one among them.
  fileprivate func contains(settings number: Int, value: Int) -> Bool {
    stride(from: 0, to: count - count % 6, by: 6).contains { start in
      HTTP2Frame.number(self[start..<start + 2]) == number
        && HTTP2Frame.number(self[start + 2..<start + 6]) == value
    }
  }
}
