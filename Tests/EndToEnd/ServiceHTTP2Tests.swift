// Services behind TLS that choose HTTP/2: requests, trailers, resets and GOAWAY, from a client of HTTP/1.1 to a service whose frames the
// test writes by hand, and to nghttpd, which nothing of the gateway's has a part in.

import Foundation
import Synchronization
import Testing

@Suite("Services that speak HTTP/2", .serialized)
final class ServiceHTTP2Tests {
  private let directory: TestDirectory
  private let certificate: TestCertificate

  init() throws {
    directory = try TestDirectory()
    certificate = try TestCertificate(directory.path, ["localhost"])
  }

  /// A service that does `serve` with each connection, the first of which is 0.
  private func service(_ serve: @escaping @Sendable (HTTP2Service, Int) throws -> Void) throws -> TLSService {
    let connections = Mutex(0)
    return try TLSService(TLSServing(certificate, protocol: "h2")) { wire in
      let number = connections.withLock { count in
        defer { count += 1 }
        return count
      }
      try serve(try HTTP2Service(wire), number)
    }
  }

  /// A gateway that sends everything below /x to the service.
  private func run(_ service: TLSService, _ body: (Gateway) throws -> Void) throws {
    try Gateway.run(["PROXY_CA_CERTFILE": certificate.file]) { gateway in
      try define(gateway, port: service.port)
      try body(gateway)
    }
  }

