// Records of connection workers on their way to a broker, and responses on theirs, without processes: both ends of the rings are
// turned by the test's own thread.

import CRdKafka
import Foundation
import IPC
import Logging
import Settings
import Testing

@testable import Kafka
@testable import Kit
@testable import Links

/// The rings and pages between one connection worker and the streams worker.
private final class ProducingGateway {
  let publications: Descriptor
  let responses: Descriptor
  private let streamsPage: Descriptor
  private let connectionsPage: Descriptor
  let wake: Descriptor
  /// The control worker's place at the ring.
  private let control: RingReader
  var settings = Settings()

  init(_ brokers: String, ringBytes: Int = 1 << 20) throws {
    publications = try Ring.create(name: "publications.connections.0", capacity: ringBytes, readers: 2)
    responses = try Ring.create(name: "responses.streams", capacity: ringBytes, readers: 1)
    streamsPage = try StatusPage.create(name: "streams")
    connectionsPage = try StatusPage.create(name: "connections")
    wake = try EventFD.create()
    control = try RingReader(attaching: publications.rawValue, slot: 0)
    settings.kafkaBrokers = [brokers]
    // Machines that run tests are busy.
    settings.kafkaPublishTimeoutMs = 60_000
  }

  private func context(_ worker: WorkerIdentity, page: CInt) throws -> WorkerContext {
    let client = WorkerIdentity.connections(0)
    let manifest = WorkerManifest(
      worker: worker, gatewayEpoch: 9, tokenKey: Data(), settings: Data(), status: page, wake: -1,
      listeners: [:],
      rings: [
        RingGrant(
          id: 0, purpose: .publications, writer: client,
          readers: [.init(.control, slot: 0), .init(.streams, slot: 1)], fd: publications.rawValue),
        RingGrant(
          id: 1, purpose: .responses, writer: .streams, readers: [.init(client, slot: 0)],
          fd: responses.rawValue),
      ],
      peers: [.init(worker: .streams, status: streamsPage.rawValue)], supervisorPid: 0, release: "test")
    let status = try StatusPage(attaching: page)
    status.beginGeneration(pid: 1)
    status.state = .ready
    return WorkerContext(
      manifest: manifest, settings: settings, status: status,
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: -1)
  }

  /// A new streams worker, as after a restart.
  func streams() throws -> Producing {
    let context = try context(.streams, page: streamsPage.rawValue)
    return try #require(try Producing(context, wake: wake.rawValue))
  }

  func client() throws -> PublicationClient {
    let context = try context(.connections(0), page: connectionsPage.rawValue)
    return try #require(try PublicationClient(context) { _ in })
  }

  /// Turns both until `isDone`.
  func turn(_ streams: Producing?, _ client: PublicationClient, until isDone: () -> Bool) throws {
    let deadline = MonotonicTime.now() + 180_000_000_000
    while !isDone() {
      try #require(MonotonicTime.now() < deadline, "waited three minutes")
      _ = streams?.turn(MonotonicTime.now())
      client.serve()
      while try control.next() != nil {}
      control.commit()
      poll(nil, 0, 1)
    }
  }

}

extension KafkaProducer {
  /// As if the brokers had refused it for good.
  func failForTest() {
    rd_kafka_test_fatal_error(handle, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "test")
  }
}

@Suite("Producing and responses", .serialized)
struct ProducingTests {
  private func publish(
    _ client: PublicationClient, _ value: [UInt8], topic: String = "rig", _ outcomes: Outcomes
  ) {
    client.publish(
      topic: topic, key: "k", headers: ["a", "b"], value: value, nowNs: MonotonicTime.now()
    ) { outcomes.all.append($0) }
  }

  private final class Outcomes {
    var all: [PublicationOutcome] = []
  }

  @Test("Records are acknowledged, however large they are for the ring")
  func acknowledged() throws {
    let broker = try MockBroker()
    let gateway = try ProducingGateway(broker.address, ringBytes: 65_536)
    let (streams, client, outcomes) = (try gateway.streams(), try gateway.client(), Outcomes())
    for count in [0, 1, 8_000, 8_192, 200_000] {
      publish(client, [UInt8](repeating: 7, count: count), outcomes)
    }
    try gateway.turn(streams, client) { outcomes.all.count == 5 }
    #expect(outcomes.all.allSatisfy { $0 == .acknowledged })
    client.endAll()
    #expect(outcomes.all.count == 5)
    streams.publications.stop {}
  }

  @Test("An acknowledgement wakes the loop, whatever the client has had to say before")
  func wakes() throws {
    let broker = try MockBroker()
    let gateway = try ProducingGateway(broker.address)
    // Of no use to a producer: it says so at once.
    gateway.settings.kafkaProperties = ["fetch.wait.max.ms": "20"]
    let (streams, client, outcomes) = (try gateway.streams(), try gateway.client(), Outcomes())
    publish(client, [1], outcomes)
    _ = streams.turn(MonotonicTime.now())
    while outcomes.all.isEmpty {
      var entry = pollfd(fd: gateway.wake.rawValue, events: Int16(POLLIN), revents: 0)
      try #require(poll(&entry, 1, 180_000) == 1, "nothing has woken the loop")
      EventFD.drain(gateway.wake.rawValue)
      _ = streams.turn(MonotonicTime.now())
      client.serve()
    }
    #expect(outcomes.all == [.acknowledged])
    streams.publications.stop {}
  }

