// The front on real sockets: accepting, sharing a listener, reading answers under adverse conditions.

import Glibc
import IPC
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import HTTP

@Suite(.serialized) struct LoopbackTests {
  @Test("Requests over a real socket are answered, byte by byte and pipelined")
  func basics() async throws {
    try await Loopback.withServers { servers, port in
      let slow = try Client(port: port)
      for byte in get("/slow").utf8 { slow.send(String(decoding: [byte], as: UTF8.self)) }
      #expect(body(slow.receive(until: "/slow")) == "/slow")
      let fast = try Client(port: port)
      fast.send((1...50).map { get("/\($0);") }.joined())
      #expect(statusLines(fast.receive(until: "/50;")).count == 50)
      try await servers[0].wait { $0.openConnections == 2 }
      let address = try await servers[0].onLoop { _ in servers[0].responder.requests.last?.peer }
      #expect(address?.text == "127.0.0.1")
    }
  }

  @Test("Two servers share a listening socket and each gets its part of the connections")
  func shared() async throws {
    let perServer = Mutex([0, 0])
    let script: Loopback.Script = { index, request in
      perServer.withLock { $0[index] += 1 }
      return .response(.text(request.path))
    }
    try await Loopback.withServers(2, script: script) { servers, port in
      for _ in 0..<200 {
        let client = try Client(port: port)
        client.send(get("/", "connection: close\r\n"))
        #expect(statusLines(client.receiveAll() ?? "") == ["HTTP/1.1 200 OK"])
      }
      let counts = perServer.withLock { $0 }
      #expect(counts[0] + counts[1] == 200)
      #expect(counts.allSatisfy { $0 > 40 }, "connections are shared: \(counts)")
    }
  }

  @Test("A server that stops accepting leaves the listening socket to the others")
  func stopAccepting() async throws {
    let script: Loopback.Script = { index, _ in .response(.text("server \(index)")) }
    try await Loopback.withServers(2, script: script) { servers, port in
      try await servers[0].server.loop.flatSubmit { servers[0].server.stopAccepting() }.get()
      for _ in 0..<20 {
        let client = try Client(port: port)
        client.send(get("/"))
        #expect(client.receive(until: "server 1").hasSuffix("server 1"))
      }
    }
  }

