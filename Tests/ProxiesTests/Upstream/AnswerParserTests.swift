// Answers as bytes, in every way in which they can be cut, and what is no answer.

import NIOCore
import NIOHTTP1
import Testing

@testable import Proxies

@Suite("Parser of answers") struct AnswerParserTests {
  /// What comes out of `text`, given in pieces; pieces of the body are joined.
  private func parse(
    _ pieces: [String], method: HTTPMethod = .GET, mayUpgrade: Bool = false, limits: UpstreamLimits = .init()
  ) throws(AnswerDefect) -> (steps: [String], rest: String, parser: AnswerParser) {
    var parser = AnswerParser(limits: limits, method: method, mayUpgrade: mayUpgrade)
    var input = ByteBuffer()
    var steps: [String] = []
    var body = ""
    for piece in pieces {
      input.writeString(piece)
      loop: while true {
        switch try parser.next(&input, isWanted: true) {
        case .needsInput, .held: break loop
        case .interim(let head): steps.append("interim \(head.status.code)")
        case .answer(let head): steps.append("answer \(head.status.code) \(fields(head.headers))")
        case .tunnel: steps.append("tunnel")
        case .piece(let bytes):
          #expect(bytes.readableBytes > 0)
          body += String(buffer: bytes)
        case .end(let trailers):
          steps.append("body \(body)")
          steps.append("end \(fields(trailers))")
          break loop
        }
      }
    }
    if parser.mayEndHere { steps.append("open \(body)") }
    return (steps, String(buffer: input), parser)
  }

  private func fields(_ headers: HTTPHeaders) -> String {
    headers.map { "\($0)=\($1)" }.joined(separator: "&")
  }

  @Test(
    "An answer is the same however it is cut",
    arguments: [
      (
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        ["answer 200 Content-Length=3", "body abc", "end "]
      ),
      (
        "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x=\"y\"\r\nbc\r\nA \r\n0123456789\r\n0\r\n\r\n",
        ["answer 200 Transfer-Encoding=Chunked", "body abc0123456789", "end "]
      ),
      (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
          + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: 1\r\nx-b:\t2 \r\n\r\n",
        [
          "interim 100", "interim 103", "answer 200 transfer-encoding=chunked", "body a", "end x-a=1&x-b=2",
        ]
      ),
      (
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        ["answer 204 content-length=5", "body ", "end "]
      ),
      ("HTTP/1.0 200 OK\r\nx : y\r\n\r\nrest", ["answer 200 x=y", "open rest"]),
      (
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 02\r\n\r\nab",
        ["answer 200 content-length=2", "body ab", "end "]
      ),
    ])
  func cuts(_ text: String, _ expected: [String]) throws {
    #expect(try parse([text]).steps == expected)
    #expect(try parse(text.utf8.map { String(decoding: [$0], as: UTF8.self) }).steps == expected)
    for index in text.indices {
      #expect(try parse([String(text[..<index]), String(text[index...])]).steps == expected)
    }
  }

  @Test(
    "What isn't an answer is refused, however it is cut",
    arguments: [
      "hello\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n",
      "\r\n\r\n",
      "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n",
      "HTTP/1.1 200 OK\r\nx: y\n\r\n",
      "HTTP/1.1 200 OK\r\nx\r\n\r\n", "HTTP/1.1 200 OK\r\n: y\r\n\r\n", "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
      "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\r\nx: a\u{0}b\r\n\r\n",
      "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", "HTTP/1.1 200 O\rK\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0x1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1,\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999999\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
      "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\nax\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1 1\r\na\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 1\r\n\r\n",
    ])
  func defects(_ text: String) {
    #expect(throws: AnswerDefect.self) { try parse([text]) }
    #expect(throws: AnswerDefect.self) { try parse(text.unicodeScalars.map { String($0) }) }
  }

  @Test("Heads, trailers, chunk lines and interim answers are bounded")
  func bounds() throws {
    var limits = UpstreamLimits()
    limits.maximumHeadBytes = 100
    limits.maximumInterimAnswers = 2
    let start = "HTTP/1.1 200 OK\r\nx: "
    func head(of bytes: Int) -> String {
      start + String(repeating: "y", count: bytes - start.utf8.count - "\r\n\r\n".utf8.count) + "\r\n\r\n"
    }
    #expect(try parse([head(of: 100)], limits: limits).steps.last == "open ")
    #expect(throws: AnswerDefect.self) { try parse([head(of: 101)], limits: limits) }
    // Without its end, too.
    #expect(throws: AnswerDefect.self) { try parse([String(repeating: "x", count: 101)], limits: limits) }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    #expect(throws: AnswerDefect.self) {
      try parse([chunked + "0\r\n" + String(repeating: "x: y\r\n", count: 20)], limits: limits)
    }
    #expect(throws: AnswerDefect.self) { try parse([chunked + "1;" + String(repeating: "x", count: 5000)]) }
    let interim = "HTTP/1.1 102 Processing\r\n\r\n"
    #expect(try parse([interim + interim], limits: limits).steps.count == 2)
    #expect(throws: AnswerDefect.self) { try parse([interim + interim + interim], limits: limits) }
  }

  @Test("What stands behind an answer is left, and nothing comes unasked")
  func rest() throws {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\n"
    #expect(try parse([two]).rest == "HTTP/1.1 200 OK\r\n")
    #expect(try parse(["HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"], method: .HEAD).rest == "a")
    var parser = AnswerParser(limits: UpstreamLimits(), method: .GET, mayUpgrade: false)
    var input = ByteBuffer(string: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na")
    guard case .answer = try parser.next(&input, isWanted: false) else { return #expect(Bool(false)) }
    guard case .held = try parser.next(&input, isWanted: false) else { return #expect(Bool(false)) }
    #expect(String(buffer: input) == "a")
  }

  @Test(
    "A connection lives on unless the answer says otherwise, or is ended by the connection",
    arguments: [
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: x , CLOSE\r\n\r\n", false),
      ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: closed\r\n\r\n", true),
      ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", false),
      ("HTTP/1.1 200 OK\r\n\r\n", false), ("HTTP/1.1 304 Not Modified\r\n\r\n", true),
    ])
  func keepsAlive(_ text: String, _ expected: Bool) throws {
    #expect(try parse([text]).parser.keepsAlive == expected)
  }

  @Test("An unknown status keeps its phrase")
  func phrase() throws {
    var parser = AnswerParser(limits: UpstreamLimits(), method: .GET, mayUpgrade: false)
    var input = ByteBuffer(string: "HTTP/1.1 299 Fine, mostly\r\n\r\n")
    guard case .answer(let head) = try parser.next(&input, isWanted: true) else {
      return #expect(Bool(false))
    }
    #expect(head.status == .custom(code: 299, reasonPhrase: "Fine, mostly"))
  }
}
