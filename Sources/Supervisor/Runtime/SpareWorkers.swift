// Processes of the connection workers' executable that were started in advance, have done what needs no manifest, and sleep. One of them
// is the next process of a place: it is given its descriptors (SpareSocket) instead of being spawned with them. Until it has taken
// the place's page over it may still fail, which nobody but this file and Runtime.launch hears of.
//
//   nobody ── start, when nothing else does ──▶ preparing ── warm ──▶ waiting ── become ──▶ a worker's process
//      ▲                                            │ too long, or ended ──┤ ended, or its executable isn't the one any more
//      └──────────────── after a pause ─────────────┴──────────────────────┘

import CLinux
import Glibc
import IPC

final class SpareWorkers {
  /// From the moment when a spare became a worker to the start of the next one: the worker comes first.
  static let pause: Nanoseconds = .seconds(1)
  /// The same from the end of one that failed; doubled with each that fails behind it.
  static let longestPause: Nanoseconds = .seconds(64)
  /// From its start until it waits.
  static let mostPreparing: Nanoseconds = .seconds(60)
  /// From the gift until it has taken its page over.
  static let mostBecoming: Nanoseconds = .seconds(5)

  private final class Spare {
    let number: UInt64
    var process: ChildProcess?
    let pid: pid_t
    let socket: OwnedDescriptor
    let file: ExecutableFile?
    let started: Nanoseconds
    /// Whether it had said so when that was asked last.
    private(set) var isWarm = false

    /// Whether it waits.
    func look() -> Bool {
      isWarm = isWarm || SpareSocket(socket.rawValue).takeWarm()
      return isWarm
    }

    init(
      number: UInt64, process: consuming ChildProcess, socket: OwnedDescriptor, file: ExecutableFile?,
      started: Nanoseconds
    ) {
      self.number = number
      pid = process.pid
      self.process = consume process
      self.socket = socket
      self.file = file
      self.started = started
    }
  }

  private struct Becoming {
    let worker: WorkerRecord
    let instance: UInt64
    let deadline: Nanoseconds
  }

  private let wanted: Int
  private let executable: String
  private let environment: [String]
  private let log: LogWriter
  private let gauge: Metric?
  private var spares: [Spare] = []
  private var becoming: [Becoming] = []
  private var lastNumber: UInt64 = 0
  private var failures = 0
  private var notBefore: Nanoseconds = 0
  private var isOver = false

  /// - Parameters:
  ///   - count: how many wait at a time (WARM_SPARES).
  ///   - environment: as for other workers.
  ///   - gauge: how many there are.
  init(count: Int, executable: String, environment: [String], gauge: Metric?, log: LogWriter) {
    wanted = count
    self.executable = executable
    self.environment = environment
    self.gauge = gauge
    self.log = log
    gauge?.set(0)
  }

  // MARK: Waiting

  /// Looks once a second after those that are there, and starts one if there is to be one more and the machine has nothing more urgent
  /// to do.
  ///
  /// - Parameter watch: waits for the end of a process: its pidfd, its number.
  func round(
    at now: Nanoseconds, isQuiet: Bool, watch: (CInt, UInt64) throws -> Void, unwatch: (CInt) -> Void
  ) {
    guard wanted > 0, !isOver else { return }
    for spare in spares where !spare.isWarm {
      if spare.look() {
        failures = 0
        log.log(.debug, "spare worker is ready", [("child_pid", String(spare.pid))])
      } else if now > spare.started + Self.mostPreparing {
        dismiss(spare, unwatch)
        failed("spare worker did not become ready in time and is killed", spare, now)
      }
    }
    guard isQuiet, spares.count < wanted, now >= notBefore else { return }
    start(at: now, watch)
  }

  private func start(at now: Nanoseconds, _ watch: (CInt, UInt64) throws -> Void) {
    lastNumber += 1
    do {
      var pair: [CInt] = [-1, -1]
      guard rig_seqpacket_pair(&pair) == 0 else { throw IPCError.system(call: "socketpair", errno: errno) }
      let own = OwnedDescriptor(Descriptor(owning: pair[0]))
      let theirs = Descriptor(owning: pair[1])
      var descriptors = DescriptorPlan(base: 3)
      let number = descriptors.grantFresh([theirs.rawValue])[0]
      let file = ExecutableFile(executable)
      let process = try ChildProcess(
        executable: executable, name: SpareSocket.title(of: WorkerKind.connections.executable),
        arguments: [executable],
        environment: environment + ["\(SpareSocket.environmentName)=\(number)"], descriptors: descriptors)
      try watch(process.pidfd, lastNumber)
      spares.append(
        Spare(number: lastNumber, process: consume process, socket: own, file: file, started: now))
      withExtendedLifetime(theirs) {}
      count()
    } catch {
      failed("spare worker can't be started: \(error)", nil, now)
    }
  }

