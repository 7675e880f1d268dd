// Connections that are kept, bounded, given up, found dead, and never trusted with another's answer; and time.

import HTTP
import NIOCore
import NIOHTTP1
import Testing

@testable import Proxies

@Suite("Connections to upstreams", .serialized) struct UpstreamPoolTests {
  private static let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

  @Test("A second answer is never given to another request: the connection is closed")
  func twoAnswers() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.get("/"))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb")
      #expect(try await call.end() == [.answered(200), .sent("a"), .ended([])])
      #expect(peer.isEndedByPeer())
      let next = try await bench.begin(upstream.get("/"))
      let second = try upstream.accept()
      _ = second.receive(until: "\r\n\r\n")
      second.send(Self.empty)
      #expect(try await next.end() == [.answered(200), .ended([])])
    }
  }

  @Test("Bytes that come while nothing is asked end the connection")
  func unsolicited() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let peer = try await bench.useOnce(upstream)
      peer.send("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
      #expect(peer.isEndedByPeer())
      #expect(try await bench.onLoop { $0.idleConnections } == 0)
    }
  }

  @Test("A connection that either side wants to end isn't used again")
  func notKept() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let answers = [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
      ]
      for answer in answers + [Self.empty] {
        let headers: HTTPFields =
          answer == Self.empty ? ["host": "u", "Connection": "Close"] : ["host": "u"]
        let call = try await bench.begin(upstream.request(.GET, headers: headers))
        let peer = try upstream.accept()
        _ = peer.receive(until: "\r\n\r\n")
        peer.send(answer)
        #expect(try await call.end() == [.answered(200), .ended([])])
        #expect(peer.isEndedByPeer())
      }
    }
  }

  @Test("An upstream that closes an idle connection is noticed, and the next request has a new one")
  func closedWhileIdle() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let peer = try await bench.useOnce(upstream)
      peer.close()
      try await bench.wait { $0.openConnections == 0 }
      _ = try await bench.useOnce(upstream)
      #expect(try await bench.onLoop { $0.retries } == 0)
    }
  }

  @Test("A request without a body, idempotent, is sent again when a kept connection turns out closed: once")
  func retry() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      for method in [HTTPMethod.GET, .HEAD, .OPTIONS, .PUT, .DELETE, .TRACE] {
        let peer = try await bench.useOnce(upstream)
        let call = try await bench.begin(upstream.request(method, "/again"))
        _ = peer.receive(until: "\r\n\r\n")
        peer.close()
        let second = try upstream.accept()
        #expect(second.receive(until: "\r\n\r\n") == "\(method) /again HTTP/1.1\r\nhost: u\r\n\r\n")
        second.send("HTTP/1.1 204 x\r\nconnection: close\r\n\r\n")
        #expect(try await call.end() == [.answered(204), .ended([])])
      }
      #expect(try await bench.onLoop { $0.retries } == 6)
      let peer = try await bench.useOnce(upstream)
      let call = try await bench.begin(upstream.get("/"))
      _ = peer.receive(until: "\r\n\r\n")
      peer.close()
      let second = try upstream.accept()
      _ = second.receive(until: "\r\n\r\n")
      second.close()
      let failure = try await call.failure()
      #expect(failure?.isClosedEarly ?? false)
      #expect(!upstream.hasConnection)
    }
  }

  @Test(
    "14.E29 A body of up to 64 KiB is sent again with its request, whole and in its framing, and no longer is kept for it"
  )
  func retryWithBody() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let longest = UpstreamLimits().maximumKeptBytes
      for (body, size) in [(UpstreamRequest.Body.counted(3), 3), (.counted(longest), longest), (.chunked, 3)]
      {
        let peer = try await bench.useOnce(upstream)
        let text = String(repeating: "x", count: size)
        let call = try await bench.begin(upstream.request(.PUT, "/again", body: body)) { exchange, _ in
          _ = exchange.write(ByteBuffer(string: text))
          exchange.end()
        }
        let end = body == .chunked ? "3\r\nxxx\r\n0\r\n\r\n" : "x"
        _ = peer.receive(until: end)
        peer.close()
        let second = try upstream.accept()
        let framing = body == .chunked ? "transfer-encoding: chunked" : "content-length: \(size)"
        #expect(
          second.receive(until: end).hasPrefix("PUT /again HTTP/1.1\r\nhost: u\r\n\(framing)\r\n\r\n"))
        second.send("HTTP/1.1 204 x\r\nconnection: close\r\n\r\n")
        #expect(try await call.end().suffix(2) == [.answered(204), .ended([])])
      }
      #expect(try await bench.onLoop { [$0.retries, $0.keptBytes] } == [3, 0])
      let peer = try await bench.useOnce(upstream)
      let call = try await bench.begin(upstream.request(.PUT, body: .counted(longest + 1))) { exchange, _ in
        _ = exchange.write(ByteBuffer(repeating: 120, count: longest + 1))
        exchange.end()
      }
      _ = peer.receive(until: "x")
      peer.close()
      #expect(try await call.failure()?.isClosedEarly ?? false)
      #expect(try await bench.onLoop { [$0.retries, $0.keptBytes] } == [3, 0])
    }
  }

  @Test(
    "14.E29 The rest of a body that comes after its connection was found closed goes to the next one behind what was sent"
  )
  func retryInTheMiddle() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let peer = try await bench.useOnce(upstream)
      let call = try await bench.begin(upstream.request(.PUT, "/again", body: .counted(6))) { exchange, _ in
        _ = exchange.write(ByteBuffer(string: "abc"))
      }
      _ = peer.receive(until: "abc")
      peer.close()
      let second = try upstream.accept()
      #expect(second.receive(until: "abc").hasSuffix("\r\n\r\nabc"))
      _ = try await call.onLoop { exchange, _ in
        let hasRoom = exchange.write(ByteBuffer(string: "def"))
        exchange.end()
        return hasRoom
      }
      #expect(second.receive(until: "def") == "def")
      second.send(Self.empty)
      #expect(try await call.end().suffix(2) == [.answered(200), .ended([])])
    }
  }

  @Test("14.E29 A kept connection that its upstream has closed isn't used, however lately it was closed")
  func lookedAt() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      for _ in 0..<20 {
        let peer = try await bench.useOnce(upstream)
        let call = try await bench.begin(upstream.request(.POST)) { _, _ in
        } closing: {
          peer.closeAndAwaitArrival()
        }
        let second = try upstream.accept()
        _ = second.receive(until: "\r\n\r\n")
        second.send("HTTP/1.1 204 x\r\nconnection: close\r\n\r\n")
        #expect(try await call.end() == [.answered(204), .ended([])])
      }
      #expect(try await bench.onLoop { $0.retries } == 0)
    }
  }

  @Test(
    "14.E29 At the bound of all connections an idle one makes room for another origin's, and else the request is told so"
  )
  func boundOfAll() async throws {
    var limits = UpstreamLimits()
    limits.maximumOpen = 1
    try await UpstreamBench.run(limits) { bench in
      let (first, second) = (try Upstream(), try Upstream())
      let peer = try await bench.useOnce(first)
      let call = try await bench.begin(second.get("/"))
      #expect(peer.isEndedByPeer())
      #expect(try await bench.begin(first.get("/")).failure()?.reason == .busy)
      let busy = try second.accept()
      _ = busy.receive(until: "\r\n\r\n")
      busy.send(Self.empty)
      #expect(try await call.end() == [.answered(200), .ended([])])
    }
  }

  @Test("A request that may have been heard isn't sent again")
  func noRetry() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let cases: [(HTTPMethod, UpstreamRequest.Body, answer: String)] = [
        (.POST, .none, ""), (.POST, .counted(1), ""), (.PATCH, .none, ""), (.PUT, .counted(1), "HTTP/1.1 "),
        (.GET, .none, "HTTP/1.1 "), (.RAW(value: "GETX"), .none, ""),
      ]
      for (method, body, answer) in cases {
        let peer = try await bench.useOnce(upstream)
        let call = try await bench.begin(upstream.request(method, body: body)) { exchange, _ in
          guard body != .none else { return }
          _ = exchange.write(ByteBuffer(string: "x"))
          exchange.end()
        }
        _ = peer.receive(until: body == .none ? "\r\n\r\n" : "x")
        peer.send(answer)
        peer.close()
        let failure = try await call.failure()
        #expect(failure?.isClosedEarly ?? false)
        #expect(!upstream.hasConnection)
      }
      #expect(try await bench.onLoop { $0.retries } == 0)
    }
  }

  @Test("A refused connection, and an address that is none, are unreachable")
  func refused() async throws {
    try await UpstreamBench.run { bench in
      let port = try Upstream().port
      for (host, port) in [
        ("127.0.0.1", port), ("localhost", port), ("127.0.0.1", 0), ("127.0.0.1", 70_000), ("", 80),
      ] {
        let origin = UpstreamOrigin(scheme: .http, host: host, port: port)
        let failure = try await bench.begin(
          UpstreamRequest(origin: origin, method: "GET", target: "/", headers: [:])
        )
        .failure()
        #expect(failure?.isUnreachable ?? false, "\(host):\(port)")
      }
      #expect(try await bench.onLoop { $0.openConnections } == 0)
    }
  }

  @Test("A name is looked up, and the address in brackets isn't")
  func names() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let origin = UpstreamOrigin(scheme: .http, host: "localhost", port: upstream.port)
      let call = try await bench.begin(
        UpstreamRequest(origin: origin, method: "GET", target: "/", headers: [:]))
      let peer = try upstream.accept()
      #expect(peer.receive(until: "\r\n\r\n") == "GET / HTTP/1.1\r\n\r\n")
      peer.send(Self.empty)
      #expect(try await call.end() == [.answered(200), .ended([])])
    }
    #expect(
      UpstreamOrigin(scheme: .http, host: "[::1]", port: 1).literalAddress
        == (try SocketAddress(ipAddress: "::1", port: 1)))
    #expect("\(UpstreamOrigin(scheme: .https, host: "::1", port: 1))" == "https://[::1]:1")
    #expect(UpstreamOrigin(scheme: .http, host: "a.b", port: 1).literalAddress == nil)
  }

  @Test("Connections and waiting requests of an origin are bounded; who waits comes next, in order")
  func bounds() async throws {
    var limits = UpstreamLimits()
    limits.maximumPerOrigin = 1
    limits.maximumWaitingPerOrigin = 3
    try await UpstreamBench.run(limits) { bench in
      let upstream = try Upstream()
      var calls: [Call] = []
      for index in 0..<4 { calls.append(try await bench.begin(upstream.get("/\(index)"))) }
      #expect(try await bench.begin(upstream.get("/4")).failure()?.reason == .busy)
      #expect(try await bench.onLoop { [$0.openConnections, $0.waitingRequests] } == [1, 3])
      let peer = try upstream.accept()
      #expect(peer.receive(until: "\r\n\r\n").hasPrefix("GET /0 "))
      _ = try await calls[1].onLoop { exchange, _ in exchange.cancel() }
      #expect(try await bench.onLoop { $0.waitingRequests } == 2)
      peer.send(Self.empty)
      #expect(peer.receive(until: "\r\n\r\n").hasPrefix("GET /2 "))
      #expect(try await calls[0].end().last == .ended([]))
      // A connection that ends makes room for another.
      peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
      let second = try upstream.accept()
      #expect(second.receive(until: "\r\n\r\n").hasPrefix("GET /3 "))
      second.send(Self.empty)
      #expect(try await calls[3].end().last == .ended([]))
      #expect(try await calls[1].told() == [])
      #expect(
        try await bench.onLoop { [$0.openConnections, $0.idleConnections, $0.waitingRequests] } == [1, 1, 0])
    }
  }

  @Test("A tunnel takes no connection from the requests of its origin, and makes room for who waits")
  func tunnels() async throws {
    var limits = UpstreamLimits()
    limits.maximumPerOrigin = 1
    try await UpstreamBench.run(limits) { bench in
      let upstream = try Upstream()
      let headers: HTTPFields = ["host": "u", "connection": "Upgrade", "upgrade": "x"]
      let tunnel = try await bench.begin(upstream.request(.GET, headers: headers), readsAll: false)
      let waiting = try await bench.begin(upstream.get("/waiting"))
      #expect(try await bench.onLoop { $0.waitingRequests } == 1)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")
      try await tunnel.wait(for: .upgraded)
      let second = try upstream.accept()
      #expect(second.receive(until: "\r\n\r\n").hasPrefix("GET /waiting "))
      second.send(Self.empty)
      #expect(try await waiting.end().last == .ended([]))
      _ = try await tunnel.onLoop { exchange, _ in exchange.cancel() }
      // Its end makes no room a second time.
      let calls = [try await bench.begin(upstream.get("/a")), try await bench.begin(upstream.get("/b"))]
      #expect(try await bench.onLoop { $0.waitingRequests } == 1)
      for _ in calls {
        #expect(second.receive(until: "\r\n\r\n").hasPrefix("GET /"))
        second.send(Self.empty)
      }
      for call in calls { #expect(try await call.end().last == .ended([])) }
    }
  }

  @Test("Who waits too long for a connection is told that all are busy")
  func waitsTooLong() async throws {
    var limits = UpstreamLimits()
    limits.maximumPerOrigin = 1
    limits.answerTimeoutNs = 1_000_000_000_000
    try await UpstreamBench.run(limits) { bench in
      let upstream = try Upstream()
      let first = try await bench.begin(upstream.get("/"))
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      let second = try await bench.begin(upstream.get("/"))
      try await bench.pass(seconds: 4.9)
      #expect(try await second.told() == [])
      try await bench.pass(seconds: 0.1)
      #expect(try await second.failure()?.reason == .busy)
      peer.send(Self.empty)
      #expect(try await first.end().last == .ended([]))
    }
  }

  @Test("So many connections are kept, the last used first, and closed when they aren't used")
  func idle() async throws {
    var limits = UpstreamLimits()
    limits.maximumIdlePerOrigin = 2
    try await UpstreamBench.run(limits) { bench in
      let upstream = try Upstream()
      var calls: [Call] = []
      var peers: [Peer] = []
      for _ in 0..<3 {
        calls.append(try await bench.begin(upstream.get("/")))
        peers.append(try upstream.accept())
        _ = peers.last?.receive(until: "\r\n\r\n")
      }
      for (call, peer) in zip(calls, peers) {
        peer.send(Self.empty)
        #expect(try await call.end().last == .ended([]))
      }
      #expect(peers[2].isEndedByPeer())
      try await bench.wait { $0.openConnections == 2 }
      try await bench.pass(seconds: 20)
      let call = try await bench.begin(upstream.get("/last"))
      #expect(peers[1].receive(until: "\r\n\r\n").hasPrefix("GET /last "))
      peers[1].send(Self.empty)
      #expect(try await call.end().last == .ended([]))
      try await bench.pass(seconds: 10)
      #expect(peers[0].isEndedByPeer())
      try await bench.wait { $0.openConnections == 1 && $0.idleConnections == 1 }
      try await bench.pass(seconds: 20)
      #expect(peers[1].isEndedByPeer())
    }
  }

  @Test("An upstream that never answers is given up, not before its time and not while it takes the body")
  func noAnswer() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.request(.POST, body: .chunked))
      let peer = try upstream.accept()
      try await call.wait(for: .wantsBody)
      try await bench.pass(seconds: 30)
      #expect(try await call.onLoop { exchange, _ in exchange.write(ByteBuffer(string: "x")) })
      try await bench.pass(seconds: 30)
      _ = try await call.onLoop { exchange, _ in exchange.end() }
      #expect(peer.receive(until: "0\r\n\r\n").hasSuffix("0\r\n\r\n"))
      try await bench.pass(seconds: 4)
      peer.send("HTTP/1.1 102 Processing\r\n\r\n")
      try await call.wait(for: .informed(102))
      try await bench.pass(seconds: 4.9)
      #expect(try await call.told() == [.wantsBody, .informed(102)])
      try await bench.pass(seconds: 0.1)
      let failure = try await call.failure()
      #expect(failure == UpstreamFailure(reason: .noAnswer, hasAnswerBegun: false))
      #expect(peer.isEndedByPeer())
    }
  }

  @Test("A body that the caller never ends, and one that the upstream doesn't take, are given up")
  func bodyStalls() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream(receiveBuffer: 4096)
      let late = try await bench.begin(upstream.request(.POST, body: .chunked))
      try await late.wait(for: .wantsBody)
      try await bench.pass(seconds: 59)
      #expect(try await late.told() == [.wantsBody])
      try await bench.pass(seconds: 1)
      #expect(try await late.failure()?.reason == .noAnswer)

      let stuck = try await bench.begin(upstream.request(.POST, body: .chunked)) { exchange, recorder in
        let piece = ByteBuffer(repeating: 0, count: 100_000)
        recorder.then = { [unowned exchange] told in
          if told == .wantsBody { while exchange.write(piece) {} }
        }
      }
      try await stuck.wait(for: .wantsBody)
      try await bench.pass(seconds: 4.9)
      #expect(try await stuck.told().last == .wantsBody)
      // As long as the kernel takes bytes, as it may for a moment, something moves.
      try await bench.wait { client in
        bench.advance(seconds: 5)
        client.tick()
        return stuck.recorder.told.last?.isLast ?? false
      }
      #expect(try await stuck.failure()?.reason == .noAnswer)
    }
  }

  @Test("An answer that stops in the middle is given up, unless nobody asks for more, or it may be silent")
  func stalled() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let call = try await bench.begin(upstream.get("/"), readsAll: false)
      let peer = try upstream.accept()
      _ = peer.receive(until: "\r\n\r\n")
      peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
      try await call.wait(for: .answered(200))
      try await bench.pass(seconds: 1000)
      _ = try await call.onLoop { exchange, _ in
        exchange.mayBeSilent = true
        exchange.readMore()
      }
      try await bench.pass(seconds: 1000)
      #expect(try await call.told() == [.answered(200)])
      peer.send("a")
      try await call.wait(for: .sent("a"))
      _ = try await call.onLoop { exchange, _ in
        exchange.mayBeSilent = false
        exchange.readMore()
      }
      try await bench.pass(seconds: 59.9)
      #expect(try await call.told() == [.answered(200), .sent("a")])
      try await bench.pass(seconds: 0.1)
      let failure = try await call.failure()
      #expect(failure == UpstreamFailure(reason: .stalled, hasAnswerBegun: true))
      #expect(peer.isEndedByPeer())
    }
  }
}
