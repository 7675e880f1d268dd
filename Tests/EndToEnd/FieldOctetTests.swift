// What isn't UTF-8 in fields goes through the gateway byte for byte, in both directions, wherever fields can stand (issue 15, number 5).

import Foundation
import Testing

@Suite("15.5 Octets of fields")
struct FieldOctetTests {
  /// Latin-1, and an octet that no UTF-8 has.
  private static let odd: [UInt8] = [0xE9, 0xFF]
  private static let replaced: [UInt8] = [0xEF, 0xBF, 0xBD]

  /// Text with the odd octets for each `*`.
  private static func octets(_ text: String) -> [UInt8] {
    text.utf8.flatMap { $0 == UInt8(ascii: "*") ? odd : [$0] }
  }

  private static func has(_ octets: [UInt8], _ text: String) -> Bool {
    octets.firstRange(of: Self.octets(text)) != nil
  }

  private static func api(_ port: Int) -> TestAPI {
    TestAPI(id: "open", port: port, endpoint: #""method":"POST","path_regex":"/x.*""#)
  }

  @Test("15.5 A service gets a request's fields, cookies and trailers as the client sent them")
  func requests() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.api(service.port))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let fields = [
        "x-latin: caf*", "Cookie: a=*; b=c", "content-disposition: form-data; filename=\"*.txt\"",
        "x-empty: ",
        "x-list: a,*\t,b",
      ]
      let head = "POST /x HTTP/1.1\r\nhost: a\r\n" + fields.map { "\($0)\r\n" }.joined()
      _ = try http.wire.send(
        Self.octets(head + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-end: *\r\n\r\n"))
      #expect(try http.answer(to: "POST").status == 200)
      let seen = try #require(service.requests.first).octets
      for field in fields { #expect(Self.has(seen, "\r\n\(field)\r\n"), "\(field)") }
      #expect(Self.has(seen, "\r\n0\r\nx-end: *\r\n\r\n"))
      // A counted one, too.
      _ = try http.wire.send(Self.octets(head + "content-length: 1\r\n\r\na"))
      #expect(try http.answer(to: "POST").status == 200)
      let counted = try #require(service.requests.last).octets
      for field in fields { #expect(Self.has(counted, "\r\n\(field)\r\n"), "\(field)") }
      #expect(seen.firstRange(of: Self.replaced) == nil && counted.firstRange(of: Self.replaced) == nil)
    }
  }

  @Test(
    "15.5 A client gets an answer's fields, cookies, trailers and interim answers as the service sent them")
  func answers() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run { gateway in
      try gateway.define(Self.api(service.port))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let fields = [
        "set-cookie: a=*; path=/", "Set-Cookie: b=*", "content-disposition: attachment; filename=\"*.txt\"",
        "x-latin: *", "location: /*",
      ]
      let lines = fields.map { "\($0)\r\n" }.joined()
      let interim = "HTTP/1.1 103 Early Hints\r\nlink: </*>\r\n\r\n"
      let bodies = [
        ("content-length: 1\r\n\r\n", "a"),
        ("transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", "x-end: *\r\n\r\n"),
      ]
      for (framing, end) in bodies {
        service.behave(.octets(Self.octets("\(interim)HTTP/1.1 200 OK\r\n\(lines)\(framing)\(end)")))
        try http.wire.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        let mark = Self.octets(framing.hasSuffix("0\r\n") ? "0\r\n\(end)" : "\r\n\r\na")
        var answer: [UInt8] = []
        _ = try http.wire.receive("the answer") { (queue: inout ByteQueue) -> Bool? in
          answer += queue.takeAll()
          return answer.suffix(mark.count) == mark[...] ? true : nil
        }
        for field in fields { #expect(Self.has(answer, "\r\n\(field)\r\n"), "\(field)") }
        #expect(Self.has(answer, "\r\nlink: </*>\r\n") && answer.firstRange(of: Self.replaced) == nil)
      }
    }
  }
}
