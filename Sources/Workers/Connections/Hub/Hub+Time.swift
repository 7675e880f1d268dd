// What happens once per second, and at the end of the worker's life. One sweep serves all connections: there is no timer
// per connection, and an idle worker wakes up once per second.

import Kit

extension Hub {
  /// One second has passed.
  func tick() {
    clock.refresh()
    noteJump()
    sweep()
    endStuck()
    for index in unfinishedMessages.overdue(after: settings.requestBodyTimeoutSeconds, second: clock.second) {
      table[index]?.webSocket?.messageIsOverdue()
    }
    exchange.tick(nowNs: clock.nowNs)
    calls?.tick(nowNs: clock.nowNs)
    publications?.tick(nowNs: clock.nowNs)
    events.rings.probeSuspended()
    links.probeSuspended()
    authorizer.authority.tick(unixMs: clock.unixMs)
    metrics.endedWork(work.sweep(unixSecond: clock.unixSecond), by: .tokenExpired)
    metrics.observe(table, subscriptions: index.subscriptionCount, index.size)
    metrics.observe(pendingJumpMs: clock.pendingJumpMs)
    observeCompression()
    scheduleTurn()
  }

  /// Says once that the wall clock isn't followed now.
  private func noteJump() {
    let jump = clock.pendingJumpMs
    defer { isJumpSaid = jump != nil }
    guard let jump, !isJumpSaid else { return }
    log.warning(
      "the wall clock has jumped: tokens and events are judged by the time before, until it has stayed for CLOCK_JUMP_DELAY_S",
      metadata: [
        "seconds": "\(jump / LoopClock.msPerSecond)", "delay": "\(settings.clockJumpDelaySeconds)",
      ])
  }

  /// Heartbeats of connections without traffic, and deadlines that have come.
  private func sweep() {
    let now = clock.second
    let idleSeconds = UInt32(clamping: settings.heartbeatSeconds)
    var due: [ConnectionIndex] = []
    var idle: [ConnectionIndex] = []
    var expired: [ConnectionIndex] = []
    let unixSecond = clock.unixSecond
    for position in 0..<table.capacity {
      if table.expiries[position] != 0, table.expiries[position] <= unixSecond {
        expired.append(ConnectionIndex(position))
      }
      if table.deadlines[position] != 0, table.deadlines[position] <= now {
        due.append(ConnectionIndex(position))
      } else if table.transports[position].isStream, now &- table.lastTraffic[position] >= idleSeconds {
        idle.append(ConnectionIndex(position))
      }
    }
    for index in expired {
      table.expiries[Int(index)] = 0
      if let connection = table[index] { close(connection, .tokenExpired) }
    }
    for connection in due { table[connection]?.deadlinePassed(second: now) }
    beat(idle, second: now, idleSeconds)
  }

  /// Ends connections whose clients take nothing of what waits for them. They may be many at once.
  private func endStuck() {
    guard !watched.isEmpty else { return }
    var rest = watched[...]
    watched = []
    let (second, most) = (clock.second, UInt32(clamping: settings.slowConsumerSeconds))
    turnWork.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let connection = rest.popFirst() {
        units -= 1
        guard let outlet = connection.outlet, !connection.isClosing, outlet.isWaiting else {
          connection.isWatched = false
          connection.outlet?.forgetProgress()
          continue
        }
        if outlet.isStuck(second: second, for: most) {
          units -= TurnWork.unitsPerEnd
          close(connection, .slowConsumer)
        } else {
          watched.append(connection)
        }
      }
      return rest.isEmpty
    }
  }

  /// Those of a worker whose connections fell silent together are many at once.
  private func beat(_ idle: [ConnectionIndex], second: UInt32, _ idleSeconds: UInt32) {
    guard !idle.isEmpty else { return }
    var rest = idle[...]
    turnWork.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let index = rest.popFirst() {
        // It may have had traffic, or have become another one, since: in a later second than this.
        let silence = Int32(bitPattern: second &- table.lastTraffic[Int(index)])
        if silence >= Int32(clamping: idleSeconds), let connection = table[index], connection.mayBeat {
          connection.beat(second: second)
        }
        units -= TurnWork.unitsPerWord
      }
      return rest.isEmpty
    }
  }

  /// Tells every connection that the worker ends, with the reason. `drained` is called when the last has gone.
  ///
  /// - Parameter isLast: nobody comes after this worker: events that come from now on are for the next gateway, if Kafka has them.
  func drain(_ reason: ClosingReason, isLast: Bool = false, _ drained: @escaping () -> Void) {
    guard !isDraining else { return }
    deliverPublished()
    isDraining = true
    clock.refresh()
    self.drained = drained
    spreadReturns()
    var rest = Array(table.all)[...]
    turnWork.start(isOurOwn: true) { [unowned self] units in
      while units > 0, let connection = rest.popFirst() {
        // Whoever has been told already isn't told again; and the worker doesn't wait for the polls of who has gone.
        if connection.isClosing, connection.polls != nil { closed(connection) }
        close(connection, reason)
        units -= TurnWork.unitsPerEnd
      }
      leavesEvents = isLast && rest.isEmpty
      return rest.isEmpty
    }
    // Whoever asked here for a connection of another worker asks again elsewhere.
    exchange.endAll()
    calls?.endAll()
    noteDrained()
  }

  /// Calls `drained` once, when nobody is left.
  func noteDrained() {
    guard isDraining, table.count == 0, let drained else { return }
    self.drained = nil
    drained()
  }
}
