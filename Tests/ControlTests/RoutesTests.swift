// The management port over a real socket, with the pages and rings of a whole gateway.

import Glibc
import IPC
import Kit
import Settings
import Testing

@testable import Control

@Suite(.serialized) struct RoutesTests {
  private static let event =
    #"{"specversion":"1.0","type":"greeting","source":"/test","id":"1","data":{"a":1}}"#
  private static let structured = "application/cloudevents+json"

  @Test(
    "A message becomes visible in the ring before its 202 is written",
    arguments: ["/v3/messages", "/v2/messages"])
  func message(_ path: String) async throws {
    let gateway = try TestGateway()
    let reader = try RingReader(attaching: try gateway.ring("events.control"), slot: 0)
    try await gateway.served { client in
      let answer = try client.post(path, Self.event, type: Self.structured)
      #expect(answer.status == 202)
      #expect(answer.body.contains("greeting"))
      let record = try #require(try reader.next())
      #expect(EventRecord(ring: record)?.isAddressed == false)
      #expect(EventRecord(ring: record).map { String(decoding: $0.typeBytes, as: UTF8.self) } == "greeting")
      #expect(try reader.next() == nil)
    }
  }

  @Test("What is no event is refused with the reason")
  func refused() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.post(
        "/v3/messages", #"{"specversion":"1.0","source":"/x","id":"1"}"#, type: Self.structured)
      #expect(answer.status == 400)
      #expect(answer.header("content-type") == "application/problem+json")
      #expect(answer.body.contains("type"))
      #expect(try client.get("/metrics").value(#"rig_ring_records_total{ring="events.control"}"#) == "0")
    }
  }

  @Test(
    "Resources name the methods that they have",
    arguments: [
      ("GET", "/v3/messages", "POST"), ("DELETE", "/v2/messages", "POST"), ("POST", "/health", "GET, HEAD"),
      ("PUT", "/metrics", "GET, HEAD"), ("DELETE", "/readyz", "GET, HEAD"),
      ("OPTIONS", "/livez", "GET, HEAD"),
    ])
  func methods(_ method: String, _ path: String, _ allowed: String) async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.ask(method, path)
      #expect(answer.status == 405)
      #expect(answer.header("allow") == allowed)
      #expect(answer.header("content-type") == "application/problem+json")
    }
  }

  @Test(
    "Everything else is 404 and named",
    arguments: ["/", "/v3/apis/", "/v3/apis/a/b", "/health/", "/v3/messages/1", "/Metrics"])
  func notFound(_ path: String) async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.get(path)
      #expect(answer.status == 404)
      #expect(answer.header("content-type") == "application/problem+json")
      #expect(answer.body.contains(path.replacing("/", with: "\\/")) || answer.body.contains(path))
    }
  }

  @Test("A gateway whose workers are all ready is healthy, on every probe, with GET and HEAD")
  func healthy() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let health = try client.get("/health")
      #expect(health.status == 200)
      #expect(health.body == "OK")
      #expect(health.header("content-type")?.hasPrefix("text/plain") == true)
      let ready = try client.get("/readyz")
      #expect(ready.status == 200)
      #expect(ready.header("content-type") == "application/json")
      #expect(
        ready.body.hasPrefix(
          #"{"status":"ok","parts":[{"name":"connections.0","status":"ok","state":"ready""#))
      #expect(!ready.body.contains("supervisor"))
      #expect(!ready.body.contains("kafka"))
      for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let head = try client.ask("HEAD", path)
        #expect(head.status == 200 && head.body.isEmpty)
        #expect(head.header("content-length").flatMap(Int.init) ?? 0 > 0)
      }
    }
  }

  @Test("A worker that isn't ready makes the gateway unavailable, and is named; this process lives on")
  func unhealthy() async throws {
    let gateway = try TestGateway()
    try gateway.page("connections.1").state = .draining
    try await gateway.served { client in
      let health = try client.get("/health")
      #expect(health.status == 503)
      #expect(health.header("content-type") == "application/problem+json", "14.D21")
      #expect(health.body.contains(#""detail":"unhealthy: connections.1""#))
      let ready = try client.get("/readyz")
      #expect(ready.status == 503)
      #expect(ready.body.contains(#""name":"connections.1","status":"unavailable","state":"draining""#))
      try gateway.page("control").state = .stopping
      let live = try client.get("/livez")
      #expect(live.status == 200)
      #expect(
        live.body.hasPrefix(#"{"status":"ok","parts":[{"name":"control","status":"ok","state":"stopping""#))
    }
  }

  @Test("14.E29 A gateway that is asked to stop is draining from then on, and takes no more events")
  func draining() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      #expect(try client.get("/readyz").status == 200)
      try gateway.page("supervisor").state = .stopping
      let ready = try client.get("/readyz")
      #expect(ready.status == 503 && ready.body.hasPrefix(#"{"status":"draining","parts":[{"#))
      let health = try client.get("/health")
      #expect(health.status == 503 && health.body.contains("draining"))
      #expect(try client.get("/livez").status == 200)
      let event = try client.post(
        "/v3/messages", #"{"specversion":"1.0","type":"a","source":"b","id":"1"}"#,
        type: "application/cloudevents+json")
      #expect(event.status == 503 && event.header("retry-after") == "1")
    }
  }

  @Test("A heartbeat that is too old makes the gateway unavailable")
  func hung() async throws {
    let gateway = try TestGateway()
    var settings = Settings()
    settings.watchdogSeconds = 0
    try await gateway.served(settings) { client in
      let ready = try client.get("/readyz")
      #expect(ready.status == 503)
      #expect(ready.body.contains("no heartbeat for "))
      #expect(ready.body.contains(" s, expected one within 0 s"))
    }
  }

  @Test("An outage of the brokers is shown, and takes no node out of service")
  func kafka() async throws {
    let gateway = try TestGateway()
    var settings = Settings()
    settings.kafkaBrokers = ["localhost:9092"]
    let gauge = try #require(try gateway.page("streams").metric(.gauge, "rig_kafka_connected"))
    try await gateway.served(settings) { client in
      let degraded = try client.get("/readyz")
      #expect(degraded.status == 200)
      #expect(degraded.body.contains(#"{"name":"kafka","status":"degraded""#))
      #expect(try client.get("/health").body == "OK")
      gauge.set(1)
      #expect(try client.get("/readyz").body.contains(#"{"name":"kafka","status":"ok"}"#))
    }
  }
}

