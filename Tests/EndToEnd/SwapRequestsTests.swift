// Requests, polls and idle connections whose worker is swapped, and what can't be passed on: it is finished, or asked to come back.

import Foundation
import Glibc
import TestSupport
import Testing

@Suite("16.9 What isn't an event stream, and swaps", .serialized)
struct SwapRequestsTests {
  private static let settings = ["CONNECTION_WORKERS": "1"]

  @Test("16.9 An idle connection serves the next request, and one on which nothing has been said the first")
  func idle() throws {
    try Gateway.run(Self.settings) { gateway in
      let used = try HTTPConnection(port: gateway.inboundPort)
      for round in 1...4 {
        #expect(try used.send("GET", "/_rig/health").status == 200)
        let silent = try HTTPConnection(port: gateway.inboundPort)
        _ = try gateway.worker(holding: silent.wire.localPort)
        let before = gateway.workers(.connections)
        gateway.askForSwap()
        try eventually("another one serves") { try gateway.swaps() == round }
        for http in [used, silent] { #expect(try http.send("GET", "/_rig/health").text == "OK") }
        try gateway.awaitSuccessors(of: before)
        for http in [used, silent] { #expect(try http.send("GET", "/_rig/health").text == "OK") }
      }
    }
  }

  @Test("16.9 Requests one behind the other on kept connections: each is answered, whatever is swapped")
  func busy() throws {
    try Gateway.run { gateway in
      let connections = try (0..<20).map { _ in try HTTPConnection(port: gateway.inboundPort) }
      for _ in 0..<4 {
        let before = gateway.workers(.connections)
        gateway.askForSwap()
        var isOver = false
        let deadline = Deadline()
        while !isOver, !deadline.hasPassed {
          for http in connections {
            #expect(try http.send("GET", "/_rig/health").text == "OK")
          }
          isOver = !gateway.workers(.connections).contains(where: before.contains)
        }
        try gateway.awaitSuccessors(of: before)
      }
    }
  }

  @Test(
    "16.9 A long-polling session goes on with its cookies, and a waiting poll is answered by the next event")
  func polls() throws {
    try Gateway.run { gateway in
      let clients = try (0..<6).map { _ in try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      }
      for client in clients { _ = try client.poll() }
      let idle = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      for round in 0..<3 {
        // Whoever accepts it: the session's worker or another one.
        let waiting = try clients.map { client in
          let http = try HTTPConnection(port: gateway.inboundPort)
          try http.wire.send(
            HTTPConnection.request("GET", client.request.path, headers: client.request.headers))
          return http
        }
        for http in waiting {
          #expect(try !http.wire.receive(Deadline(after: 0.1)), "answered without an event")
        }
        try gateway.swap()
        try gateway.publish(NumberedEvents.json(round))
        for (client, http) in zip(clients, waiting) {
          #expect(
            try client.events(of: http.answer()).map { $0["id"]?.string } == [NumberedEvents.mark(round)])
        }
      }
      // What came for the one that didn't poll meanwhile, its greeting first.
      let all = try idle.poll()
      #expect(all.prefix(2).map { $0["type"] } == ["rig.connection.create", "rig.subscriptions_set"])
      #expect(all.dropFirst(2).map { $0["id"]?.string } == (0..<3).map { NumberedEvents.mark($0) })
    }
  }

  @Test("16.9 An answer that wasn't acknowledged is given again by the next process, and what was is not")
  func unacknowledged() throws {
    try Gateway.run(Self.settings) { gateway in
      let client = try LongPollClient(gateway, Subscriptions.to(NumberedEvents.type))
      _ = try client.poll()
      for number in 0..<5 { try gateway.publish(NumberedEvents.json(number)) }
      var acknowledged: [String?] = []
      try eventually("three have come") {
        acknowledged += try client.poll().map { $0["id"]?.string }
        return acknowledged.count >= 3
      }
      let request = client.request
      for number in 5..<8 { try gateway.publish(NumberedEvents.json(number)) }
      var unacknowledged: [String?] = []
      try eventually("the rest has come") {
        let answer = try gateway.inbound("GET", request.path, headers: request.headers)
        unacknowledged = try answer.json["events"]?.array?.map { $0["id"]?.string } ?? []
        return acknowledged.count + unacknowledged.count == 8
      }
      try gateway.swap()
      let again = try client.poll().map { $0["id"]?.string }
      #expect(acknowledged + again == (0..<8).map { NumberedEvents.mark($0) })
    }
  }

  // MARK: What stays

  @Test("16.9 A request and a tunnel are finished by the process that began them; then it ends")
  func lingering() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(Self.settings) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let tunnel = try Tunnel.open(gateway)
      service.behave(.held)
      let busy = try HTTPConnection(port: gateway.inboundPort)
      try busy.wire.send(HTTPConnection.request("GET", "/x"))
      try eventually("the service has it") { service.requests.count == 2 }
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      try eventually("another one serves") { try gateway.swaps() == 1 }
      #expect(try gateway.inbound("GET", "/_rig/health").text == "OK")
      try Tunnel.exchange("still here", tunnel)
      service.behave(.answer(200, body: "late"))
      #expect(try busy.answer().text == "late")
      // Its connection is idle now, and goes to the other one.
      service.behave(.answer(200, body: "again"))
      #expect(try busy.send("GET", "/x").text == "again")
      try Tunnel.exchange("and still", tunnel)
      #expect(try gateway.metric("rig_retiring") == 1 && gateway.workers(.connections).contains(before[0]))
      tunnel.endSending()
      _ = try tunnel.receiveToEnd()
      try gateway.awaitSuccessors(of: before)
      #expect(try busy.send("GET", "/x").text == "again")
    }
  }

  @Test("16.9 LINGER_S over: what is left is ended, and the process with it")
  func lingerOver() throws {
    let service = try TestService(.upgrade(.echo))
    defer { service.stop() }
    try Gateway.run(Self.settings.merging(["LINGER_S": "3", "DRAIN_TIMEOUT_S": "2"]) { $1 }) { gateway in
      try gateway.define(Tunnel.api(service.port))
      let tunnel = try Tunnel.open(gateway)
      let clients = CheckedClients(gateway)
      try clients.open(CheckedClients.Form.all, ["a"])
      try gateway.swap(clients)
      _ = try tunnel.receiveToEnd()
      try clients.publish("a")
      try clients.pumpToEnd()
      clients.expectWhole()
    }
  }

  @Test("16.9 Event streams over TLS are told so with a time to come back after, and miss nothing")
  func encrypted() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    try Gateway.run(TestCertificate.settings(certificate, more: Self.settings)) { gateway in
      let streams = try (0..<4).map { _ in
        try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type, "over"), tls: TLSEnd())
      }
      try gateway.publish(NumberedEvents.json(0))
      for stream in streams { try stream.event(named: NumberedEvents.type) }
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      for stream in streams {
        var hasRetry = false
        while true {
          let record = try stream.record()
          hasRetry = hasRetry || record.retry != nil
          if record.name == "rig.server_closing" { break }
        }
        #expect(hasRetry)
        try stream.awaitEnd()
      }
      try gateway.publish(NumberedEvents.json(1))
      for stream in streams {
        let back = try SSEClient.open(
          gateway, Subscriptions.to(NumberedEvents.type), lastEventID: stream.lastEventID,
          tls: TLSEnd())
        let event = try back.event(named: NumberedEvents.type)
        #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == 1)
      }
      try gateway.awaitSuccessors(of: before)
    }
  }
}
