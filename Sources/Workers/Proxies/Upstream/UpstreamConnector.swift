// Makes connections: name, TCP, and for https the handshake with the certificate and the name checked, in which the upstream chooses
// between HTTP/2 and HTTP/1.1, unless the request must go by the latter.
//
//   http    TCP ─────────────▶ UpstreamConnection
//   https   TCP ─▶ handshake ┬▶ UpstreamConnection
//                            └▶ UpstreamSession (h2)

import NIOCore
import NIOHTTP1
import NIOPosix

/// Belongs to the client's loop.
final class UpstreamConnector {
  /// Receive buffers grow and shrink between these with what comes.
  /// At most a whole credit window: what wakes this worker up, and whoever gets the piece, costs more than the read.
  private static let receiveBytes = (minimum: 1 << 10, initial: 4 << 10, maximum: 256 << 10)

  private let loop: EventLoop
  private let tls: UpstreamTLS
  private let timeoutNs: UInt64

  init(loop: EventLoop, tls: UpstreamTLS, timeoutNs: UInt64) {
    self.loop = loop
    self.tls = tls
    self.timeoutNs = timeoutNs
  }

  /// Connects; then the connection is in its channel and `ready` is called without a session, or what stood for it is in a session's,
  /// or the connection is told why not.
  func connect(_ connection: UpstreamConnection, ready: @escaping (UpstreamSession?) -> Void) {
    let origin = connection.pool.origin
    guard (1...65535).contains(origin.port), !origin.host.isEmpty else {
      return connection.unreachable(.unreachable("\(origin) is no address"))
    }
    let bootstrap = bootstrap(for: connection)
    let future =
      if let address = origin.literalAddress {
        bootstrap.connect(to: address)
      } else {
        bootstrap.connect(host: origin.host, port: origin.port)
      }
    future.assumeIsolated().whenComplete { result in
      self.connected(result, connection, ready)
    }
  }

  private func connected(
    _ result: Result<Channel, any Error>, _ connection: UpstreamConnection,
    _ ready: @escaping (UpstreamSession?) -> Void
  ) {
    switch result {
    case .success(let channel):
      guard connection.pool.origin.scheme == .https else { return install(connection, in: channel, ready) }
      // Given up meanwhile, or about to shake hands.
      connection.candidates = connection.phase == .connecting ? [channel] : []
      guard let choice = try? channel.pipeline.syncOperations.handler(type: ProtocolChoice.self) else {
        return connection.unreachable(.unreachable("the connection ended at once"))
      }
      choice.whenMade { outcome in
        switch outcome {
        case .http1: self.install(connection, in: channel, ready)
        case .http2: self.installSession(for: connection, in: channel, ready)
        case .failed(let error): connection.unreachable(.unreachable("TLS handshake failed: \(error)"))
        }
      }
      if connection.phase != .connecting { channel.close(promise: nil) }
    case .failure(let error):
      connection.candidates = []
      connection.unreachable(Self.reason(error))
    }
  }

  private func install(
    _ connection: UpstreamConnection, in channel: Channel, _ ready: (UpstreamSession?) -> Void
  ) {
    connection.candidates = []
    do {
      try channel.pipeline.syncOperations.addHandler(connection)
    } catch {
      channel.close(promise: nil)
      return connection.unreachable(.unreachable("\(error)"))
    }
    // Given up meanwhile.
    guard connection.phase == .connecting else { return channel.close(promise: nil) }
    ready(nil)
  }

  private func installSession(
    for connection: UpstreamConnection, in channel: Channel, _ ready: (UpstreamSession?) -> Void
  ) {
    connection.candidates = []
    guard connection.phase == .connecting else {
      channel.close(promise: nil)
      return connection.neverConnected()
    }
    do {
      ready(try UpstreamSession(client: connection.client, pool: connection.pool, channel: channel))
    } catch {
      channel.close(promise: nil)
      connection.unreachable(.unreachable("\(error)"))
    }
  }

  private func bootstrap(for connection: UpstreamConnection) -> ClientBootstrap {
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
      .channelInitializer { [tls] channel in
        channel.eventLoop.makeCompletedFuture {
          guard connection.phase == .connecting else { throw ChannelError.ioOnClosedChannel }
          connection.candidates.append(channel)
          let origin = connection.pool.origin
          guard origin.scheme == .https else { return }
          let protocols =
            connection.offersHTTP2 ? [ProtocolChoice.http2, ProtocolChoice.http1] : [ProtocolChoice.http1]
          try channel.pipeline.syncOperations.addHandlers([
            tls.handler(to: origin, protocols: protocols), ProtocolChoice(),
          ])
        }
      }
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
