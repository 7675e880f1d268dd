// Requests and answers, byte by byte, and both with push-back.

import HTTP
import NIOCore
import NIOHTTP1
import NIOPosix
import Testing

@testable import Proxies

@Suite("Exchanges with an upstream", .serialized) struct UpstreamExchangeTests {
  private static let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

  private func closed(_ failure: UpstreamFailure?) -> Bool { failure?.isClosedEarly ?? false }

  @Test("A request is sent as it is said, and connections are used again")
  func reuse() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      var request = upstream.get("/a//b%2f/../c?x=[1]|{}\"<>`^\\#f")
      request.headers = ["host": "u:1", "X-A": "b\tc", "x-a": "ü", "accept": ""]
      let first = try await bench.begin(request)
      let peer = try upstream.accept()
      #expect(
        peer.receive(until: "\r\n\r\n")
          == "GET /a//b%2f/../c?x=[1]|{}\"<>`^\\#f HTTP/1.1\r\nhost: u:1\r\nX-A: b\tc\r\nx-a: ü\r\naccept: \r\n\r\n"
      )
      peer.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\nok")
      #expect(try await first.end() == [.answered(201), .sent("ok"), .ended([])])
      let headers = try await first.onLoop { _, recorder in "\(recorder.heads[0].fields)" }
      #expect(headers == "Content-Length: 2\r\nx: y\r\n")
      for index in 0..<3 {
        let next = try await bench.begin(upstream.get("/\(index)"))
        #expect(peer.receive(until: "\r\n\r\n") == "GET /\(index) HTTP/1.1\r\nhost: u\r\n\r\n")
        peer.send(Self.empty)
        #expect(try await next.end() == [.answered(200), .ended([])])
      }
      #expect(!upstream.hasConnection)
      #expect(
        try await bench.onLoop { [$0.openConnections, $0.idleConnections] } == [1, 1])
    }
  }

  @Test("What would be another request on the wire isn't sent")
  func badRequests() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      var requests = ["", "/a b", "/a\r\nx: y", "/\u{0}", "/ü", "/\u{7f}", "/\t"].map { upstream.get($0) }
      requests += [["Content-Length": "1"], ["Transfer-Encoding": "chunked"]].map {
        upstream.request(.GET, headers: $0)
      }
      requests += [
        upstream.request(.CONNECT), upstream.request(.RAW(value: "A B")),
        upstream.request(.PUT, body: .counted(-1)),
      ]
      for request in requests {
        let failure = try await bench.begin(request).failure()
        #expect(failure?.isBadRequest ?? false, "\(request.target) \(request.headers)")
      }
      #expect(!upstream.hasConnection)
      #expect(try await bench.onLoop { $0.openConnections } == 0)
    }
  }

  @Test("15.5 Fields can't begin another one, or another request")
  func cleanFields() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let headers: HTTPFields = [
        "host": "u", "a": "b\r\nc: d", "e": "f\n\r\nGET / HTTP/1.1", "g": "\u{0}", "a b": "c", "": "x",
        "a:": "x",
      ]
      let call = try await bench.begin(upstream.request(.GET, headers: headers))
      let peer = try upstream.accept()
      #expect(
        peer.receive(until: "\r\n\r\n")
          == "GET / HTTP/1.1\r\nhost: u\r\na: b  c: d\r\ne: f   GET / HTTP/1.1\r\ng: \r\n\r\n")
      peer.send(Self.empty)
      #expect(try await call.end() == [.answered(200), .ended([])])
    }
  }

  @Test("15.5 Values go through byte for byte, both ways, whatever their coding")
  func octets() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let value: [UInt8] = [0xE9, 0x20, 0xFF, 0x80, 0xC3]
      var request = upstream.get("/")
      request.headers.add(name: "x-a", value: value)
      let call = try await bench.begin(request)
      let peer = try upstream.accept()
      var bytes: [UInt8] = []
      while !bytes.suffix(4).elementsEqual("\r\n\r\n".utf8), let more = peer.receive(), !more.isEmpty {
        bytes += more
      }
      #expect(
        bytes == Array("GET / HTTP/1.1\r\nhost: u\r\nx-a: ".utf8) + value + Array("\r\n\r\n".utf8))
      peer.send(Array("HTTP/1.1 200 OK\r\nx-b: ".utf8) + value + Array("\r\ncontent-length: 0\r\n\r\n".utf8))
      #expect(try await call.end() == [.answered(200), .ended([])])
      let answered = try await call.onLoop { _, recorder in
        recorder.heads[0].fields.octets(of: "x-b").map(Array.init)
      }
      #expect(answered == value)
    }
  }

  @Test("15.5 A small answer comes in one call where the request lets it, and the connection is used again")
  func whole() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let peer = try await bench.useOnce(upstream)
      var request = upstream.get("/")
      request.maximumWholeBytes = 5
      for (body, expected) in [
        ("hello", [Told.answeredWhole(200, "hello")]), ("", [.answeredWhole(200, "")]),
        ("hello!", [.answered(200), .sent("hello!"), .ended([])]),
      ] {
        let call = try await bench.begin(request)
        _ = peer.receive(until: "\r\n\r\n")
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(try await call.end() == expected)
      }
      #expect(!upstream.hasConnection)
      #expect(try await bench.onLoop { [$0.openConnections, $0.idleConnections] } == [1, 1])
    }
  }

  @Test("A body that is at hand goes with the head, counted or in chunks, with trailers")
  func bodies() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let counted = try await bench.begin(upstream.request(.POST, body: .counted(5))) { exchange, _ in
        #expect(exchange.write(ByteBuffer(string: "he")))
        #expect(exchange.write(ByteBuffer(string: "llo")))
        exchange.end()
      }
      let peer = try upstream.accept()
      #expect(
        peer.receive(until: "hello") == "POST / HTTP/1.1\r\nhost: u\r\ncontent-length: 5\r\n\r\nhello")
      peer.send(Self.empty)
      // Nobody waits for room, so nobody is invited.
      #expect(try await counted.end() == [.answered(200), .ended([])])

      let large = String(repeating: "z", count: 20_000)
      let chunked = try await bench.begin(upstream.request(.PUT, body: .chunked)) { exchange, _ in
        #expect(exchange.write(ByteBuffer(string: "hello")))
        #expect(exchange.write(ByteBuffer(string: large)))
        #expect(exchange.write(ByteBuffer(string: "x")))
        #expect(exchange.write(ByteBuffer()))
        exchange.end(trailers: ["x-sum": "1"])
      }
      #expect(
        peer.receive(until: "x-sum: 1\r\n\r\n")
          == "PUT / HTTP/1.1\r\nhost: u\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n4e20\r\n\(large)\r\n"
          + "1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: u\r\n\r\n")
      #expect(try await chunked.end() == [.answered(200), .sent("abc"), .ended(["x-t: u"])])
      let nothing = try await bench.begin(upstream.request(.POST, body: .counted(0))) { exchange, _ in
        exchange.end()
      }
      #expect(peer.receive(until: "\r\n\r\n") == "POST / HTTP/1.1\r\nhost: u\r\ncontent-length: 0\r\n\r\n")
      peer.send(Self.empty)
      #expect(try await nothing.end() == [.answered(200), .ended([])])
      #expect(!upstream.hasConnection)
    }
  }

  @Test("15.5 A counted body is whole with its last byte: an answer before `end` leaves the connection")
  func wholeByCount() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.request(.POST, body: .counted(5)))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      try await call.wait(for: .wantsBody)
      for text in ["he", "llo"] {
        #expect(try await call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: text)) })
        #expect(peer.receive(until: text) == text)
      }
      peer.send(Self.empty)
      #expect(try await call.end() == [.wantsBody, .answered(200), .ended([])])
      try #require(try await bench.onLoop { $0.idleConnections } == 1)
      _ = try await call.onLoop { exchange, _ in exchange.end() }
      let next = try await bench.begin(upstream.get("/next"))
      #expect(peer.receive(until: "\r\n\r\n").hasPrefix("GET /next "))
      peer.send(Self.empty)
      #expect(try await next.end() == [.answered(200), .ended([])])
      #expect(!upstream.hasConnection)
    }
  }

  @Test("15.5 The `end` of a counted body that comes late doesn't end the tunnel which its answer began")
  func lateEndInTunnel() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let headers: HTTPFields = ["host": "u", "connection": "upgrade", "upgrade": "x"]
      let call = try await bench.begin(upstream.request(.POST, body: .counted(2), headers: headers)) {
        exchange, _ in
        #expect(exchange.write(ByteBuffer(string: "ok")))
      }
      let peer = try upstream.accept()
      #expect(peer.receive(until: "ok").hasSuffix("\r\n\r\nok"))
      peer.send("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
      try await call.wait(for: .upgraded)
      _ = try await call.onLoop { exchange, _ in
        exchange.end()
        _ = exchange.write(ByteBuffer(string: "through"))
      }
      #expect(peer.receive(until: "through") == "through")
      _ = try await call.onLoop { exchange, _ in exchange.end() }
      #expect(peer.isEndedByPeer())
      peer.close()
      #expect(try await call.end().last == .ended([]))
    }
  }

  @Test("A body that comes later is invited, and goes out as it comes")
  func lateBody() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      var peers: [Peer] = []
      for target in ["/new", "/reused"] {
        let call = try await bench.begin(upstream.request(.POST, target, body: .chunked))
        let peer = target == "/new" ? try upstream.accept() : try #require(peers.last)
        #expect(peer.receive(until: "\r\n\r\n").hasPrefix("POST \(target) "))
        try await call.wait(for: .wantsBody)
        for text in ["one", "two"] {
          #expect(try await call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: text)) })
          #expect(peer.receive(until: "\(text)\r\n") == "3\r\n\(text)\r\n")
        }
        _ = try await call.onLoop { exchange, _ in exchange.end() }
        #expect(peer.receive(until: "\r\n\r\n") == "0\r\n\r\n")
        peer.send(Self.empty)
        #expect(try await call.end() == [.wantsBody, .answered(200), .ended([])])
        peers.append(peer)
      }
      #expect(!upstream.hasConnection)
    }
  }

  @Test("A body that isn't as long as announced ends the exchange and the connection")
  func wrongLength() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      for text in ["abc", "a"] {
        let call = try await bench.begin(upstream.request(.POST, body: .counted(2)))
        let peer = try upstream.accept()
        _ = peer.receive(until: "\r\n\r\n")
        _ = try await call.onLoop { exchange, _ in
          _ = exchange.write(ByteBuffer(string: text))
          exchange.end()
        }
        #expect(try await call.failure()?.isBadRequest ?? false)
      }
    }
  }

  @Test("Who writes faster than the upstream reads is told to wait, and to go on")
  func requestPushBack() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream(receiveBuffer: 4096)
      let call = try await bench.begin(upstream.request(.POST, body: .chunked))
      let peer = try upstream.accept()
      try await call.wait(for: .wantsBody)
      let piece = ByteBuffer(repeating: UInt8(ascii: "x"), count: 100_000)
      // The kernel's part of this is bounded; so is ours.
      let written = try await call.onLoop { exchange, _ in
        var pieces = 1
        while exchange.write(piece), pieces < 1000 { pieces += 1 }
        return pieces
      }
      // Its own turn has flushed what the kernel takes, and there may be room again.
      var total = written
      while total < 1000 {
        guard try await call.onLoop({ exchange, _ in !exchange.owesInvitation }) else { break }
        _ = try await call.onLoop { exchange, _ in exchange.write(piece) }
        total += 1
      }
      #expect(total < 200, "somebody has taken \(total) pieces of 100 kB")
      #expect(try await bench.onLoop { _ in call.exchange.owesInvitation })
      let invitations = try await call.told().count
      // On a thread of its own: it blocks until the test has gone on.
      let reading = Task {
        try await NIOThreadPool.singleton.runIfActive { peer.receive(until: "0\r\n\r\n").utf8.count }
      }
      try await bench.wait { _ in call.recorder.told.count > invitations }
      _ = try await call.onLoop { exchange, _ in exchange.end() }
      #expect(try await reading.value > total * 100_000)
      peer.send(Self.empty)
      #expect(try await call.end().suffix(2) == [.answered(200), .ended([])])
    }
  }

  @Test("Who doesn't wait is stopped")
  func impatience() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream(receiveBuffer: 4096)
      let call = try await bench.begin(upstream.request(.POST, body: .chunked)) { exchange, _ in
        for _ in 0..<100 where !exchange.isOver {
          _ = exchange.write(ByteBuffer(repeating: 0, count: 100_000))
        }
      }
      #expect(try await call.failure()?.isBadRequest ?? false)
    }
  }

  @Test("An answer comes no faster than it is read")
  func answerPushBack() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let total = 64 << 20
      let call = try await bench.begin(upstream.get("/"), readsAll: false)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ncontent-length: \(total)\r\n\r\n")
      try await call.wait(for: .answered(200))
      let block = [UInt8](repeating: 1, count: 1 << 20)
      var sent = 0
      while true {
        let count = peer.sendAtOnce(block)
        if count == 0 { break }
        sent += count
      }
      #expect(sent < total, "the kernel's buffers are smaller than that")
      #expect(try await call.onLoop { _, recorder in recorder.received } == 0)
      for pieces in 1...3 {
        _ = try await call.onLoop { exchange, _ in exchange.readMore() }
        try await bench.wait { _ in call.recorder.told.count > pieces }
        #expect(try await call.told().count == pieces + 1)
      }
      #expect(try await call.onLoop { _, recorder in recorder.received } <= 3 * 64 << 10)
      _ = try await call.onLoop { exchange, recorder in
        recorder.readsAll = true
        recorder.told = []
        exchange.readMore()
      }
      while sent < total {
        peer.send(String(repeating: "x", count: min(1 << 20, total - sent)))
        sent += min(1 << 20, total - sent)
      }
      #expect(try await call.end().last == .ended([]))
      #expect(try await call.onLoop { _, recorder in recorder.received } == total)
    }
  }

  @Test("Streams go both ways at once")
  func bothWays() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.request(.POST, body: .chunked))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
      try await call.wait(for: .answered(200))
      for text in ["ping", "pong"] {
        _ = try await call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: text)) }
        #expect(peer.receive(until: "\(text)\r\n") == "4\r\n\(text)\r\n")
        peer.send("4\r\n\(text)\r\n")
        try await call.wait(for: .sent(text))
      }
      _ = try await call.onLoop { exchange, _ in exchange.end() }
      #expect(peer.receive(until: "0\r\n\r\n") == "0\r\n\r\n")
      peer.send("0\r\n\r\n")
      #expect(try await call.end().last == .ended([]))
      #expect(try await bench.onLoop { $0.idleConnections } == 1)
    }
  }

  @Test("Interim answers are passed on, and a body that waits for one")
  func interim() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(
        upstream.request(.POST, body: .counted(2), headers: ["host": "u", "expect": "100-continue"]))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
      try await call.wait(for: .informed(100))
      _ = try await call.onLoop { exchange, _ in
        _ = exchange.write(ByteBuffer(string: "ok"))
        exchange.end()
      }
      #expect(peer.receive(until: "ok") == "ok")
      peer.send(Self.empty)
      #expect(
        try await call.end() == [.wantsBody, .informed(103), .informed(100), .answered(200), .ended([])])
    }
  }

  @Test("Answers without a body end with their head, whatever they say")
  func noBodies() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let peer = try await bench.useOnce(upstream)
      for (method, status) in [(HTTPMethod.HEAD, 200), (.GET, 204), (.GET, 304), (.HEAD, 404)] {
        let call = try await bench.begin(upstream.request(method))
        _ = peer.receive(until: "\r\n\r\n")
        peer.send("HTTP/1.1 \(status) x\r\ncontent-length: 5\r\n\r\n")
        #expect(try await call.end() == [.answered(status), .ended([])])
      }
      #expect(!upstream.hasConnection)
    }
  }

  @Test("An answer without length ends with the connection")
  func unbounded() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.get("/"))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\n\r\nabc")
      try await call.wait(for: .sent("abc"))
      peer.send("def")
      peer.close()
      #expect(try await call.end() == [.answered(200), .sent("abc"), .sent("def"), .ended([])])
      try await bench.wait { $0.openConnections == 0 }
    }
  }

  @Test("What an upstream sent before it closed can still be read, piece by piece")
  func closedButHeld() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.get("/"), readsAll: false)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")
      peer.close()
      try await bench.wait { $0.openConnections == 0 }
      #expect(try await call.told() == [.answered(200)])
      _ = try await call.onLoop { exchange, _ in exchange.readMore() }
      #expect(try await call.told() == [.answered(200), .sent("abc"), .ended([])])
    }
  }

  @Test("An early answer is delivered, and the connection ends with it")
  func earlyAnswer() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.request(.POST, body: .counted(10)))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      try await call.wait(for: .wantsBody)
      peer.send("HTTP/1.1 413 x\r\ncontent-length: 2\r\n\r\nno")
      #expect(try await call.end() == [.wantsBody, .answered(413), .sent("no"), .ended([])])
      #expect(try await !call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: "late")) })
      #expect(peer.isEndedByPeer())
      try await bench.wait { $0.openConnections == 0 }
    }
  }

  @Test("A close before or in the middle of an answer is a failure that says which")
  func closedEarly() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let answers = [
        "", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
      ]
      for answer in answers {
        let call = try await bench.begin(upstream.get("/"))
        let peer = try upstream.accept()
        _ = peer.receive(until: "\r\n\r\n")
        peer.send(answer)
        peer.close()
        let failure = try await call.failure()
        #expect(closed(failure), "\(answer)")
        #expect(failure?.hasAnswerBegun == answer.contains("200 OK"))
      }
    }
  }

  @Test("Garbage is a failure, and ends the connection")
  func garbage() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      for answer in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"] {
        let call = try await bench.begin(upstream.get("/"))
        let peer = try upstream.accept()
        _ = peer.receive(until: "\r\n\r\n")
        peer.send(answer)
        #expect(try await call.failure()?.isMalformed ?? false)
        #expect(peer.isEndedByPeer())
      }
    }
  }

  @Test(
    "After cancel nothing is told, and the connection is closed: waiting for the head, in the middle, in a call"
  )
  func cancel() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let waiting = try await bench.begin(upstream.get("/"))
      let first = try upstream.accept()
      _ = first.receive(until: "\r\n\r\n")
      _ = try await waiting.onLoop { exchange, _ in exchange.cancel() }
      #expect(first.isEndedByPeer())
      #expect(try await waiting.told() == [])

      let middle = try await bench.begin(upstream.get("/")) { exchange, recorder in
        recorder.then = { [unowned exchange] in if case .sent = $0 { exchange.cancel() } }
      }
      let second = try upstream.accept()
      _ = second.receive(until: "\r\n\r\n")
      second.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
      #expect(second.isEndedByPeer())
      #expect(try await middle.told() == [.answered(200), .sent("a")])

      let early = try await bench.begin(upstream.get("/")) { exchange, _ in exchange.cancel() }
      try await bench.wait { $0.openConnections == 0 }
      #expect(try await early.told() == [])
    }
  }

  @Test("101 makes a tunnel with push-back, which either side ends")
  func tunnel() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let headers: HTTPFields = ["host": "u", "connection": "Upgrade", "upgrade": "x"]
      let call = try await bench.begin(upstream.request(.GET, headers: headers), readsAll: false)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nfirst")
      try await call.wait(for: .upgraded)
      #expect(try await call.told() == [.upgraded])
      _ = try await call.onLoop { exchange, _ in exchange.readMore() }
      try await call.wait(for: .sent("first"))
      #expect(try await call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: "HTTP?")) })
      #expect(peer.receive(until: "HTTP?") == "HTTP?")
      try await bench.pass(seconds: 10_000)
      _ = try await call.onLoop { exchange, _ in
        exchange.end()
        exchange.readMore()
      }
      #expect(peer.receive() == [])
      peer.send("last")
      try await call.wait(for: .sent("last"))
      peer.close()
      _ = try await call.onLoop { exchange, _ in exchange.readMore() }
      #expect(try await call.end() == [.upgraded, .sent("first"), .sent("last"), .ended([])])
    }
  }

  @Test("Closing the client fails what is in progress")
  func closing() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.get("/"))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      try await bench.loop.flatSubmit { bench.client.close() }.get()
      #expect(try await call.failure()?.reason == .closing)
      #expect(peer.isEndedByPeer())
      #expect(try await bench.begin(upstream.get("/")).failure()?.reason == .closing)
    }
  }
}
