// HTTP/2 towards upstreams behind TLS: what goes over one connection, and what becomes of it.

import HTTP
import NIOCore
import NIOHPACK
import NIOHTTP1
import NIOHTTP2
import Testing

@testable import Proxies

@Suite("HTTP/2 to upstreams", .serialized) struct UpstreamHTTP2Tests {
  @Test(
    "An upstream that chooses HTTP/2 gets a request as one stream, and the next ones on the same connection")
  func get() async throws {
    try await HTTP2Upstream.run { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for index in 0..<3 {
          let call = try await bench.begin(
            upstream.request(
              .GET, "/a?b=\(index)",
              headers: [
                "Host": "api.test:8443", "X-One": " 1 ", "Connection": "keep-alive, x-hop", "X-Hop": "no",
                "TE": "trailers", "Keep-Alive": "timeout=5",
              ]))
          #expect(
            try await call.end() == [.answered(200), .sent("hello /a?b=\(index)"), .ended([])])
        }
        #expect(try await bench.onLoop { [$0.openConnections, $0.idleConnections] } == [1, 1])
      }
      #expect(upstream.connections.count == 1 && upstream.streams.count == 3)
      let fields = try await upstream.onLoop { upstream in
        upstream.seen.first.map { $0.fields.map { "\($0.name)=\($0.value)" } } ?? []
      }
      #expect(
        fields == [
          ":method=GET", ":scheme=https", ":authority=api.test:8443", ":path=/a?b=0", "x-one=1",
          "te=trailers",
        ])
    }
  }

  @Test("A table of fields is filled, but not one of any size that the upstream offers")
  func tables() async throws {
    for (table, isIndexed) in [(4096, true), (64 << 20, false)] {
      try await HTTP2Upstream.run(table: table) { upstream in
        try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
          for _ in 0..<2 {
            let request = upstream.request(headers: ["host": "u", "x-one": "1", "Authorization": "secret"])
            let told = try await bench.begin(request).end()
            #expect(told.last == .ended([]))
          }
        }
        let fields = try await upstream.onLoop { $0.seen.last.map { Array($0.fields) } ?? [] }
        let one = try #require(fields.first { $0.name == "x-one" })
        #expect(one.indexable == (isIndexed ? .indexable : .nonIndexable))
        let secret = try #require(fields.first { $0.name == "authorization" })
        #expect(secret.indexable == .neverIndexed && secret.value == "secret")
      }
    }
  }

  @Test("A hundred requests at once share one connection, the first ones wait until it is made")
  func concurrent() async throws {
    let count = 100
    // Nobody is answered before all are there.
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      stream.whenOpen(count) { for each in $0 { each.answer("to \(each.path)") } }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        var calls: [Call] = []
        for index in 0..<count { calls.append(try await bench.begin(upstream.request(.GET, "/\(index)"))) }
        for (index, call) in calls.enumerated() {
          #expect(try await call.end() == [.answered(200), .sent("to /\(index)"), .ended([])])
        }
        #expect(try await bench.onLoop { $0.waitingRequests } == 0)
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("No more streams than the upstream allows; the rest waits")
  func bounded() async throws {
    var limits = UpstreamLimits()
    limits.maximumPerOrigin = 1
    try await HTTP2Upstream.run(maximumStreams: 5) { upstream in
      try await UpstreamBench.run(limits, tls: try TLSUpstream.trust()) { bench in
        var calls: [Call] = []
        for index in 0..<40 { calls.append(try await bench.begin(upstream.request(.GET, "/\(index)"))) }
        for call in calls { #expect(try await call.end().last == .ended([])) }
      }
      #expect(upstream.connections.count == 1)
      let most = try await upstream.onLoop { $0.mostOpen }
      #expect((2...5).contains(most), "\(most)")
    }
  }

  @Test("An upload waits for an upstream that doesn't read, and comes whole when it does")
  func upload() async throws {
    let total = 5 << 20
    let serve: HTTP2Upstream.Serving = { stream, event in
      switch event {
      case .head: stream.setReading(stream.path != "/slow")
      case .data: break
      case .end: stream.answer("\(stream.received) \(stream.trailers.first(name: "x-sum") ?? "-")")
      }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for (body, trailers) in [
          (UpstreamRequest.Body.counted(total), HTTPFields()), (.chunked, ["X-Sum": "7"]), (.chunked, [:]),
        ] {
          let call = try await bench.begin(upstream.request(.POST, "/slow", body: body)) {
            exchange, recorder in
            let piece = ByteBuffer(repeating: 0x61, count: 64 << 10)
            nonisolated(unsafe) var left = total
            recorder.unwritten = { left }
            let writeOn: () -> Void = { [weak exchange] in
              while let exchange, left > 0 {
                left -= piece.readableBytes
                guard exchange.write(piece) else { break }
              }
              if left == 0 { exchange?.end(trailers: trailers) }
            }
            recorder.then = { if $0 == .wantsBody { writeOn() } }
          }
          try await bench.wait { _ in call.recorder.unwritten() < total }
          // Another stream isn't held up by it.
          let other = try await bench.begin(upstream.request(.GET, "/other"))
          #expect(try await other.end() == [.answered(200), .sent("0 -"), .ended([])])
          // What was written is in windows and buffers: nothing like the whole.
          let unwritten = try await call.onLoop { $1.unwritten() }
          #expect(unwritten > total / 2, "\(unwritten)")
          try await upstream.onLoop { $0.open.first?.setReading(true) }
          _ = try await call.end()
          #expect(try await call.text() == "\(total) \(trailers["x-sum"].first ?? "-")")
        }
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("15.5 A counted body ends its side of the stream with its last byte, whenever `end` comes")
  func wholeByCount() async throws {
    try await HTTP2Upstream.run { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for body in ["", "abc"] {
          let request = upstream.request(.POST, body: .counted(body.utf8.count))
          let call = try await bench.begin(request) { exchange, _ in
            #expect(exchange.write(ByteBuffer(string: body)))
          }
          #expect(try await call.end().suffix(3) == [.answered(200), .sent("hello /"), .ended([])])
        }
      }
      #expect(upstream.connections.count == 1 && upstream.resets.count == 0)
    }
  }

  @Test("A download comes piece by piece as it is asked for, and the upstream waits meanwhile")
  func download() async throws {
    let total = 5 << 20
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      stream.head("200", ["content-length": "\(total)"])
      for _ in 0..<(total >> 14) { stream.data(1 << 14) }
      stream.data(0, isEnd: true)
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let call = try await bench.begin(upstream.request(), readsAll: false)
        try await call.wait(for: .answered(200))
        // Another stream isn't held up by it.
        let other = try await bench.begin(upstream.request(.GET, "/other"))
        _ = try await other.end()
        #expect(try await other.onLoop { $1.received } == total)
        #expect(try await call.onLoop { $1.received } == 0)
        let sent = try await upstream.onLoop { $0.seen.first?.sent ?? 0 }
        #expect(sent < 1 << 20, "\(sent)")
        _ = try await call.onLoop { exchange, recorder in
          recorder.readsAll = true
          exchange.readMore()
        }
        #expect(try await call.end().last == .ended([]))
        #expect(try await call.onLoop { $1.received } == total)
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("Trailers, interim answers, HEAD, and answers without a body")
  func forms() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      switch stream.path {
      case "/trailers":
        stream.head("103", ["link": "x"])
        stream.head("200")
        stream.data(1, "a")
        stream.raw(["x-t": "u"], isEnd: true)
      case "/head": stream.head("200", ["content-length": "1000"], isEnd: true)
      case "/none": stream.head("204", isEnd: true)
      case "/late":
        stream.head("304", ["content-length": "7"])
        stream.data(0, isEnd: true)
      default:
        stream.head("200", ["content-length": "0"])
        stream.data(0, isEnd: true)
      }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let cases: [(HTTPMethod, String, [Told])] = [
          (.GET, "/trailers", [.informed(103), .answered(200), .sent("a"), .ended(["x-t: u"])]),
          (.HEAD, "/head", [.answered(200), .ended([])]), (.GET, "/none", [.answered(204), .ended([])]),
        ]
        for (method, target, expected) in cases {
          #expect(try await bench.begin(upstream.request(method, target)).end() == expected, "\(target)")
        }
        // Nobody needs to ask for an end.
        for (target, code) in [("/late", 304), ("/", 200)] {
          let call = try await bench.begin(upstream.request(.GET, target), readsAll: false)
          #expect(try await call.end() == [.answered(code), .ended([])], "\(target)")
        }
      }
    }
  }

  @Test("What is no answer is malformed, and the connection goes on")
  func malformed() async throws {
    let heads: [HPACKHeaders] = [
      [:], [":status": "20"], [":status": "2x0"], [":status": "099"], [":status": "101"],
      HPACKHeaders([(":status", "200"), (":status", "200")]), HPACKHeaders([("a", "b"), (":status", "200")]),
      [":status": "200", "Upper": "x"], [":status": "200", "a": "b\r\nc: d"], [":status": "200", "a": "\0"],
      [":status": "200", "connection": "close"], [":status": "200", "transfer-encoding": "chunked"],
      [":status": "200", "content-length": "x"], [":status": "200", ":path": "/"],
      HPACKHeaders([(":status", "200"), ("content-length", "1"), ("content-length", "2")]),
    ]
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      guard let index = Int(stream.path.dropFirst()) else { return stream.answer("fine") }
      stream.raw(heads[index])
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for (index, head) in heads.enumerated() {
          let failure = try await bench.begin(upstream.request(.GET, "/\(index)")).failure()
          #expect(failure?.isMalformed ?? false, "\(head): \(String(describing: failure))")
        }
        let last = try await bench.begin(upstream.request(.GET, "/fine")).end()
        #expect(last == [.answered(200), .sent("fine"), .ended([])])
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("A body that isn't as long as announced fails")
  func lengths() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      stream.head("200", ["content-length": "3"])
      stream.data(stream.path == "/long" ? 4 : 2, isEnd: true)
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for target in ["/long", "/short"] {
          let failure = try await bench.begin(upstream.request(.GET, target)).failure()
          #expect(failure?.isMalformed ?? false, "\(target): \(String(describing: failure))")
        }
      }
    }
  }

  @Test("A reset stream fails alone; one that was refused begins again, once")
  func resets() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      switch stream.path {
      case "/middle":
        stream.head("200")
        stream.data(1, "a")
        stream.reset(.internalError)
      case "/before": stream.reset(.internalError)
      case "/refused": stream.reset(.refusedStream)
      case "/once" where stream.isFirstOfItsPath, "/once?short" where stream.isFirstOfItsPath:
        stream.reset(.refusedStream)
      default: stream.answer("fine")
      }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let fine: [Told] = [.answered(200), .sent("fine"), .ended([])]
        #expect(try await bench.begin(upstream.request()).end() == fine)
        let middle = try await bench.begin(upstream.request(.GET, "/middle")).failure()
        #expect(middle?.isClosedEarly ?? false)
        #expect(middle?.hasAnswerBegun == true)
        let before = try await bench.begin(upstream.request(.GET, "/before")).failure()
        #expect(before?.isClosedEarly ?? false)
        #expect(upstream.streams.count == 3)
        // Nobody has looked at it, so that it may be sent again whatever it is, if its body isn't gone.
        #expect(try await bench.begin(upstream.request(.POST, "/once")).end() == fine)
        #expect(try await bench.onLoop { $0.retries } == 1)
        let refused = try await bench.begin(upstream.request(.GET, "/refused")).failure()
        #expect(refused?.isClosedEarly == true)
        let body = try await bench.begin(upstream.request(.POST, "/refused", body: .counted(1))) {
          exchange, _ in
          _ = exchange.write(ByteBuffer(string: "x"))
          exchange.end()
        }
        #expect(try await body.failure()?.isClosedEarly == true)
        #expect(try await bench.onLoop { $0.retries } == 3)
        let short = try await bench.begin(upstream.request(.PUT, "/once?short", body: .counted(1))) {
          exchange, _ in
          _ = exchange.write(ByteBuffer(string: "x"))
          exchange.end()
        }
        #expect(try await short.end().suffix(3) == fine)
        #expect(try await bench.onLoop { [$0.retries, $0.keptBytes] } == [4, 0])
      }
      #expect(upstream.connections.count == 1 && upstream.streams.count == 11)
    }
  }

  @Test("Behind a GOAWAY what is in progress ends, what wasn't looked at and what is new goes elsewhere")
  func goAway() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      switch stream.path {
      case "/held": break
      case "/goaway" where stream.isFirstOfItsPath:
        // Its own stream isn't among those that are looked at.
        stream.later { $0.goAway(last: $0.id.before) }
      default: stream.answer("fine")
      }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let fine: [Told] = [.answered(200), .sent("fine"), .ended([])]
        let held = try await bench.begin(upstream.request(.GET, "/held"))
        try await bench.wait { _ in upstream.streams.count == 1 }
        let told = try await bench.begin(upstream.request(.POST, "/goaway")).end()
        #expect(told == fine)
        #expect(upstream.connections.count == 2)
        #expect(try await bench.begin(upstream.request()).end() == fine)
        #expect(upstream.connections.count == 2)
        try await upstream.onLoop { $0.open.first?.answer("fine") }
        #expect(try await held.end() == fine)
        try await bench.wait { $0.openConnections == 1 }
      }
    }
  }

  @Test("A connection that is lost fails all its streams; those that may begin again do, on another")
  func lost() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      guard event == .end else { return }
      switch stream.path {
      case "/middle":
        stream.head("200", ["content-length": "2"])
        stream.data(1, "a")
      case "/held" where stream.isFirstOfItsPath, "/posted": break
      case "/end": stream.hangUp()
      default: stream.answer("fine")
      }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let fine: [Told] = [.answered(200), .sent("fine"), .ended([])]
        #expect(try await bench.begin(upstream.request()).end() == fine)
        let middle = try await bench.begin(upstream.request(.GET, "/middle"))
        try await middle.wait(for: .sent("a"))
        let held = try await bench.begin(upstream.request(.GET, "/held"))
        let posted = try await bench.begin(upstream.request(.POST, "/posted"))
        let end = try await bench.begin(upstream.request(.POST, "/end"))
        #expect(try await end.failure()?.isClosedEarly ?? false)
        let cut = try await middle.failure()
        #expect(cut?.isClosedEarly == true && cut?.hasAnswerBegun == true)
        let unknown = try await posted.failure()
        #expect(unknown?.isClosedEarly == true)
        let again = try await held.end()
        #expect(again == fine)
        #expect(upstream.connections.count == 2)
        #expect(try await bench.onLoop { $0.retries } == 1)
      }
    }
  }

  @Test("A cancelled exchange resets its stream and nothing else")
  func cancelled() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      if event == .end, stream.path != "/held" { stream.answer("fine") }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let held = try await bench.begin(upstream.request(.GET, "/held"))
        try await bench.wait { _ in upstream.streams.count == 1 }
        try await held.onLoop { exchange, _ in exchange.cancel() }
        try await bench.wait { _ in upstream.resets.count == 1 }
        #expect(try await upstream.onLoop { $0.seen[0].resetCode } == .cancel)
        // One that is given up at once isn't even begun.
        let never = try await bench.begin(upstream.request(.GET, "/never")) { exchange, _ in exchange.cancel()
        }
        let call = try await bench.begin(upstream.request())
        #expect(try await call.end() == [.answered(200), .sent("fine"), .ended([])])
        #expect(try await never.told() == [])
        #expect(try await held.told() == [])
        #expect(upstream.connections.count == 1 && upstream.streams.count == 2)
        try await bench.wait { $0.idleConnections == 1 }
      }
    }
  }

  @Test("An upstream that is there is kept though it was slow; one that doesn't answer a ping is not")
  func pings() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      if event == .head, stream.path == "/deaf" { stream.setConnectionReading(false) }
      if event == .end, stream.path == "/fast" { stream.answer("fine") }
    }
    var limits = UpstreamLimits()
    limits.answerTimeoutNs = .max / 4
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(limits, tls: try TLSUpstream.trust()) { bench in
        let slow = try await bench.begin(upstream.request(.GET, "/slow"))
        let held = try await bench.begin(upstream.request(.POST, "/held"))
        try await bench.wait { _ in upstream.streams.count == 2 }
        try await bench.pass(seconds: 11)
        try await slow.onLoop { exchange, _ in exchange.cancel() }
        // What answers this has answered the ping before.
        #expect(try await bench.begin(upstream.request(.GET, "/fast")).end().last == .ended([]))
        try await bench.pass(seconds: 5)
        #expect(try await held.told() == [])
        let deaf = try await bench.begin(upstream.request(.GET, "/deaf"))
        try await bench.wait { _ in upstream.streams.count == 4 }
        try await bench.pass(seconds: 11)
        try await deaf.onLoop { exchange, _ in exchange.cancel() }
        try await bench.pass(seconds: 4.9)
        #expect(try await held.told() == [])
        try await bench.pass(seconds: 0.1)
        #expect(try await held.failure()?.isClosedEarly ?? false)
        try await upstream.onLoop { $0.open.last?.setConnectionReading(true) }
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("An answer before the end of the request ends the exchange, and the rest of the request")
  func early() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      if event == .head { stream.answer("no", status: "413") }
    }
    try await HTTP2Upstream.run(serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let call = try await bench.begin(upstream.request(.POST, body: .chunked))
        #expect(try await call.end() == [.wantsBody, .answered(413), .sent("no"), .ended([])])
        try await bench.wait { $0.idleConnections == 1 }
        try await bench.wait { _ in upstream.resets.count == 1 }
      }
    }
  }

  @Test("Silence is found by the clock: before an answer, in the middle of one, on an idle connection")
  func time() async throws {
    let serve: HTTP2Upstream.Serving = { stream, event in
      if stream.path == "/middle", event == .end {
        stream.head("200")
        stream.data(1, "a")
      }
    }
    try await HTTP2Upstream.run(window: 0, serve: serve) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let mute = try await bench.begin(upstream.request(.GET, "/mute"))
        // The upstream's window never opens.
        let closed = try await bench.begin(upstream.request(.POST, "/", body: .counted(1))) { exchange, _ in
          _ = exchange.write(ByteBuffer(string: "x"))
          exchange.end()
        }
        let middle = try await bench.begin(upstream.request(.GET, "/middle"))
        try await middle.wait(for: .sent("a"))
        try await bench.wait { _ in upstream.streams.count == 3 }
        try await bench.pass(seconds: 4.9)
        #expect(try await mute.told() == [])
        #expect(try await closed.told() == [])
        try await bench.pass(seconds: 0.1)
        #expect(try await mute.failure()?.reason == .noAnswer)
        #expect(try await closed.failure()?.reason == .noAnswer)
        try await bench.pass(seconds: 54.9)
        #expect(try await middle.told().last == .sent("a"))
        try await bench.pass(seconds: 0.1)
        #expect(try await middle.failure()?.reason == .stalled)
        // Nothing came of it for so long: it isn't trusted any more.
        try await bench.wait { $0.openConnections == 0 }
      }
    }
    try await HTTP2Upstream.run { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        _ = try await bench.begin(upstream.request()).end()
        try await bench.wait { $0.idleConnections == 1 }
        try await bench.pass(seconds: 29.9)
        #expect(try await bench.onLoop { $0.idleConnections } == 1)
        try await bench.pass(seconds: 0.1)
        try await bench.wait { $0.openConnections == 0 }
      }
    }
  }

  @Test("An upstream that chooses HTTP/1.1 gets it, and as many connections as there are requests")
  func http1() async throws {
    try await HTTP2Upstream.run(protocols: ["http/1.1"]) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        var calls: [Call] = []
        for _ in 0..<5 { calls.append(try await bench.begin(upstream.request())) }
        for call in calls { #expect(try await call.end() == [.answered(200), .sent("h1"), .ended([])]) }
      }
      #expect(upstream.http1Requests.count == 5 && upstream.streams.count == 0)
    }
  }

  @Test("What may become a tunnel, and a head that is too large for a frame, go by HTTP/1.1")
  func needsHTTP1() async throws {
    try await HTTP2Upstream.run { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        _ = try await bench.begin(upstream.request()).end()
        let tunnel = try await bench.begin(
          upstream.request(headers: ["host": "u", "connection": "upgrade", "upgrade": "websocket"]))
        try await tunnel.wait(for: .upgraded)
        let large = try await bench.begin(
          upstream.request(headers: ["host": "u", "x": String(repeating: "\u{e9}", count: 6000)]))
        #expect(try await large.end() == [.answered(200), .sent("h1"), .ended([])])
        let next = try await bench.begin(upstream.request(.GET, "/next"))
        #expect(try await next.end() == [.answered(200), .sent("hello /next"), .ended([])])
        #expect(upstream.http1Requests.count == 2 && upstream.connections.count == 3)
        try await tunnel.onLoop { exchange, _ in exchange.cancel() }
      }
    }
  }

  @Test("Those who wait for a connection that can't be made hear of it")
  func unreachable() async throws {
    try await UpstreamBench.run { bench in
      let port = try Upstream().port
      let request = UpstreamRequest(
        origin: UpstreamOrigin(scheme: .https, host: "127.0.0.1", port: port), method: "GET", target: "/",
        headers: [:])
      var calls: [Call] = []
      for _ in 0..<5 { calls.append(try await bench.begin(request)) }
      for call in calls { #expect(try await call.failure()?.isUnreachable ?? false) }
      let mute = try Upstream()
      let silent = UpstreamRequest(
        origin: UpstreamOrigin(scheme: .https, host: "127.0.0.1", port: mute.port), method: "GET",
        target: "/",
        headers: [:])
      calls = []
      for _ in 0..<5 { calls.append(try await bench.begin(silent)) }
      try await bench.wait { $0.waitingRequests == 4 }
      // The one who has it gives up: another takes its place.
      try await calls.removeFirst().onLoop { exchange, _ in exchange.cancel() }
      try await bench.wait { $0.waitingRequests == 3 }
      try await bench.pass(seconds: 5)
      for call in calls { #expect(try await call.failure()?.reason == .connectTimeout) }
      try await bench.wait { $0.openConnections == 0 && $0.waitingRequests == 0 }
    }
  }
}
