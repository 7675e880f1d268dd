// Upstreams behind TLS: who is believed, and what an end without farewell proves.

import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization
import Testing

@testable import Proxies

@Suite("Upstreams behind TLS", .serialized) struct UpstreamTLSTests {
  @Test("A certificate that is trusted and has the name is believed, and connections are kept")
  func trusted() async throws {
    try await TLSUpstream.run(answer: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") { upstream in
      try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
        for _ in 0..<3 {
          let call = try await bench.begin(upstream.request("localhost"))
          #expect(try await call.end() == [.answered(200), .sent("ok"), .ended([])])
        }
        let body = String(repeating: "x", count: 1 << 20)
        let call = try await bench.begin(upstream.request("localhost", body: .counted(body.utf8.count))) {
          exchange, _ in
          _ = exchange.write(ByteBuffer(string: body))
          exchange.end()
        }
        #expect(try await call.end().first == .answered(200))
      }
      #expect(upstream.accepted.count == 1)
    }
  }

  @Test("A certificate that nobody vouches for, or of another name, is not")
  func untrusted() async throws {
    try await TLSUpstream.run(answer: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") { upstream in
      for (tls, host) in [
        (TLSConfiguration.makeClientConfiguration(), "localhost"), (try TLSUpstream.trust(), "127.0.0.1"),
      ] {
        try await UpstreamBench.run(tls: tls) { bench in
          let failure = try await bench.begin(upstream.request(host)).failure()
          #expect(failure?.isUnreachable ?? false, "\(host): \(String(describing: failure))")
          try await bench.wait { $0.openConnections == 0 }
        }
      }
    }
  }

  @Test("An answer that ends with the connection isn't whole without a farewell")
  func truncated() async throws {
    for isPolite in [true, false] {
      try await TLSUpstream.run(answer: "HTTP/1.1 200 OK\r\n\r\nok", closes: true, isPolite: isPolite) {
        upstream in
        try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
          let call = try await bench.begin(upstream.request("localhost"))
          let told = try await call.end()
          #expect(told.prefix(2) == [.answered(200), .sent("ok")])
          if isPolite {
            #expect(told.last == .ended([]))
          } else {
            #expect(try await call.failure()?.isClosedEarly ?? false)
          }
        }
      }
    }
  }

  @Test("An upstream that doesn't speak TLS is unreachable, and one that says nothing is so in time")
  func noTLS() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let origin = UpstreamOrigin(scheme: .https, host: "127.0.0.1", port: upstream.port)
      let request = UpstreamRequest(origin: origin, method: .GET, target: "/", headers: [:])
      let spoken = try await bench.begin(request)
      let peer = try upstream.accept()
      peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
      #expect(try await spoken.failure()?.isUnreachable ?? false)
      let closed = try await bench.begin(request)
      try upstream.accept().close()
      #expect(try await closed.failure()?.isUnreachable ?? false)
      let silent = try await bench.begin(request)
      let mute = try upstream.accept()
      #expect(mute.receive()?.first == 0x16, "a handshake has begun")
      try await bench.pass(seconds: 4.9)
      #expect(try await silent.told() == [])
      try await bench.pass(seconds: 0.1)
      #expect(try await silent.failure()?.reason == .connectTimeout)
    }
  }
}

/// A server of its own thread that answers every head, and what follows it, with the same text.
final class TLSUpstream: @unchecked Sendable {
  let port: Int
  /// Connections.
  let accepted: Counter

  private init(port: Int, _ accepted: Counter) {
    self.port = port
    self.accepted = accepted
  }

  func request(_ host: String, body: UpstreamRequest.Body = .none) -> UpstreamRequest {
    UpstreamRequest(
      origin: UpstreamOrigin(scheme: .https, host: host, port: port), method: .PUT, target: "/", headers: [:],
      body: body)
  }

  /// Trusts the certificate below, and no other.
  static func trust() throws -> TLSConfiguration {
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(certificate.utf8)))
    return tls
  }

  /// What a server has that is trusted so; it speaks of no protocols.
  static func serverTLS() throws -> TLSConfiguration {
    TLSConfiguration.makeServerConfiguration(
      certificateChain: try NIOSSLCertificate.fromPEMBytes(Array(certificate.utf8)).map { .certificate($0) },
      privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(key.utf8), format: .pem)))
  }

  /// - Parameter isPolite: says farewell when it closes.
  static func run(
    answer: String, closes: Bool = false, isPolite: Bool = true, _ body: (TLSUpstream) async throws -> Void
  ) async throws {
    let context = try NIOSSLContext(configuration: try serverTLS())
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let accepted = Counter()
    let listening = try await ServerBootstrap(group: group)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          accepted.add()
          let handler = NIOSSLServerHandler(context: context)
          try channel.pipeline.syncOperations.addHandlers([
            handler, Answering(answer, closes ? (isPolite ? .politely : .rudely) : .never),
          ])
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    let upstream = TLSUpstream(port: listening.localAddress?.port ?? 0, accepted)
    let result: Result<Void, any Error>
    do { result = .success(try await body(upstream)) } catch { result = .failure(error) }
    try await listening.close()
    try await group.shutdownGracefully()
    try result.get()
  }

  final class Counter: Sendable {
    private let value = Atomic(0)
    var count: Int { value.load(ordering: .relaxed) }
    func add() { value.add(1, ordering: .relaxed) }
  }

  private final class Answering: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Closing {
      case never, politely, rudely
    }

    private let answer: String
    private let closing: Closing

    init(_ answer: String, _ closing: Closing) {
      self.answer = answer
      self.closing = closing
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      let bytes = unwrapInboundIn(data)
      guard String(buffer: bytes).contains("\r\n\r\n") else { return }
      context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer)), promise: nil)
      switch closing {
      case .never: break
      case .politely: context.close(promise: nil)
      case .rudely:
        // Past the TLS handler.
        try? context.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self).close(
          promise: nil)
      }
    }
  }

  private static let certificate = """
    -----BEGIN CERTIFICATE-----
    MIIBXTCCAQSgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
    c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjA5OTEyMzEyMzU5NTlaMBQxEjAQBgNVBAMM
    CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJG+AsrRq+mqrVrg
    Stj0FSeOZrKKL1y5G8HSjQZNlIZjFNvupkG4WZPsiZ2/KElcfKyiNenHiyUt0c1K
    tpmtrbijRTBDMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAMBgNVHRMEBTADAQH/MB0G
    A1UdDgQWBBTFIAAOglcqv+BNpQX3OK74s57UkDAKBggqhkjOPQQDAgNHADBEAiA8
    KtZH7IlAFt5jPnhbcLvM3X3RKyA5jGl08SehJNZDvQIgMEYW1DOtR9ZtsB0WN6do
    N4pLog7g9gLgE1lEGrV7jlQ=
    -----END CERTIFICATE-----
    """
  /// Protects nothing.
  private static let key = """
    -----BEGIN PRIVATE KEY-----
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHWBdPDNxsRxNZnW+
    KBL++Uw3DXtIYtZihvOq8HW4i6+hRANCAASRvgLK0avpqq1a4ErY9BUnjmayii9c
    uRvB0o0GTZSGYxTb7qZBuFmT7ImdvyhJXHysojXpx4slLdHNSraZra24
    -----END PRIVATE KEY-----
    """
}
