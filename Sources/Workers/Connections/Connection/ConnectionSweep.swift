// What happens once per second to connections: heartbeats of those without traffic, deadlines that have come, tokens that have expired,
// clients that take nothing. One sweep serves all: there is no timer per connection, and an idle worker wakes up once per second.

import Kit
import Settings

/// Belongs to the worker's loop.
final class ConnectionSweep {
  private let connections: OpenConnections
  private let clock: LoopClock
  private let work: TurnWork
  private let idleSeconds: UInt32
  private let stuckSeconds: UInt32

  /// - Parameter work: what is too much for the tick is done in shares of turns.
  init(_ connections: OpenConnections, _ clock: LoopClock, in work: TurnWork, _ settings: Settings) {
    self.connections = connections
    self.clock = clock
    self.work = work
    idleSeconds = UInt32(clamping: settings.heartbeatSeconds)
    stuckSeconds = UInt32(clamping: settings.slowConsumerSeconds)
  }

  /// One second has passed.
  func tick() {
    let now = clock.second
    let (expired, due, idle) = look(second: now, unixSecond: clock.unixSecond)
    for index in expired {
      connections.table.expiries[Int(index)] = 0
      if let connection = connections.table[index] { connections.close(connection, .tokenExpired) }
    }
    for index in due { connections.table[index]?.deadlinePassed(second: now) }
    beat(idle, second: now)
    connections.endStuck(afterSeconds: stuckSeconds, by: work)
  }

  private func look(
    second now: UInt32, unixSecond: UInt32
  ) -> (expired: [ConnectionIndex], due: [ConnectionIndex], idle: [ConnectionIndex]) {
    var expired: [ConnectionIndex] = []
    var due: [ConnectionIndex] = []
    var idle: [ConnectionIndex] = []
    for position in 0..<connections.table.capacity {
      if connections.table.expiries[position] != 0, connections.table.expiries[position] <= unixSecond {
        expired.append(ConnectionIndex(position))
      }
      let deadline = connections.table.deadlines[position]
      if deadline != 0, deadline <= now {
        due.append(ConnectionIndex(position))
      } else if connections.table.transports[position].isStream,
        now &- connections.table.lastTraffic[position] >= idleSeconds
      {
        idle.append(ConnectionIndex(position))
      }
    }
    return (expired, due, idle)
  }

  /// Those of a worker whose connections fell silent together are many at once.
  private func beat(_ idle: [ConnectionIndex], second: UInt32) {
    guard !idle.isEmpty else { return }
    var rest = idle[...]
    work.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let index = rest.popFirst() {
        // It may have had traffic, or have become another one, since: in a later second than this.
        let silence = Int32(bitPattern: second &- connections.table.lastTraffic[Int(index)])
        if silence >= Int32(clamping: idleSeconds), let connection = connections.table[index],
          connection.mayBeat
        {
          connection.beat(second: second)
        }
        units -= TurnWork.unitsPerWord
      }
      return rest.isEmpty
    }
  }
}
