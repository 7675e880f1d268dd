// TLS towards upstreams: whose certificates are believed, and what is counted and logged of handshakes.
//
//   PROXY_CA_CERTFILE, or what the system trusts ─▶ ClientTLSContext ─▶ the TLSHandler of each connection
//
// A connection keeps the authorities that it began with; `reload` counts for new ones, and forgets what could be resumed. A file that
// can't be used changes nothing. Belongs to the client's loop, on which it reads that file: once, and when an operator says so.

import IPC
import Kit
import Logging
import NIOCore
import Settings
import TLS

/// `@unchecked Sendable`: NIO's closures carry references to it; it is touched on the client's loop only.
final class UpstreamTLS: @unchecked Sendable {
  /// Path of the certificates that are trusted; nil: those that the system trusts.
  private let authorities: String?
  private let counters: UpstreamTLSCounters?
  private let complaints: HandshakeComplaints?
  private let log: Logger?
  private var context: ClientTLSContext

  /// - Parameter authorities: path of the certificates that are trusted; empty: those that the system trusts.
  init(
    authorities: String = "", counters: UpstreamTLSCounters? = nil, log: Logger? = nil
  ) throws(UnusableAuthorities) {
    self.authorities = authorities.isEmpty ? nil : authorities
    self.counters = counters
    self.log = log
    complaints = log.map { HandshakeComplaints($0) }
    context = try Self.context(self.authorities)
  }

  private static func context(_ authorities: String?) throws(UnusableAuthorities) -> ClientTLSContext {
    do throws(TLSFileError) {
      return try ClientTLSContext(authorities: authorities)
    } catch {
      throw UnusableAuthorities(error)
    }
  }

  /// What a start would fail by.
  static func findings(_ settings: Settings) -> ConfigurationFindings {
    var found = ConfigurationFindings()
    if !settings.proxyCACertFile.isEmpty {
      found.judge { _ = try UpstreamTLS(authorities: settings.proxyCACertFile) }
    }
    return found
  }

  /// The first handler of a connection to `origin`.
  func handler(to origin: UpstreamOrigin, protocols: [String]) -> TLSHandler {
    let target = TLSTarget(host: origin.bareHost, port: origin.port)
    return TLSHandler(context, to: target, protocols: protocols) { [counters, complaints] result in
      counters?.count(result)
      if case .failed(let reason) = result { complaints?.handshakeFailed(origin, reason) }
    }
  }

  /// Reads the file again, if there is one.
  func reload() {
    guard let authorities else { return }
    do throws(UnusableAuthorities) {
      context = try Self.context(authorities)
      counters?.reloaded(isDone: true)
      log?.notice("trusted certificates are read again", metadata: ["file": "\(authorities)"])
    } catch {
      counters?.reloaded(isDone: false)
      log?.error(
        "trusted certificates can't be used; the former ones stay", metadata: ["reason": "\(error)"])
    }
  }
}

/// The file that PROXY_CA_CERTFILE names can't be used.
struct UnusableAuthorities: ConfigurationFault, CustomStringConvertible {
  let description: String

  init(_ error: TLSFileError) { description = "PROXY_CA_CERTFILE: \(error)" }
}

/// In the worker's status page.
///
///     rig_service_tls_handshakes_total{result,worker}    done, resumed, failed
///     rig_tls_reloads_total{result}                      done, failed
struct UpstreamTLSCounters {
  private let done: Metric?
  private let resumed: Metric?
  private let failed: Metric?
  private let reloads: Metric?
  private let failedReloads: Metric?

  init(_ status: StatusPage, worker: String) {
    func handshakes(_ result: String) -> Metric? {
      status.metric(
        .counter, "rig_service_tls_handshakes_total", labels: [("result", result), ("worker", worker)])
    }
    done = handshakes("done")
    resumed = handshakes("resumed")
    failed = handshakes("failed")
    reloads = status.metric(.counter, "rig_tls_reloads_total", labels: [("result", "done")])
    failedReloads = status.metric(.counter, "rig_tls_reloads_total", labels: [("result", "failed")])
  }

  func count(_ result: TLSHandshakeResult) {
    switch result {
    case .done: done?.add()
    case .resumed: resumed?.add()
    case .failed, .timedOut, .notTLS: failed?.add()
    }
  }

  func reloaded(isDone: Bool) { (isDone ? reloads : failedReloads)?.add() }
}

/// Logs why handshakes fail: whoever asks a service through the gateway isn't told what its certificate says, and can't fill the log
/// either.
private final class HandshakeComplaints {
  private static let quietNs: UInt64 = 60_000_000_000
  private static let mostOrigins = 256

  private let log: Logger
  private var said: [UpstreamOrigin: (reason: String, ns: UInt64)] = [:]

  init(_ log: Logger) { self.log = log }

  func handshakeFailed(_ origin: UpstreamOrigin, _ reason: String) {
    let now = MonotonicTime.now()
    if let last = said[origin], last.reason == reason, now < last.ns + Self.quietNs { return }
    // Forgetting says something once more, and that is all.
    if said.count >= Self.mostOrigins { said = [:] }
    said[origin] = (reason, now)
    log.warning(
      "TLS handshake with a service failed", metadata: ["service": "\(origin)", "reason": "\(reason)"])
  }
}
