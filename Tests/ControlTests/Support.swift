// What the tests of this folder share: a gateway of pages and rings without processes, and its management port.

import Glibc
import IPC
import Kit
import Links
import Logging
import NIOCore
import NIOPosix
import Settings
import TestSupport
import Testing
import Tokens

@testable import Control
@testable import HTTP

/// Waits for `condition` on this thread, three minutes at most.
func until(_ what: String, _ condition: () throws -> Bool) throws {
  let deadline = ContinuousClock.now + .seconds(180)
  while !(try condition()) {
    try #require(ContinuousClock.now < deadline, "not within three minutes: \(what)")
    usleep(1000)
  }
}

/// Pages and rings as a supervisor would make them; closed with the object.
final class TestGateway: @unchecked Sendable {
  static let ringBytes = 65536

  private(set) var peers: [WorkerManifest.Peer] = []
  /// Two event rings, for connection workers to read.
  private(set) var rings: [RingGrant] = []
  /// What the control worker is granted besides: one presence ring for each connection worker.
  private(set) var state: RingGrant
  private(set) var presence: [RingGrant] = []
  private(set) var pages: [String: StatusPage] = [:]
  private var descriptors: [CInt] = []

  /// Workers are "connections" (twice), "streams" and "control", ready and beating, and "supervisor".
  init() throws {
    let stateRing = try Ring.create(name: "state", capacity: Self.ringBytes, readers: 2).take()
    state = RingGrant(id: 10, purpose: .state, writer: .control, readers: Self.readers, fd: stateRing)
    own(stateRing)
    for slot in 0..<2 {
      let ring = own(try Ring.create(name: "presence", capacity: Self.ringBytes, readers: 1).take())
      presence.append(
        RingGrant(
          id: UInt32(11 + slot), purpose: .presence, writer: .connections(slot),
          readers: [.init(.control, slot: 0)], fd: ring))
    }
    for worker in [WorkerIdentity.connections(0), .connections(1), .streams, .control, .supervisor] {
      let descriptor = own(try StatusPage.create(name: worker.name).take())
      let page = try StatusPage(attaching: descriptor)
      peers.append(WorkerManifest.Peer(worker: worker, status: descriptor))
      pages[worker.name] = page
      guard worker != .supervisor else { continue }
      page.beginGeneration(pid: getpid())
      page.state = .ready
    }
    for (index, writer) in [WorkerIdentity.streams, .control].enumerated() {
      let descriptor = own(try Ring.create(name: writer.name, capacity: Self.ringBytes, readers: 2).take())
      rings.append(
        RingGrant(
          id: UInt32(index), purpose: .events, writer: writer, readers: Self.readers, cursorPosition: index,
          fd: descriptor))
    }
  }

  /// Connection workers.
  private static let readers: [RingGrant.Reader] = (0..<2).map { .init(.connections($0), slot: $0) }

  deinit { for descriptor in descriptors { close(descriptor) } }

  /// Closed with the gateway.
  @discardableResult
  func own(_ descriptor: CInt) -> CInt {
    descriptors.append(descriptor)
    return descriptor
  }

  /// An eventfd, closed with the gateway.
  func eventfd() throws -> CInt { own(try EventFD.create().take()) }

