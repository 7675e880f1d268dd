// What a swapped connection worker finishes itself, and how it asks those to go with whom nobody can go on.

import Foundation
import Glibc
import Testing

@Suite("16.7 What stays with a worker that is swapped", .serialized)
struct SwapDrainTests {
  private static let settings = ["CONNECTION_WORKERS": "1"]

  @Test(
    "16.7 A body that is on its way when its worker is swapped is taken, and its connection goes on with the next one"
  )
  func upload() throws {
    try Gateway.run(Self.settings) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to(NumberedEvents.type))
      let http = try HTTPConnection(port: gateway.inboundPort)
      let event = NumberedEvents.json(0)
      let half = event.utf8.count / 2
      try http.wire.send(
        "POST /_rig/v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/cloudevents+json\r\n"
          + "content-length: \(event.utf8.count)\r\n\r\n"
          + String(decoding: event.utf8.prefix(half), as: UTF8.self))
      _ = try gateway.worker(holding: http.wire.localPort)
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      try eventually("another one serves") { try gateway.swaps() == 1 }
      #expect(gateway.workers(.connections).contains(before[0]), "it has a request")
      try http.wire.send(String(decoding: event.utf8.dropFirst(half), as: UTF8.self))
      #expect(try http.answer().status == 202)
      let told = try client.event(named: NumberedEvents.type)
      #expect(NumberedEvents.number(in: Array((told.data ?? "").utf8)) == 0)
      try gateway.awaitSuccessors(of: before)
      #expect(try http.send("GET", "/_rig/health").text == "OK")
    }
  }

  @Test(
    "16.7 HTTP/2: no more streams, event streams are told when to come back and where they stand, requests are finished"
  )
  func http2() throws {
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(Self.settings) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let http = try HTTP2Client(port: gateway.inboundPort)
      let query = "subscriptions=\(HTTP.encoded(Subscriptions.to(NumberedEvents.type)))"
      let stream = try http.get("/_rig/v1/connection/sse?\(query)")
      try http.read(until: "the greeting") { $0.text(stream).contains("rig.subscriptions_set") }
      try gateway.publish(NumberedEvents.json(0))
      try http.read(until: "an event") { $0.text(stream).contains(NumberedEvents.mark(0)) }
      let request = try http.get("/books/1")
      try eventually("the service has it") { !service.requests.isEmpty }
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      try http.read(until: "the end of the event stream") { $0.ended.contains(stream) }
      #expect(http.goAways == [0] && !http.ended.contains(request))
      let farewell = http.text(stream).components(separatedBy: "\n\n").last { !$0.isEmpty } ?? ""
      #expect(farewell.contains("rig.server_closing") && farewell.contains(#""reason":"drain""#))
      func field(_ name: String) -> String? {
        farewell.components(separatedBy: "\n").first { $0.hasPrefix("\(name): ") }.map {
          String($0.dropFirst(name.count + 2))
        }
      }
      #expect((1_000...3_000).contains(Int(field("retry") ?? "") ?? 0))
      try gateway.publish(NumberedEvents.json(1))
      let back = try SSEClient.open(
        gateway, Subscriptions.to(NumberedEvents.type), lastEventID: field("id"))
      let event = try back.event(named: NumberedEvents.type)
      #expect(NumberedEvents.number(in: Array((event.data ?? "").utf8)) == 1)
      service.behave(.answer(200, body: "late"))
      try http.read(until: "the response") { $0.ended.contains(request) }
      #expect(http.heads[request] == 200 && http.text(request) == "late")
      try gateway.awaitSuccessors(of: before)
    }
  }

  @Test(
    "16.7 An encrypted connection between two requests is closed, and one that is asked something ends with the answer"
  )
  func encrypted() throws {
    let directory = try TestDirectory()
    let certificate = try TestCertificate(directory.path, ["localhost"])
    let service = try TestService(.held)
    defer { service.stop() }
    try Gateway.run(TestCertificate.settings(certificate, more: Self.settings)) { gateway in
      try gateway.define(TestAPI(port: service.port))
      let port = gateway.inboundTLSPort
      let idle = try HTTPConnection(wire: Wire(port: port, tls: TLSEnd()))
      #expect(try idle.send("GET", "/_rig/health").status == 200)
      let busy = try HTTPConnection(wire: Wire(port: port, tls: TLSEnd()))
      try busy.wire.send(HTTPConnection.request("GET", "/books/1"))
      try eventually("the service has it") { !service.requests.isEmpty }
      let before = gateway.workers(.connections)
      gateway.askForSwap()
      #expect(try idle.wire.receiveToEnd().count == 0)
      service.behave(.answer(200, body: "late"))
      let answer = try busy.answer()
      #expect(answer.status == 200 && answer.text == "late" && answer["connection"] == "close")
      try gateway.awaitSuccessors(of: before)
    }
  }
}
