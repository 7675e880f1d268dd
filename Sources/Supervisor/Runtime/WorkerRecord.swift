// What the runtime knows of one seat: the process that runs there now, if any, how to tell its reports on the status page from those
// of its predecessor, and what its dead ones have left.

import Glibc
import IPC

final class WorkerRecord {
  let identity: WorkerIdentity
  /// Its place in `GatewayPlan.seats`.
  let seat: Int
  let child: ChildID
  let owned: OwnedPage
  let birth: WorkerBirth
  let executable: String
  /// 1 while it serves.
  let up: Metric?
  /// Value of the page's generation when the process was started: what the page says is the process's own word only
  /// once that has risen.
  private var generationAtSpawn: UInt64 = 0
  /// Number of the current or latest process, as the tree counts.
  private(set) var instance: UInt64 = 0
  private(set) var startedAt: Nanoseconds = 0
  private var process: ChildProcess?
  /// Of the current or latest process; 0 before the first.
  private(set) var pid: pid_t = 0

  init(
    identity: WorkerIdentity, seat: Int, child: ChildID, owned: OwnedPage, birth: WorkerBirth,
    executable: String, up: Metric?
  ) {
    self.identity = identity
    self.seat = seat
    self.child = child
    self.owned = owned
    self.birth = birth
    self.executable = executable
    self.up = up
  }

  /// Another process is to be started, for this cause.
  func begin(_ instance: UInt64, _ cause: SpawnCause) {
    if let last = bequests.indices.last, bequests[last].cause == nil {
      bequests[last].cause = WorkerManifest.Inheritance.Cause(cause)
    }
    self.instance = instance
    startedAt = SharedClock.now()
    generationAtSpawn = page.generation
  }

  func run(_ process: consuming ChildProcess) {
    pid = process.pid
    self.process = consume process
  }

  /// Shows whether its place is served: one that is being stopped serves until it has ended.
  func show(_ state: ChildState) {
    switch state {
    case .alive(.running): up?.set(1)
    case .down, .removed, .alive(.starting): up?.set(0)
    case .alive(.doomed), .alive(.stopping): break
    }
  }

  func signal(_ signal: CInt) { process?.signal(signal) }

  /// How the process ended, which is reaped when `unwatch` has been told its pidfd; nil: it hasn't.
  func takeEnd(_ unwatch: (CInt) -> Void) -> Exit? {
    guard let end = process?.end, let process = self.process.take() else { return nil }
    unwatch(process.pidfd)
    process.reap()
    return end
  }

  /// Kills and reaps the process, if there is one.
  func abandon() { process = nil }

  // MARK: What dead processes leave

  /// The heir's end of a process's courier, by which its keeper passes its sockets on.
  private struct Bequest {
    let incarnation: UInt64
    /// nil: its keeper has gone.
    var courier: OwnedDescriptor?
    /// nil as long as it lives.
    var cause: WorkerManifest.Inheritance.Cause?
  }

  /// Oldest first; the last one is that of the current or latest process, the others have living keepers.
  private var bequests: [Bequest] = []

  var keepsConnections: Bool { birth.manifest.ledger != nil }
  /// Keepers that haven't ended, the living process's own among them.
  var keepers: Int { bequests.count { $0.courier != nil } }

  /// What a process is to the one at the other seat of its place, named by its number.
  enum Role: Equatable {
    case alone
    /// It takes over from that one.
    case heir(of: UInt64)
    /// That one will take over from it, as soon as that serves.
    case serving(successor: UInt64)
    /// That one serves; this comes after a process that died while it was retiring.
    case retiring(successor: UInt64)
  }