@Suite(.serialized) struct MetricsRouteTests {
  @Test("Numbers of all pages are added up, those of rings and processes are read")
  func scrape() async throws {
    let gateway = try TestGateway()
    for worker in ["connections.0", "connections.1"] {
      try gateway.page(worker).metric(.counter, "rig_slow_consumers_total")?.add(3)
    }
    try gateway.page("supervisor").metric(
      .counter, "rig_worker_restarts_total", labels: [("worker", "streams"), ("reason", "exit")])?.add()
    let writer = try RingWriter(attaching: try gateway.ring("events.streams"), wake: [-1, -1])
    guard case .appended = writer.append(type: 1, length: 100, { _ in }) else {
      Issue.record("the ring is full")
      return
    }
    writer.publish()
    try await gateway.served { client in
      let answer = try client.get("/metrics")
      #expect(answer.status == 200)
      #expect(answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8")
      #expect(answer.value("rig_slow_consumers_total") == "6")
      #expect(answer.value(#"rig_worker_restarts_total{worker="streams",reason="exit"}"#) == "1")
      #expect(answer.value(#"rig_ring_records_total{ring="events.streams"}"#) == "1")
      #expect(answer.value(#"rig_ring_capacity_bytes{ring="events.streams"}"#) == "\(TestGateway.ringBytes)")
      let used = try #require(answer.value(#"rig_ring_used_bytes{ring="events.streams"}"#))
      #expect(Int(used) ?? 0 > 100)
      #expect(
        answer.value(#"rig_ring_reader_lag_bytes{ring="events.streams",reader="connections.1"}"#) == used)
      #expect(answer.value(#"rig_build_info{version="3.0.0-test"}"#) == "1")
      for worker in ["connections.0", "control", "supervisor"] {
        #expect(answer.value(#"rig_process_threads{worker="\#(worker)"}"#) != nil, "\(worker)")
      }
      #expect(answer.value(#"rig_worker_heartbeat_age_seconds{worker="streams"}"#) != nil)
      #expect(answer.value(#"rig_worker_heartbeat_age_seconds{worker="supervisor"}"#) == nil)
      #expect(answer.value("rig_scrape_errors_total") == "0")
      #expect(answer.body.contains("# TYPE rig_consumed_event_processing_duration_milliseconds histogram\n"))
    }
  }

  @Test(
    "15.2 who lags is called by its own name, whatever the ring is for",
    arguments: [
      (.events, .connections(1), [.connections(0), .connections(1)]),
      (.requests, .connections(0), [.connections(0), .connections(1)]),
      (.state, .control, [.connections(0), .connections(1)]), (.presence, .connections(1), [.control]),
      (.calls, .control, [.proxies(0), .proxies(1)]),
      (.answers, .proxies(1), [.control, .connections(0), .connections(1)]),
      (.publications, .connections(0), [.control, .streams]), (.responses, .streams, [.connections(0)]),
      (.positions, .streams, []),
    ] as [(RingPurpose, WorkerIdentity, [WorkerIdentity])])
  func readers(purpose: RingPurpose, writer: WorkerIdentity, readers: [WorkerIdentity]) async throws {
    let gateway = try TestGateway()
    let slots = max(1, readers.count)
    let ring = try Ring.create(name: "lag", capacity: TestGateway.ringBytes, readers: slots).take()
    defer { close(ring) }
    if readers.isEmpty { try Ring.setRegistered(ring, reader: 0, false) }
    let ringWriter = try RingWriter(attaching: ring, wake: [])
    // Each has read one record more than the one before.
    for slot in readers.indices {
      _ = ringWriter.append(type: 1, length: 100) { $0.initializeMemory(as: UInt8.self, repeating: 0) }
      ringWriter.publish()
      let reader = try RingReader(attaching: ring, slot: slot)
      while try reader.next() != nil {}
      reader.commit()
    }
    // The table says which slot is whose, not the order.
    let grants = readers.enumerated().map { RingGrant.Reader($1, slot: $0) }
    gateway.addRing(purpose, by: writer, readers: grants.reversed(), fd: ring)
    let name = RingGrant.name(purpose, writer)
    try await gateway.served { client in
      let answer = try client.get("/metrics")
      for (slot, reader) in readers.enumerated() {
        let lag = answer.value(#"rig_ring_reader_lag_bytes{ring="\#(name)",reader="\#(reader.name)"}"#)
        #expect(lag == "\(120 * (readers.count - 1 - slot))", "\(reader.name)")
      }
      let lines = answer.body.split(separator: "\n").filter {
        $0.hasPrefix(#"rig_ring_reader_lag_bytes{ring="\#(name)""#)
      }
      #expect(lines.count == readers.count, "\(lines)")
      #expect(answer.value(#"rig_ring_used_bytes{ring="\#(name)"}"#) != nil)
    }
  }

  @Test("16.5 Two processes of a place show one of everything, and an empty seat shows nothing")
  func seats() async throws {
    let gateway = try TestGateway()
    let second = try #require(WorkerIdentity.connections(0).sibling)
    let empty = try #require(WorkerIdentity.connections(1).sibling)
    var pages: [StatusPage] = []
    for worker in [second, empty] {
      let descriptor = try StatusPage.create(name: worker.seatName).take()
      defer { close(descriptor) }
      pages.append(try StatusPage(attaching: descriptor))
      gateway.addPeer(worker, fd: gateway.own(dup(descriptor)))
    }
    pages[0].beginGeneration(pid: getpid())
    pages[0].state = .ready
    try gateway.page("connections.0").state = .draining
    for page in [try gateway.page("connections.0"), pages[0]] {
      page.metric(.counter, "rig_seen_total", labels: [("worker", second.name)])?.add(3)
    }
    let rings = try [second, empty].map { worker in
      let ring = gateway.own(
        try Ring.create(name: worker.seatName, capacity: TestGateway.ringBytes, readers: 1).take())
      gateway.addRing(.presence, by: worker, readers: [.init(second, slot: 0)], fd: ring)
      return ring
    }
    let writer = try RingWriter(attaching: rings[0], wake: [])
    _ = writer.append(type: 1, length: 100) { $0.initializeMemory(as: UInt8.self, repeating: 0) }
    writer.publish()
    try await gateway.served { client in
      let answer = try client.get("/metrics")
      #expect(answer.value(#"rig_seen_total{worker="connections.0"}"#) == "6")
      let lines = answer.body.split(separator: "\n").filter { !$0.hasPrefix("#") }
      let series = lines.map { $0.prefix { $0 != " " } }
      #expect(Set(series).count == series.count)
      #expect(answer.value(#"rig_process_threads{worker="connections.0"}"#) != nil)
      #expect(
        answer.value(#"rig_ring_reader_lag_bytes{ring="presence.connections.0b",reader="connections.0b"}"#)
          == "120")
      #expect(!answer.body.contains("connections.1b"))
      #expect(answer.value("rig_scrape_errors_total") == "0")
      let health = try client.get("/readyz")
      #expect(health.status == 200)
      #expect(health.body.ranges(of: #""name":"connections.0""#).count == 1)
    }
  }

  @Test("OpenMetrics for those who ask for it")
  func openMetrics() async throws {
    let gateway = try TestGateway()
    try await gateway.served { client in
      let answer = try client.get("/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n")
      #expect(answer.header("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8")
      #expect(answer.header("vary") == "accept")
      #expect(answer.body.hasSuffix("# EOF\n"))
    }
  }

  @Test("What can't be read costs its own lines and is counted, never the scrape")
  func errors() async throws {
    let gateway = try TestGateway()
    let broken = WorkerIdentity(kind: WorkerKind(rawValue: "broken"))
    gateway.addRing(.events, by: broken, fd: try gateway.eventfd())
    gateway.addPeer(broken, fd: try gateway.eventfd())
    try await gateway.served { client in
      #expect(try client.get("/metrics").status == 200)
      let second = try client.get("/metrics")
      #expect(second.status == 200)
      #expect(Int(second.value("rig_scrape_errors_total") ?? "") ?? 0 >= 2)
      #expect(second.value(#"rig_ring_capacity_bytes{ring="events.control"}"#) != nil)
      #expect(!second.body.contains("events.broken"))
      #expect(try client.get("/readyz").body.contains(#""name":"broken","status":"unavailable""#))
    }
  }

  @Test("A process id that is nobody's child is not looked at")
  func stranger() async throws {
    let gateway = try TestGateway()
    try gateway.page("streams").beginGeneration(pid: 1)
    try await gateway.served { client in
      let answer = try client.get("/metrics")
      #expect(answer.value(#"rig_process_threads{worker="streams"}"#) == nil)
      #expect(answer.value(#"rig_worker_heartbeat_age_seconds{worker="streams"}"#) != nil)
    }
  }
}
