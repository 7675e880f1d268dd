// What the runtime knows of one worker's place: the process that runs there now, if any, and how to tell its reports on
// the status page from those of its predecessor.

import Glibc
import IPC

final class WorkerRecord {
  let identity: WorkerIdentity
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
  private var process: ChildProcess?
  /// Of the current or latest process; 0 before the first.
  private(set) var pid: pid_t = 0

  init(
    identity: WorkerIdentity, child: ChildID, owned: OwnedPage, birth: WorkerBirth, executable: String,
    up: Metric?
  ) {
    self.identity = identity
    self.child = child
    self.owned = owned
    self.birth = birth
    self.executable = executable
    self.up = up
  }

  /// Another process is to be started.
  func begin(_ instance: UInt64) {
    self.instance = instance
    generationAtSpawn = page.generation
  }

  func run(_ process: consuming ChildProcess) {
    pid = process.pid
    self.process = consume process
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

  /// The message to the process that is started: the tree counts them, so that no two of the place have the same number.
  var manifest: WorkerManifest {
    var manifest = birth.manifest
    manifest.incarnation = instance
    return manifest
  }

  var page: StatusPage { owned.page }
  var isAlive: Bool { process != nil }

  /// Whether the current process has taken its status page over.
  var hasPage: Bool { isAlive && page.generation != generationAtSpawn }
  /// Whether the current process says that it serves.
  var isReady: Bool { hasPage && page.state == .ready }
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
