// What the processes of the gateway hold, and what a log that nobody reads does to them. (A full disk can do nothing: no
// process of the gateway writes to one.)

import Foundation
import Testing

@Suite("Supervisor: descriptors and log", .serialized)
struct SupervisorResourceTests {
  /// More than any worker needs: rings, status pages, eventfds and what its event loop has. A leak passes it soon.
  private static let mostDescriptors = 64

  @Test("A worker holds the descriptors of its task and no others")
  func descriptors() throws {
    try Gateway.run(try Gateway.settingsForAllWorkers()) { gateway in
      try expectOwnDescriptorsOnly(gateway)
      // Those of replacements come from a supervisor that has more open than at the start.
      for kind in WorkerKind.allCases {
        try gateway.killAndAwaitReplacement(try #require(gateway.workers(kind).first))
      }
      try expectOwnDescriptorsOnly(gateway)
    }
  }

  private func expectOwnDescriptorsOnly(_ gateway: Gateway) throws {
    // A place of a connection worker has two seats.
    let seats = ["connections.0", "connections.0b", "connections.1", "connections.1b"]
    func ofEach(_ purpose: String) -> Set<String> { Set(seats.map { "\(purpose).\($0)" }) }
    let pages = Set(
      ["supervisor", "control", "streams", "proxies.0"].map { "status-\($0)" } + seats.map { "status-\($0)" })
    let requests = ofEach("requests")
    let ofConnections = ofEach("events")
    let shared: Set = ["events.streams", "events.control", "state.control"]
    let presence = ofEach("presence")
    let calls = ofEach("calls").union(["calls.control"])
    let answers: Set = ["answers.proxies.0"]
    let publications = ofEach("publications")
    let responses: Set = ["responses.streams", "responses.control"]
    // Written by streams; control shows how full it is.
    let positions = "positions.streams"
    let allowed: [WorkerKind: Set<String>] = [
      .connections: pages.union(requests).union(ofConnections).union(shared).union(calls).union(answers)
        .union(responses),
      .streams: pages.union(publications).union(["events.streams", "responses.streams", positions]),
      .proxies: pages.union(calls).union(answers),
      .control: pages.union(requests).union(ofConnections).union(shared).union(presence).union(calls)
        .union(answers).union(publications).union(responses).union([positions]),
    ]
    var reported: Set<String> = []
    defer {
      let taken = presence.union(publications).filter { !$0.hasSuffix("b") }
      #expect(reported == taken, "each has its own")
    }
    for kind in WorkerKind.allCases {
      for worker in gateway.workers(kind) {
        let links = worker.descriptors
        #expect(links.count <= Self.mostDescriptors, "\(worker.name): \(links)")
        #expect(!links.values.contains { $0.contains("pidfd") }, "\(worker.name): \(links)")
        #expect(worker.listens(on: gateway.inboundPort) == (kind == .connections), "\(worker.name)")
        #expect(worker.listens(on: gateway.managementPort) == (kind == .control), "\(worker.name)")
        var foreign = worker.memories.subtracting(try #require(allowed[kind])).filter {
          !$0.hasPrefix("manifest")
        }
        if kind == .connections {
          let own = foreign.intersection(presence.union(publications))
          #expect(own.count == 2, "of presence and of publications one ring: \(own)")
          reported.formUnion(own)
          foreign.subtract(own)
          // Its own, and that of the other seat of its place.
          let ledgers = foreign.filter { $0.hasPrefix("ledger-connections.") }
          #expect(
            Set(ledgers.map { $0.hasSuffix("b") ? String($0.dropLast()) : $0 }).count <= 1, "\(ledgers)")
          foreign.subtract(ledgers)
        }
        #expect(foreign.isEmpty, "\(worker.name) holds \(foreign)")
        // The event loop has one, the acceptor of the shared socket another; the streams worker polls.
        let loops = links.values.count { $0.contains("[eventpoll]") }
        #expect(loops <= (kind == .streams ? 0 : 2), "\(worker.name): \(links)")
      }
    }
  }

  @Test("15.2 The metrics page calls every reader of every ring by its own name")
  func readers() throws {
    let both = ["connections.0", "connections.1"]
    var expected: [String: [String]] = [
      "state.control": both, "calls.control": ["proxies.0"], "responses.streams": both,
      "responses.control": both, "answers.proxies.0": ["connections.0", "connections.1", "control"],
      "events.streams": both, "events.control": both,
    ]
    for worker in both {
      expected["events.\(worker)"] = both
      expected["requests.\(worker)"] = both
      expected["presence.\(worker)"] = ["control"]
      expected["calls.\(worker)"] = ["proxies.0"]
      expected["publications.\(worker)"] = ["control", "streams"]
    }
    try Gateway.run(try Gateway.settingsForAllWorkers()) { gateway in
      let metrics = try MetricsText(gateway.management("GET", "/metrics").text)
      var readers: [String: [String]] = [:]
      for labels in metrics.labels(of: "rig_ring_reader_lag_bytes") {
        readers[labels["ring"] ?? "", default: []].append(labels["reader"] ?? "")
      }
      #expect(readers.mapValues { $0.sorted() } == expected)
      let rings = Set(metrics.labels(of: "rig_ring_used_bytes").compactMap { $0["ring"] })
      #expect(rings == Set(expected.keys).union(["positions.streams"]))
    }
  }

  @Test("Restarts cost the supervisor no descriptor")
  func supervisorDescriptors() throws {
    try Gateway.run(["RESTART_INTENSITY": "100"]) { gateway in
      let supervisor = try #require(gateway.process.tree().first { $0.pid == gateway.process.pid })
      let before = supervisor.descriptors.count
      for _ in 0..<5 {
        for kind in [WorkerKind.connections, .control] {
          try gateway.killAndAwaitReplacement(try #require(gateway.workers(kind).first))
        }
      }
      #expect(supervisor.descriptors.count == before, "\(supervisor.descriptors)")
    }
  }

  @Test("A log that nobody reads holds nobody up", arguments: ["full", "gone"])
  func log(reader: String) throws {
    let directory = try TestDirectory()
    let path = directory.file("log")
    guard mkfifo(path, 0o600) == 0 else { throw TestFailure("mkfifo: \(errno)") }
    // Open for both, so that neither this nor the shell's open waits for the other.
    let pipe = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
    var isOpen = true
    defer { if isOpen { close(pipe) } }
    if reader == "full" {
      let lump = [UInt8](repeating: UInt8(ascii: "\n"), count: 4096)
      while write(pipe, lump, lump.count) > 0 {}
    }
    try Gateway.run(launcher: ["/bin/sh", "-c", "exec 2>\(path); exec \"$0\" \"$@\""]) { gateway in
      if reader == "gone" {
        // Every write fails from now on.
        close(pipe)
        isOpen = false
      }
      let client = try SSEClient.open(gateway, Subscriptions.to("a"))
      try gateway.killAndAwaitReplacement(try #require(gateway.workers(.control).first))
      try gateway.publish(CloudEvent.json("a"))
      try client.event(named: "a")
      gateway.process.signal(SIGHUP)
    }
  }
}
