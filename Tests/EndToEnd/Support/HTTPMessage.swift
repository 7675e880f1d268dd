// HTTP/1.1 answers, decoded as their bytes come: head, then a body that is counted, chunked (with trailers) or ends with the connection.

import Foundation

/// An answer's head.
struct HTTPHead {
  let status: Int
  let version: String
  /// Names in lower case, in order.
  let fields: [(name: String, value: String)]

  /// The first field of that name (in lower case).
  subscript(_ name: String) -> String? {
    fields.first { $0.name == name }?.value
  }

  func all(_ name: String) -> [String] {
    fields.filter { $0.name == name }.map(\.value)
  }

  init(_ text: String) throws {
    let lines = text.split(separator: "\r\n")
    guard let first = lines.first else { throw TestFailure("an empty head") }
    let parts = first.split(separator: " ", maxSplits: 2)
    guard parts.count >= 2, parts[0].hasPrefix("HTTP/1."), let status = Int(parts[1]) else {
      throw TestFailure("no status line: \(first)")
    }
    self.status = status
    version = String(parts[0])
    fields = try lines.dropFirst().map { line in
      guard let colon = line.firstIndex(of: ":") else { throw TestFailure("no header field: \(line)") }
      return (
        line[..<colon].lowercased(), line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
      )
    }
  }
}

/// A whole answer.
struct HTTPAnswer {
  let head: HTTPHead
  let body: [UInt8]
  /// Lines behind a chunked body.
  var trailers: [String] = []

  var status: Int { head.status }
  var text: String { String(decoding: body, as: UTF8.self) }

  /// The body as JSON.
  var json: JSON {
    get throws { try JSON(parsing: body) }
  }

  subscript(_ name: String) -> String? { head[name] }
}

/// Decodes the body of one answer from a queue of raw bytes.
struct BodyDecoder {
  enum Framing: Equatable {
    case counted(Int)
    case chunked
    case untilClose
  }

  private var framing: Framing
  private var isInChunk = false
  private var isInTrailers = false
  private var left = 0
  private(set) var trailers: [String] = []
  private(set) var isComplete = false

  init(_ head: HTTPHead, hasBody: Bool = true) {
    if !hasBody || head.status == 204 || head.status == 304 || head.status / 100 == 1 {
      framing = .counted(0)
    } else if head["transfer-encoding"]?.lowercased() == "chunked" {
      framing = .chunked
    } else if let length = head["content-length"].flatMap(Int.init) {
      framing = .counted(length)
    } else {
      framing = .untilClose
    }
    if case .counted(let length) = framing {
      left = length
      isComplete = length == 0
    }
  }

  /// Moves body bytes from `raw` to `body`, as far as they are there.
  mutating func decode(_ raw: inout ByteQueue, into body: inout ByteQueue) throws {
    switch framing {
    case .untilClose:
      body.append(raw.takeAll())
    case .counted:
      let bytes = raw.take(left)
      left -= bytes.count
      body.append(bytes)
      isComplete = left == 0
    case .chunked:
      while !isComplete, try decodeChunk(&raw, into: &body) {}
    }
  }

  private mutating func decodeChunk(_ raw: inout ByteQueue, into body: inout ByteQueue) throws -> Bool {
    guard isInChunk else {
      guard let line = raw.takeLine() else { return false }
      if isInTrailers {
        isComplete = line.isEmpty
        if !isComplete { trailers.append(line) }
        return true
      }
      guard let size = Int(line.prefix { $0 != ";" }, radix: 16) else {
        throw TestFailure("no chunk size: \(line)")
      }
      left = size + 2
      isInChunk = size > 0
      isInTrailers = size == 0
      return true
    }
    guard raw.count >= left else { return false }
    let bytes = raw.take(left)
    guard bytes.suffix(2) == [13, 10] else { throw TestFailure("a chunk that doesn't end with CRLF") }
    body.append(Array(bytes.dropLast(2)))
    isInChunk = false
    return true
  }
}
