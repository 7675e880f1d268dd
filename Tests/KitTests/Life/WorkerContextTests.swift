// A worker's birth gifts, and the lines of its log.

import Foundation
import Glibc
import IPC
import Logging
import Settings
import Testing

@testable import Kit

@Suite("Worker context")
struct WorkerContextTests {
  private func context(_ worker: WorkerIdentity, page: CInt, _ rings: [RingGrant]) throws -> WorkerContext {
    let manifest = WorkerManifest(
      worker: worker, gatewayEpoch: 1, tokenKey: Data(), settings: Data(), status: page, wake: -1,
      listeners: [:], rings: rings, peers: [], supervisorPid: 0, release: "test")
    return WorkerContext(
      manifest: manifest, settings: Settings(), status: try StatusPage(attaching: page),
      log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, signals: -1)
  }

  @Test("has a name of its own: of connection workers there are several")
  func names() {
    #expect(WorkerIdentity.connections(3).name == "connections.3")
    #expect(WorkerIdentity.proxies(0).name == "proxies.0")
    #expect(WorkerIdentity.streams.name == "streams")
    #expect(WorkerIdentity.control.name == "control")
  }

  @Test("writes the one event ring that it is granted for writing")
  func writer() throws {
    let page = try StatusPage.create(name: "test")
    let other = try TestRing()
    let own = try TestRing()
    let worker = WorkerIdentity.connections(1)
    for readers in [[], [RingGrant.Reader(worker, slot: 0, wake: -1)]] {
      let context = try context(
        worker, page: page.rawValue,
        [
          RingGrant(
            id: 1, purpose: .events, writer: .streams, readers: [.init(worker, slot: 0)], fd: other.fd),
          RingGrant(id: 2, purpose: .events, writer: .control, readers: [], fd: other.fd),
          RingGrant(id: 4, purpose: .requests, writer: worker, readers: [], fd: other.fd),
          RingGrant(id: 3, purpose: .events, writer: worker, readers: readers, fd: own.fd),
        ])
      #expect(context.name == "connections.1")
      let writer = try context.eventWriter()
      #expect(writer.name == "events.connections.1")
      let reader = try own.reader()
      #expect(writer.append(PreparedEvent(type: "t", json: Array("{}".utf8))) != .full)
      writer.publish()
      #expect(try reader.events() == ["{}"])
    }
  }

  @Test("without such a ring says so")
  func noWriter() throws {
    let page = try StatusPage.create(name: "test")
    let ring = try TestRing()
    let context = try context(
      .control, page: page.rawValue,
      [RingGrant(id: 1, purpose: .events, writer: .streams, readers: [.init(.control, slot: 0)], fd: ring.fd)]
    )
    #expect(throws: IPCError.invalid("the manifest of control grants no ring of events to write")) {
      try context.eventWriter()
    }
    #expect(context.status.takeCorruptReport() == nil)
  }

  @Test("reports the ring that it finds corrupt when it attaches")
  func corrupt() throws {
    let page = try StatusPage.create(name: "test")
    let ring = try TestRing()
    let garbage = [UInt8](repeating: 0xA5, count: 4096)
    try #require(pwrite(ring.fd, garbage, garbage.count, 0) == garbage.count)
    let context = try context(
      .streams, page: page.rawValue,
      [RingGrant(id: 5, purpose: .events, writer: .streams, readers: [], fd: ring.fd)])
    #expect(throws: IPCError.self) { try context.eventWriter() }
    #expect(context.status.takeCorruptReport() == RingReport(ring: 5, epoch: nil))
  }
}

@Suite("Log line")
struct LogLineTests {
  private let time = "2026-11-24T09:00:00.000Z"
  private let fields: [(String, LogValue)] = [
    ("ring", .text("events.control")), ("text", .text("a \"b\"\nc\u{1B}")), ("count", .number(-7)),
    ("whole", .flag(true)),
  ]

  @Test("as JSON is one line of JSON")
  func json() throws {
    let line = LogOutput(worker: "connections", slot: 2, format: "json").json(
      time, .warning, "say \"hi\"\n", fields)
    #expect(line.last == 0x0A)
    #expect(line.dropLast().allSatisfy { $0 >= 0x20 })
    let object = try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
    #expect(object["time"] as? String == time)
    #expect(object["level"] as? String == "warning")
    #expect(object["worker"] as? String == "connections")
    #expect(object["slot"] as? Int == 2)
    #expect(object["pid"] as? Int32 == getpid())
    #expect(object["message"] as? String == "say \"hi\"\n")
    #expect(object["ring"] as? String == "events.control")
    #expect(object["text"] as? String == "a \"b\"\nc\u{1B}")
    #expect(object["count"] as? Int == -7 && object["whole"] as? Bool == true)
  }

  @Test("for people is one line, whatever its values contain")
  func human() {
    let output = LogOutput(worker: "streams", slot: 0, format: "human")
    #expect(
      String(decoding: output.human(time, .info, "ready", []), as: UTF8.self)
        == "\(time) info streams.0: ready\n")
    #expect(
      String(decoding: output.human(time, .error, "say \"hi\"\n", fields), as: UTF8.self)
        == "\(time) error streams.0: say \\\"hi\\\"\\n ring=\"events.control\" text=\"a \\\"b\\\"\\nc\\u001b\" "
        + "count=-7 whole=true\n"
    )
    #expect(
      String(decoding: output.human(time, .error, "", [("a", .text(""))]), as: UTF8.self)
        == "\(time) error streams.0:  a=\"\"\n")
  }
}
