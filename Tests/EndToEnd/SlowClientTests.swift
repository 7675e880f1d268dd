// Clients that take their time, stop half-way or close one side only: others are served meanwhile, and what the client
// has asked for is answered as far as it can still listen.

import Testing

@Suite("Clients that dawdle")
struct SlowClientTests {
  @Test("While one client sends its request byte by byte, others are served between any two of them")
  func byteByByte() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      let slow = try HTTPConnection(port: gateway.inboundPort)
      let other = try HTTPConnection(port: gateway.inboundPort)
      let request = HTTPConnection.request(
        "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("a", id: "slow"))
      for (index, byte) in request.utf8.enumerated() {
        try slow.wire.send([byte])
        #expect(try other.send("GET", "/_rig/health").status == 200)
        if index.isMultiple(of: 50) {
          try gateway.publish(CloudEvent.json("a", id: "\(index)"))
          #expect(try stream.event(named: "a").json["id"]?.string == "\(index)")
        }
      }
      #expect(try slow.answer().status == 202)
      #expect(try stream.event(named: "a").json["id"] == "slow")
    }
  }

  @Test("Many clients that connect and say nothing, or half a request, keep nobody from being served")
  func silent() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      var silent: [Wire] = []
      for index in 0..<200 {
        let wire = try Wire(port: gateway.inboundPort)
        if index.isMultiple(of: 2) { try wire.send("GET /_rig/v1/connection/sse HTTP/1.1\r\nhost:") }
        silent.append(wire)
      }
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a"))
      try stream.event(named: "a")
      try eventually("they are all open") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound"]) >= 201
      }
      silent = []
      try eventually("they are all gone") {
        try gateway.metric("rig_http_open_connections", ["port": "inbound"]) <= 2
      }
    }
  }

  @Test(
    "A client that ends its side behind a request still gets the answer; in the middle of one the connection ends"
  )
  func halfClosedRequest() throws {
    try Gateway.run { gateway in
      let whole = try HTTPConnection(port: gateway.inboundPort)
      try whole.wire.send(
        HTTPConnection.request(
          "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("a")))
      whole.wire.endSending()
      #expect(try whole.answer().status == 202)
      #expect(try whole.wire.receiveToEnd().isEmpty)

      let half = try HTTPConnection(port: gateway.inboundPort)
      try half.wire.send("POST /_rig/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
      half.wire.endSending()
      _ = try half.wire.receiveToEnd()
    }
  }

  @Test("A client that ends its side of an open stream is taken for gone, on every transport")
  func halfClosedStream() throws {
    try Gateway.run { gateway in
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      let socket = try WebSocketClient.open(gateway, Subscriptions.to("a"))
      let poller = try LongPollClient(gateway, Subscriptions.to("a"))
      _ = try poller.poll()
      let waiting = try HTTPConnection(port: gateway.inboundPort)
      let request = poller.request
      try waiting.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
      for wire in [stream.wire, socket.wire, waiting.wire] {
        wire.endSending()
        _ = try wire.receiveToEnd()
      }
      for token in [stream.token, socket.token] {
        try eventually("410") { try gateway.setSubscriptions("[]", of: token).status == 410 }
      }
      // Only the poll was given up, not the session: nothing that comes meanwhile is lost.
      try gateway.publish(CloudEvent.json("a", id: "between"))
      #expect(try poller.poll(until: "a").last?["id"] == "between")
    }
  }

  @Test("A client that resets its connection in the middle of anything costs the worker nothing")
  func resets() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      let stream = try SSEClient.open(gateway, Subscriptions.to("a"))
      let beginnings = [
        "", "GET ", "GET /_rig/v1/connection/sse HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /_rig/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        "GET /_rig/v1/connection/longpolling HTTP/1.1\r\nhost: x\r\n\r\n",
        HTTPConnection.request("GET", "/_rig/v1/connection/ws", headers: WebSocketClient.upgrade),
      ]
      for round in 0..<10 {
        for beginning in beginnings {
          let wire = try Wire(port: gateway.inboundPort)
          try wire.send(beginning)
          wire.reset()
        }
        try gateway.publish(CloudEvent.json("a", id: "\(round)"))
        #expect(try stream.event(named: "a").json["id"]?.string == "\(round)")
      }
      #expect(gateway.workers(.connections) == [worker])
      try eventually("only the stream is open") {
        try gateway.metric("rig_connections", ["transport": "sse"]) == 1
          && gateway.metric("rig_connections", ["transport": "ws"]) == 0
      }
    }
  }
}
