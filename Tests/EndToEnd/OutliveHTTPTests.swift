// What isn't an event stream when its connection worker dies: requests, idle connections, long-polling sessions and their polls.

import Glibc
import Testing

@Suite("16.4 Requests and polls outlive their worker", .serialized, .enabled(if: Gateway.keepsConnections))
struct OutliveHTTPTests {
  @Test("16.4 An idle connection that is kept alive carries its next request")
  func keepAlive() throws {
    try Gateway.run { gateway in
      let connections = try (0..<10).map { _ in try HTTPConnection(port: gateway.inboundPort) }
      for connection in connections { #expect(try connection.send("GET", "/_rig/health").status == 200) }
      for _ in 0..<3 {
        try gateway.killConnectionWorkers()
        for connection in connections {
          let answer = try connection.send(
            "POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: CloudEvent.json("a"))
          #expect(answer.status == 202)
        }
      }
    }
  }

  @Test("16.4 A connection on which nothing was said yet is served")
  func untouched() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let connection = try HTTPConnection(port: gateway.inboundPort)
      // Accepted when one that came later is answered.
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
      try gateway.killConnectionWorkers()
      #expect(try connection.send("GET", "/_rig/health").status == 200)
    }
  }

  @Test("16.4 A long-polling session goes on: what came before and after is polled once, in order")
  func session() throws {
    try Gateway.run { gateway in
      let poller = try LongPollClient(gateway, Subscriptions.to("a", "last"))
      _ = try poller.poll(until: "rig.subscriptions_set")
      for round in 0..<3 {
        for number in 0..<3 { try gateway.publish(CloudEvent.json("a", id: "\(round).\(number)")) }
        try gateway.killConnectionWorkers()
        for number in 3..<6 { try gateway.publish(CloudEvent.json("a", id: "\(round).\(number)")) }
        try gateway.publish(CloudEvent.json("last"))
        let seen = try poller.poll(until: "last").dropLast().map { $0["id"]?.string ?? "" }
        #expect(seen == (0..<6).map { "\(round).\($0)" })
      }
    }
  }

  @Test("16.4 A poll that waits is answered by the heir")
  func waitingPoll() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let poller = try LongPollClient(gateway, Subscriptions.to("a"))
      _ = try poller.poll(until: "rig.subscriptions_set")
      let http = try HTTPConnection(port: gateway.inboundPort)
      let request = poller.request
      try http.wire.send(HTTPConnection.request("GET", request.path, headers: request.headers))
      #expect(try gateway.inbound("GET", "/_rig/health").status == 200)
      try gateway.killConnectionWorkers()
      try gateway.publish(CloudEvent.json("a", id: "7"))
      let events = try poller.events(of: http.answer())
      #expect(events.map { $0["id"] } == ["7"])
    }
  }

  @Test("16.4 A request that a service is answering: 502 if nothing of a response was written")
  func request() throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let http = try HTTPConnection(port: gateway.inboundPort)
      try http.wire.send(HTTPConnection.request("GET", "/books/1"))
      try eventually("the service has the request") { service.requests.count == 1 }
      try gateway.killConnectionWorkers()
      #expect(try http.answer().status == 502)
    }
  }
}