  func page(_ name: String) throws -> StatusPage { try #require(pages[name]) }

  func ring(_ name: String) throws -> CInt { try #require(rings.first { $0.name == name }).fd }

  func addRing(
    _ purpose: RingPurpose, by writer: WorkerIdentity, readers: [RingGrant.Reader] = [], fd: CInt
  ) {
    rings.append(
      RingGrant(id: UInt32(100 + rings.count), purpose: purpose, writer: writer, readers: readers, fd: fd))
  }

  func addPeer(_ worker: WorkerIdentity, fd: CInt) {
    peers.append(WorkerManifest.Peer(worker: worker, status: fd))
  }

  /// Says that nobody reads the state ring: everything in it counts as confirmed.
  func withoutStateReaders() throws {
    for slot in 0..<2 { try Ring.setRegistered(state.fd, reader: slot, false) }
  }

  /// The writing end of a connection worker's presence ring.
  func reporter(_ slot: Int) throws -> RingWriter {
    try RingWriter(attaching: presence[slot].fd, wake: [-1])
  }

  private func sessionStore(_ settings: Settings, _ writer: EventWriter, loop: EventLoop) throws
    -> SessionStore
  {
    let control = try page("control")
    let ring = try RingWriter(attaching: state.fd, wake: [-1, -1])
    let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    let store = SessionStore(
      rings: try RingSet(grants: presence, worker: .control, status: control),
      state: try StateLog(
        ring, maxBlacklistEntries: settings.maxBlacklistEntries,
        now: BootClock.second()),
      events: PresenceEvents(writer: writer, settings: settings, node: "node", status: control),
      confirmations: Confirmations(
        Confirmations.Environment(
          nowNs: MonotonicTime.now,
          schedule: { ns, body in
            loop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(ns)), body)
          }, passed: ring.slowestReaderPosition)),
      settings: settings, status: control, log: log,
      environment: SessionStore.Environment(
        nowNs: MonotonicTime.now, bootSecond: BootClock.second,
        workers: { ([0, 1].map { WorkerIdentity.connections($0).number }, []) }))
    _ = store.serve()
    return store
  }

  /// A store of definitions with a state file, for `body` on the loop.
  ///
  /// - Parameter soon: calls its closure in another turn of the loop.
  func withAPIStore(
    keeper: StateKeeper, soon: @escaping (@escaping () -> Void) -> Void,
    _ body: @escaping (APIStore) throws -> Void
  ) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    nonisolated(unsafe) let (keeper, soon, body) = (keeper, soon, body)
    let result = loop.submit {
      let writer = EventWriter(
        try RingWriter(attaching: try self.ring("events.control"), wake: [-1, -1]), name: "events.control")
      try body(
        APIStore(
          sessions: try self.sessionStore(Settings(), writer, loop: loop), settings: Settings(), node: "node",
          keeper: keeper, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, soon: soon))
    }
    var failure: (any Error)?
    do { try await result.get() } catch { failure = error }
    try await group.shutdownGracefully()
    if let failure { throw failure }
  }

  /// The management port of this gateway.
  func routes(_ settings: Settings, loop: EventLoop, thread: NIOThreadPool) throws -> Routes {
    let writer = EventWriter(
      try RingWriter(attaching: try ring("events.control"), wake: [-1, -1]), name: "events.control")
    let control = try page("control")
    let watched = peers.map(WatchedPage.init)
    let observatory = Observatory(
      pages: watched, rings: rings, supervisorPid: getpid(), release: "3.0.0-test",
      errors: ScrapeErrors(status: control, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }))
    let sessions = try sessionStore(settings, writer, loop: loop)
    return Routes(
      gate: ManagementGuard(settings), status: control,
      intake: EventIntake(settings: settings, writer: writer, status: control),
      health: HealthWatch(
        pages: watched, own: "control", isKafkaConfigured: !settings.kafkaBrokers.isEmpty,
        watchdogSeconds: settings.watchdogSeconds),
      scrape: SlicedScrape(
        loop: loop, thread: thread, steps: observatory.steps, dropped: observatory.dropped),
      sessions: SessionRoutes(
        store: sessions, hasher: try #require(SessionHasher()),
        legacy: try LegacyAuthority(
          settings: settings, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }),
        legacySessions: LegacySessions(
          store: sessions, hasher: try #require(SessionHasher()), settings: settings),
        node: "node", sessionRole: settings.sessionRole ?? ""),
      apis: APIRoutes(
        store: try APIStore(
          sessions: sessions, settings: settings, node: "node",
          log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, soon: { loop.soon($0) })),
      document: OpenAPIDocument.json(
        version: "3.0.0-test", isClosed: settings.managementToken != nil, userField: settings.kafkaUserField))
  }

  /// Serves the management port on a socket of 127.0.0.1 during `body`.
  func served(_ settings: Settings = Settings(), _ body: (ManagementClient) throws -> Void) async throws {
    let listener = try LocalListener()
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let thread = NIOThreadPool(numberOfThreads: 1)
    thread.start()
    let loop = group.next()
    let descriptor = listener.descriptor
    let server = try await loop.submit {
      let server = HTTPServer(
        listening: descriptor, loop: loop, responder: try self.routes(settings, loop: loop, thread: thread))
      try server.start()
      return server
    }.get()
    // This task may have waited for a thread longer than a heartbeat counts.
    for page in pages.values { page.beat() }
    let result = Result { try body(ManagementClient(port: listener.port)) }
    try await loop.flatSubmit { server.stopAccepting() }.get()
    try await loop.submit { server.closeAll() }.get()
    try await thread.shutdownGracefully()
    try await group.shutdownGracefully()
    try result.get()
  }
}

