// What goes from a client's head to the service and back, octet by octet.

import HTTP
import NIOHTTP1
import Testing

@testable import Connections

@Suite("15.5 Heads that are forwarded") struct ForwardedHeadTests {
  /// Lines, with an octet that is no UTF-8 for each `*`.
  private static func fields(_ lines: String...) throws -> HTTPFields {
    let octets = lines.joined(separator: "\r\n").utf8.map { $0 == UInt8(ascii: "*") ? 0xE9 : $0 }
    return try #require(HTTPFields(wireBlock: octets + [0x0D, 0x0A]))
  }

  private static func toService(
    _ fields: HTTPFields, isTrusted: Bool = false, added: [(name: String, value: String)] = []
  ) -> [String] {
    let request = HTTPRequest(method: .GET, path: "/", headers: fields)
    let context = ForwardedHead.Context(
      isTLS: false, authority: "service:81", addedHeaders: added, isPeerTrusted: isTrusted, peer: "192.0.2.1",
      local: "::1")
    return lines(ForwardedHead.toService(request, context))
  }

  private static func lines(_ fields: HTTPFields) -> [String] {
    String(decoding: fields.wireBlock.map { $0 == 0xE9 ? UInt8(ascii: "*") : $0 }, as: UTF8.self)
      .split(separator: "\r\n").map(String.init)
  }

  private static let own = [
    "forwarded: for=192.0.2.1;by=\"[::1]\";proto=http;host=outside", "x-forwarded-for: 192.0.2.1",
    "x-forwarded-host: outside", "x-forwarded-proto: http", "via: 1.1 rig",
  ]

  @Test("15.5 A service gets the end-to-end fields as they are, and the gateway's own")
  func toService() throws {
    let fields = try Self.fields(
      "Host: outside", "X-Latin: caf*", "cookie: a=*", "connection: keep-alive, X_Named", "x-named: 1",
      "keep-alive: 1", "TE: trailers", "content-length: 1", "Content_Length: 2", "proxy: x", "x-twice: 1",
      "x-twice: 2", "x-forwarded-for: 6.6.6.6", "X_Forwarded_Host: x", "via: 1.0 x", "traceparent: none")
    let kept = ["host: service:81", "X-Latin: caf*", "cookie: a=*", "x-twice: 1", "x-twice: 2"]
    #expect(Self.toService(fields) == kept + Self.own)
  }

  @Test(
    "15.5 Lists of a trusted proxy are continued, the last field of each, and what it has seen first counts")
  func trusted() throws {
    let fields = try Self.fields(
      "host: outside", "via: 1.0 a", "via: 1.1 b*", "forwarded: for=1", "x-forwarded-for: 1, 2",
      "x-forwarded-proto: https", "x-forwarded-host: first", "x-real-ip: 3", "x_forwarded_for: 4")
    #expect(
      Self.toService(fields, isTrusted: true) == [
        "host: service:81", "via: 1.0 a", "x-forwarded-proto: https", "x-forwarded-host: first",
        "x-real-ip: 3",
        "forwarded: for=1, for=192.0.2.1;by=\"[::1]\";proto=http;host=outside",
        "x-forwarded-for: 1, 2, 192.0.2.1",
        "via: 1.1 b*, 1.1 rig",
      ])
  }

  @Test("15.5 What an API sets replaces what is there, and is no field of one connection")
  func added() throws {
    let fields = try Self.fields("host: outside", "X_Set: 1", "x-set: 2")
    let added = [
      (name: "x-set", value: "ä"), (name: "connection", value: "x"), (name: "content-length", value: "1"),
      (name: "host", value: "mine"),
    ]
    #expect(Self.toService(fields, added: added) == Self.own + ["x-set: ä", "host: mine"])
  }

  @Test("15.5 A client gets the end-to-end fields as they are; without others they aren't even copied")
  func toClient() throws {
    let plain = try Self.fields("set-cookie: a=*", "Set-Cookie: b", "content-length: 1", "x: *")
    #expect(ForwardedHead.toClient(plain) == plain)
    let mixed = try Self.fields(
      "connection: x-named", "set-cookie: a=*", "X_Named: 1", "Keep-Alive: 1", "Content_Length: 3",
      "Transfer-Encoding: chunked", "Content-Length: 1", "traceparent: x", "x: *")
    #expect(Self.lines(ForwardedHead.toClient(mixed)) == ["set-cookie: a=*", "Content-Length: 1", "x: *"])
    #expect(ForwardedHead.toClient([:]).isEmpty)
  }
}
