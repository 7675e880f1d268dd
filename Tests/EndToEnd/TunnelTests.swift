// WebSockets between clients and services through the gateway: what passes, how they end, and what is no tunnel. Contract §8.

import Foundation
import Testing

@Suite("WebSockets to services")
struct TunnelTests {
  @Test(
    "The handshake goes to the service with its fields and comes back with its answer; bytes go both ways")
  func handshake() throws {
    let service = try TestService(
      .upgrade(
        fields: TestService.websocket + [("sec-websocket-protocol", "chat.v2"), ("content-length", "5")],
        first: Array("early".utf8), .echo))
    defer { service.stop() }
    try Gateway.run(["REQUEST_LOG": "console"]) { gateway in
      let transform = #""transform_request_headers":{"add_headers":{"x-added":"yes"}}"#
      var api = Tunnel.api(service.port, more: #","path_replacement":"/v1","transform_request_headers":true"#)
      api.version = transform
      try gateway.define(api)
      let http = try HTTPConnection(port: gateway.inboundPort)
      let headers =
        WebSocketClient.upgrade + [("sec-websocket-protocol", "chat.v1, chat.v2"), ("cookie", "a=b")]
      // What comes right behind the request, and right behind the answer, isn't lost.
      try http.wire.send(HTTPConnection.request("GET", "/x?token=1", headers: headers) + "behind")
      let head = try http.head()
      #expect(head.status == 101 && head["upgrade"] == "websocket" && head["connection"] == "upgrade")
      #expect(head["sec-websocket-protocol"] == "chat.v2" && head["sec-websocket-accept"] == "x")
      #expect(head["content-length"] == nil && head["traceparent"] != nil)
      try Tunnel.expect("earlybehind", http.wire)
      let seen = try #require(service.requests.first)
      #expect(seen.path == "/v1?token=1" && seen.all("x-added") == ["yes"] && seen.all("cookie") == ["a=b"])
      #expect(seen.all("upgrade") == ["websocket"] && seen.all("connection") == ["upgrade"])
      #expect(seen.all("sec-websocket-key") == [WebSocketClient.key])
      #expect(seen.all("sec-websocket-version") == ["13"])
      #expect(seen.all("sec-websocket-protocol") == ["chat.v1, chat.v2"])
      #expect(seen.all("host") == ["127.0.0.1:\(service.port)"] && seen.all("x-forwarded-for").count == 1)
      for size in [1, 70_000, 3_000_000] {
        try Tunnel.exchange(String(repeating: "abcdefg\n", count: size / 8 + 1), http.wire)
      }
      #expect(try gateway.metric("rig_tunnels") == 1)
      http.wire.endSending()
      try eventually("the service sees the end") { service.endedTunnels == 1 }
      _ = try http.wire.receiveToEnd()
      #expect(!http.wire.isReset)
      try eventually("nothing is left") {
        try gateway.metric("rig_tunnels") == 0 && service.openConnections == 0
      }
      #expect(try gateway.metric("rig_proxy_requests_total", ["status": "ok"]) == 1)
      let record = try #require(gateway.logged("proxied request").first)
      #expect(record["status"] == 101 && record["complete"] == true)
      #expect(record["bytes_in"]?.integer == service.tunnelled)
      #expect(record["bytes_out"]?.integer == service.tunnelled + 5)
    }
  }

  @Test(
    "An independent client and service speak through it: texts, binaries, 5 MB, fragments, pings, close codes, subprotocols"
  )
  func conformance() throws {
    let directory = try TestDirectory()
    try Gateway.run { gateway in
      let port = try FreePorts.next()
      try gateway.define(Tunnel.api(port))
      try Self.script.write(toFile: directory.file("peers.py"), atomically: true, encoding: .utf8)
      let peers = try ChildProcess(
        Tools.python("python"), ["peers.py", String(port), String(gateway.inboundPort)], environment: [:],
        directory: directory.path)
      let ending = try peers.wait(within: 300)
      let output = (try? String(contentsOfFile: directory.file("output.log"), encoding: .utf8)) ?? ""
      #expect(ending == .exited(0), "\(output.suffix(2000))")
      #expect(output.contains("all is well"))
      try eventually("nothing is left") { try gateway.metric("rig_tunnels") == 0 }
    }
  }

  /// A service and a client of the package `websockets`.
  private static let script = """
    import asyncio, os, sys
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    port, gateway = int(sys.argv[1]), int(sys.argv[2])
    url = f"ws://127.0.0.1:{gateway}/x"
    closed = []

    async def service(ws):
        try:
            async for message in ws:
                if message == "bye":
                    await ws.close(4001, "as you like")
                else:
                    await ws.send(message)
        except ConnectionClosed:
            pass
        finally:
            closed.append((ws.close_code, ws.close_reason))

    async def one(number):
        async with connect(url, max_size=None, subprotocols=["chat.v2"]) as ws:
            for turn in range(20):
                text = f"{number} {turn} é"
                await ws.send(text)
                assert await ws.recv() == text
            return await (await ws.ping()) >= 0

    async def main():
        async with serve(service, "127.0.0.1", port, max_size=None, subprotocols=["chat.v2", "chat.v3"]):
            async with connect(url, max_size=None, subprotocols=["chat.v1", "chat.v3"]) as ws:
                assert ws.subprotocol == "chat.v3", ws.subprotocol
                for message in ["", "text é", b"", bytes(range(256)), os.urandom(5_000_000), "x" * 5_000_000]:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send(["frag", "men", "ted"])
                assert await ws.recv() == "fragmented"
                await ws.send("bye")
                try:
                    await ws.recv()
                    assert False
                except ConnectionClosed as error:
                    assert (error.rcvd.code, error.rcvd.reason) == (4001, "as you like"), error
            ws = await connect(url, subprotocols=["chat.v2"])
            await ws.close(4002, "that was it")
            while len(closed) < 2:
                await asyncio.sleep(0.01)
            assert closed[1] == (4002, "that was it"), closed
            assert all(await asyncio.gather(*[one(number) for number in range(100)]))
        print("all is well")

    asyncio.run(asyncio.wait_for(main(), 280))
    """

  @Test("A side that doesn't read holds the other up, and nothing is lost")
  func slow() throws {
    let service = try TestService(.upgrade(.flood(20_000_000)))
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1", "PROXY_RECV_TIMEOUT": "300"]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let slow = try Tunnel.open(gateway, receiveBuffer: 4096)
      // Other tunnels and requests aren't held up.
      service.behave(.upgrade(.echo))
      let other = try Tunnel.open(gateway)
      for _ in 0..<50 { try Tunnel.exchange("quick", other) }
      let sent = try gateway.metric("rig_proxied_bytes_total", ["direction": "response"])
      #expect(sent < 2_000_000, "what is under way is bounded, found \(sent)")
      #expect(try slow.receiveToEnd(Deadline(after: 60)).count == 20_000_000)

      service.behave(.upgrade(.deaf))
      let wire = try Tunnel.open(gateway)
      let taken = try wire.send([UInt8](repeating: 0x61, count: 30_000_000), Deadline(after: 2))
      #expect(taken < 30_000_000)
      let received = try gateway.metric("rig_proxied_bytes_total", ["direction": "request"])
      #expect(received < 10_000_000, "only what the kernel and the windows hold, found \(received)")
      try Tunnel.exchange("quick", other)
      // It ends its side while everything is full: the service gets all of it, and then the end.
      let before = service.tunnelled
      wire.endSending()
      service.behave(.upgrade(.echo))
      try eventually("the service has it all") { service.tunnelled - before >= taken }
      #expect(service.tunnelled - before == taken)
      try eventually("and the end") { service.endedTunnels >= 1 }
    }
  }

