// TLS in front of an HTTPServer: puts the handler into new channels, lets HTTP begin when the handshake is done, and
// changes certificates while the server runs.
//
//   accepted ─▶ [TLSHandler][TLSProtocolChooser] ──TLSEstablished──▶ [TLSHandler][HTTP…]
//
// A connection keeps the certificates that it began with; `reload` counts for new ones. Files that can't be used change nothing.
// Belongs to the server's loop, on which it reads these files: some kilobytes of a local disk, once a year.

import Glibc
import IPC
import Kit
import Logging
import NIOCore
import Settings
import TLS

public final class TLSFront {
  private let settings: Settings
  /// Offered to clients by ALPN (RFC 7301), the preferred one first.
  private let protocols: [String]
  private let ticketSecret: [UInt8]
  private let counters: TLSCounters?
  private let log: Logger?
  private var context: ServerTLSContext
  /// Channels whose handshake isn't done.
  private var handshaking: [ObjectIdentifier: Channel] = [:]

  /// - Parameters:
  ///   - settings: HTTPS_CERTFILE and its like; at least one certificate.
  ///   - ticketSecret: what all workers share.
  /// - Throws: what is wrong with a certificate or key.
  public init(
    settings: Settings, ticketSecret: [UInt8] = [], counters: TLSCounters? = nil, log: Logger? = nil
  ) throws(UnusableCertificate) {
    self.settings = settings
    protocols = settings.maxStreamsPerConnection > 0 ? ["h2", "http/1.1"] : ["http/1.1"]
    self.ticketSecret = ticketSecret
    self.counters = counters
    self.log = log
    context = try Self.context(settings, protocols, ticketSecret)
    counters?.show(context)
  }

  /// TLS for a worker's listener of that name; nil: none is configured.
  public static func ofWorker(
    _ context: WorkerContext, port: String
  ) throws(UnusableCertificate) -> TLSFront? {
    guard context.settings.hasTLS else { return nil }
    return try TLSFront(
      settings: context.settings, ticketSecret: Array(context.manifest.tokenKey),
      counters: TLSCounters(status: context.status, port: port, showsExpiry: context.worker.place == 0),
      log: context.log)
  }

  private static func context(
    _ settings: Settings, _ protocols: [String], _ ticketSecret: [UInt8]
  ) throws(UnusableCertificate) -> ServerTLSContext {
    let files = zip(settings.httpsCertFiles, settings.httpsKeyFiles).map {
      CertificateFiles(certificate: $0, key: $1)
    }
    do throws(TLSFileError) {
      return try ServerTLSContext(
        files, password: settings.httpsKeyFilePass?.revealed, protocols: protocols, ticketSecret: ticketSecret
      )
    } catch {
      throw UnusableCertificate(error)
    }
  }

  /// Reads the files again.
  public func reload() {
    do throws(UnusableCertificate) {
      context = try Self.context(settings, protocols, ticketSecret)
      counters?.reloaded(isDone: true)
      counters?.show(context)
      let names = context.names.joined(separator: ", ")
      log?.notice("certificates are read again", metadata: ["names": "\(names)"])
    } catch {
      counters?.reloaded(isDone: false)
      log?.error("certificates can't be used; the former ones stay", metadata: ["reason": "\(error)"])
    }
  }

  /// Once a second.
  func tick() { context.refreshTickets(unixSeconds: time(nil)) }

  /// Closes connections on which nothing was asked yet.
  func closeHandshaking() {
    for channel in handshaking.values { channel.close(promise: nil) }
  }

  /// Prepares a channel that the server has just accepted.
  func prepare(_ channel: Channel, for server: HTTPServer) throws {
    let handler = TLSHandler(context) { [counters, log] result in
      counters?.count(result)
      if case .failed(let reason) = result {
        log?.debug("TLS handshake failed", metadata: ["reason": "\(reason)"])
      }
    }
    if let options = channel.syncOptions {
      let allocator = FixedSizeRecvByteBufferAllocator(capacity: HTTPServer.receiveBufferBytes)
      try options.setOption(.recvAllocator, value: allocator)
    }
    let chooser = TLSProtocolChooser(self, server)
    try channel.pipeline.syncOperations.addHandlers([handler, chooser])
    handshaking[ObjectIdentifier(chooser)] = channel
  }

  fileprivate func left(_ chooser: TLSProtocolChooser) {
    handshaking[ObjectIdentifier(chooser)] = nil
  }
}

/// A certificate or key that HTTPS_CERTFILE or HTTPS_KEYFILE names can't be used.
public struct UnusableCertificate: ConfigurationFault, CustomStringConvertible {
  public let description: String

  init(_ error: TLSFileError) {
    let setting = error.role == .certificate ? "HTTPS_CERTFILE" : "HTTPS_KEYFILE"
    description = "\(setting): \(error)"
  }
}

/// Lets the protocol begin that client and server have agreed on, and leaves.
private final class TLSProtocolChooser: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer

  private let front: TLSFront
  private let server: HTTPServer

  init(_ front: TLSFront, _ server: HTTPServer) {
    self.front = front
    self.server = server
  }

  func handlerRemoved(context: ChannelHandlerContext) { front.left(self) }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let event = event as? TLSEstablished else {
      return context.fireUserInboundEventTriggered(event)
    }
    guard !server.isDraining else { return context.close(promise: nil) }
    do {
      if event.alpn == "h2" {
        try server.addHTTP2(to: context.channel)
      } else {
        try server.beginHTTP1(on: context.channel)
      }
      context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    } catch {
      context.close(promise: nil)
    }
  }
}
