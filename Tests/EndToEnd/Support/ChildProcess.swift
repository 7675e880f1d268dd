// A process started by a test, with everything that it starts itself. All of them carry a mark in their environment, by
// which they are found again even when their parent is gone: at the end of a test none may be left.

import CLinux
import Foundation

/// How a process ended.
enum Ending: Equatable, CustomStringConvertible {
  case exited(Int)
  case signalled(Int)

  var description: String {
    switch self {
    case .exited(let status): "exit status \(status)"
    case .signalled(let signal): "signal \(signal)"
    }
  }
}

final class ChildProcess {
  let pid: pid_t
  /// Value of the mark in the environment of the whole tree.
  let mark: String
  private let standardInput: CInt
  private(set) var ending: Ending?

  /// Changes the directory and then becomes the program.
  private static let changer = "/usr/bin/env"
  private static let markName = "RIG_TEST_MARK"

  /// Starts `executable` in a session of its own.
  ///
  /// - Parameters:
  ///   - environment: the whole environment; only PATH and HOME come along from the test.
  ///   - directory: the working directory; `output.log` in it receives both outputs.
  ///   - inherited: descriptors that it has as 3, 4 and so on; their own numbers are beyond those.
  init(
    _ executable: String, _ arguments: [String], environment: [String: String], directory: String,
    log: String = "output.log", piped: Bool = false, inherited: [CInt] = []
  ) throws {
    let mark = UUID().uuidString
    self.mark = mark
    var ends: [CInt] = [-1, -1]
    // Sockets and not a pipe: these can be made close-on-exec in one step (SOCK_CLOEXEC is O_CLOEXEC).
    if piped { socketpair(AF_UNIX, CInt(RIG_SOCK_STREAM) | O_CLOEXEC, 0, &ends) }
    standardInput = ends[1]
    defer { if ends[0] >= 0 { close(ends[0]) } }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if piped {
      posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
    } else {
      posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
    posix_spawn_file_actions_addopen(&actions, 1, "\(directory)/\(log)", O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    for (index, descriptor) in inherited.enumerated() {
      posix_spawn_file_actions_adddup2(&actions, descriptor, CInt(3 + index))
    }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // The threads that run tests block every signal, and what they start would be deaf to SIGTERM.
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(
      &attributes, Int16(RIG_SPAWN_SETSID) | Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))

    let own = ProcessInfo.processInfo.environment
    var variables = environment.merging(["PATH": own["PATH"] ?? "", "HOME": own["HOME"] ?? ""]) { given, _ in
      given
    }
    variables[Self.markName] = mark
    for name in ["ASAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"] {
      variables[name] = variables[name] ?? own[name]
    }
    let argv: [UnsafeMutablePointer<CChar>?] =
      ([Self.changer, "--chdir=\(directory)", executable] + arguments).map { strdup($0) } + [nil]
    let envp: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for text in argv + envp { free(text) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, Self.changer, &actions, &attributes, argv, envp)
    guard result == 0 else {
      throw TestFailure("cannot start \(executable): \(String(cString: strerror(result)))")
    }
    self.pid = pid
  }

  deinit {
    closeInput()
  }

  func signal(_ signal: CInt) {
    if ending == nil { kill(pid, signal) }
  }

  /// Writes to the process's standard input.
  func write(_ text: String) throws {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes {
        send(standardInput, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
      }
      guard count > 0 else {
        throw TestFailure("the process doesn't read: \(String(cString: strerror(errno)))")
      }
      bytes = bytes.dropFirst(count)
    }
  }

  private var inputIsOpen = true

  func closeInput() {
    if inputIsOpen, standardInput >= 0 { close(standardInput) }
    inputIsOpen = false
  }

  /// How the process ended, if it has.
  func endingIfEnded() -> Ending? {
    if ending == nil {
      var status: CInt = 0
      if waitpid(pid, &status, WNOHANG) == pid {
        let signal = status & 0x7f
        ending = signal == 0 ? .exited(Int((status >> 8) & 0xff)) : .signalled(Int(signal))
      }
    }
    return ending
  }

  /// Waits for the process to end.
  func wait(within seconds: Double = Deadline.patience) throws -> Ending {
    try eventually("process \(pid) ends", within: seconds) { endingIfEnded() }
  }

  /// Every living process of the tree, this one included, in the order of their starts.
  func tree() -> [RunningProcess] {
    RunningProcess.all(carrying: "\(Self.markName)=\(mark)")
  }

  /// Kills the whole tree and waits until nothing of it is left.
  func killTree() throws {
    try eventually("no process of the test is left") {
      let left = tree()
      for process in left { kill(process.pid, SIGKILL) }
      return left.isEmpty && endingIfEnded() != nil
    }
  }
}
