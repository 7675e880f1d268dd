// What is logged of one proxied request at its end (contract §8, REQUEST_LOG). The query isn't: it may hold tokens.
//
//   {"time":"…","method":"GET","path":"/books/1","api":"books","endpoint":"get-book","target":"http","response_from":"http",
//    "remote":"192.0.2.1","status":200,"complete":true,"duration_ms":12,"bytes_in":0,"bytes_out":345,"traceparent":"00-…"}

public struct RequestRecord: Equatable, Sendable {
  /// Of a path; what is behind is left out, so that a record goes to the log in one piece.
  static let mostPathBytes = 1024

  public var method = ""
  /// As the client asked for it.
  public var path = ""
  public var api = ""
  public var endpoint = ""
  /// `http` or `kafka`.
  public var target = ""
  /// `http`, `kafka`, `http_async`, or empty.
  public var responseFrom = ""
  /// The client's address, behind proxies that are trusted.
  public var remote = ""
  /// That the client was answered; 0: it had gone before.
  public var status = 0
  /// Whether the client got its whole answer.
  public var isComplete = false
  public var durationMs: Int64 = 0
  /// Of the body that came from the client.
  public var bytesIn: Int64 = 0
  /// Of the body that went to the client.
  public var bytesOut: Int64 = 0
  public var traceparent = ""

  public init() {}

  var fields: [(String, LogValue)] {
    [
      ("method", .text(method)), ("path", .text(Self.bounded(path))), ("api", .text(api)),
      ("endpoint", .text(endpoint)), ("target", .text(target)), ("response_from", .text(responseFrom)),
      ("remote", .text(remote)), ("status", .number(Int64(status))), ("complete", .flag(isComplete)),
      ("duration_ms", .number(durationMs)), ("bytes_in", .number(bytesIn)), ("bytes_out", .number(bytesOut)),
      ("traceparent", .text(traceparent)),
    ]
  }

  /// As one JSON object.
  ///
  /// - Parameter time: of the request's end, RFC 3339.
  public func json(time: String) -> [UInt8] {
    var json = Array(#"{"time":"\#(time)""#.utf8)
    for (name, value) in fields {
      json.append(contentsOf: #","\#(name)":"#.utf8)
      value.append(to: &json)
    }
    json.append(UInt8(ascii: "}"))
    return json
  }

  private static func bounded(_ path: String) -> String {
    path.utf8.count <= mostPathBytes
      ? path : String(decoding: path.utf8.prefix(mostPathBytes), as: UTF8.self) + "…"
  }
}
