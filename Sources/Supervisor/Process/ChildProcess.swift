// A child process as a value with one owner. Whoever holds it can signal it and ask whether it has ended; letting it
// go kills and reaps it, so no path through the supervisor leaves a process behind.
//
// The pid stays reserved until the child is reaped, so neither the pidfd nor the process group (the child leads its
// own session) can be confused with a stranger's.

import CLinux
import Glibc
import IPC

struct ChildProcess: ~Copyable {
  let pid: pid_t
  /// Readable when the child has ended; owned.
  let pidfd: CInt

  /// Starts `executable` with exactly the descriptors of `plan`, standard output and standard error.
  /// - Parameter environment: `NAME=value` lines.
  init(
    executable: String, arguments: [String], environment: [String], descriptors plan: DescriptorPlan
  ) throws(SpawnError) {
    var pid: pid_t = 0
    let error = withCStrings([executable] + arguments) { argv in
      withCStrings(environment) { envp in
        rig_spawn(&pid, executable, argv, envp, plan.sources, plan.targets, CInt(plan.sources.count))
      }
    }
    guard error == 0 else { throw SpawnError(executable: executable, errno: error) }
    let pidfd = rig_pidfd_open(pid)
    guard pidfd >= 0 else {
      let error = errno
      kill(pid, SIGKILL)
      while waitpid(pid, nil, 0) < 0 && errno == EINTR {}
      throw SpawnError(executable: executable, errno: error)
    }
    self.pid = pid
    self.pidfd = pidfd
  }

  /// Sends a signal to the process; one that has ended doesn't mind.
  func signal(_ signal: CInt) {
    _ = rig_pidfd_signal(pidfd, signal)
  }

  /// How the process ended; nil while it runs. It stays a zombie until `reap`.
  var end: Exit? { Self.wait(pidfd, reap: false) }

  /// Takes the ended process off the system's list, with whatever it has left behind in its process group.
  consuming func reap() {
    kill(-pid, SIGKILL)
    _ = Self.wait(pidfd, reap: true)
    close(pidfd)
    discard self
  }

  deinit {
    kill(-pid, SIGKILL)
    _ = rig_pidfd_signal(pidfd, SIGKILL)
    while waitpid(pid, nil, 0) < 0 && errno == EINTR {}
    close(pidfd)
  }

  private static func wait(_ pidfd: CInt, reap: Bool) -> Exit? {
    var signalled: CInt = 0
    var status: CInt = 0
    guard rig_pidfd_wait(pidfd, reap ? 1 : 0, &signalled, &status) == 1 else { return nil }
    return signalled == 0 ? .status(status) : .signal(status)
  }
}

/// posix_spawn or pidfd_open failed.
struct SpawnError: Error, Equatable, CustomStringConvertible {
  let executable: String
  let errno: CInt

  var description: String {
    "\(executable) can't be started: \(String(cString: strerror(errno))) (errno \(errno))"
  }
}

/// Calls `body` with a NULL-terminated array of C strings that live as long as the call.
private func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  let array = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
  for (index, string) in strings.enumerated() { (array + index).initialize(to: strdup(string)) }
  (array + strings.count).initialize(to: nil)
  defer {
    for index in strings.indices { free(array[index]) }
    array.deallocate()
  }
  return body(array)
}
