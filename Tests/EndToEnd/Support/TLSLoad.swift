// Requests over TLS without a pause, from some threads: each makes one on a connection of its own and one on a connection that stays
// open, again and again.

import Foundation
import Synchronization

final class TLSLoad: Sendable {
  private struct State {
    var handshakes = 0
    var names: Set<String> = []
    var failures: [String] = []
    var running = 0
    var isStopped = false
  }

  private let port: Int
  private let state = Mutex(State())

  init(_ port: Int, threads: Int) throws {
    self.port = port
    state.withLock { $0.running = threads }
    for _ in 0..<threads { Thread.detachNewThread { [self] in run() } }
  }

  /// The common names of the certificates that were seen.
  var names: Set<String> { state.withLock { $0.names } }
  var failures: [String] { state.withLock { $0.failures } }

  func forgetNames() { state.withLock { $0.names = [] } }

  /// Waits for so many more handshakes of all threads together.
  func awaitHandshakes(_ count: Int) throws {
    let wanted = state.withLock { $0.handshakes } + count
    try eventually("\(count) more handshakes") {
      state.withLock { $0.handshakes >= wanted || !$0.failures.isEmpty }
    }
  }

  /// Returns when all threads have ended.
  func stop() {
    state.withLock { $0.isStopped = true }
    try? eventually("the load ends") { state.withLock { $0.running == 0 } }
  }

  private func run() {
    defer { state.withLock { $0.running -= 1 } }
    do {
      let kept = HTTPConnection(wire: try Wire(port: port, tls: TLSEnd()))
      while !state.withLock({ $0.isStopped }) {
        let tls = try TLSEnd()
        let fresh = HTTPConnection(wire: try Wire(port: port, tls: tls))
        for http in [fresh, kept] {
          let status = try http.send("GET", "/_rig/health").status
          if status != 200 { throw TestFailure("status \(status)") }
        }
        state.withLock {
          $0.handshakes += 1
          $0.names.insert(tls.serverName ?? "")
        }
      }
    } catch {
      state.withLock { $0.failures.append("\(error)") }
    }
  }
}
