// What operators and their tools see on the management port: contract §9.

import Glibc
import Testing

@Suite("Health and metrics")
struct HealthTests {
  @Test("A gateway that is well says so on every path, and names its parts")
  func healthy() throws {
    try Gateway.run { gateway in
      let health = try gateway.management("GET", "/health")
      #expect(health.status == 200)
      #expect(health.text == "OK")
      #expect(health["cache-control"] == "no-store")
      let inbound = try gateway.inbound("GET", "/_rig/health")
      #expect(inbound.status == 200)
      #expect(inbound.text == "OK")
      let live = try gateway.management("GET", "/livez")
      #expect(live.status == 200)
      #expect(try live.json["status"] == "ok")
      let ready = try gateway.management("GET", "/readyz")
      #expect(ready.status == 200)
      #expect(ready["content-type"]?.hasPrefix("application/json") == true)
      let parts = try Self.parts(ready)
      #expect(
        ["connections.0", "connections.1", "control"].allSatisfy { parts[$0]?["status"] == "ok" }, "\(parts)")
      for (name, part) in parts where part["pid"] != nil {
        #expect(part["state"] == "ready")
        #expect((part["pid"]?.integer ?? 0) > 1, "\(name)")
      }
      let pids = Set(gateway.workers(.connections).map { Int($0.pid) })
      #expect(Set(["connections.0", "connections.1"].compactMap { parts[$0]?["pid"]?.integer }) == pids)
    }
  }

  @Test(
    "A worker that doesn't turn makes the gateway unready, by name, until it turns again; liveness isn't touched"
  )
  func hungWorker() throws {
    try Gateway.run(["WATCHDOG_S": "8"]) { gateway in
      let worker = try #require(gateway.workers(.connections).first)
      // The supervisor would end what this test looks at.
      gateway.process.signal(SIGSTOP)
      kill(worker.pid, SIGSTOP)
      defer {
        kill(worker.pid, SIGCONT)
        gateway.process.signal(SIGCONT)
      }
      let unready = try eventually("503") { () -> HTTPAnswer? in
        let answer = try gateway.management("GET", "/readyz")
        return answer.status == 503 ? answer : nil
      }
      let parts = try Self.parts(unready)
      let missing = parts.filter { $0.value["status"] != "ok" }
      #expect(missing.count == 1)
      #expect(missing.first?.value["pid"]?.integer == Int(worker.pid))
      #expect(missing.first?.value["detail"]?.string?.contains("heartbeat") == true)
      let health = try gateway.management("GET", "/health")
      #expect(health.status == 503)
      #expect(health.text.contains(missing.first?.key ?? "?"))
      #expect(try gateway.management("GET", "/livez").status == 200)
      #expect(try gateway.metric("rig_worker_heartbeat_age_seconds") >= 8)
      kill(worker.pid, SIGCONT)
      try gateway.waitUntilReady()
    }
  }

  private static func parts(_ answer: HTTPAnswer) throws -> [String: JSON] {
    let parts = try answer.json["parts"]?.array ?? []
    return Dictionary(parts.map { ($0["name"]?.string ?? "", $0) }) { first, _ in first }
  }

  /// What contract §9 promises of this release's parts.
  private static let promised = [
    "rig_connections", "rig_consumed_events_total", "rig_consumed_events_failed_total",
    "rig_consumed_events_forwarded_total", "rig_consumed_event_processing_duration_milliseconds_bucket",
    "rig_subscriptions_total", "rig_worker_restarts_total", "rig_ring_used_bytes", "rig_ring_full_total",
    "rig_slow_consumers_total", "rig_delivery_latency_seconds_bucket", "rig_delivery_latency_seconds_sum",
    "rig_delivery_latency_seconds_count", "rig_deliveries_total", "rig_build_info",
    "rig_process_cpu_seconds_total",
    "rig_process_resident_memory_bytes", "rig_process_open_fds", "rig_process_max_fds", "rig_worker_up",
  ]

  @Test(
    "The metrics are well-formed in both formats and have the names of the contract",
    arguments: [false, true])
  func formats(openMetrics: Bool) throws {
    try Gateway.run { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      let accept = openMetrics ? "application/openmetrics-text;version=1.0.0" : "text/plain;version=0.0.4"
      let answer = try gateway.management("GET", "/metrics", headers: [("accept", accept)])
      #expect(answer.status == 200)
      #expect(
        answer["content-type"]?.hasPrefix(openMetrics ? "application/openmetrics-text" : "text/plain") == true
      )
      #expect(answer.text.hasSuffix("# EOF\n") == openMetrics)
      let names = try MetricsText(answer.text).names
      for name in Self.promised { #expect(names.contains(name), "\(name)") }
      #expect(names.allSatisfy { $0.hasPrefix("rig_") })
      try Self.checkForm(answer.text, openMetrics)
    }
  }

  /// Every sample belongs to the family declared last, every family is declared once, and no series comes twice.
  private static func checkForm(_ text: String, _ openMetrics: Bool) throws {
    var families: Set<Substring> = []
    var series: Set<Substring> = []
    var family: Substring = ""
    for line in text.split(separator: "\n") where line != "# EOF" {
      let words = line.split(separator: " ")
      if line.hasPrefix("# TYPE ") {
        family = words[2]
        #expect(families.insert(family).inserted, "\(family) is declared twice")
        #expect(["counter", "gauge", "histogram", "unknown", "untyped"].contains(words.last))
        #expect(!openMetrics || words.last != "counter" || !family.hasSuffix("_total"))
      } else if !line.hasPrefix("# HELP ") {
        let end = try #require(line.lastIndex(of: " "))
        #expect(series.insert(line[..<end]).inserted, "\(line) comes twice")
        let name = line.prefix { $0 != "{" && $0 != " " }
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"]
        #expect(suffixes.contains { name == family + $0 }, "\(line) in family \(family)")
      }
    }
    #expect(!families.isEmpty)
  }

  @Test("Gauges of connections follow the clients, by transport, and counters count what has happened")
  func counting() throws {
    try Gateway.run { gateway in
      let deliveredBefore = try gateway.metric("rig_deliveries_total")
      var streams = try (0..<3).map { _ in try SSEClient.open(gateway, Subscriptions.to("a", "b")) }
      let sockets = try (0..<2).map { _ in try WebSocketClient.open(gateway, Subscriptions.to("a")) }
      let poller = try LongPollClient(gateway, Subscriptions.to("a"))
      func open(_ transport: String) throws -> Int {
        Int(try gateway.metric("rig_connections", ["transport": transport]))
      }
      try eventually("they are counted") {
        try open("sse") == 3 && open("ws") == 2 && open("longpolling") == 1
          && gateway.metric("rig_subscriptions_total") == 9
      }
      for id in 0..<5 { try gateway.publish(CloudEvent.json("a", id: "\(id)")) }
      try gateway.publish(CloudEvent.json("nobody"))
      #expect(
        try gateway.inbound("POST", "/_rig/v1/events", headers: [CloudEvent.contentType], body: "{}").status
          == 400)
      for stream in streams { for _ in 0..<5 { try stream.event(named: "a") } }
      for socket in sockets { for _ in 0..<5 { try socket.event("a") } }
      var polled: [JSON] = []
      try eventually("the last one is polled") {
        polled += try poller.poll()
        return polled.last?["id"] == "4"
      }

      try eventually("deliveries are counted") {
        try gateway.metric("rig_deliveries_total") - deliveredBefore == 30
      }
      #expect(try gateway.metric("rig_consumed_events_total", ["source": "http"]) == 6)
      #expect(try gateway.metric("rig_consumed_events_failed_total", ["source": "http"]) == 1)
      #expect(try gateway.metric("rig_consumed_events_forwarded_total", ["type": "a"]) >= 5)
      #expect(try gateway.metric("rig_consumed_events_forwarded_total", ["type": "nobody"]) == 0)
      let workers = 2.0
      let observed = try gateway.metric("rig_delivery_latency_seconds_count")
      #expect(observed >= 5 && observed <= 5 * workers)
      #expect(try gateway.metric("rig_delivery_latency_seconds_bucket", ["le": "+Inf"]) == observed)
      #expect(try gateway.metric("rig_worker_restarts_total") == 0)
      for worker in ["connections.0", "connections.1", "control"] {
        #expect(try gateway.metric("rig_worker_up", ["worker": worker]) == 1)
      }

      streams.removeLast()
      try eventually("one is gone") { try open("sse") == 2 && gateway.metric("rig_subscriptions_total") == 7 }
    }
  }

  @Test("Labels of event types are bounded, however many types there are and whatever they are called")
  func labels() throws {
    try Gateway.run(["CONNECTION_WORKERS": "1"]) { gateway in
      let client = try SSEClient.open(gateway, Subscriptions.to("*"))
      let types = 300
      for number in 0..<types { try gateway.publish(CloudEvent.json(#"type \"\#(number)\" \\ {}, ="#)) }
      for _ in 0..<types { _ = try client.event() }
      let text = try gateway.management("GET", "/metrics").text
      try Self.checkForm(text, false)
      let lines = text.split(separator: "\n").filter { $0.hasPrefix("rig_consumed_events_forwarded_total{") }
      #expect(lines.count < types)
      #expect(lines.contains { $0.contains(#"type="other""#) })
      let sum = lines.compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }.reduce(0, +)
      #expect(sum == types)
    }
  }
}
