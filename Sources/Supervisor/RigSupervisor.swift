// rig-supervisor: starts the gateway and keeps it running.
//
//   rig-supervisor [--config FILE] [--set KEY=VALUE]… [--dev] [--check-config | --version | --help]
//
// Exit status: see ExitStatus. Everything that can be refused is refused before the first worker is started, with the
// reason on standard error. It does no I/O for clients and parses nothing that comes from them.

import CLinux
import FoundationEssentials
import Glibc
import IPC
import Settings

@main
enum RigSupervisor {
  static func main() {
    ProcessSetup.prepare()
    exit(start(Array(CommandLine.arguments.dropFirst()), ProcessInfo.processInfo.environment))
  }

  /// Does what the command line asks for and returns the exit status.
  private static func start(_ arguments: [String], _ environment: [String: String]) -> Int32 {
    let loaded: LoadedSettings
    do {
      loaded = try Settings.load(arguments: arguments, environment: environment)
    } catch {
      for mistake in error.mistakes { complain(mistake.description) }
      return ExitStatus.configuration
    }
    switch loaded.action {
    case .showHelp:
      print(Settings.help)
      return ExitStatus.success
    case .showVersion:
      print("rig-supervisor \(Release.version)")
      return ExitStatus.success
    case .checkConfig:
      for warning in loaded.warnings { complain("warning: \(warning)") }
      return check(loaded, arguments, environment)
    case .run:
      return run(loaded, environment)
    }
  }

  /// Has every kind of worker judge what the supervisor can't: it has neither OpenSSL nor librdkafka, and knows no definitions.
  private static func check(
    _ loaded: LoadedSettings, _ arguments: [String], _ environment: [String: String]
  ) -> Int32 {
    let plan = GatewayPlan(settings: loaded.settings)
    do throws(SupervisorError) {
      let executables = try WorkerExecutables.besideSupervisor()
      try executables.verify(for: plan)
      var isValid = true
      for kind in WorkerKind.all where plan.workers.contains(where: { $0.kind == kind }) {
        let path = executables.path(of: kind)
        let end = try ConfigurationJudge.end(of: path, arguments, environment)
        guard end != .status(ExitStatus.success) else { continue }
        isValid = false
        // Who has something to say ends with this status.
        if end != .status(ExitStatus.configuration) {
          complain("\(path) could not judge the configuration: \(end.text)")
        }
      }
      guard isValid else { return ExitStatus.configuration }
      print("configuration is valid")
      return ExitStatus.success
    } catch {
      complain(error.description)
      return error.exitStatus
    }
  }

  private static func run(_ loaded: LoadedSettings, _ environment: [String: String]) -> Int32 {
    var settings = loaded.settings
    let log = LogWriter(
      format: LogWriter.Format(setting: settings.logFormat, descriptor: STDERR_FILENO),
      level: LogLevel(name: settings.logLevel) ?? .info)
    for warning in loaded.warnings { log.log(.warning, warning) }
    if settings.isManagementForThisMachine {
      log.log(
        .notice,
        "the management port serves this machine only, but for health and metrics; for others set MANAGEMENT_TOKEN or API_BIND_ADDRESS"
      )
    }
    let plan = GatewayPlan(settings: settings)
    let limit = DescriptorBudget.processLimit
    let budget = DescriptorBudget(limit: limit, shared: plan.mostSharedDescriptors)
    if let lowered = settings.lower(to: budget, limit: limit) { log.log(.warning, lowered) }
    do throws(SupervisorError) {
      let executables = try WorkerExecutables.besideSupervisor()
      try executables.verify(for: plan)
      let state =
        settings.stateDir.isEmpty ? nil : Optional(try StateDirectory(locking: settings.stateDir))
      let runtime = try Runtime(
        plan: plan, settings: settings, identity: try GatewayIdentity(settings: settings),
        executables: executables,
        listeners: try Listeners(settings: settings), environment: environment, log: log, isSubreaper: true)
      let status = runtime.run()
      // The lock is held until no worker is left.
      _ = consume state
      return status
    } catch {
      log.log(
        .critical, "gateway can't be started: \(error.description)", [("status", String(error.exitStatus))])
      return error.exitStatus
    }
  }

  private static func complain(_ text: String) {
    var line = text + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}

extension GatewayIdentity {
  /// A new life of the gateway, with random numbers from the kernel.
  init(settings: Settings) throws(SupervisorError) {
    var random = SystemRandomNumberGenerator()
    epoch = UInt64.random(in: 0..<(1 << Self.epochBits), using: &random)
    tokenKey = Data((0..<Self.tokenKeyBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) })
    supervisorPid = getpid()
    do {
      self.settings = try JSONEncoder().encode(settings)
    } catch {
      throw .settings("settings can't be encoded for the workers: \(error)")
    }
  }
}

/// A worker's executable that is asked what it thinks of the configuration, which it says on standard error.
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

/// What the supervisor arranges for its own process before it opens anything.
enum ProcessSetup {
  /// Enough for every worker, and little enough for programs that look at each possible descriptor.
  static let mostDescriptors: rlim_t = 1 << 20

  /// To be called once, first, while there is one thread.
  static func prepare() {
    // A reader of our log that goes away must not take the gateway with it.
    signal(SIGPIPE, SIG_IGN)
    // An inherited SIG_IGN would make children vanish without an exit status.
    signal(SIGCHLD, SIG_DFL)
    // The keeper of a dead worker's sockets falls to us, and ends with us.
    _ = rig_become_subreaper()
    openStandardDescriptors()
    // What our own parent left open is nobody's business below.
    _ = rig_close_on_exec_from(3)
    raiseDescriptorLimit()
  }

  /// A socket or segment that got the number of a missing standard output would be written into by every log line.
  private static func openStandardDescriptors() {
    for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) < 0 {
      // The lowest free number, which is this one.
      _ = open("/dev/null", O_RDWR)
    }
  }

  /// Workers inherit the limit; the usual soft limit of 1024 is for programs that use select().
  private static func raiseDescriptorLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    let wanted = min(limit.rlim_max, mostDescriptors)
    guard limit.rlim_cur < wanted else { return }
    limit.rlim_cur = wanted
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}

enum Release {
  /// Of the whole gateway: supervisor and workers are released together.
  static let version = "0.1.0"
}