  @Test("A hundred tunnels at once, quiet for longer than any time-out of requests")
  func many() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(["MAX_PROXIED_REQUESTS": "10", "PROXY_RECV_TIMEOUT": "300"]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let wires = try (0..<100).map { _ in try Tunnel.open(gateway) }
      #expect(try gateway.metric("rig_tunnels") == 100)
      var (rounds, lastAge) = (0, 0.0)
      try eventually("the proxy worker has made three rounds") {
        let age = try gateway.metric("rig_worker_heartbeat_age_seconds", ["worker": "proxies.0"])
        if age < lastAge { rounds += 1 }
        lastAge = age
        return rounds >= 3
      }
      #expect(SocketTable.areProbed(local: gateway.inboundPort) == true, "a dead client is found")
      #expect(SocketTable.areProbed(remote: service.port) == true, "and a dead service")
      for (index, wire) in wires.enumerated() { try wire.send("tunnel \(index)") }
      for (index, wire) in wires.enumerated() { try Tunnel.expect("tunnel \(index)", wire) }
    }
  }

  @Test("When either side or a worker in between goes, the other side's connection is closed")
  func ends() throws {
    let service = try TestService(.upgrade(first: Array("last words".utf8), .end))
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1", "RESTART_INTENSITY": "100"]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let ended = try Tunnel.open(gateway)
      #expect(try ended.receiveToEnd().text == "last words")
      #expect(!ended.isReset)

      service.behave(.upgrade(.echo))
      var wire: Wire? = try Tunnel.open(gateway)
      wire?.reset()
      wire = nil
      try eventually("the service is left") { service.openConnections == 0 }

      let orphan = try Tunnel.open(gateway)
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.proxies).first))
      _ = try orphan.receiveToEnd()
      try eventually("the service is left") { service.openConnections == 0 }

      let second = try Tunnel.open(gateway)
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.connections).first))
      _ = try second.receiveToEnd()
      try eventually("the service is left") { service.openConnections == 0 }

      let third = try Tunnel.open(gateway)
      service.stop()
      _ = try third.receiveToEnd()
      try eventually("nothing is left") { try gateway.metric("rig_tunnels") == 0 }
    }
  }

  @Test("A client that ends its side, before or after the service has, still gets all that was sent to it")
  func halfClosed() throws {
    let service = try TestService()
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      // More than a window, and less than one.
      for (count, isFirst) in [(5_000_000, true), (200_000, false)] {
        service.behave(.upgrade(.flood(count)))
        let wire = try Tunnel.open(gateway, receiveBuffer: 4096)
        if !isFirst {
          try eventually("the service has ended") { service.openConnections == 0 }
        }
        wire.endSending()
        #expect(try wire.receiveToEnd().count == count)
        #expect(!wire.isReset)
      }
      try eventually("nothing is left") {
        try gateway.metric("rig_tunnels") == 0 && service.openConnections == 0
          && gateway.metric("rig_http_open_connections", ["port": "inbound"]) == 0
      }
    }
  }

  @Test("A gateway that stops ends tunnels by its drain time-out")
  func drain() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(["DRAIN_TIMEOUT_S": "1"]) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let wire = try Tunnel.open(gateway)
      gateway.process.signal(SIGTERM)
      _ = try wire.receiveToEnd()
      try eventually("the service is left") { service.openConnections == 0 }
      #expect(try gateway.process.wait() == .exited(0))
    }
  }
}
