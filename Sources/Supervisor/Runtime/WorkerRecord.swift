// What the runtime knows of one worker's place: the process that runs there now, if any, and how to tell its reports on
// the status page from those of its predecessor.

import Glibc
import IPC

final class WorkerRecord {
  let identity: WorkerIdentity
  /// Its place in the tree.
  let child: ChildID
  let owned: OwnedPage
  let birth: WorkerBirth
  let executable: String
  /// 1 while it serves.
  let up: Metric?
  /// Value of the page's generation when the process was started: what the page says is the process's own word only
  /// once that has risen.
  var generationAtSpawn: UInt64 = 0
  /// Processes that have been started in the place.
  private var incarnations: UInt64 = 0
  /// Number of the current or latest process, as the tree counts.
  var instance: UInt64 = 0
  /// The current process.
  var process: ChildProcess?
  /// Of the current or latest process; 0 before the first.
  var pid: pid_t = 0

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

  /// The manifest of the next process: no two of the place have the same number.
  func nextManifest() -> WorkerManifest {
    incarnations += 1
    var manifest = birth.manifest
    manifest.incarnation = incarnations
    return manifest
  }

  var page: StatusPage { owned.page }
  var isAlive: Bool { process != nil }

  /// Whether the current process has taken its status page over.
  var hasPage: Bool { isAlive && page.generation != generationAtSpawn }
  /// Whether the current process says that it serves.
  var isReady: Bool { hasPage && page.state == .ready }
}
