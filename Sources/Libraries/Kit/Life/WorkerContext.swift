// What a worker has from its birth on, and how it is born: WorkerProcess.run is the first and last thing in main.
//
//   inherit the manifest ▶ die with the supervisor ▶ block signals ▶ settings ▶ log ▶ status page ▶ keeper ▶ body ▶ exit
//   a spare: die with the supervisor ▶ rehearse ▶ wait for the manifest ▶ block signals …

import CLinux
import FoundationEssentials
import Glibc
import IPC
import Logging
import Settings

/// Everything a worker gets at its birth.
public final class WorkerContext {
  public let manifest: WorkerManifest
  public let settings: Settings
  /// This worker's own page; its life on it has begun.
  public let status: StatusPage
  public let log: Logger
  /// A signalfd (non-blocking) of SIGTERM and SIGINT, which are blocked in every thread.
  public let signals: CInt
  /// A signalfd (non-blocking) of SIGHUP, blocked likewise: the supervisor wants files to be read again. Who has none needs not look.
  public let reloads: CInt
  /// Whoever passes this process's connections on when it dies; nil: there is none, or none any more.
  private var keeper: Keeper?

  /// "connections.0", "streams", "control": the value of the label `worker`.
  public var name: String { worker.name }
  public var worker: WorkerIdentity { manifest.worker }
  /// Which of the processes this is that have served the place. A supervisor that doesn't tell has one page for each place.
  public var incarnation: UInt64 { manifest.incarnation != 0 ? manifest.incarnation : status.generation }

  init(
    manifest: WorkerManifest, settings: Settings, status: StatusPage, log: Logger, signals: CInt,
    reloads: CInt = -1
  ) {
    self.manifest = manifest
    self.settings = settings
    self.status = status
    self.log = log
    self.signals = signals
    self.reloads = reloads
  }

  // MARK: Its keeper

  /// Starts the keeper of its sockets, if it is to have one. Without it their clients come back when the worker has died: worse, but
  /// no reason not to serve.
  func startKeeper() {
    guard let ledger = manifest.ledger, let courier = manifest.courier else { return }
    do throws(IPCError) {
      keeper = try Keeper(
        ledger: ledger, courier: courier, incarnation: incarnation, supervisor: manifest.supervisorPid,
        patienceMs: settings.keeperTTLSeconds * 1_000, name: name)
    } catch {
      log.error(
        "no keeper can be started: connections will end with this worker", metadata: ["error": "\(error)"])
      shutdown(courier, CInt(SHUT_RDWR))
    }
    // The supervisor counts what is true of processes that may have gone.
    _ = keeperLosses
  }

  private var keeperLosses: Metric? { status.metric(.counter, "rig_keeper_losses_total") }

  /// Looks, once a second, whether the keeper still lives. It can't be made anew: a copy of this process would now keep its memory.
  public func lookAtKeeper() {
    guard let keeper, keeper.hasEnded else { return }
    keeper.dismiss()
    self.keeper = nil
    keeperLosses?.add()
    log.error(
      "the keeper has ended: connections will end with this worker", metadata: ["keeper": "\(keeper.pid)"])
  }

  /// All connections have ended in order, and nothing is to be passed on.
  func dismissKeeper() { keeper?.dismiss() }

  // MARK: Its rings

  /// The ring of a purpose that this worker writes.
  ///
  /// - Throws: `.invalid` if it has none.
  public func ringWritten(for purpose: RingPurpose) throws(IPCError) -> RingGrant {
    guard let grant = manifest.ringWritten(for: purpose) else {
      throw .invalid("the manifest of \(name) grants no ring of \(purpose.rawValue) to write")
    }
    return grant
  }

  public func writer(of grant: RingGrant) throws(IPCError) -> RingWriter {
    try status.attaching(grant) { () throws(IPCError) in
      try RingWriter(attaching: grant.fd, wake: grant.wake)
    }
  }

  public func eventWriter() throws(IPCError) -> EventWriter {
    let grant = try ringWritten(for: .events)
    return EventWriter(try writer(of: grant), name: grant.name)
  }

  /// The rings of a purpose that this worker reads; none, if there are none.
  public func rings(for purpose: RingPurpose) throws(IPCError) -> RingSet {
    try RingSet(grants: manifest.ringsRead(for: purpose), worker: worker, status: status)
  }