  /// One of them has ended.
  func ended(_ number: UInt64, at now: Nanoseconds, unwatch: (CInt) -> Void) {
    guard let spare = spares.first(where: { $0.number == number }) else { return }
    dismiss(spare, unwatch)
    failed("spare worker has ended", spare, now)
  }

  /// The number of the one with this pid.
  func number(of pid: pid_t) -> UInt64? { spares.first { $0.pid == pid }?.number }

  /// Kills and reaps it.
  private func dismiss(_ spare: Spare, _ unwatch: (CInt) -> Void) {
    if let process = spare.process.take() { unwatch(process.pidfd) }
    spares.removeAll { $0 === spare }
    count()
  }

  private func failed(_ what: String, _ spare: Spare?, _ now: Nanoseconds) {
    let pause = Self.pause << min(UInt64(failures), 6)
    notBefore = now + min(pause, Self.longestPause)
    failures += 1
    log.log(.notice, what, spare.map { [("child_pid", String($0.pid))] } ?? [])
  }

  private func count() { gauge?.set(Int64(spares.count)) }

  /// None is needed any more.
  func end(unwatch: (CInt) -> Void) {
    isOver = true
    for spare in spares { dismiss(spare, unwatch) }
    becoming = []
  }

  // MARK: Becoming a worker

  /// A spare that from now on is the process of `worker`, watched by nobody; nil: none waits.
  ///
  /// - Parameters:
  ///   - descriptors: what it gets, the manifest among it.
  ///   - manifest: the spare's number for the manifest.
  func become(
    _ worker: WorkerRecord, _ descriptors: DescriptorPlan, manifest: CInt, at now: Nanoseconds,
    unwatch: (CInt) -> Void
  ) -> ChildProcess? {
    guard worker.executable == executable, !isOver else { return nil }
    while let spare = spares.first(where: { $0.look() }) {
      guard spare.file == ExecutableFile(executable) else {
        log.log(.info, "spare worker's executable has changed", [("child_pid", String(spare.pid))])
        dismiss(spare, unwatch)
        continue
      }
      guard let process = spare.process.take() else { return nil }
      unwatch(process.pidfd)
      spares.removeAll { $0 === spare }
      count()
      do throws(IPCError) {
        try SpareSocket(spare.socket.rawValue).give(
          descriptors.sources, as: descriptors.targets, manifest: manifest)
      } catch {
        failed("spare worker can't be used: \(error)", spare, now)
        continue
      }
      notBefore = max(notBefore, now + Self.pause)
      becoming.append(Becoming(worker: worker, instance: worker.instance, deadline: now + Self.mostBecoming))
      return process
    }
    return nil
  }

  /// Workers whose process was a spare that hasn't taken over in time.
  func overdue(at now: Nanoseconds) -> [WorkerRecord] {
    becoming.removeAll { $0.worker.instance != $0.instance || $0.worker.hasPage }
    return becoming.filter { now > $0.deadline }.map(\.worker)
  }

  /// Whether the worker's process, which has ended or is to be ended, was a spare that had not taken over. True once.
  func takeFailure(of worker: WorkerRecord, hadPage: Bool, at now: Nanoseconds) -> Bool {
    guard let index = becoming.firstIndex(where: { $0.worker === worker && $0.instance == worker.instance })
    else { return false }
    becoming.remove(at: index)
    guard !hadPage, !isOver else { return false }
    failed("spare worker did not take over: an ordinary process does", nil, now)
    return true
  }
}

/// What a path leads to: another file, or another content, isn't the same executable any more.
struct ExecutableFile: Equatable {
  private let device: UInt64
  private let inode: UInt64
  private let bytes: Int64
  private let modified: Int64
  private let modifiedNs: Int64

  /// nil: there is none.
  init?(_ path: String) {
    var information = stat()
    guard stat(path, &information) == 0 else { return nil }
    device = UInt64(information.st_dev)
    inode = UInt64(information.st_ino)
    bytes = Int64(information.st_size)
    modified = Int64(information.st_mtim.tv_sec)
    modifiedNs = Int64(information.st_mtim.tv_nsec)
  }
}
