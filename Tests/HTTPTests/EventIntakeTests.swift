// Submission of events by HTTP: 202 says that an event is in the log, and everything else says what to do.

import IPC
import Kit
import NIOCore
import NIOHTTP1
import Settings
import Testing

@testable import HTTP

struct EventIntakeTests {
  private static let structured = "application/cloudevents+json"
  private static let batched = "application/cloudevents-batch+json"
  private static let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

  private let reader: RingReader
  private let status: StatusPage
  private let intake: EventIntake

  init() throws {
    let ring = try Ring.create(name: "test", capacity: 1 << 16, readers: 1)
    let page = try StatusPage.create(name: "test")
    reader = try RingReader(attaching: ring.rawValue, slot: 0)
    status = try StatusPage(attaching: page.rawValue)
    var settings = Settings()
    settings.maxEventBytes = 20_000
    let writer = EventWriter(try RingWriter(attaching: ring.rawValue, wake: [-1]), name: "events.test")
    intake = EventIntake(settings: settings, writer: writer, status: status)
  }

  private func event(_ id: String, _ more: String = "") -> String {
    #"{"specversion":"1.0","type":"greeting","source":"s","id":"\#(id)","traceparent":"\#(Self.traceparent)"\#(more)}"#
  }

  private func post(_ body: String, _ type: String? = Self.structured, _ headers: HTTPFields = [:])
    -> HTTPResponse
  {
    var headers = headers
    if let type { headers.add(name: "Content-Type", value: type) }
    return intake.respond(
      to: HTTPRequest(
        method: .POST, path: "/", headers: headers, body: ByteBuffer(string: body),
        traceparent: Self.traceparent))
  }

  /// What the readers of the ring can see.
  private func published() throws -> [String] {
    var events: [String] = []
    while let record = try reader.next() {
      let event = try #require(EventRecord(ring: record))
      events.append(String(decoding: event.jsonBytes, as: UTF8.self))
    }
    reader.commit()
    return events
  }

  private func count(_ series: String) -> Int64 { status.metrics().first { $0.series == series }?.value ?? 0 }
  private var accepted: Int64 { count(#"rig_consumed_events_total{source="http",topic=""}"#) }
  private var refused: Int64 { count(#"rig_consumed_events_failed_total{source="http",topic=""}"#) }

  @Test("An event is answered by itself, and is in the log for everybody after publish")
  func single() throws {
    let answer = post(event("1"))
    #expect(answer.status == .accepted)
    #expect(answer.headers["content-type"] == ["application/json"])
    #expect(String(buffer: answer.body) == event("1"))
    #expect(intake.hasUnpublished)
    #expect(try published() == [])
    #expect(intake.publish())
    #expect(!intake.hasUnpublished && !intake.publish())
    #expect(try published() == [event("1")])
    #expect(accepted == 1 && refused == 0)
  }

  @Test("A batch is answered by its list; an empty one by an empty list")
  func batch() throws {
    let answer = post("[\(event("1")), \(event("2"))]", Self.batched)
    #expect(answer.status == .accepted)
    #expect(String(buffer: answer.body) == "[\(event("1")),\(event("2"))]")
    intake.publish()
    #expect(try published() == [event("1"), event("2")])
    #expect(accepted == 2)
    let empty = post("[]", Self.batched)
    #expect(empty.status == .accepted)
    #expect(String(buffer: empty.body) == "[]")
    #expect(!intake.hasUnpublished)
  }

  @Test("A batch with one bad event leaves nothing in the log")
  func badBatch() throws {
    let answer = post("[\(event("1")),{}]", Self.batched)
    #expect(answer.status == .badRequest)
    #expect(String(buffer: answer.body).contains("event 1 of the batch: specversion is missing"))
    #expect(!intake.hasUnpublished)
    intake.publish()
    #expect(try published() == [])
    #expect(accepted == 0 && refused == 1)
  }

  @Test(
    "What is no event is refused by a problem that says why",
    arguments: [
      ("{}", structured, 400, "specversion is missing"), ("x", structured, 400, "body: "),
      ("{}", "text/plain", 415, "header content-type is 'text/plain'"),
      ("{}", nil, 415, "header content-type is missing"),
      (
        String(repeating: " ", count: 20_001), structured, 413, "event of 20001 bytes, expected at most 20000"
      ),
    ] as [(String, String?, Int, String)])
  func refusals(body: String, type: String?, status: Int, start: String) {
    let answer = post(body, type)
    #expect(answer.status.code == status)
    #expect(answer.headers["content-type"] == ["application/problem+json"])
    #expect(String(buffer: answer.body).contains(#""detail":"\#(start)"#))
    #expect(refused == 1 && !intake.hasUnpublished)
  }

  @Test("Headers make an event in binary mode, and the request's trace context goes into it")
  func binary() throws {
    let answer = post(
      #"{"a":1}"#, "application/json",
      ["ce-specversion": "1.0", "CE-Type": "greeting", "ce-source": "s", "ce-id": "7", "ce-subject": "a%20b"])
    #expect(answer.status == .accepted)
    #expect(
      String(buffer: answer.body)
        == #"{"specversion":"1.0","type":"greeting","source":"s","id":"7","subject":"a b","#
        + #""datacontenttype":"application/json","data":{"a":1},"traceparent":"\#(Self.traceparent)"}"#)
  }

  @Test("A full log is 503 with the time to wait, and takes events again when it has been read")
  func full() throws {
    let large = event("1", #","data":"\#(String(repeating: "x", count: 4000))""#)
    var count = 0
    while post(large).status == .accepted { count += 1 }
    let answer = post(large)
    #expect(answer.status == .serviceUnavailable)
    #expect(answer.headers["retry-after"] == ["1"])
    #expect(refused == 0, "that isn't the event's fault")
    #expect(self.count(#"rig_ring_full_total{ring="events.test"}"#) == 2)
    intake.publish()
    #expect(try published().count == count)
    #expect(post(large).status == .accepted)
  }

  @Test("An event that the log never takes is 413")
  func tooLargeForTheLog() {
    let answer = post(event("1", #","data":"\#(String(repeating: "x", count: 15_000))""#))
    #expect(answer.status == .payloadTooLarge)
    #expect(refused == 1)
  }

  @Test("An event from elsewhere gives its id, or the reason")
  func submit() throws {
    let id = try intake.submit(Array(event("9").utf8), trace: TraceContext(traceparent: Self.traceparent))
    #expect(id == "9")
    intake.publish()
    #expect(try published() == [event("9")])
    #expect(throws: EventError(status: 400, "specversion is missing, expected 1.0, 0.3, 0.2 or 0.1")) {
      try intake.submit(Array("{}".utf8), trace: TraceContext(traceparent: ""))
    }
    #expect(accepted == 1 && refused == 1)
  }
}

extension EventIntake {
  /// Reads and takes one event. Its id.
  fileprivate func submit(_ json: [UInt8], trace: TraceContext) throws(EventError) -> String {
    let event = try read(json, trace: trace)
    try take(event)
    return event.id
  }
}