  /// Another worker's status page.
  ///
  /// - Throws: `.invalid` if there is no such worker.
  public func page(of worker: WorkerIdentity) throws(IPCError) -> StatusPage {
    guard let peer = manifest.peers.first(where: { $0.worker == worker }) else {
      throw .invalid("the manifest of \(name) has no status page of \(worker.name)")
    }
    return try StatusPage(attaching: peer.status)
  }
}

public enum WorkerProcess {
  /// Exit status of a worker that could not start or go on (EX_SOFTWARE).
  private static let failure: CInt = 70
  /// ...because the configuration is wrong (EX_CONFIG).
  private static let wrongConfiguration: CInt = 78

  // Buffers of bodies are 64 to 256 KiB, come and go by the thousand per second, and are what glibc gives back to the kernel at once:
  // every one would be mapped, zeroed and unmapped again, page by page.

  /// Blocks up to this size come from the heap.
  private static let largestFromHeapBytes: CInt = 1 << 20
  /// Free memory at the end of a heap that is kept; there is a heap for every thread that allocates.
  private static let keptBytes: CInt = 4 << 20

  /// A worker's whole life. `body` returns when the worker has ended in order; what it throws is logged and is a crash.
  ///
  /// - Parameters:
  ///   - worker: the kind that this executable is.
  ///   - findings: what it says of the configuration when it is only asked for that.
  ///   - rehearsal: what a spare does before it waits, so that it is done faster later. It starts no thread and keeps nothing.
  public static func run(
    _ worker: String, findings: (Settings) -> ConfigurationFindings = { _ in ConfigurationFindings() },
    rehearsal: () throws -> Void = {},
    _ body: (WorkerContext) throws -> Void
  ) -> Never {
    if isCheck { check(findings) }
    do {
      let manifest = try waitInReserve(worker, rehearsal) ?? WorkerManifest.inherited()
      let context = try birth(worker, manifest)
      do {
        try body(context)
        context.dismissKeeper()
      } catch {
        context.log.critical("the worker can't go on", metadata: ["reason": "\(error)"])
        exit(error is any ConfigurationFault ? wrongConfiguration : failure)
      }
    } catch {
      var line = "rig-\(worker): \(error)\n"
      let output = SharedOutput(STDERR_FILENO)
      line.withUTF8 { _ = output.write(UnsafeRawBufferPointer($0), patience: SharedOutput.linePatience) }
      exit(failure)
    }
    exit(0)
  }

  /// A spare's life until it is needed, which ends here if it isn't. Returns its manifest; nil: this process isn't a spare.
  private static func waitInReserve(
    _ worker: String, _ rehearsal: () throws -> Void
  ) throws -> WorkerManifest? {
    guard let socket = try SpareSocket.inherited() else { return nil }
    // A supervisor that has died before this call has closed its end.
    guard rig_set_parent_death_signal(SIGKILL) == 0 else {
      throw IPCError.system(call: "prctl", errno: errno)
    }
    rig_keep_freed_memory(largestFromHeapBytes, keptBytes)
    // Without it the spare is slower, and still faster than no spare.
    try? rehearsal()
    try socket.sayWarm()
    guard let number = try socket.awaitManifest() else { exit(0) }
    let manifest = try WorkerManifest.inherited(number)
    show(CommandLine.arguments.dropFirst().first ?? "rig-\(worker)", manifest.worker.name)
    return manifest
  }

  /// `ps` shows what it shows of workers that are no spares.
  private static func show(_ executable: String, _ name: String) {
    let arguments = Array("\(executable)\0\(name)".utf8)
    _ = arguments.withUnsafeBytes { rig_show_arguments($0.baseAddress, $0.count) }
  }

  /// What a worker has that this manifest is made for, for a rehearsal: nobody sees it, and it says nothing.
  public static func rehearse(_ manifest: WorkerManifest) throws -> WorkerContext {
    let written = try WorkerManifest.write(manifest)
    let read = try WorkerManifest.inherited(written.take())
    return WorkerContext(
      manifest: read, settings: try decode(read.settings), status: try StatusPage(attaching: read.status),
      log: Logger(label: read.worker.kind.rawValue) { _ in SwiftLogNoOpLogHandler() }, signals: -1)
  }

