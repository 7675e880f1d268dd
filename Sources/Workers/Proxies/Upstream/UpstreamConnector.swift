// Makes connections: name, TCP, and for https the TLS handler with the certificate and the name checked. The handshake itself
// goes on while the first request waits in NIO's handler.

import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Belongs to the client's loop.
final class UpstreamConnector {
  /// Receive buffers grow and shrink between these with what comes.
  /// At most a whole credit window: what wakes this worker up, and whoever gets the piece, costs more than the read.
  private static let receiveBytes = (minimum: 1 << 10, initial: 4 << 10, maximum: 256 << 10)

  private let loop: EventLoop
  private let tls: TLSConfiguration
  private let timeoutNs: UInt64
  private var tlsContext: NIOSSLContext?

  init(loop: EventLoop, tls: TLSConfiguration, timeoutNs: UInt64) {
    self.loop = loop
    var tls = tls
    tls.applicationProtocols = ["http/1.1"]
    self.tls = tls
    self.timeoutNs = timeoutNs
  }

  /// Connects; then the connection is in its channel and `ready` is called, or it is told why not.
  func connect(_ connection: UpstreamConnection, ready: @escaping () -> Void) {
    let origin = connection.pool.origin
    guard (1...65535).contains(origin.port), !origin.host.isEmpty else {
      return connection.unreachable(.unreachable("\(origin) is no address"))
    }
    do {
      let address = origin.literalAddress
      let context = origin.scheme == .https ? try sharedTLSContext() : nil
      // An address has no place in SNI; NIO compares it with those of the certificate.
      let bootstrap = bootstrap(for: connection, context, name: address == nil ? origin.host : nil)
      let future =
        if let address {
          bootstrap.connect(to: address)
        } else {
          bootstrap.connect(host: origin.host, port: origin.port)
        }
      future.assumeIsolated().whenComplete { result in
        self.connected(result, connection, ready)
      }
    } catch {
      connection.unreachable(.unreachable("TLS: \(error)"))
    }
  }

  private func connected(
    _ result: Result<Channel, any Error>, _ connection: UpstreamConnection, _ ready: () -> Void
  ) {
    connection.candidates = []
    switch result {
    case .success(let channel):
      do {
        try channel.pipeline.syncOperations.addHandler(connection)
      } catch {
        channel.close(promise: nil)
        return connection.unreachable(.unreachable("\(error)"))
      }
      // Given up meanwhile.
      guard connection.phase == .connecting else { return channel.close(promise: nil) }
      ready()
    case .failure(let error):
      connection.unreachable(Self.reason(error))
    }
  }

  private func bootstrap(
    for connection: UpstreamConnection, _ context: NIOSSLContext?, name: String?
  ) -> ClientBootstrap {
    ClientBootstrap(group: loop)
      .connectTimeout(.nanoseconds(Int64(clamping: timeoutNs)))
      .channelOption(.autoRead, value: false)
      .channelOption(.maxMessagesPerRead, value: 1)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelOption(
        .writeBufferWaterMark,
        value: .init(low: UpstreamConnection.lowWaterBytes, high: UpstreamConnection.highWaterBytes)
      )
      .channelOption(
        .recvAllocator,
        value: AdaptiveRecvByteBufferAllocator(
          minimum: Self.receiveBytes.minimum, initial: Self.receiveBytes.initial,
          maximum: Self.receiveBytes.maximum)
      )
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          guard connection.phase == .connecting else { throw ChannelError.ioOnClosedChannel }
          connection.candidates.append(channel)
          guard let context else { return }
          let handler = try NIOSSLClientHandler(context: context, serverHostname: name)
          try channel.pipeline.syncOperations.addHandler(handler)
        }
      }
  }

  /// Made when it is first needed: it reads the certificates of the system.
  private func sharedTLSContext() throws -> NIOSSLContext {
    if let tlsContext { return tlsContext }
    let context = try NIOSSLContext(configuration: tls)
    tlsContext = context
    return context
  }

  private static func reason(_ error: any Error) -> UpstreamFailure.Reason {
    if case .connectTimeout? = error as? ChannelError { return .connectTimeout }
    if let failure = error as? NIOConnectionError, failure.dnsAError == nil || failure.dnsAAAAError == nil,
      let last = failure.connectionErrors.last
    {
      if case .connectTimeout? = last.error as? ChannelError { return .connectTimeout }
      return .unreachable("\(last.error)")
    }
    return .unreachable("\(error)")
  }
}
