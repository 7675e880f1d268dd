// Answers on their way from HTTP/1.1 bytes to HTTP/2 frames.

import NIOCore
import NIOHPACK
import Testing

@testable import HTTP

@Suite("Answers as HTTP/2 frames")
struct AnswerReaderTests {
  /// What is read, one line for each piece; data that comes in several pieces is one.
  private static func read(_ text: String, isHead: Bool = false, pieceBytes: Int = .max) throws -> [String] {
    var reader = AnswerReader()
    reader.isHead = isHead
    var lines: [String] = []
    var data: String?
    func flushData(_ isEnd: Bool) {
      if let text = data { lines.append("data \(text)") }
      data = nil
      if isEnd { lines.append("end") }
    }
    var rest = ByteBuffer(string: text)
    while let piece = rest.readSlice(length: min(pieceBytes, rest.readableBytes)), piece.readableBytes > 0 {
      try reader.read(piece) { piece in
        switch piece {
        case .head(let headers, let isEnd):
          flushData(false)
          lines.append("head " + headers.map { "\($0.name)=\($0.value)" }.joined(separator: " "))
          flushData(isEnd)
        case .data(let bytes, let isEnd):
          if bytes.readableBytes > 0 { data = (data ?? "") + String(buffer: bytes) }
          if isEnd { flushData(true) }
        case .trailers(let headers):
          flushData(false)
          lines.append("trailers " + headers.map { "\($0.name)=\($0.value)" }.joined(separator: " "))
        }
      }
    }
    flushData(false)
    return lines
  }

  static let answers: [(text: String, isHead: Bool, lines: [String])] = [
    (
      "HTTP/1.1 200 OK\r\nX-One: 1\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", false,
      ["head :status=200 x-one=1 content-length=5", "data hello", "end"]
    ),
    (
      "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false,
      ["head :status=404 content-length=0", "end"]
    ),
    ("HTTP/1.1 204 No Content\r\n\r\n", false, ["head :status=204", "end"]),
    ("HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n", false, ["head :status=304 content-length=5", "end"]),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true, ["head :status=200 content-length=5", "end"]),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", true, ["head :status=200", "end"]),
    (
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"
        + "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 1\r\n\r\n", false,
      [
        "head :status=100", "head :status=103 link=</a>", "head :status=200", "data hello!",
        "trailers x-sum=1",
      ]
    ),
    (
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", false,
      ["head :status=200", "data 0123456789", "end"]
    ),
    (
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\r\n\r\ndata: 2\n\n",
      false,
      ["head :status=200 content-type=text/event-stream", "data data: 1\r\n\r\ndata: 2\n\n"]
    ),
    (
      "HTTP/1.1 200 OK\r\nkeep-alive: 1\r\nupgrade: x\r\nproxy-connection: y\r\nbad name: 1\r\ncontent-length: 1\r\n\r\naXYZ",
      false, ["head :status=200 content-length=1", "data a", "end"]
    ),
  ]

  @Test("Answers are read the same, in whatever pieces they come", arguments: [Int.max, 1, 2, 3, 7])
  func pieces(pieceBytes: Int) throws {
    for answer in Self.answers {
      #expect(try Self.read(answer.text, isHead: answer.isHead, pieceBytes: pieceBytes) == answer.lines)
    }
  }

  @Test(
    "What is no answer, or one that leaves HTTP, is an error",
    arguments: [
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n",
      "nonsense\r\n\r\n",
      "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    ])
  func malformed(text: String) {
    #expect(throws: AnswerReader.Malformed.self) { _ = try Self.read(text) }
  }

  @Test("Only fields with few values enter the compression table, which the client may let grow")
  func indexing() throws {
    var reader = AnswerReader()
    var indexed: [String] = []
    let text =
      "HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/plain\r\nx-any: 1\r\nset-cookie: a=b\r\n"
      + "access-control-allow-origin: http://a\r\ncontent-length: 0\r\n\r\n"
    try reader.read(ByteBuffer(string: text)) { piece in
      guard case .head(let headers, _) = piece else { return }
      for (name, _, indexing) in headers {
        if indexing == .indexable { indexed.append(name) }
        if name == "set-cookie" { #expect(indexing == .neverIndexed) }
      }
    }
    #expect(indexed == [":status", "content-type"])
  }
}