  @Test("A producer that has failed for good is replaced, and whoever waits is told")
  func fatal() throws {
    let broker = try MockBroker()
    let gateway = try ProducingGateway(broker.address)
    let (streams, client, outcomes) = (try gateway.streams(), try gateway.client(), Outcomes())
    publish(client, [1], outcomes)
    try gateway.turn(streams, client) { outcomes.all.count == 1 }
    let first = try #require(streams.publications.client)
    first.failForTest()
    publish(client, [2], outcomes)
    try gateway.turn(streams, client) { outcomes.all.count == 2 }
    guard case .unavailable = outcomes.all[1] else {
      Issue.record("\(outcomes.all)")
      return
    }
    streams.publications.tick(MonotonicTime.now())
    #expect(streams.publications.client == nil)
    publish(client, [3], outcomes)
    try gateway.turn(streams, client) { outcomes.all.count == 3 }
    #expect(outcomes.all[2] == .acknowledged)
    streams.publications.stop {}
  }

  @Test("A new streams worker: whoever waits is told, and what was meant for its predecessor isn't produced")
  func successor() throws {
    let broker = try MockBroker()
    let gateway = try ProducingGateway(broker.address)
    _ = try gateway.streams()
    let (client, outcomes) = (try gateway.client(), Outcomes())
    publish(client, [1], outcomes)
    let successor = try gateway.streams()
    client.tick(nowNs: MonotonicTime.now())
    #expect(outcomes.all.count == 1 && outcomes.all[0] != .acknowledged)
    publish(client, [2], outcomes)
    try gateway.turn(successor, client) { outcomes.all.count == 2 }
    #expect(outcomes.all[1] == .acknowledged)
    successor.publications.stop {}
  }

  @Test("Without an answer a publication ends by its deadline")
  func deadline() throws {
    let gateway = try ProducingGateway("127.0.0.1:1")
    let streams = try gateway.streams()
    let (client, outcomes) = (try gateway.client(), Outcomes())
    let before = MonotonicTime.now()
    publish(client, [1], outcomes)
    let after = MonotonicTime.now()
    client.tick(nowNs: before + 60_000_000_000)
    #expect(outcomes.all.isEmpty)
    client.tick(nowNs: after + 62_000_000_000)
    #expect(outcomes.all.count == 1)
    client.endAll()
    #expect(outcomes.all.count == 1)
    // Read after its time, it isn't produced.
    _ = streams.turn(after + 61_000_000_000)
    #expect(streams.publications.client == nil)
  }

  @Test("Records that no connection worker writes are reported and read no further")
  func corrupt() throws {
    let gateway = try ProducingGateway("127.0.0.1:1")
    let streams = try gateway.streams()
    let client = try gateway.client()
    let writer = try RingWriter(attaching: gateway.responses.rawValue, wake: [-1])
    func append(_ bytes: [UInt8]) {
      _ = writer.append(type: Envelope.recordType, length: bytes.count) { $0.copyBytes(from: bytes) }
      writer.publish()
      client.serve()
    }
    // For another reader: skipped.
    append([UInt8](repeating: 0xA5, count: 40))
    #expect(client.inbox.rings.takeIncidents().isEmpty)
    append([0, 0, 0, 0] + [UInt8](repeating: 0xA5, count: 36))
    #expect(client.inbox.rings.takeIncidents().count == 1)
    _ = streams
  }
}

@Suite("Responses in records")
struct RecordResponseTests {
  private func parse(_ headers: [(String, String)], _ body: String) throws -> ServiceResponse {
    let list = headers.map { (name: $0.0, value: Array($0.1.utf8)) }
    return try Array(body.utf8).withUnsafeBytes { bytes in try RecordResponse.parse(list, bytes) }
  }

  private func lines(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test("Headers name correlation and status; the body is whatever it is")
  func headers() throws {
    let plain = try parse([("Rig-Correlation", "c")], "{")
    #expect(plain == ServiceResponse(correlation: "c", status: 200, fields: [], body: Array("{".utf8)))
    let full = try parse(
      [("rig-correlation", "c"), ("rig-response-code", "404"), ("content-type", "a/b"), ("X-A", "1")], "")
    #expect(
      full
        == ServiceResponse(
          correlation: "c", status: 404, fields: lines("content-type: a/b\r\nx-a: 1\r\n"), body: []))
    let binary = try [0xFF, 0].withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
      try RecordResponse.parse(
        [("rig-correlation", Array("c".utf8)), ("x-latin", [0x20, 0xE9, 0xFF, 0x09]), ("x-control", [1])],
        UnsafeRawBufferPointer(rebasing: bytes[..<1]))
    }
    #expect(binary.fields == lines("x-latin: ") + [0xE9, 0xFF] + lines("\r\n"))
  }

  @Test("Without that header the body says it, as with RIG 2")
  func bodies() throws {
    let body = #"{"rig":{"correlation":"c","response_code":201},"data":1}"#
    let response = try parse([], body)
    #expect(response.correlation == "c" && response.status == 201)
    #expect(response.fields == lines("content-type: application/json\r\n"))
    #expect(response.body == Array(body.utf8))
    let typed = try parse([("content-type", "x/y")], #"{"rig":{"correlation":"c"}}"#)
    #expect(typed.fields == lines("content-type: x/y\r\n"))
    #expect(try parse([], #"{"rig":{"correlation":"c"}}"#).status == 200)
  }

  @Test(
    "What says neither, or an impossible status, is none",
    arguments: [
      ([], "no JSON"), ([], "{}"), ([], #"{"rig":{}}"#), ([], #"{"rig":{"correlation":7}}"#), ([], "[]"),
      ([], #"{"rig":{"correlation":"c","response_code":100}}"#), ([], ""),
      ([("rig-correlation", "c"), ("rig-response-code", "x")], ""),
      ([("rig-correlation", "c"), ("rig-response-code", "100")], ""),
    ] as [([(String, String)], String)])
  func none(headers: [(String, String)], body: String) {
    #expect(throws: EventError.self) { _ = try parse(headers, body) }
  }
}
