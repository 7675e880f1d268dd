// The one parser of heads and bodies, both ways: what is understood, however it is cut, and what is refused.

import NIOCore
import Testing

@testable import HTTP

@Suite("15.5 Heads and bodies of HTTP/1.1, both ways") struct MessageParserTests {
  private static let begun = "GET / HTTP/1.1\r\nhost: a\r\n"

  private static let requestTexts: [(String, [String])] = [
    ("GET / HTTP/1.1\r\n\r\n", ["GET / 1.1 []", "body '' []"]),
    ("GET /a?b HTTP/1.0\r\nHost:a\r\nX:\t b \t\r\n\r\n", ["GET /a?b 1.0 [Host=a&X=b]", "body '' []"]),
    ("\r\n\r\nBREW * HTTP/1.1\r\na: \r\n\r\n", ["BREW * 1.1 [a=]", "body '' []"]),
    ("GET http://u/?x HTTP/1.1\r\n\r\n", ["GET http://u/?x 1.1 []", "body '' []"]),
    ("CONNECT u:1 HTTP/1.1\r\n\r\n", ["CONNECT u:1 1.1 []", "body '' []"]),
    (
      "POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n",
      ["POST /a 1.1 [content-length=3]", "body 'abc' []", "GET /b 1.1 []", "body '' []"]
    ),
    (
      "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x=\"y\"\r\nbc\r\nA\r\n0123456789\r\n"
        + "0;e\r\nx-a: 1\r\nx-b:\t2 \r\n\r\nGET /b HTTP/1.1\r\n\r\n",
      [
        "POST / 1.1 [Transfer-Encoding=Chunked]", "body 'abc0123456789' [x-a=1&x-b=2]", "GET /b 1.1 []",
        "body '' []",
      ]
    ),
    (
      "POST / HTTP/1.1\r\ncontent-length: 00\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 002\r\n\r\n\r\n",
      ["POST / 1.1 [content-length=00]", "body '' []", "POST / 1.1 [content-length=002]", "body '\r\n' []"]
    ),
  ]

  private static let responseTexts: [(String, [String])] = [
    (
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
      ["200 'OK' 1.1 [Content-Length=3]", "body 'abc' []"]
    ),
    (
      "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x=\"y\"\r\nbc\r\nA \r\n0123456789\r\n0\r\n\r\n",
      ["200 '' 1.1 [Transfer-Encoding=Chunked]", "body 'abc0123456789' []"]
    ),
    (
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nlink: x\r\n\r\nHTTP/1.1 200 Fine, mostly\r\n"
        + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: 1\r\nx-b:\t2 \r\n\r\n",
      [
        "100 'Continue' 1.1 []", "103 '' 1.1 [link=x]",
        "200 'Fine, mostly' 1.1 [transfer-encoding=chunked]", "body 'a' [x-a=1&x-b=2]",
      ]
    ),
    (
      "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nHTTP/1.1 304 \r\ntransfer-encoding: chunked\r\n\r\n",
      [
        "204 'No Content' 1.1 [content-length=5]", "body '' []", "304 '' 1.1 [transfer-encoding=chunked]",
        "body '' []",
      ]
    ),
    (
      "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\nx : y\r\ncontent-length: 02\r\n\r\nab",
      ["200 'OK' 1.1 [x=y&content-length=2]", "body 'ab' []"]
    ),
    ("HTTP/1.7 599 x\r\n\r\nrest", ["599 'x' 1.7 []"]),
  ]

  private func expectEveryCut(_ kind: MessageKind, _ text: String, _ expected: [String]) {
    let octets = Array(text.utf8)
    for cut in octets.indices {
      let parsing = MessageParsing.read(kind, [Array(octets[..<cut]), Array(octets[cut...])])
      #expect(parsing.texts == expected && parsing.defect == nil, "cut at \(cut)")
      #expect(parsing.rest.isEmpty)
    }
    let parsing = MessageParsing.read(kind, octets.map { [$0] })
    #expect(parsing.texts == expected && parsing.defect == nil)
  }

  @Test("Requests are the same however they are cut", arguments: requestTexts)
  func requests(_ text: String, _ expected: [String]) { expectEveryCut(.request, text, expected) }

  @Test("Responses are the same however they are cut", arguments: responseTexts)
  func responses(_ text: String, _ expected: [String]) { expectEveryCut(.response, text, expected) }

