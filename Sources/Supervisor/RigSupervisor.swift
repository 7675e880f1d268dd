// rig-supervisor: starts the gateway and keeps it running.
//
//   rig-supervisor [--config FILE] [--set KEY=VALUE]… [--dev] [--check-config | --version | --help]
//
// Exit status: see ExitStatus. Everything that can be refused is refused before the first worker is started, with the
// reason on standard error. It does no I/O for clients and parses nothing that comes from them.

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
        listeners: try Listeners(settings: settings), environment: environment, log: log)
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
    // The system's generator is getrandom(2).
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
