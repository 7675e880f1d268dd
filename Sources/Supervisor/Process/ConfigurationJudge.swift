// A worker's executable that is asked what it thinks of the configuration, which it says on standard error.

import Glibc

enum ConfigurationJudge {
  /// Runs `executable` with the arguments that the supervisor itself has, `--check-config` among them, and waits for its end.
  static func end(
    of executable: String, _ arguments: [String], _ environment: [String: String]
  ) throws(SupervisorError) -> Exit {
    let process: ChildProcess
    do throws(SpawnError) {
      process = try ChildProcess(
        executable: executable, arguments: arguments,
        environment: WorkerEnvironment.lines(from: environment), descriptors: DescriptorPlan(base: 3))
    } catch {
      throw .missingExecutable(path: executable, errno: error.errno)
    }
    var end = process.end
    while end == nil {
      var entry = pollfd(fd: process.pidfd, events: Int16(POLLIN), revents: 0)
      _ = poll(&entry, 1, -1)
      end = process.end
    }
    process.reap()
    return end ?? .notSpawned(errno: ECHILD)
  }
}