  /// What the process that is started is given: the tree counts them, so that no two of the place have the same number. `keeperEnd`:
  /// of its own courier.
  func inheritance(keeperEnd: CInt?, _ role: Role = .alone) -> (
    manifest: WorkerManifest, descriptors: DescriptorPlan
  ) {
    var manifest = birth.manifest
    var descriptors = birth.descriptors
    manifest.incarnation = instance
    switch role {
    case .alone: break
    case .heir(let predecessor): manifest.predecessor = predecessor
    case .serving(let successor): manifest.successor = successor
    case .retiring(let successor):
      manifest.isRetiring = true
      manifest.successor = successor
    }
    guard let keeperEnd else { return (manifest, descriptors) }
    var numbers = descriptors.grantFresh([keeperEnd] + bequests.compactMap { $0.courier?.rawValue })[...]
    manifest.courier = numbers.popFirst()
    manifest.inheritance = bequests.map { bequest in
      WorkerManifest.Inheritance(
        incarnation: bequest.incarnation, courier: bequest.courier == nil ? nil : numbers.popFirst(),
        cause: bequest.cause ?? .killed)
    }
    return (manifest, descriptors)
  }

  /// The process that has just been started has a courier. Returns the oldest ones, if there are more than are waited for.
  func bequeath(_ courier: OwnedDescriptor) -> [OwnedDescriptor] {
    bequests.removeAll { $0.courier == nil }
    bequests.append(Bequest(incarnation: instance, courier: courier))
    let excess = max(0, bequests.count - GatewayPlan.mostCouriers)
    defer { bequests.removeFirst(excess) }
    return bequests.prefix(excess).compactMap(\.courier)
  }

  /// The keeper of this process has gone. Returns its courier.
  func keeperGone(_ incarnation: UInt64) -> OwnedDescriptor? {
    guard let index = bequests.firstIndex(where: { $0.incarnation == incarnation }) else { return nil }
    defer {
      bequests[index].courier = nil
      if index < bequests.count - 1 { bequests.remove(at: index) }
    }
    return bequests[index].courier
  }

  /// The process that was to be the current one has ended before it had anything: nobody inherits from it. Returns its courier.
  func withdraw() -> OwnedDescriptor? {
    guard bequests.last?.incarnation == instance else { return nil }
    return bequests.removeLast().courier
  }

  /// No heir is to come. Returns the couriers, with which the keepers end.
  func disinherit() -> [OwnedDescriptor] {
    defer { bequests = [] }
    return bequests.compactMap(\.courier)
  }

  // MARK: Its page

  var page: StatusPage { owned.page }
  var isAlive: Bool { process != nil }

  /// Whether the current process has taken its status page over.
  var hasPage: Bool { isAlive && page.generation != generationAtSpawn }
  /// Whether the current process says that it serves, or that it passes on what it serves: one that is born to do so says the former
  /// for a moment only.
  var isReady: Bool { hasPage && (page.state == .ready || page.state == .draining) }
}

extension WorkerManifest.Inheritance.Cause {
  init(_ cause: SpawnCause) {
    switch cause {
    case .failure(.condemned(.corruptRing)): self = .corruptRing
    case .failure(.condemned(.hung)), .failure(.startTimedOut): self = .hung
    case .failure(let failure):
      switch failure.exit {
      case .signal(SIGKILL): self = .killed
      case .signal: self = .fault
      default: self = .exit
      }
    case .first, .group, .swap: self = .exit
    }
  }
}

/// When a worker counts as hung. Pure: the clock comes in as a parameter.
enum Heartbeat {
  /// A beat that is further ahead than this was not taken from the clock: who writes that can't be trusted to beat.
  private static let tolerance: Nanoseconds = .seconds(1)
  /// A look that comes later than this says that the supervisor itself was kept from running, and its workers perhaps
  /// with it: their time begins anew.
  private static let latestLook: Nanoseconds = .seconds(1)

  /// - Parameters:
  ///   - beat: the moment of the last beat, as the worker wrote it.
  ///   - now: read after `beat`.
  ///   - limit: age from which on it is too old.
  ///   - excusedUntil: the last moment at which the worker may have been kept from running; 0: never.
  static func isHung(
    beat: Nanoseconds, now: Nanoseconds, limit: Nanoseconds, excusedUntil: Nanoseconds = 0
  ) -> Bool {
    guard beat <= now else { return beat - now > tolerance }
    return now - max(beat, min(excusedUntil, now)) > limit
  }

  /// Whether a look that was due at `due` came too late to judge anybody by it.
  static func isBlind(due: Nanoseconds, now: Nanoseconds) -> Bool {
    now > due && now - due > latestLook
  }
}
