// What systemd is told (sd_notify(3)): ready, stopping, a status line, and the supervisor's own heartbeat. Without
// systemd each of these does nothing.

import CSystemd

struct ServiceManager {
  /// How often systemd's watchdog must hear of us; nil: it doesn't ask.
  let beatInterval: Nanoseconds?
  private var nextBeat: Nanoseconds = 0

  init() {
    var microseconds: UInt64 = 0
    // Half of the time that it waits, as systemd recommends.
    let asks = sd_watchdog_enabled(0, &microseconds) > 0 && microseconds > 1
    beatInterval = asks ? (microseconds / 2).multipliedReportingOverflow(by: 1_000).partialValue : nil
  }

  func ready(_ status: String) { tell("READY=1\nSTATUS=\(status)") }
  func stopping(_ status: String) { tell("STOPPING=1\nSTATUS=\(status)") }
  func status(_ status: String) { tell("STATUS=\(status)") }

  /// Says that the event loop turns, if the next call, `interval` from now, would be too late for it.
  mutating func beat(at now: Nanoseconds, callsEvery interval: Nanoseconds) {
    guard let beatInterval, now + interval > nextBeat else { return }
    nextBeat = now + beatInterval
    tell("WATCHDOG=1")
  }

  private func tell(_ state: String) {
    // Nobody there, or a full socket: the service goes on either way.
    _ = sd_notify(0, state)
  }
}
