// Time-outs of a connection, in ticks of a second.

import Testing

@testable import HTTP

struct ConnectionClockTests {
  private let limits: HTTPLimits = {
    var limits = HTTPLimits()
    limits.headSeconds = 30
    limits.bodyStallSeconds = 20
    limits.bodySeconds = 100
    limits.idleSeconds = 75
    limits.writeStallSeconds = 60
    limits.lingerSeconds = 5
    return limits
  }()

  private func isTimeout(_ verdict: ConnectionClock.Verdict) -> Bool {
    if case .timeout = verdict { true } else { false }
  }

  @Test("A connection that sends nothing is closed without a word")
  func silent() {
    let clock = ConnectionClock(tick: 10)
    #expect(clock.verdict(at: 39, limits: limits) == .fine)
    #expect(clock.verdict(at: 40, limits: limits) == .close)
  }

  @Test("A head that drips in times out, counted from its first byte")
  func slowHead() {
    var clock = ConnectionClock(tick: 0)
    for tick in 20..<50 { clock.received(at: tick) }
    #expect(clock.verdict(at: 49, limits: limits) == .fine)
    #expect(isTimeout(clock.verdict(at: 50, limits: limits)))
  }

  @Test("A body times out when it stalls, and when it drips for too long")
  func slowBody() {
    var clock = ConnectionClock(tick: 0)
    clock.received(at: 0)
    clock.headEnded(at: 0)
    #expect(clock.verdict(at: 19, limits: limits) == .fine)
    #expect(isTimeout(clock.verdict(at: 20, limits: limits)))
    for tick in 1..<100 {
      clock.bodyMoved(1, at: tick)
      #expect(clock.verdict(at: tick, limits: limits) == .fine)
    }
    clock.bodyMoved(1, at: 100)
    #expect(isTimeout(clock.verdict(at: 100, limits: limits)))
  }

  @Test("A responder may take its time")
  func reply() {
    var clock = ConnectionClock(tick: 0)
    clock.received(at: 0)
    clock.headEnded(at: 0)
    clock.requestEnded()
    #expect(clock.verdict(at: 100_000, limits: limits) == .fine)
  }

  @Test("An idle connection is closed, and a byte makes it busy again")
  func idle() {
    var clock = ConnectionClock(tick: 0)
    clock.answered(at: 100, isReceiving: false)
    #expect(clock.verdict(at: 174, limits: limits) == .fine)
    #expect(clock.verdict(at: 175, limits: limits) == .close)
    clock.received(at: 174)
    #expect(clock.verdict(at: 175, limits: limits) == .fine)
    #expect(clock.waiting == .head)
  }

  @Test("A client that doesn't read is closed, however busy it is otherwise")
  func writeStall() {
    var clock = ConnectionClock(tick: 0)
    clock.requestEnded()
    clock.writable(false, at: 5)
    clock.writable(false, at: 50)
    #expect(clock.verdict(at: 64, limits: limits) == .fine)
    #expect(clock.verdict(at: 65, limits: limits) == .close)
    clock.writable(true, at: 64)
    #expect(clock.verdict(at: 65, limits: limits) == .fine)
  }

  @Test("Lingering and finishing end")
  func end() {
    var clock = ConnectionClock(tick: 0)
    clock.finishing(at: 10)
    #expect(clock.verdict(at: 69, limits: limits) == .fine)
    #expect(clock.verdict(at: 70, limits: limits) == .close)
    clock.lingering(at: 10)
    #expect(clock.verdict(at: 14, limits: limits) == .fine)
    #expect(clock.verdict(at: 15, limits: limits) == .close)
  }
}