  @Test("A burst of connections is taken whole")
  func burst() async throws {
    try await Loopback.withServers { servers, port in
      let clients = try (0..<300).map { _ in try Client(port: port) }
      for client in clients { client.send(get("/")) }
      for client in clients { #expect(statusLines(client.receive(until: "\r\n\r\n/")).count == 1) }
      try await servers[0].wait { $0.openConnections == 300 }
      for client in clients { client.close() }
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("A connection above the bound is accepted, counted and closed at once")
  func openBound() async throws {
    var limits = HTTPLimits()
    limits.maxOpenConnections = 3
    let memory = try StatusPage.create(name: "http")
    let page = try StatusPage(attaching: memory.rawValue)
    try await Loopback.withServers(limits: limits, page: page) { servers, port in
      let clients = try (0..<3).map { _ in try Client(port: port) }
      try await servers[0].wait { $0.openConnections == 3 }
      for _ in 0..<20 { #expect(try Client(port: port).isEndedByPeer()) }
      for client in clients {
        client.send(get("/a"))
        #expect(client.receive(until: "\r\n\r\n/a").hasSuffix("/a"))
      }
      let refused = page.metrics().first { $0.series.hasPrefix("rig_http_refused_connections_total") }
      #expect(refused?.value == 20)
      clients[0].close()
      try await servers[0].wait { $0.openConnections == 2 }
      let next = try Client(port: port)
      next.send(get("/b"))
      #expect(next.receive(until: "\r\n\r\n/b").hasSuffix("/b"))
    }
  }

  @Test("A client that sends a body that is too large can read the 413")
  func readableRefusal() async throws {
    var limits = HTTPLimits()
    limits.maxBodyBytes = 1000
    try await Loopback.withServers(limits: limits) { servers, port in
      let client = try Client(port: port)
      client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n")
      let piece = String(repeating: "a", count: 100_000)
      for _ in 0..<40 { #expect(client.send(piece) == piece.utf8.count) }
      let answer = client.receiveAll()
      #expect(statusLines(answer ?? "reset") == ["HTTP/1.1 413 Payload Too Large"])
      client.close()
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("A refused client that never stops sending is cut off")
  func lingerEnds() async throws {
    try await Loopback.withServers { servers, port in
      let client = try Client(port: port)
      let now = NIODeadline.now()
      client.send("nonsense\r\n\r\n")
      #expect(statusLines(client.receiveAll() ?? "reset") == ["HTTP/1.1 400 Bad Request"])
      client.send("still here")
      try await servers[0].onLoop { $0.sweep(now: now + .seconds(2)) }
      #expect(try await servers[0].onLoop { $0.openConnections } == 1)
      try await servers[0].onLoop { $0.sweep(now: now + .seconds(60)) }
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("A client that half-closes behind its request gets a large answer whole")
  func halfClose() async throws {
    let size = 3_000_000
    let script: Loopback.Script = { _, _ in .response(.text(String(repeating: "a", count: size))) }
    try await Loopback.withServers(script: script) { servers, port in
      let client = try Client(port: port, receiveBuffer: 4096)
      client.send(get("/"))
      client.endOutput()
      #expect(body(client.receiveAll() ?? "").utf8.count == size)
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("A client that doesn't read its answers makes the front stop reading, and is cut off in the end")
  func backPressure() async throws {
    let size = 500_000
    let script: Loopback.Script = { _, _ in .response(.text(String(repeating: "a", count: size))) }
    try await Loopback.withServers(script: script) { servers, port in
      let client = try Client(port: port, receiveBuffer: 4096)
      client.send(String(repeating: get("/"), count: 400))
      let served = servers[0]
      try await served.wait { _ in served.responder.requests.count >= 1 }
      let now = NIODeadline.now()
      try await servers[0].onLoop { $0.sweep(now: now + .seconds(1)) }
      let handled = try await servers[0].onLoop { _ in served.responder.requests.count }
      #expect(handled < 50, "answers of \(handled) requests are held for one client")
      try await servers[0].onLoop { $0.sweep(now: now + .seconds(200)) }
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("A taken-over channel is closed when its client half-closes")
  func takenOverEnd() async throws {
    let script: Loopback.Script = { _, _ in
      .takeOver(.stream([:])) { $0.channel.writeAndFlush(ByteBuffer(string: "mine"), promise: nil) }
    }
    try await Loopback.withServers(script: script) { servers, port in
      let client = try Client(port: port)
      client.send(get("/"))
      #expect(client.receive(until: "mine") == "mine")
      client.endOutput()
      #expect(client.receiveAll() == "")
      try await servers[0].wait { $0.openConnections == 0 }
    }
  }

  @Test("Running out of descriptors is reported, and accepting goes on afterwards")
  func exhausted() async throws {
    let listener = try LocalListener()
    let failures = Mutex(3)
    let acceptor = try Acceptor(
      listening: listener.descriptor, backOffMilliseconds: 1,
      accept: { socket in
        let fails = failures.withLock { left in
          left -= 1
          return left >= 0
        }
        if fails {
          errno = EMFILE
          return -1
        }
        return accept(socket, nil, nil)
      })
    let client = try Client(port: listener.port)
    let events = AsyncStream<Acceptor.Event> { continuation in
      do {
        try acceptor.start { event in
          continuation.yield(event)
          if case .ended = event { continuation.finish() }
        }
      } catch {
        continuation.finish()
      }
    }
    var exhausted = 0
    var accepted: [CInt] = []
    for await event in events {
      switch event {
      case .exhausted(let number):
        #expect(number == EMFILE)
        exhausted += 1
      case .accepted(let sockets):
        accepted += sockets
        acceptor.stop()
      case .ended(let number):
        #expect(number == 0)
      }
    }
    #expect(exhausted == 3)
    #expect(accepted.count == 1)
    for socket in accepted { close(socket) }
    client.close()
  }

  @Test("A batch that the loop hasn't taken keeps the acceptor from taking more")
  func batches() async throws {
    let listener = try LocalListener()
    let clients = try (0..<(Acceptor.batch * 2 + 3)).map { _ in try Client(port: listener.port) }
    let acceptor = try Acceptor(listening: listener.descriptor)
    let (events, continuation) = AsyncStream.makeStream(of: Acceptor.Event.self)
    try acceptor.start { event in
      continuation.yield(event)
      if case .ended = event { continuation.finish() }
    }
    var sizes: [Int] = []
    var isPaused = false
    for await event in events {
      guard case .accepted(let sockets) = event else { continue }
      #expect(!isPaused, "nothing is accepted before the last batch was taken")
      sizes.append(sockets.count)
      for socket in sockets { close(socket) }
      if sizes.reduce(0, +) == clients.count {
        acceptor.stop()
      } else {
        isPaused = true
        // A look finds the listener waiting; it must not start another batch.
        acceptor.lookAgainIfWaiting()
        isPaused = false
        acceptor.taken(sockets.count)
      }
    }
    #expect(sizes == [Acceptor.batch, Acceptor.batch, 3])
  }

  @Test(
    "15.5 Connections that are taken one by one need no word of it: the acceptor goes on until a batch waits",
    .timeLimit(.minutes(15)))
  func oneByOne() async throws {
    let listener = try LocalListener()
    let acceptor = try Acceptor(listening: listener.descriptor)
    let (events, continuation) = AsyncStream.makeStream(of: Acceptor.Event.self)
    try acceptor.start { event in
      continuation.yield(event)
      if case .ended = event { continuation.finish() }
    }
    let count = Acceptor.batch + 1
    var clients: [Client] = [try Client(port: listener.port)]
    var accepted = 0
    for await event in events {
      guard case .accepted(let sockets) = event else { continue }
      accepted += sockets.count
      for socket in sockets { close(socket) }
      // None is said to be taken until all that may wait have come.
      if accepted == Acceptor.batch { acceptor.taken(accepted) }
      if accepted == count { acceptor.stop() } else { clients.append(try Client(port: listener.port)) }
    }
    #expect(accepted == count && clients.count == count)
  }

  @Test("A descriptor that is no listening socket ends the acceptor with the reason")
  func notListening() async throws {
    let eventfd = try EventFD.create()
    EventFD.signal(eventfd.rawValue)
    let acceptor = try Acceptor(listening: eventfd.rawValue)
    let (events, continuation) = AsyncStream.makeStream(of: Acceptor.Event.self)
    try acceptor.start { event in
      continuation.yield(event)
      if case .ended = event { continuation.finish() }
    }
    var reason: CInt?
    for await event in events {
      if case .ended(let number) = event { reason = number }
    }
    #expect(reason == ENOTSOCK)
  }
}
