// A service of the tests behind TLS, whose certificate, versions and protocol the test chooses. What is spoken inside is the test's
// too. One thread per connection, all ended by `stop`.

import CLinux
import Foundation
import Glibc
import Synchronization
import TestSupport

final class TLSService: Sendable {
  /// What is done with a connection whose handshake is done; the connection ends with it, without a farewell unless this says one.
  typealias Serving = @Sendable (Wire) throws -> Void

  /// How a handshake went.
  struct Handshake: Equatable {
    /// The name that was wanted.
    var name: String?
    var chosen: String?
    var isResumed = false
    /// Why it has failed.
    var failure: String?
  }

  private struct State {
    var handshakes: [Handshake] = []
    var open: Set<CInt> = []
    var isStopped = false
  }

  let port: Int
  private let listener: CInt
  private let tls: TLSServing
  private let serve: Serving
  private let state = Mutex(State())

  init(_ tls: TLSServing, _ serve: @escaping Serving) throws {
    self.tls = tls
    self.serve = serve
    port = try FreePorts.next()
    listener = rig_stream_socket(AF_INET)
    var one: CInt = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<CInt>.size))
    var address = localAddress(port: UInt16(clamping: port))
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard bound == 0, listen(listener, 128) == 0 else {
      throw TestFailure("TLS service on \(port): \(String(cString: strerror(errno)))")
    }
    Thread.detachNewThread { [self] in acceptAll() }
  }

  var handshakes: [Handshake] { state.withLock { $0.handshakes } }
  var openConnections: Int { state.withLock { $0.open.count } }

  /// Nobody listens any more, and every connection is ended.
  func stop() {
    let open = state.withLock { state -> Set<CInt>? in
      guard !state.isStopped else { return nil }
      state.isStopped = true
      return state.open
    }
    guard let open else { return }
    for descriptor in open { shutdown(descriptor, CInt(SHUT_RDWR)) }
    shutdown(listener, CInt(SHUT_RDWR))
  }

  /// Answers requests without a body over HTTP/1.1, each with the same text.
  ///
  /// - Parameter ends: how the connection ends behind the first answer; nil: it doesn't.
  static func answering(_ text: String, ends: (@Sendable (Wire) throws -> Void)? = nil) -> Serving {
    { wire in
      while true {
        try wire.receive("a request") { queue in
          queue.distance(to: "\r\n\r\n").map { _ = queue.take($0 + 4) }
        }
        try wire.send(text)
        if let ends { return try ends(wire) }
      }
    }
  }

  private func acceptAll() {
    var entry = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
    while state.withLock({ !$0.isStopped }) {
      guard poll(&entry, 1, -1) >= 0 || errno == EINTR else { break }
      let descriptor = rig_accept(listener)
      guard descriptor >= 0 else { continue }
      let isWelcome = state.withLock { state in
        if !state.isStopped { state.open.insert(descriptor) }
        return !state.isStopped
      }
      guard isWelcome else {
        close(descriptor)
        break
      }
      Thread.detachNewThread { [self] in
        run(descriptor)
      }
    }
    close(listener)
  }

  private func run(_ descriptor: CInt) {
    guard let end = try? TLSEnd(tls) else { return }
    let wire = Wire(accepted: descriptor, tls: end)
    do {
      try wire.shakeHands()
      note(Handshake(name: end.wantedName, chosen: end.agreedProtocol, isResumed: end.isResumed))
      // What it throws is how connections end.
      try? serve(wire)
    } catch {
      note(Handshake(failure: "\(error)"))
    }
    state.withLock { _ = $0.open.remove(descriptor) }
    withExtendedLifetime(wire) {}
  }

  private func note(_ handshake: Handshake) { state.withLock { $0.handshakes.append(handshake) } }
}