  private static func birth(
    _ worker: String, _ manifest: WorkerManifest
  ) throws(IPCError) -> WorkerContext {
    guard manifest.worker.kind.rawValue == worker else {
      throw .invalid(
        "the manifest is for a worker \"\(manifest.worker.name)\", this executable is \"\(worker)\"")
    }
    // The signal is bound to the supervisor's thread; if it has died meanwhile, nobody would send it.
    guard rig_set_parent_death_signal(SIGKILL) == 0 else { throw .system(call: "prctl", errno: errno) }
    guard getppid() == manifest.supervisorPid else { throw .invalid("the supervisor has ended") }
    signal(SIGPIPE, SIG_IGN)
    rig_keep_freed_memory(largestFromHeapBytes, keptBytes)
    if manifest.worker.kind == .connections { rig_share_heap() }
    let stopping = [SIGTERM, SIGINT]
    let blocked = rig_block_signals(stopping + [SIGHUP], CInt(stopping.count + 1))
    guard blocked == 0 else { throw .system(call: "pthread_sigmask", errno: blocked) }
    let signals = rig_signalfd(stopping, CInt(stopping.count))
    guard signals >= 0 else { throw .system(call: "signalfd", errno: errno) }
    let reloads = rig_signalfd([SIGHUP], 1)
    guard reloads >= 0 else { throw .system(call: "signalfd", errno: errno) }

    let settings = try decode(manifest.settings)
    let status = try StatusPage(attaching: manifest.status)
    status.beginGeneration(pid: getpid())
    let context = WorkerContext(
      manifest: manifest, settings: settings, status: status, log: logger(manifest, settings),
      signals: signals, reloads: reloads)
    TestFault.arm()
    try StopPoint.arm(for: context.worker, incarnation: context.incarnation)
    context.startKeeper()
    return context
  }

  private static func decode(_ json: Data) throws(IPCError) -> Settings {
    do {
      return try Settings(encoded: json)
    } catch {
      // The error's own text could quote a secret.
      throw .invalid("the settings in the manifest can't be decoded")
    }
  }

  private static func logger(_ manifest: WorkerManifest, _ settings: Settings) -> Logger {
    let output = LogOutput(
      worker: manifest.worker.kind.rawValue, slot: manifest.worker.place, format: settings.logFormat)
    let level = Logger.Level(rawValue: settings.logLevel) ?? .info
    return Logger(label: manifest.worker.kind.rawValue) { _ in
      WorkerLogHandler(output: output, logLevel: level)
    }
  }

  private static let checkOption = "--check-config"

  /// Whether this process is to check the configuration and nothing else.
  private static var isCheck: Bool { CommandLine.arguments.contains(checkOption) }

  /// Says what `findings` says of the configuration that the command line and the environment give, and ends: 78 if something is wrong.
  private static func check(_ findings: (Settings) -> ConfigurationFindings) -> Never {
    var found = ConfigurationFindings()
    do throws(SettingsErrors) {
      let arguments = Array(CommandLine.arguments.dropFirst())
      let loaded = try Settings.load(arguments: arguments, environment: ProcessInfo.processInfo.environment)
      found = findings(loaded.settings)
    } catch {
      found.mistakes = error.mistakes.map(\.description)
    }
    for warning in found.warnings { complain("warning: \(warning)") }
    for mistake in found.mistakes { complain(mistake) }
    exit(found.mistakes.isEmpty ? 0 : wrongConfiguration)
  }

  private static func complain(_ text: String) {
    var line = text + "\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}

/// What a worker has found in the settings, which are right in themselves. Each text names the key, the place and what was expected.
public struct ConfigurationFindings: Sendable, Equatable {
  /// What a start would fail by, or go on without.
  public var mistakes: [String] = []
  /// What is accepted, and won't do what somebody may think.
  public var warnings: [String] = []

  public init() {}

  /// Notes what `body` throws as a mistake; nil: it did.
  @discardableResult
  public mutating func judge<Value>(_ body: () throws -> Value) -> Value? {
    do {
      return try body()
    } catch {
      mistakes.append("\(error)")
      return nil
    }
  }
}

/// An error of the configuration that only a worker can find. A worker that can't start for it says so by its exit status, which
/// is then the gateway's. The description names the key, what was found and what was expected.
public protocol ConfigurationFault: Error {}
