// The heads of requests and responses (RFC 9112 §3, §4), however they came: HTTP/1.1 and HTTP/2 have them in common.

import Kit

/// How long a message's body is (RFC 9112 §6.3).
public enum BodyFraming: Equatable, Sendable {
  /// There is none, or an empty one.
  case none
  /// As many bytes, by content-length.
  case counted(Int)
  /// Its end is marked: by chunks, or by HTTP/2's frames.
  case chunked
  /// Until the connection ends: responses only.
  case untilClose
}

public struct RequestHead: Sendable, Equatable {
  /// A token; perhaps of no known method.
  public var method: String
  /// Visible ASCII, as it came.
  public var target: String
  /// Of HTTP/1: 0 or 1.
  public var minorVersion: Int
  public var fields: HTTPFields
  /// Never `untilClose`; a counted one has at least one byte.
  public var framing: BodyFraming

  public init(
    method: String, target: String, minorVersion: Int = 1, fields: HTTPFields = [:],
    framing: BodyFraming = .none
  ) {
    self.method = method
    self.target = target
    self.minorVersion = minorVersion
    self.fields = fields
    self.framing = framing
  }

  /// As its shortest spelling in HTTP/1.1.
  var bytes: Int {
    let around = "  HTTP/1.1\r\n\r\n".utf8.count
    return method.utf8.count + target.utf8.count + around + fields.bytes
  }

  /// Whether the client allows the connection to stay open after the response (RFC 9112 §9.3).
  public var keepsAlive: Bool {
    minorVersion == 0
      ? fields.hasOption("keep-alive", in: "connection") : !fields.hasOption("close", in: "connection")
  }
}

public struct ResponseHead: Sendable, Equatable {
  /// Three digits.
  public var status: Int
  /// What isn't UTF-8 is replaced.
  public var reason: String
  /// Of HTTP/1.
  public var minorVersion: Int
  /// With one content-length at most: equal ones are one.
  public var fields: HTTPFields
  private let announced: BodyFraming

  /// - Parameter announced: what the fields say.
  init(status: Int, reason: String, minorVersion: Int, fields: HTTPFields, announced: BodyFraming) {
    self.status = status
    self.reason = reason
    self.minorVersion = minorVersion
    self.fields = fields
    self.announced = announced
  }

  /// A head that came by HTTP/2, where frames say what its fields could.
  public init(status: Int, fields: HTTPFields) {
    self.init(status: status, reason: "", minorVersion: 1, fields: fields, announced: .untilClose)
  }

  /// Whether the connection stays, as far as the fields say; one whose end ends the body doesn't.
  public var keepsAlive: Bool { minorVersion >= 1 && !fields.hasOption("close", in: "connection") }

  public var isInterim: Bool { status < 200 }

  /// - Parameter isToHead: the request was one of HEAD.
  public func framing(isToHead: Bool) -> BodyFraming {
    isInterim || status == 204 || status == 304 || isToHead ? .none : announced
  }
}

/// Bounds of a head, and of the trailers behind a body.
public struct HeadLimits: Sendable, Equatable {
  /// Start line, fields and all line ends.
  public var maxBytes: Int
  public var maxFields: Int

  public init(maxBytes: Int, maxFields: Int) {
    self.maxBytes = maxBytes
    self.maxFields = maxFields
  }
}

public enum MessageKind: Sendable {
  case request, response
}

/// What is wrong with a message: where, and what was expected.
public enum MessageDefect: Error, Equatable, Sendable {
  case requestLine, method, target, version
  case statusLine, reason
  case lineEnd
  case field, value
  /// Head or trailers.
  case tooLarge(HeadLimits)
  case contentLength, coding, codingOfHTTP10
  case chunkSize
  case chunkLine(maxBytes: Int)
  case chunkEnd
  case framingTrailer

  public var detail: String {
    switch self {
    case .requestLine: "request line, expected method, target and HTTP version"
    case .method: "method of the request line, expected a method of RFC 9110 §9"
    case .target: "target of the request line, expected a path beginning with / (RFC 9112 §3.2)"
    case .version: "HTTP version of the request line, expected HTTP/1.1 or HTTP/1.0, and then CRLF"
    case .statusLine: "status line, expected HTTP/1.1 and a status of three digits"
    case .reason: "reason phrase of the status line, expected no control characters"
    case .lineEnd: "line end, expected carriage return and line feed (RFC 9112 §2.2)"
    case .field: "header field, expected name: value with a token as name (RFC 9112 §5)"
    case .value: "value of a header field, expected no control characters (RFC 9110 §5.5)"
    case .tooLarge(let limits):
      "head, expected at most \(limits.maxBytes) bytes and \(limits.maxFields) fields"
    case .contentLength:
      "content-length, expected one decimal number and no transfer-encoding (RFC 9112 §6)"
    case .coding: "transfer-encoding, expected chunked and nothing else (RFC 9112 §6.1)"
    case .codingOfHTTP10:
      "transfer-encoding in a message of HTTP/1.0, expected content-length (RFC 9112 §6.1)"
    case .chunkSize: "chunk size of the body, expected hexadecimal digits (RFC 9112 §7.1)"
    case .chunkLine(let maxBytes): "chunk size and extensions, expected at most \(maxBytes) bytes"
    case .chunkEnd: "chunk of the body, expected a line end behind it (RFC 9112 §7.1)"
    case .framingTrailer: "trailers, expected neither content-length nor transfer-encoding (RFC 9110 §6.5.1)"
    }
  }
}
