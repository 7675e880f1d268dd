// The environment of a worker: the supervisor's own, without what systemd says to the supervisor alone, plus the number
// of the manifest's descriptor.

import IPC

enum WorkerEnvironment {
  /// A worker that spoke to systemd or took its sockets would be taken for the service.
  static let withheld: Set<String> = [
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
    WorkerManifest.environmentName,
  ]

  /// `NAME=value` lines, in a stable order.
  static func lines(from environment: [String: String]) -> [String] {
    environment.filter { !withheld.contains($0.key) }.map { "\($0.key)=\($0.value)" }.sorted()
  }

  /// The line that tells a worker where its manifest is.
  static func manifestLine(_ descriptor: CInt) -> String {
    "\(WorkerManifest.environmentName)=\(descriptor)"
  }
}
