// When turns come and what they do, and requests that wait for their share of one: without rings, sockets or a loop.

import HTTP
import Kit
import NIOCore
import NIOEmbedded
import Settings
import TestSupport
import Testing

@testable import Connections

@Suite("15.7 Turns")
struct TurnTests {
  /// A loop that does nothing by itself, and what the parts of a turn have done.
  private final class Scene {
    var scheduled: [() -> Void] = []
    var wakeUps = 0
    var log: [String] = []
    /// How often the first part has more to do.
    var rest = 0
    var isAsleep = false
    /// Something has come while the worker was about to wait.
    var isDisturbed = false
    private(set) var turn: Turn!

    init() {
      turn = Turn(
        LoopTasks(
          run: { [unowned self] in scheduled.append($0) }, wakeAgain: { [unowned self] in wakeUps += 1 },
          soon: { _ in }, after: { _, _ in {} }),
        LoopClock(Settings(), TimeSource()))
      turn.begin(
        Turn.Parts(
          inOrder: [
            { [unowned self] in
              log.append("first")
              rest -= 1
              return rest >= 0
            },
            { [unowned self] in
              log.append("second")
              return false
            },
          ],
          declareAsleep: { [unowned self] in
            isAsleep = !isDisturbed
            return isAsleep
          },
          declareAwake: { [unowned self] in isAsleep = false }))
    }

    /// What the loop has to do now; how much that was.
    func runLoop() -> Int {
      let due = scheduled
      scheduled = []
      for one in due { one() }
      return due.count
    }
  }

  @Test("A turn does its parts in order; with nothing left the worker sleeps, and nothing wakes it")
  func order() {
    let scene = Scene()
    scene.turn.schedule()
    scene.turn.schedule()
    let count = scene.runLoop()
    #expect(count == 1, "asked for twice, done once")
    #expect(scene.log == ["first", "second"])
    #expect(scene.isAsleep && scene.wakeUps == 0 && scene.scheduled.isEmpty)
  }

  @Test(
    "A part that has more to do, or a ring that has something, brings the next turn behind the sockets' turn")
  func more() {
    let scene = Scene()
    scene.rest = 1
    scene.turn.run()
    #expect(scene.wakeUps == 1 && !scene.isAsleep, "awake, since it isn't done")
    scene.turn.run()
    #expect(scene.wakeUps == 1 && scene.isAsleep)
    scene.isDisturbed = true
    scene.turn.run()
    #expect(scene.wakeUps == 2)
  }

  @Test(
    "What is asked for within a turn comes once behind it, in place of a wake-up; or not, if the turn itself still comes to it"
  )
  func within() {
    let scene = Scene()
    scene.turn.begin(
      Turn.Parts(
        inOrder: [
          { [unowned scene] in
            scene.turn.scheduleUnlessRunning()
            scene.turn.run()
            scene.log.append("part")
            return false
          }
        ], declareAsleep: { true }, declareAwake: {}))
    scene.turn.run()
    #expect(scene.log == ["part"], "not a turn within a turn")
    #expect(scene.scheduled.isEmpty && scene.wakeUps == 0)
    scene.turn.begin(
      Turn.Parts(
        inOrder: [
          { [unowned scene] in
            if scene.log.count < 2 { scene.turn.schedule() }
            scene.log.append("part")
            return true
          }
        ], declareAsleep: { true }, declareAwake: {}))
    scene.turn.run()
    #expect(scene.wakeUps == 0)
    let count = scene.runLoop()
    #expect(count == 1 && scene.log.count == 3)
    #expect(scene.wakeUps == 1, "only the last had nothing scheduled")
    scene.turn.scheduleUnlessRunning()
    #expect(scene.scheduled.count == 1)
  }

  @Test("After the end no turn does anything")
  func end() {
    let scene = Scene()
    scene.turn.schedule()
    scene.turn.end()
    _ = scene.runLoop()
    #expect(scene.log.isEmpty && scene.wakeUps == 0)
  }
}

@Suite("15.7 Requests that wait for their share of a turn")
struct SharedTurnsTests {
  private let loop = EmbeddedEventLoop()
  private let gateway: TestGateway
  private let work = TurnWork {}
  private let turns: SharedTurns

  init() throws {
    gateway = try TestGateway()
    turns = SharedTurns(
      work, LoopClock(Settings(), TimeSource()), WorkerMetrics(try gateway.page(0), worker: "connections.0"))
  }

  private func status(_ reply: Reply) -> UInt? {
    if case .response(let response) = reply { response.status.code } else { nil }
  }

  @Test("What is cheap is answered at once; what is dear has the next one wait for its turn")
  func shares() throws {
    let first = turns.reply(costing: TurnWork.unitsPerTurn, on: loop) { .response(.text("1")) }
    #expect(status(first) == 200)
    let second = turns.reply(costing: 1, on: loop) { .response(.text("2")) }
    guard case .eventually(let future, _) = second else { throw TestFailure("answered at once") }
    var came: UInt?
    future.assumeIsolated().whenSuccess { came = status($0) }
    #expect(came == nil)
    while work.turn() {}
    #expect(came == 200)
  }

  @Test("A client that goes while it waits costs nothing")
  func gone() throws {
    _ = turns.reply(costing: TurnWork.unitsPerTurn, on: loop) { .response(.text("1")) }
    var isDone = false
    let reply = turns.reply(costing: 1, on: loop) {
      isDone = true
      return .response(.text("2"))
    }
    guard case .eventually(let future, let onClientGone) = reply else {
      throw TestFailure("answered at once")
    }
    var hasFailed = false
    future.assumeIsolated().whenFailure { _ in hasFailed = true }
    onClientGone?()
    while work.turn() {}
    #expect(hasFailed && !isDone)
  }

  @Test("When too many wait the next is told to come back, and counted")
  func full() throws {
    _ = turns.reply(costing: TurnWork.unitsPerTurn, on: loop) { .response(.text("1")) }
    for _ in 0..<TurnWork.maximumWaiting { work.start { _ in true } }
    let reply = turns.reply(costing: 1, on: loop) { .response(.text("2")) }
    #expect(status(reply) == 503)
    let refused = try gateway.page(0).metrics().first {
      $0.series == #"rig_subscriptions_refused_total{limit="\#(SubscriptionLimit.waiting.rawValue)"}"#
    }
    #expect(refused?.value == 1)
  }
}

@Suite("15.7 When a client shall come back")
struct ReturnTests {
  @Test(
    "a displaced one later than others, one of a draining worker within the time of the drain, others as they were told"
  )
  func reasons() throws {
    let advice = ReconnectAdvice()
    for _ in 0..<100 {
      #expect(ReconnectAdvice.usualMs.contains(advice.retryMs()))
      let displaced = try #require(advice.retryMs(after: .tooManyOfUser))
      #expect(ReconnectAdvice.displacedMs.contains(displaced))
    }
    #expect(advice.retryMs(after: .slowConsumer) == nil)
    advice.spreadReturns(of: 10_000, drainSeconds: 30)
    let spread = try (0..<1_000).map { _ in try #require(advice.retryMs(after: .shutdown)) }
    #expect(spread.allSatisfy((1_000...11_000).contains) && spread.contains { $0 > 3_000 })
  }
}
