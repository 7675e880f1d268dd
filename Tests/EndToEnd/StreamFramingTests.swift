// How an event stream is framed, by what its client speaks: contract §2.1, RFC 9112 §6.3 and §7.1.

import Foundation
import Testing

@Suite("14.C16 Framing of event streams")
struct StreamFramingTests {
  private static let path = "/_rig/v1/connection/sse?subscriptions=" + HTTP.encoded(Subscriptions.to("a"))

  /// A stream on HTTP/1.1 with nothing taken from its body.
  private static func open(_ gateway: Gateway) throws -> (wire: Wire, head: HTTPHead) {
    let http = try HTTPConnection(port: gateway.inboundPort)
    try http.wire.send(HTTPConnection.request("GET", path))
    let head = try http.head()
    #expect(head.status == 200)
    return (http.wire, head)
  }

  /// The data of the next chunk; nil: it was the last one.
  private static func chunk(_ wire: Wire) throws -> String? {
    let size = try wire.receive("the size of a chunk") { $0.takeLine() }
    let count = try #require(Int(size, radix: 16), "\(size) is no size of a chunk")
    let data = try wire.receive("\(count) bytes and their end") { queue in
      queue.count >= count + 2 ? queue.take(count + 2) : nil
    }
    #expect(data.suffix(2) == [13, 10], "a chunk ends with CRLF")
    return count == 0 ? nil : String(decoding: data.dropLast(2), as: UTF8.self)
  }

  @Test("14.C16 On HTTP/1.1 a stream is chunked, and each event is one chunk, whatever comes together")
  func chunked() throws {
    try Gateway.run { gateway in
      let (wire, head) = try Self.open(gateway)
      #expect(head["transfer-encoding"] == "chunked")
      #expect(head["content-length"] == nil)
      #expect(try Self.chunk(wire)?.hasPrefix("retry: ") == true)
      #expect(try Self.chunk(wire)?.hasPrefix("event: rig.connection.create\n") == true)
      #expect(try Self.chunk(wire)?.contains("event: rig.subscriptions_set\n") == true)
      for number in 0..<20 { try gateway.publish(CloudEvent.json("a", id: "\(number)")) }
      for number in 0..<20 {
        let block = try #require(try Self.chunk(wire))
        #expect(block.hasPrefix("id: ") && block.hasSuffix("\n\n"), "a chunk is one whole event")
        #expect(block.split(separator: "\n\n").count == 1 && block.contains(#""id":"\#(number)""#))
      }
      try gateway.publish(
        CloudEvent.json("a", id: "large", data: "\"\(String(repeating: "x", count: 300_000))\""))
      #expect(try Self.chunk(wire)?.utf8.count ?? 0 > 300_000)
    }
  }

  @Test("14.C16 The last chunk comes with an orderly end, and only with that", arguments: [SIGTERM, SIGKILL])
  func end(signal: CInt) throws {
    try Gateway.run(Gateway.withoutKeepers) { gateway in
      let (wire, _) = try Self.open(gateway)
      while try Self.chunk(wire)?.contains("rig.subscriptions_set") == false {}
      if signal == SIGTERM {
        gateway.process.signal(SIGTERM)
        #expect(try Self.chunk(wire)?.contains("rig.server_closing") == true)
        #expect(try Self.chunk(wire) == nil)
      } else {
        try gateway.killAndAwaitReplacement(gateway.worker(holding: wire.localPort))
      }
      #expect(try wire.receiveToEnd().isEmpty, "nothing stands behind the end, and a cut stream has none")
    }
  }

  @Test("14.C16 On HTTP/1.0 a stream isn't chunked, and ends with its connection")
  func old() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send("GET \(Self.path) HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
      let head = try http.head()
      #expect(head["transfer-encoding"] == nil && head["connection"] == "close")
      _ = try http.wire.receive("the greeting") { $0.distance(to: "event: rig.subscriptions_set\n") }
      gateway.process.signal(SIGTERM)
      let text = try http.wire.receiveToEnd().text
      #expect(text.hasPrefix("retry: ") && text.hasSuffix("\n\n"))
      #expect(text.contains("event: rig.server_closing\n"))
    }
  }

  @Test("14.C16 HEAD of a stream announces no length, and leaves the connection usable")
  func head() throws {
    try Gateway.run { gateway in
      let http = try HTTPConnection(port: gateway.inboundPort)
      for path in ["sse", "longpolling"] {
        let answer = try http.send("HEAD", "/_rig/v1/connection/\(path)")
        #expect(answer.status == 200 && answer["content-length"] == nil, "\(path)")
      }
      #expect(try http.send("HEAD", "/_rig/health")["content-length"] == "2")
    }
  }

  @Test("14.C16 A client that reads in blocks gets each event when it comes")
  func blocks() throws {
    let directory = try TestDirectory()
    try Gateway.run { gateway in
      try Self.reader.write(toFile: directory.file("reader.py"), atomically: true, encoding: .utf8)
      let reader = try ChildProcess(
        Tools.python("python"), ["reader.py", "http://127.0.0.1:\(gateway.inboundPort)\(Self.path)"],
        environment: [:], directory: directory.path)
      func said(_ text: String) -> Bool {
        let output = try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)
        return output?.contains(text) ?? false
      }
      try eventually("the greeting is read") { said("rig.subscriptions_set") }
      for number in 0..<3 {
        try gateway.publish(CloudEvent.json("a", id: "number \(number)"))
        try eventually("event \(number) is read before there is another one") { said("number \(number)") }
      }
      gateway.process.signal(SIGTERM)
      #expect(try reader.wait() == .exited(0), "an orderly end is no error")
    }
  }

  /// Reads with `requests`, which asks for 512 bytes at a time.
  private static let reader = """
    import requests, sys

    for line in requests.get(sys.argv[1], stream=True).iter_lines():
        print(line.decode(), flush=True)
    """
}