  /// What is wrong, and how it is called.
  private static let defectTexts: [(MessageKind, String, MessageDefect)] = [
    (.request, "\u{16}\u{3}", .method), (.request, "hello\r\n", .requestLine),
    (.request, " / HTTP/1.1\r\n", .method),
    (.request, "G(T / HTTP/1.1\r\n", .method), (.request, "GET\r\n", .requestLine),
    (.request, "GET /\r\n", .requestLine),
    (.request, "GET\t/ HTTP/1.1\r\n", .method), (.request, "GET  / HTTP/1.1\r\n", .target),
    (.request, "GET / b HTTP/1.1\r\n", .target), (.request, "GET a HTTP/1.1\r\n", .target),
    (.request, "GET *a HTTP/1.1\r\n", .target), (.request, "GET ://a HTTP/1.1\r\n", .target),
    (.request, "GET /\u{7f} HTTP/1.1\r\n", .target), (.request, "GET /é HTTP/1.1\r\n", .target),
    (.request, "GET / HTTP/1.1 \r\n", .requestLine), (.request, "GET / HTTP/11\r\n", .requestLine),
    (.request, "GET / http/1.1\r\n", .requestLine), (.request, "GET / JTTP/1.1\r\n", .requestLine),
    (.request, "GET / HTTP/2.0\r\n", .version), (.request, "GET / HTTP/1.2\r\n", .version),
    (.request, "GET / HTTP/0.9\r\n", .version), (.request, "PRI * HTTP/2.0\r\n", .version),
    (.request, "GET / HTTP/1.1\nhost: a\r\n\r\n", .lineEnd), (.request, "\nGET / HTTP/1.1\r\n", .lineEnd),
    (.response, "\r\n", .statusLine), (.response, "hello\r\n", .statusLine),
    (.response, "HTTP/2.0 200 OK\r\n", .statusLine), (.response, "HTTP/1.1 20 OK\r\n", .statusLine),
    (.response, "HTTP/1.1 2000\r\n", .statusLine), (.response, "HTTP/1.1 099 x\r\n", .statusLine),
    (.response, "HTTP/1.1  200 OK\r\n", .statusLine), (.response, "HTTP/1.1 200\tOK\r\n", .statusLine),
    (.response, "HTTP/1.1 200 O\rK\r\n", .reason), (.response, "HTTP/1.1 200 OK\n", .lineEnd),
    (.request, begun + "x : y\r\n", .field), (.request, begun + " x: y\r\n", .field),
    (.request, begun + "\t\r\n", .field),
    (.request, begun + ": y\r\n", .field), (.request, begun + "x\r\n", .field),
    (.request, begun + "x y: z\r\n", .field),
    (.request, begun + "x: y\n", .lineEnd), (.request, begun + "x: y\r\r\n", .value),
    (.request, begun + "x: a\u{0}b\r\n", .value), (.request, begun + "x: \u{7f}\r\n", .value),
    (.request, begun + "content-length: 1\r\ntransfer-encoding: chunked\r\n", .contentLength),
    (.request, begun + "transfer-encoding: chunked\r\ncontent-length: 1\r\n", .contentLength),
    (.request, begun + "content-length: 1\r\ncontent-length: 1\r\n", .contentLength),
    (.request, begun + "content-length: 1, 1\r\n", .contentLength),
    (.request, begun + "content-length:\r\n", .contentLength),
    (.request, begun + "content-length: 1000000000000000000\r\n", .contentLength),
    (.request, begun + "transfer-encoding: gzip, chunked\r\n", .coding),
    (.request, begun + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", .coding),
    (.request, "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", .codingOfHTTP10),
    (.response, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n", .contentLength),
    (.response, "HTTP/1.1 200 OK\r\ncontent-length: 1,\r\n", .contentLength),
    (.response, "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", .codingOfHTTP10),
    (.response, "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n", .field),
  ]

  @Test("What is wrong is named, as soon as it is there, however it is cut", arguments: defectTexts)
  func defects(_ kind: MessageKind, _ text: String, _ expected: MessageDefect) {
    let octets = Array(text.utf8)
    for cut in octets.indices {
      let parsing = MessageParsing.read(kind, [Array(octets[..<cut]), Array(octets[cut...])])
      #expect(parsing.defect == expected, "cut at \(cut)")
      #expect(parsing.texts.isEmpty)
    }
    #expect(!expected.detail.isEmpty)
  }

  private static let chunked = begun + "transfer-encoding: chunked\r\n\r\n"
  private static let chunkDefects: [(String, MessageDefect)] = [
    ("x\r\n", .chunkSize), ("\r\n", .chunkSize), (";a\r\n", .chunkSize), ("0x1\r\n", .chunkSize),
    ("+1\r\n", .chunkSize),
    ("1 \r\n", .chunkSize), (" 1\r\n", .chunkSize), ("1 1\r\n", .chunkSize), ("1;\u{0}\r\n", .chunkSize),
    ("1\n", .lineEnd),
    ("10000000000000000\r\n", .chunkSize), ("1\r\nab", .chunkEnd), ("1\r\na\n", .chunkEnd),
    ("1\r\na\rb", .chunkEnd),
    ("0\r\ncontent-length: 1\r\n", .framingTrailer), ("0\r\nTransfer-Encoding: x\r\n", .framingTrailer),
    ("0\r\nx : y\r\n", .field), ("0\r\nx: y\n", .lineEnd), ("0\r\n\n", .lineEnd),
  ]

  @Test("A chunk that two readers could take for different ones is named", arguments: chunkDefects)
  func chunks(_ text: String, _ expected: MessageDefect) {
    let octets = Array((Self.chunked + text).utf8)
    for cut in octets.indices {
      let parsing = MessageParsing.read(.request, [Array(octets[..<cut]), Array(octets[cut...])])
      #expect(parsing.defect == expected && parsing.texts.count == 1, "cut at \(cut)")
    }
  }

  @Test("The corpora of smuggling: no head, no body of them is understood, whole or in two pieces")
  func smuggling() {
    func check(_ text: String, heads: Int) {
      let octets = Array((text + "GET /smuggled HTTP/1.1\r\n\r\n").utf8)
      for cut in octets.indices {
        let parsing = MessageParsing.read(.request, [Array(octets[..<cut]), Array(octets[cut...])])
        #expect(
          parsing.defect != nil && parsing.texts.count == heads, "\(text.debugDescription) cut at \(cut)")
      }
    }
    // Two hosts are the business of whoever takes the request.
    for (fields, body) in SmugglingTests.corpus where fields != "host: b\r\n" {
      check("POST / HTTP/1.1\r\nhost: a\r\n\(fields)\r\n\(body)", heads: 0)
    }
    for body in SmugglingTests.chunks { check(Self.chunked + body, heads: 1) }
  }

  /// What responses may have that requests may not.
  private static let lenient: Set<String> = [
    "content-length: 4\r\ncontent-length: 4\r\n", "content-length: 0\r\ncontent-length: 0\r\n",
    "content-length: 4, 4\r\n", "content-length : 4\r\n", "content-length\t: 4\r\n",
    "transfer-encoding : chunked\r\n", "x : y\r\n", "host: b\r\n",
  ]

  @Test("The corpora of smuggling, towards us as responses")
  func responseSmuggling() {
    for (fields, body) in SmugglingTests.corpus {
      let parsing = MessageParsing.read(.response, "HTTP/1.1 200 OK\r\nhost: a\r\n\(fields)\r\n\(body)")
      #expect((parsing.defect == nil) == Self.lenient.contains(fields), "\(fields.debugDescription)")
    }
    let blanks: Set<String> = ["4 \r\nWiki\r\n0\r\n\r\n", "4\r\nWiki\r\n0\r\nx : y\r\n\r\n"]
    for body in SmugglingTests.chunks {
      let parsing = MessageParsing.read(
        .response, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\(body)")
      #expect((parsing.defect == nil) == blanks.contains(body), "\(body.debugDescription)")
    }
  }

  @Test("Octets of values go through, and strings replace what is no UTF-8")
  func octets() throws {
    var parser = RequestHeadParser(limits: MessageParsing.limits)
    let value: [UInt8] = [0x61, 0xe9, 0xff]
    var input = ByteBuffer(bytes: Array("GET / HTTP/1.1\r\ncookie: ".utf8) + value + Array("\r\n\r\n".utf8))
    let parsed = try parser.next(&input)
    let head = try #require(parsed)
    #expect(head.fields.octets(of: "cookie").map { Array($0) } == value)
  }

  @Test("Heads, trailers, fields and lines of chunks are bounded, whole or not")
  func bounds() {
    let limits = HeadLimits(maxBytes: 100, maxFields: 3)
    let start = "GET / HTTP/1.1\r\nx: "
    func head(of bytes: Int) -> String {
      start + String(repeating: "y", count: bytes - start.utf8.count - 4) + "\r\n\r\n"
    }
    func defect(_ text: String) -> MessageDefect? {
      MessageParsing.read(.request, text, limits: limits).defect
    }
    #expect(defect(head(of: 100)) == nil && defect(head(of: 101)) == .tooLarge(limits))
    // Each head has its own bound.
    #expect(defect(head(of: 100) + head(of: 100)) == nil)
    #expect(defect(String(repeating: "\r\n", count: 51)) == .tooLarge(limits))
    #expect(defect("GET /" + String(repeating: "y", count: 96)) == .tooLarge(limits))
    #expect(defect("GET / HTTP/1.1\r\n" + String(repeating: "x: y\r\n", count: 3) + "\r\n") == nil)
    #expect(defect("GET / HTTP/1.1\r\n" + String(repeating: "x: y\r\n", count: 4)) == .tooLarge(limits))
    let chunked = "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    #expect(defect(chunked + "0\r\n" + String(repeating: "x: y\r\n", count: 4)) == .tooLarge(limits))
    #expect(defect(chunked + "0\r\nx: " + String(repeating: "y", count: 98)) == .tooLarge(limits))
    #expect(defect(chunked + "1;" + String(repeating: "x", count: 5000)) == .chunkLine(maxBytes: 4096))
    #expect(
      defect(chunked + "1;" + String(repeating: "x", count: 4092) + "\r\na\r\n0\r\n\r\n") == nil)
  }

  @Test("Nothing comes unasked, and what stands behind a body is left")
  func holding() throws {
    for (framing, text) in [
      (BodyFraming.counted(1), "a"), (.chunked, "1\r\na\r\n0\r\n\r\n"), (.untilClose, "a"),
    ] {
      var decoder = BodyDecoder(framing, of: .response, limits: MessageParsing.limits)
      var input = ByteBuffer(string: text + (framing == .untilClose ? "" : "rest"))
      guard case .held = try decoder.next(&input, isWanted: false) else { throw MessageDefect.field }
      guard case .content(let content) = try decoder.next(&input) else { throw MessageDefect.field }
      #expect(String(buffer: content) == "a" && !decoder.hasEnded)
      #expect(decoder.mayEndHere == (framing == .untilClose))
      guard framing != .untilClose else { continue }
      guard case .end = try decoder.next(&input, isWanted: false) else { throw MessageDefect.field }
      guard case .needsInput = try decoder.next(&input) else { throw MessageDefect.field }
      #expect(decoder.hasEnded && decoder.mayEndHere && String(buffer: input) == "rest")
    }
  }

  @Test("Small chunks that came together are one piece, a large one isn't copied into another")
  func joining() throws {
    var decoder = BodyDecoder(.chunked, of: .request, limits: MessageParsing.limits)
    let large = String(repeating: "x", count: 64 << 10)
    var input = ByteBuffer(string: "1\r\na\r\n2\r\nbc\r\n10000\r\n\(large)\r\n1\r\nd\r\n0\r\n\r\n")
    var pieces: [Int] = []
    while case .content(let piece) = try decoder.next(&input) { pieces.append(piece.readableBytes) }
    #expect(pieces.reduce(0, +) == 4 + large.utf8.count && pieces.allSatisfy { $0 <= 64 << 10 })
    #expect(pieces.count == 2 && decoder.hasEnded)
  }

  @Test(
    "A connection lives on unless a head says otherwise",
    arguments: [
      ("HTTP/1.1", "Connection: x , CLOSE\r\n", false), ("HTTP/1.1", "connection: closed\r\n", true),
      ("HTTP/1.1", "", true), ("HTTP/1.0", "", false),
    ])
  func keepsAlive(version: String, fields: String, expected: Bool) throws {
    var input = ByteBuffer(string: "\(version) 200 OK\r\n\(fields)\r\nGET / \(version)\r\n\(fields)\r\n")
    var responses = ResponseHeadParser(limits: MessageParsing.limits)
    var requests = RequestHeadParser(limits: MessageParsing.limits)
    let response = try responses.next(&input)
    #expect(response?.keepsAlive == expected)
    let request = try requests.next(&input)
    #expect(request?.keepsAlive == expected)
    var old = ByteBuffer(string: "GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n")
    let kept = try requests.next(&old)
    #expect(kept?.keepsAlive == true)
  }
}