  private func define(_ gateway: Gateway, port: Int) throws {
    for method in ["GET", "POST"] {
      try gateway.define(
        TestAPI(
          id: method, port: port, target: "https://localhost",
          endpoint: #""method":"\#(method)","path_regex":"/x.*""#))
    }
  }

  @Test(
    "15.9 Requests of one connection after the other share one connection of HTTP/2; fields, bodies and trailers pass both ways"
  )
  func requests() throws {
    let seen = Mutex<[HTTP2Service.Request]>([])
    let service = try service { service, _ in
      while true {
        let request = try service.request()
        seen.withLock { $0.append(request) }
        try service.head(request.stream, 201, [("x-kept", "1")])
        try service.data(request.stream, "got ")
        try service.data(request.stream, String(decoding: request.body, as: UTF8.self))
        try service.trailers(request.stream, [("x-sum", "7")])
      }
    }
    defer { service.stop() }
    try run(service) { gateway in
      // More than the service's first windows, and less than the gateway's.
      let large = String(repeating: "x", count: 200_000)
      for body in ["hello", large] {
        let answer = try gateway.inbound("POST", "/x?a=b", headers: [("x-own", "2")], body: body)
        #expect(answer.status == 201 && answer["x-kept"] == "1", "\(answer.text.prefix(200))")
        #expect(answer.text == "got \(body)")
      }
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(Self.chunked("hello", trailer: "x-check: 3"))
      let answer = try http.answer(to: "POST")
      #expect(answer.status == 201 && answer.trailers == ["x-sum: 7"], "\(answer)")
      let all = seen.withLock { $0 }
      #expect(all.map(\.path) == ["/x?a=b", "/x?a=b", "/x"])
      let first = try #require(all.first)
      #expect(first[":method"] == "POST" && first[":scheme"] == "https" && first["x-own"] == "2")
      #expect(first[":authority"] == "localhost:\(service.port)" && first["host"] == nil)
      #expect(all.last?.trailers.map { "\($0.name)=\($0.value)" } == ["x-check=3"])
      #expect(String(decoding: all[1].body, as: UTF8.self) == large)
      #expect(service.handshakes.map(\.chosen) == ["h2"])
    }
  }

  @Test(
    "15.9 A stream that is reset costs its own request alone, and one that wasn't looked at is sent again")
  func resets() throws {
    let refused = Mutex(false)
    let service = try service { service, _ in
      while true {
        let request = try service.request()
        switch request.path {
        case "/x/half":
          try service.head(request.stream, 200)
          try service.data(request.stream, "hal")
          try service.reset(request.stream, 2)
        case "/x/broken": try service.reset(request.stream, 2)
        case "/x/refused":
          let isFirst = refused.withLock { seen in
            defer { seen = true }
            return !seen
          }
          if isFirst { try service.reset(request.stream, 7) } else { try service.answer(request, "again") }
        default: try service.answer(request, "whole")
        }
      }
    }
    defer { service.stop() }
    try run(service) { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/x/half"))
      let half = try http.wire.receiveToEnd().text
      #expect(half.hasPrefix("HTTP/1.1 200") && !half.hasSuffix("0\r\n\r\n"), "\(half)")
      #expect(try gateway.inbound("POST", "/x/broken", body: "a").status == 502)
      // Even one that isn't idempotent.
      let answer = try gateway.inbound("POST", "/x/refused", body: "a")
      #expect(answer.status == 200 && answer.text == "again")
      #expect(try gateway.inbound("GET", "/x/next").text == "whole")
      #expect(service.handshakes.count == 1)
    }
  }

  @Test("15.9 A client that goes resets its stream, and the connection goes on")
  func cancelled() throws {
    let codes = Mutex<[Int]>([])
    let service = try service { service, _ in
      while true {
        let request = try service.request()
        codes.withLock { $0 = service.resets.values.sorted() }
        if request.path == "/x/held" {
          try service.head(request.stream, 200)
          try service.data(request.stream, "begun")
        } else {
          try service.answer(request, "whole")
        }
      }
    }
    defer { service.stop() }
    try run(service) { gateway in
      var http: HTTPConnection? = try HTTPConnection(port: gateway.inboundPort)
      try http?.wire.send(HTTPConnection.request("GET", "/x/held"))
      #expect(try http?.head().status == 200)
      http?.wire.reset()
      http = nil
      try eventually("the service hears of it") {
        let next = try gateway.inbound("GET", "/x/next").text
        #expect(next == "whole")
        return codes.withLock { $0 == [8] }
      }
      #expect(service.handshakes.count == 1)
    }
  }

  @Test(
    "15.9 Behind GOAWAY a new connection is made, and what wasn't looked at is sent there; nothing is lost")
  func goAway() throws {
    let service = try service { service, number in
      while true {
        let request = try service.request()
        switch (request.path, number) {
        case ("/x/last", 0):
          try service.goAway(last: request.stream)
          try service.answer(request, "\(number)")
        // A service that ends for want of time: this one was never looked at.
        case ("/x/late", 1): try service.goAway(last: request.stream - 2)
        default: try service.answer(request, "\(number)")
        }
      }
    }
    defer { service.stop() }
    try run(service) { gateway in
      let answers = [
        try gateway.inbound("GET", "/x/a").text, try gateway.inbound("GET", "/x/last").text,
        try gateway.inbound("GET", "/x/b").text, try gateway.inbound("POST", "/x/late", body: "a").text,
        try gateway.inbound("GET", "/x/c").text,
      ]
      #expect(answers == ["0", "0", "1", "2", "2"])
      #expect(service.handshakes.count == 3 && service.handshakes.allSatisfy { $0.chosen == "h2" })
    }
  }

  @Test("15.9 nghttpd gets many requests at once over one connection, and sends their bodies back")
  func nghttpd() throws {
    let port = try FreePorts.next()
    let server = try ChildProcess(
      try Tools.system("nghttpd"),
      [
        "-v", "-a", "127.0.0.1", "-d", directory.path, "--echo-upload", String(port), certificate.keyFile,
        certificate.file,
      ], environment: [:], directory: directory.path)
    defer { try? server.killTree() }
    try eventually("nghttpd listens") { (try? Wire(port: port)) != nil }
    try Gateway.run(["PROXY_CA_CERTFILE": certificate.file]) { gateway in
      try define(gateway, port: port)
      let bodies = (0..<40).map { String(repeating: "\($0 % 10)", count: 1 + 5_000 * $0) }
      let clients = try bodies.map { body in
        let http = try HTTPConnection(port: gateway.inboundPort)
        try http.wire.send(Self.chunked(body, trailer: "x-check: 3"))
        return http
      }
      for (http, body) in zip(clients, bodies) {
        let answer = try http.answer(to: "POST")
        #expect(answer.status == 200 && answer.text == body, "\(answer.head)")
      }
      let log = (try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)) ?? ""
      let lines = log.split(separator: "\n")
      #expect(lines.count { $0.hasPrefix("The negotiated protocol: h2") } == 1)
      #expect(lines.count { $0.hasSuffix("x-check: 3") } == bodies.count)
    }
  }

  private static func chunked(_ body: String, trailer: String) -> String {
    "POST /x HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n"
      + "\(String(body.utf8.count, radix: 16))\r\n\(body)\r\n0\r\n\(trailer)\r\n\r\n"
  }
}
