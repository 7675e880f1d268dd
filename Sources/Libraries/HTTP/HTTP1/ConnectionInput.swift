// What stands before an HTTPConnection and gives it request parts: the parser of an HTTP/1.x connection, or a stream of HTTP/2.
//
//   socket ──▶ HTTPInput ────────▶ HTTPConnection       many requests, one after the other
//   frames ──▶ HTTP2Stream ──────▶ HTTPConnection       one request

import NIOCore

/// A part of a request.
enum RequestPart {
  case head(RequestHead)
  /// Some of the body, not empty.
  case body(ByteBuffer)
  /// The end, with the trailers.
  case end(HTTPFields)
}

protocol ConnectionInput: AnyObject {
  /// Whether the channel is a stream of an HTTP/2 connection. Such a channel has no socket and traps when it is asked for options
  /// that it doesn't know: none but autoRead may be used.
  var isStream: Bool { get }
  /// Whether there are bytes that nobody has parsed.
  var isBehind: Bool { get }
  /// True while parts are being given; what must not happen then waits for `HTTPConnection.decoded`.
  var isDecoding: Bool { get }

  /// The connection takes requests again.
  func resume()

  /// Bytes that wait: none of their request has been given to anybody.
  var heldBytes: Int { get }

  /// Takes the head of a request in that has been read by somebody else. Before anything has come in.
  func take(_ head: ByteBuffer)

  /// Bytes that wait, which the caller now owns.
  func takeHeldBytes() -> ByteBuffer

  /// Gives bytes to the new owner of the channel, who has been put behind all handlers.
  func pass(_ bytes: ByteBuffer, to channel: Channel)

  /// The channel gets a new owner, who writes bytes: nothing more is given to the connection.
  func giveWay()
}
