// A child process that inherits named descriptors and nothing else.
//
// The descriptors keep their numbers: a dup2 onto itself in the file actions clears close-on-exec in the child only.

import CLinux
import Glibc

/// A running child; whoever drops it without `wait` kills and reaps it.
struct ChildProcess: ~Copyable {
  let pid: pid_t

  /// Starts `path` with `arguments` (without the program's name). Standard streams are inherited too.
  init(_ path: String, _ arguments: [String], inheriting descriptors: [CInt]) throws(ToolError) {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor in descriptors {
      posix_spawn_file_actions_adddup2(&actions, descriptor, descriptor)
    }
    var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) }
    argv.append(nil)
    defer { for argument in argv { free(argument) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, path, &actions, nil, argv, environ)
    guard result == 0 else {
      throw .unusable("starting \(path) failed: \(String(cString: strerror(result)))")
    }
    self.pid = pid
  }

  /// Kills the child at once.
  func kill() {
    Glibc.kill(pid, SIGKILL)
  }

  /// Waits for the child's end.
  ///
  /// - Returns: its exit status, or minus the number of the signal that ended it.
  consuming func wait() -> CInt {
    let status = Self.reap(pid)
    discard self
    return status
  }

  deinit {
    Glibc.kill(pid, SIGKILL)
    _ = Self.reap(pid)
  }

  private static func reap(_ pid: pid_t) -> CInt {
    var status: CInt = 0
    while waitpid(pid, &status, 0) < 0 {
      guard errno == EINTR else { return -1 }
    }
    let signal = status & 0x7F
    return signal != 0 ? -signal : (status >> 8) & 0xFF
  }
}

/// Asks whether the process that started this one still lives, so that nothing is left behind by a killed test.
struct ParentWatch {
  private let parent = getppid()

  func require() throws(ToolError) {
    guard getppid() == parent else { throw .unusable("the process that started this one has ended") }
  }
}
