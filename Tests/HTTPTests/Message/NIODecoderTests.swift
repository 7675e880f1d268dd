// Why NIO's decoder of HTTP/1.1 is not the base of ours (docs/dependencies.md): what it does with messages that ours takes as they are.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import HTTP

@Suite("15.5 What NIO's decoder can't do") struct NIODecoderTests {
  /// The paths of the requests that it has found, and what it gives up with.
  private func decode(_ bytes: [UInt8]) throws -> (heads: [HTTPRequestHead], error: HTTPParserError?) {
    let channel = EmbeddedChannel(handler: ByteToMessageHandler(HTTPRequestDecoder()))
    defer { _ = try? channel.finish() }
    var error: HTTPParserError?
    do {
      try channel.writeInbound(ByteBuffer(bytes: bytes))
    } catch let failure as HTTPParserError {
      error = failure
    }
    var heads: [HTTPRequestHead] = []
    while let part = try channel.readInbound(as: HTTPServerRequestPart.self) {
      if case .head(let head) = part { heads.append(head) }
    }
    return (heads, error)
  }

  private func decode(_ text: String) throws -> (heads: [HTTPRequestHead], error: HTTPParserError?) {
    try decode(Array(text.utf8))
  }

  @Test("It makes strings of values: octets that are no UTF-8 are lost")
  func octets() throws {
    let value: [UInt8] = [0x61, 0xe9]
    let bytes = Array("GET / HTTP/1.1\r\nx: ".utf8) + value + Array("\r\n\r\n".utf8)
    let theirs = try decode(bytes).heads.first?.headers.first(name: "x")
    #expect(theirs.map { Array($0.utf8) } == [0x61, 0xef, 0xbf, 0xbd])
    var parser = RequestHeadParser(limits: MessageParsing.limits)
    var input = ByteBuffer(bytes: bytes)
    let ours = try parser.next(&input)?.fields.octets(of: "x")
    #expect(ours.map { Array($0) } == value)
  }

  @Test("It takes for an upgrade what is none, doesn't say so, and finds no request behind it")
  func upgrade() throws {
    let text = "GET /a HTTP/1.1\r\nproxy-connection: upgrade\r\nupgrade: x\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
    #expect(try decode(text).heads.map(\.uri) == ["/a"])
    #expect(MessageParsing.read(.request, text).texts.filter { $0.hasPrefix("GET") }.count == 2)
  }

  @Test("It doesn't tell a method that it doesn't know from what is no method")
  func method() throws {
    #expect(try decode("BREW / HTTP/1.1\r\n\r\n").error == .invalidMethod)
    #expect(try decode("\u{16}\u{3}\u{1}").error == .invalidMethod)
    #expect(MessageParsing.read(.request, "BREW / HTTP/1.1\r\n\r\n").defect == nil)
    #expect(MessageParsing.read(.request, "\u{16}\u{3}\u{1}").defect == .method)
  }

  @Test("It can't be asked for one request: all that came at once is parsed at once")
  func pull() throws {
    let text = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
    #expect(try decode(text).heads.count == 2)
    var parser = RequestHeadParser(limits: MessageParsing.limits)
    var input = ByteBuffer(string: text)
    let head = try parser.next(&input)
    #expect(head?.target == "/a" && String(buffer: input) == "GET /b HTTP/1.1\r\n\r\n")
  }
}
