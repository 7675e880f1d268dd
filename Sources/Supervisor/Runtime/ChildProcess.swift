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
  /// - Parameters:
  ///   - name: what it is called; nil: its path.
  ///   - environment: `NAME=value` lines.
  init(
    executable: String, name: String? = nil, arguments: [String], environment: [String],
    descriptors plan: DescriptorPlan
  ) throws(SpawnError) {
    var pid: pid_t = 0
    let error = withCStrings([name ?? executable] + arguments) { argv in
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

/// The environment of a worker: the supervisor's own, without what systemd says to the supervisor alone, plus the number
/// of the manifest's descriptor.
enum WorkerEnvironment {
  /// A worker that spoke to systemd or took its sockets would be taken for the service.
  private static let withheld: Set<String> = [
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
    WorkerManifest.environmentName, SpareSocket.environmentName,
  ]

  /// Swift's runtime would look for the place of a fault for seconds, in which the worker's clients wait for its successor. An operator
  /// who wants to know the place sets the variable himself.
  private static let quick = ["SWIFT_BACKTRACE": "enable=no"]

  /// `NAME=value` lines, in a stable order.
  static func lines(from environment: [String: String]) -> [String] {
    quick.merging(environment) { $1 }
      .filter { !withheld.contains($0.key) }.map { "\($0.key)=\($0.value)" }.sorted()
  }

  /// The line that tells a worker where its manifest is.
  static func manifestLine(_ descriptor: CInt) -> String {
    "\(WorkerManifest.environmentName)=\(descriptor)"
  }
}

/// Where the workers' executables are: beside rig-supervisor, all of one release. They are looked for before anything is
/// opened, so that a half installed release says so and has taken no port.
extension WorkerKind {
  /// Those that this release has.
  static let all: [WorkerKind] = [.connections, .streams, .proxies, .control]

  /// The executable's file name.
  var executable: String { "rig-\(rawValue)" }
}

struct WorkerExecutables: Sendable {
  let directory: String

  /// The directory of this process's own executable.
  static func besideSupervisor() throws(SupervisorError) -> WorkerExecutables {
    var path = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = path.withUnsafeMutableBytes { buffer -> Int in
      guard let base = buffer.baseAddress else { return -1 }
      return readlink("/proc/self/exe", base.assumingMemoryBound(to: CChar.self), buffer.count)
    }
    guard count > 0, let slash = path[..<count].lastIndex(of: UInt8(ascii: "/")) else {
      throw .missingExecutable(path: "/proc/self/exe", errno: errno)
    }
    return WorkerExecutables(directory: String(decoding: path[..<slash], as: UTF8.self))
  }

  func path(of kind: WorkerKind) -> String { "\(directory)/\(kind.executable)" }

  /// Throws, naming the path, if one that `plan` needs is missing, no plain file, or not executable.
  func verify(for plan: GatewayPlan) throws(SupervisorError) {
    for kind in WorkerKind.all where plan.workers.contains(where: { $0.kind == kind }) {
      let path = path(of: kind)
      var information = stat()
      guard stat(path, &information) == 0 else { throw .missingExecutable(path: path, errno: errno) }
      guard information.st_mode & S_IFMT == S_IFREG else {
        throw .missingExecutable(path: path, errno: EACCES)
      }
      guard access(path, X_OK) == 0 else { throw .missingExecutable(path: path, errno: errno) }
    }
  }
}
