// Where the workers' executables are: beside rig-supervisor, all of one release. They are looked for before anything is
// opened, so that a half installed release says so and has taken no port.

import Glibc
import IPC

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
