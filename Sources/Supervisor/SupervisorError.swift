// Why the supervisor could not start, and the exit status that says so to systemd and scripts (sysexits.h).

import IPC

enum ExitStatus {
  static let success: Int32 = 0
  /// Something that can't happen did (EX_SOFTWARE).
  static let internalError: Int32 = 70
  /// Sockets or other system resources can't be had (EX_OSERR).
  static let system: Int32 = 71
  /// A file of the installation is missing (EX_OSFILE).
  static let missingFile: Int32 = 72
  /// Gave up; a new start may help (EX_TEMPFAIL).
  static let gaveUp: Int32 = 75
  /// The configuration is wrong (EX_CONFIG).
  static let configuration: Int32 = 78

  /// Statuses of workers that say what has to be put right: the gateway's own is the same then.
  private static let telling: Set<Int32> = [configuration, missingFile, system]

  static func of(_ outcome: Outcome) -> Int32 {
    switch outcome {
    case .stopped: return success
    case .gaveUp: return gaveUp
    case .failedToStart:
      if case .status(let status)? = outcome.exit, telling.contains(status) { return status }
      return gaveUp
    }
  }
}

enum SupervisorError: Error, CustomStringConvertible {
  case listen(ListenError)
  case inheritedSocket(String)
  /// Shared memory or the event loop.
  case resources(IPCError)
  case tree(SpecError)
  /// A worker's executable isn't where it belongs.
  case missingExecutable(path: String, errno: Int32)
  /// STATE_DIR can't be used, or another gateway uses it.
  case stateDirectory(String)
  /// Settings can't be handed to workers.
  case settings(String)

  var exitStatus: Int32 {
    switch self {
    case .listen, .inheritedSocket, .resources, .stateDirectory: ExitStatus.system
    case .tree, .settings: ExitStatus.internalError
    case .missingExecutable: ExitStatus.missingFile
    }
  }

  var description: String {
    switch self {
    case .listen(let error): error.description
    case .inheritedSocket(let text): "from systemd: \(text)"
    case .resources(let error): error.description
    case .tree(let error): error.description
    case .missingExecutable(let path, let number):
      "\(path) can't be executed (errno \(number)); the workers belong beside rig-supervisor"
    case .settings(let text), .stateDirectory(let text): text
    }
  }
}
