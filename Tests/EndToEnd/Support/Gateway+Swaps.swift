// Swaps of connection workers for fresh processes, as SIGUSR1 asks for them.

import Glibc
import Testing

extension Gateway {
  /// Places whose process has been swapped, or hasn't although it was asked for.
  func swaps(_ result: String = "swapped") throws -> Int {
    Int(try metric("rig_swaps_total", ["result": result]))
  }

  /// Tells the supervisor to swap the connection workers.
  func askForSwap() { process.signal(SIGUSR1) }

  /// Swaps all connection workers, and waits until their successors are alone.
  ///
  /// - Parameters:
  ///   - clients: read meanwhile.
  ///   - body: done as soon as the supervisor has been told.
  func swap(_ clients: CheckedClients? = nil, _ body: () throws -> Void = {}) throws {
    let before = workers(.connections)
    askForSwap()
    try body()
    try awaitSuccessors(of: before, clients)
  }

  /// Waits until each place has one process, which serves and isn't one of `before`.
  func awaitSuccessors(of before: [RunningProcess], _ clients: CheckedClients? = nil) throws {
    let clients = clients ?? CheckedClients(self)
    try clients.pump("others serve, and those that were swapped are gone", within: 120) { _ in
      let now = workers(.connections)
      return try now.count == before.count && !now.contains(where: before.contains)
        && metric("rig_retiring") == 0
    }
    try waitUntilReady()
  }

  /// The only connection worker's heir, while both live.
  func awaitHeir(of incumbent: RunningProcess) throws -> RunningProcess {
    try eventually("the heir is started") { workers(.connections).first { $0 != incumbent } }
  }
}
