// The clocks that a jump of the wall clock doesn't disturb.

import Settings
import Testing

@testable import Kit

@Suite("14.E29 Clock")
struct BootClockTests {
  private static let hour: Int64 = 3_600_000

  @Test("14.E29 Two hours of jump, seconds long, are no time at all, and are told while they last")
  func shortJump() {
    var clock = SteadyWallClock(delayMs: 60_000, wallMs: 1_000_000, bootMs: 0)
    for (bootMs, jump) in [(1_000, 2 * Self.hour), (10_000, 2 * Self.hour), (59_000, -2 * Self.hour)] {
      #expect(
        clock.unixMs(wallMs: 1_000_000 + Int64(bootMs) + jump, bootMs: Int64(bootMs)) == 1_000_000
          + Int64(bootMs))
      #expect(clock.pendingJumpMs == jump)
    }
    #expect(clock.unixMs(wallMs: 1_060_000, bootMs: 60_000) == 1_060_000)
    #expect(clock.pendingJumpMs == nil)
    // Another one begins anew.
    #expect(clock.unixMs(wallMs: 1_000, bootMs: 61_000) == 1_061_000)
    #expect(clock.unixMs(wallMs: 60_000, bootMs: 120_000) == 1_120_000)
  }

  @Test("14.E29 A clock that was set is followed after a minute, and small corrections at once, however many")
  func followed() {
    var clock = SteadyWallClock(delayMs: 60_000, wallMs: 0, bootMs: 5_000)
    #expect(clock.unixMs(wallMs: Self.hour, bootMs: 6_000) == 1_000)
    #expect(clock.unixMs(wallMs: Self.hour + 59_999, bootMs: 65_999) == 60_999)
    #expect(clock.unixMs(wallMs: Self.hour + 60_000, bootMs: 66_000) == Self.hour + 60_000)
    #expect(clock.pendingJumpMs == nil)
    var offset: Int64 = 0
    for step in 1...10 {
      offset += 1_500
      let bootMs = 66_000 + Int64(step)
      let wallMs = Self.hour + 60_000 + Int64(step) + offset
      #expect(clock.unixMs(wallMs: wallMs, bootMs: bootMs) == wallMs)
    }
  }

  @Test("14.E29 How long a jump must last is CLOCK_JUMP_DELAY_S; with 0 it counts at once")
  func delay() {
    for (seconds, counts) in [(0, 0), (10, 10_000), (60, 60_000)] as [(Int, Int64)] {
      var settings = Settings()
      settings.clockJumpDelaySeconds = seconds
      let source = TimeSource(wallMs: { 1_000 }, bootMs: { 0 })
      var clock = SteadyWallClock(settings, source)
      var followedAt: Int64?
      for bootMs in stride(from: Int64(0), through: 70_000, by: 1_000) where followedAt == nil {
        let unixMs = clock.unixMs(wallMs: 1_000 + bootMs + Self.hour, bootMs: bootMs)
        if unixMs == 1_000 + bootMs + Self.hour { followedAt = bootMs }
      }
      #expect(followedAt == counts)
    }
  }

  @Test("14.E29 The boot clock is the machine's, and goes on")
  func boot() {
    let first = BootClock.milliseconds()
    #expect(BootClock.milliseconds() >= first && first > 0)
    #expect(Int64(BootClock.second()) >= first / 1000)
  }
}
