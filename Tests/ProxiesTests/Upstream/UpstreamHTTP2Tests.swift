// HTTP/2 towards upstreams behind TLS: what goes over one connection, and what becomes of it.

import NIOCore
import NIOHPACK
import NIOHTTP1
import NIOHTTP2
import Testing

@testable import Proxies

@Suite("HTTP/2 to upstreams", .serialized) struct UpstreamHTTP2Tests {
  @Test("An upstream that chooses HTTP/2 gets a request as one stream, and the next ones on the same connection")
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
          ":method=GET", ":scheme=https", ":authority=api.test:8443", ":path=/a?b=0", "x-one=1", "te=trailers",
        ])
    }
  }

  @Test("A hundred requests at once share one connection, the first ones wait until it is made")
  func concurrent() async throws {
    let count = 100
    // Nobody is answered before all are there.
    try await HTTP2Upstream.run(serve: { stream, event in
      guard event == .end else { return }
      stream.whenOpen(count) { for each in $0 { each.answer("to \(each.path)") } }
    }) { upstream in
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
    try await HTTP2Upstream.run(serve: { stream, event in
      switch event {
      case .head: stream.setReading(stream.path != "/slow")
      case .data: break
      case .end: stream.answer("\(stream.received) \(stream.trailers.first(name: "x-sum") ?? "-")")
      }
    }) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for (body, trailers) in [
          (UpstreamRequest.Body.counted(total), HTTPHeaders()), (.chunked, ["X-Sum": "7"]), (.chunked, [:]),
        ] {
          let call = try await bench.begin(upstream.request(.POST, "/slow", body: body)) { exchange, recorder in
            let piece = ByteBuffer(repeating: 0x61, count: 64 << 10)
            nonisolated(unsafe) var left = total
            let writeOn: () -> Void = { [weak exchange] in
              while let exchange, left > 0 {
                left -= piece.readableBytes
                guard exchange.write(piece) else { break }
              }
              if left == 0 { exchange?.end(trailers: trailers) }
            }
            recorder.then = { if $0 == .wantsBody { writeOn() } }
          }
          try await bench.wait { _ in upstream.streams.count > 0 && call.recorder.told == [.wantsBody] }
          // What it may have sent is in windows and buffers: nothing like the whole.
          let early = try await upstream.onLoop { $0.open.last?.received ?? 0 }
          #expect(early < total / 4, "\(early)")
          try await upstream.onLoop { $0.open.last?.setReading(true) }
          _ = try await call.end()
          #expect(try await call.text() == "\(total) \(trailers["x-sum"].first ?? "-")")
        }
      }
      #expect(upstream.connections.count == 1)
    }
  }

  @Test("A download comes piece by piece as it is asked for, and the upstream waits meanwhile")
  func download() async throws {
    let total = 5 << 20
    try await HTTP2Upstream.run(serve: { stream, event in
      guard event == .end else { return }
      stream.head("200", ["content-length": "\(total)"])
      for _ in 0..<(total >> 14) { stream.data(1 << 14) }
      stream.data(0, isEnd: true)
    }) { upstream in
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
    try await HTTP2Upstream.run(serve: { stream, event in
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
    }) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        let cases: [(HTTPMethod, String, [Told])] = [
          (.GET, "/trailers", [.informed(103), .answered(200), .sent("a"), .ended(["x-t: u"])]),
          (.HEAD, "/head", [.answered(200), .ended([])]), (.GET, "/none", [.answered(204), .ended([])]),
        ]
        for (method, target, expected) in cases {
          #expect(try await bench.begin(upstream.request(method, target)).end() == expected, "\(target)")
        }
        // Nobody needs to ask for an end.
        for (target, code) in [("/late", UInt(304)), ("/", 200)] {
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
    try await HTTP2Upstream.run(serve: { stream, event in
      guard event == .end else { return }
      guard let index = Int(stream.path.dropFirst()) else { return stream.answer("fine") }
      stream.raw(heads[index])
    }) { upstream in
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
    try await HTTP2Upstream.run(serve: { stream, event in
      guard event == .end else { return }
      stream.head("200", ["content-length": "3"])
      stream.data(stream.path == "/long" ? 4 : 2, isEnd: true)
    }) { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for target in ["/long", "/short"] {
          let failure = try await bench.begin(upstream.request(.GET, target)).failure()
          #expect(failure?.isMalformed ?? false, "\(target): \(String(describing: failure))")
        }
      }
    }
  }
}