/// Asks a management port, one connection per question. Every wait ends after ten seconds.
struct ManagementClient {
  let port: UInt16

  struct Answer {
    var status: Int
    var head: String
    var body: String

    func header(_ name: String) -> String? {
      for line in head.split(separator: "\r\n").dropFirst() where line.lowercased().hasPrefix(name + ": ") {
        return String(line.dropFirst(name.count + 2))
      }
      return nil
    }

    /// The value of the line of a series; nil: there is none.
    func value(_ series: String) -> String? {
      for line in body.split(separator: "\n") where line.hasPrefix(series + " ") {
        return String(line.dropFirst(series.count + 1))
      }
      return nil
    }
  }

  func get(_ path: String, _ fields: String = "") throws -> Answer { try ask("GET", path, fields) }

  func post(_ path: String, _ body: String, type: String) throws -> Answer {
    try ask("POST", path, "content-type: \(type)\r\ncontent-length: \(body.utf8.count)\r\n", body)
  }

  func ask(_ method: String, _ path: String, _ fields: String = "", _ body: String = "") throws -> Answer {
    let text = try exchange(
      "\(method) \(path) HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\(fields)\r\n\(body)")
    let end = try #require(text.range(of: "\r\n\r\n"), "no answer: \(text)")
    let head = String(text[..<end.lowerBound])
    let words = head.prefix { $0 != "\r\n" }.split(separator: " ")
    return Answer(
      status: try #require(words.count > 1 ? Int(words[1]) : nil), head: head,
      body: String(text[end.upperBound...]))
  }

  /// Opens a connection; the caller closes it.
  func connect() throws -> CInt {
    let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | 0o2000000, 0)
    try #require(socket >= 0)
    var time = timeval(tv_sec: 120, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    var address = localAddress(port: port)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    try #require(result == 0, "connect: errno \(errno)")
    return socket
  }

  private func exchange(_ request: String) throws -> String {
    let socket = try connect()
    defer { close(socket) }
    let bytes = Array(request.utf8)
    try #require(send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = uninterrupted { recv(socket, &buffer, buffer.count, 0) }
      let failure = errno
      try #require(count >= 0, "receive: errno \(failure), asked: \(request.prefix { $0 != "\r\n" })")
      if count == 0 { break }
      answer.append(contentsOf: buffer[..<count])
    }
    return String(decoding: answer, as: UTF8.self)
  }
}

extension String {
  fileprivate func range(of text: String) -> Range<String.Index>? { ranges(of: text).first }
}

extension RingWriter {
  /// Appends presence records and publishes them.
  func report(_ records: [PresenceRecord]) {
    for record in records {
      let payload = record.encoded
      _ = append(type: record.type, length: payload.count) { $0.copyBytes(from: payload) }
    }
    publish()
  }
}

extension PresentConnection {
  /// A connection with some of everything.
  static func of(
    _ serial: UInt64, _ users: [String], sessions: [String] = [], roles: [String] = [],
    transport: String = "sse"
  ) -> PresentConnection {
    PresentConnection(
      serial: serial, transport: transport, sinceUnixMs: Int64(serial) * 1000, users: users,
      sessions: sessions,
      roles: roles, remote: "192.0.2.1", userAgent: "curl/8.5.0", subscriptions: Array("[]".utf8))
  }
}
