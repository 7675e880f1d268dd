// When a worker that has been replaced asks whom to go, and when it ends.

import Kit
import Logging
import Settings
import TestSupport
import Testing

@testable import Connections

@Suite("16.7 The schedule of a retirement")
struct RetirementScheduleTests {
  private typealias Left = RetirementSchedule.Left

  /// Seconds pass until everybody has been asked to go; how many in each.
  private func asked(
    _ streams: Int, _ connections: Int, drainSeconds: Int
  ) throws -> [(streams: Int, connections: Int)] {
    var schedule = RetirementSchedule(drainSeconds: drainSeconds, lingerSeconds: 600)
    var left = Left(streams: streams, connections: connections, isAny: true)
    var asked: [(streams: Int, connections: Int)] = []
    while left.streams + left.connections > 0 {
      guard case .sendAway(let some, let others) = schedule.secondPassed(left) else {
        throw TestFailure("it ends while somebody is there")
      }
      left.streams -= some
      left.connections -= others
      asked.append((some, others))
      try #require(asked.count <= drainSeconds, "it takes longer than DRAIN_TIMEOUT_S")
    }
    return asked
  }

  @Test("16.7 Ten thousand are asked to go evenly over DRAIN_TIMEOUT_S, of each sort")
  func even() throws {
    let seconds = try asked(10_000, 3_000, drainSeconds: 30)
    #expect(seconds.count == 30)
    #expect(seconds.allSatisfy { (333...334).contains($0.streams) && $0.connections == 100 })
  }

  @Test("16.7 All have been asked in time, whatever their number, and never many at once", arguments: 1...40)
  func inTime(drainSeconds: Int) throws {
    for count in [1, 2, 7, 29, 30, 31, 100, 9_999] {
      let seconds = try asked(count, 0, drainSeconds: drainSeconds)
      #expect(seconds.map(\.streams).max() ?? 0 <= (count + drainSeconds - 1) / drainSeconds)
    }
  }

  @Test("16.7 Who comes when that time is over is asked at once")
  func late() {
    var schedule = RetirementSchedule(drainSeconds: 2, lingerSeconds: 600)
    for _ in 0..<5 {
      #expect(schedule.secondPassed(Left(isAny: true)) == .sendAway(streams: 0, connections: 0))
    }
    let late = Left(streams: 3, connections: 2, isAny: true)
    #expect(schedule.secondPassed(late) == .sendAway(streams: 3, connections: 2))
  }

  @Test("16.7 It ends as soon as nothing is left, and what is left after LINGER_S is ended")
  func end() {
    var schedule = RetirementSchedule(drainSeconds: 30, lingerSeconds: 3)
    for _ in 0..<3 { #expect(schedule.secondPassed(Left(isAny: true)) != .stop) }
    #expect(schedule.secondPassed(Left(isAny: true)) == .stop)
    #expect(schedule.secondPassed(Left()) == .leave)
    var empty = RetirementSchedule(drainSeconds: 30, lingerSeconds: 3)
    #expect(empty.secondPassed(Left()) == .leave)
  }
}

/// Ports that have what a test says.
private final class TestServers: RetiringServers {
  var openConnections = 0
  var tlsConnections = 0
  var http2Connections = 0
  var requestsInProgress = 0
  var stayingConnections = 0
  private(set) var isRetiring = false
  private(set) var sentAway: [Int] = []

  func retire() { isRetiring = true }

  func sendAway(_ most: Int) {
    sentAway.append(most)
    stayingConnections -= most
    openConnections -= most
  }
}

@Suite("16.7 A worker that retires")
struct RetirementTests {
  private let gateway: TestGateway
  private let worker: TestWorker
  private let servers = TestServers()

  init() throws {
    gateway = try TestGateway()
    worker = try gateway.worker()
  }

  private func retire(
    drainSeconds: Int = 30, lingerSeconds: Int = 600, isPassing: @escaping () -> Bool = { false }
  ) -> Retirement {
    var settings = Settings()
    settings.drainTimeoutSeconds = drainSeconds
    settings.lingerSeconds = lingerSeconds
    return Retirement(
      servers, worker.connections, in: worker.work, settings, worker.status, worker: "connections.0",
      Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, isPassing: isPassing)
  }

  @Test(
    "16.7 A stream that can't be passed on is told when to come back, and where it stands: behind events of others too"
  )
  func farewell() throws {
    let writer = try gateway.streamsWriter()
    let client = try TestClient()
    try worker.openSSE(client, [.to("mine")], isDirect: false)
    worker.run()
    client.socket.pump()
    client.read()
    _ = client.take()
    try writer.publish(1, type: "mine")
    try writer.publish(2, type: "others")
    worker.run()
    let position = worker.connections.events.own
    let retirement = retire(drainSeconds: 1)
    #expect(servers.isRetiring)
    #expect(retirement.secondPassed() == .sendAway(streams: 1, connections: 0))
    worker.run()
    repeat { client.socket.pump() } while client.read()
    let text = client.take()
    let told = streamed(text)
    #expect(told.map(\.name) == ["mine", "rig.server_closing"])
    #expect(told.last?.data.contains(#""reason":"drain""#) == true)
    var id: [UInt8] = []
    position.write(to: &id)
    #expect(told.last?.id == String(decoding: id, as: UTF8.self) && told.first?.id != told.last?.id)
    let retry = text.split(separator: "\n").first { $0.hasPrefix("retry: ") }
    let retryMs = Int(retry?.dropFirst(7) ?? "") ?? 0
    #expect(ReconnectAdvice.usualMs.contains(retryMs))
    client.disconnect()
  }

  @Test(
    "16.7 Streams that can be passed on aren't told, those that can't are told evenly; it ends when all have gone"
  )
  func evenly() throws {
    let kept = try TestClient()
    let keptConnection = try worker.openSSE(kept, [.to("all")])
    let others = try (0..<20).map { _ in try TestClient() }
    for client in others { try worker.openSSE(client, [.to("all")], isDirect: false) }
    worker.run()
    servers.stayingConnections = 5
    servers.openConnections = 26
    let retirement = retire(drainSeconds: 10)
    for second in 1...10 {
      #expect(
        retirement.secondPassed() == .sendAway(streams: 2, connections: second <= 5 ? 1 : 0), "\(second)")
      worker.run()
      let closing = worker.connections.table.all.count { $0.isClosing }
      #expect(closing == 2 * second)
    }
    #expect(!keptConnection.isClosing && keptConnection.mayOutlive)
    #expect(worker.metric(#"rig_lingering{what="events",worker="connections.0"}"#) == 21)
    for client in others { client.disconnect() }
    servers.openConnections = 0
    #expect(retirement.secondPassed() == .sendAway(streams: 0, connections: 0), "one is to be passed on")
    worker.connections.closed(keptConnection)
    #expect(retirement.secondPassed() == .leave)
    kept.disconnect()
  }

  @Test("16.7 It doesn't end while connections are on their way, and no later than after LINGER_S")
  func passing() {
    var isPassing = true
    let retirement = retire(lingerSeconds: 4) { isPassing }
    for _ in 0..<3 { #expect(retirement.secondPassed() == .sendAway(streams: 0, connections: 0)) }
    isPassing = false
    #expect(retirement.secondPassed() == .leave)
    isPassing = true
    #expect(retirement.secondPassed() == .stop)
  }
}
