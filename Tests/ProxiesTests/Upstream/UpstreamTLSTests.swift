// Upstreams behind TLS: who is believed, and what an end without farewell proves.

import CLinux
import Glibc
import HTTP
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TLS
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
      for (tls, host, reason) in [
        ("", "localhost", "self-signed"), (try TLSUpstream.trust(), "127.0.0.1", "IP address mismatch"),
      ] {
        try await UpstreamBench.run(tls: tls) { bench in
          let failure = try await bench.begin(upstream.request(host)).failure()
          guard case .unreachable(let detail) = failure?.reason else {
            return #expect(Bool(false), "\(host): \(String(describing: failure))")
          }
          #expect(detail.contains("TLS handshake failed") && detail.contains(reason), "\(detail)")
          // What the certificate says is nobody's business who isn't an operator.
          #expect(!detail.contains("localhost"))
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

  @Test(
    "15.9 The second connection to an upstream resumes the session of the first; another authority's doesn't")
  func resumption() async throws {
    try await TLSUpstream.run(answer: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", closes: true) {
      upstream in
      for _ in 0..<2 {
        try await UpstreamBench.run(tls: try TLSUpstream.trust()) { bench in
          for _ in 0..<3 {
            let call = try await bench.begin(upstream.request("localhost"))
            #expect(try await call.end().last == .ended([]))
            try await bench.wait { $0.openConnections == 0 }
          }
        }
      }
      #expect(upstream.accepted.count == 6 && upstream.resumed.count == 4)
    }
  }

  @Test("15.9 A file of authorities that can't be used is named with the setting and the reason")
  func authorities() throws {
    for (path, words) in [("/nowhere.pem", "No such file"), ("/etc/hostname", "no certificate in it")] {
      let error = #expect(throws: UnusableAuthorities.self) { _ = try UpstreamTLS(authorities: path) }
      let text = error?.description ?? ""
      #expect(
        text.contains("PROXY_CA_CERTFILE: authorities file '\(path)'") && text.contains(words), "\(text)")
    }
  }

  @Test("An upstream that doesn't speak TLS is unreachable, and one that says nothing is so in time")
  func noTLS() async throws {
    try await UpstreamBench.run { bench in
      let upstream = try Upstream()
      let origin = UpstreamOrigin(scheme: .https, host: "127.0.0.1", port: upstream.port)
      let request = UpstreamRequest(origin: origin, method: "GET", target: "/", headers: [:])
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

  /// Those that began with a ticket.
  let resumed: Counter

  private init(port: Int, _ accepted: Counter, _ resumed: Counter) {
    self.port = port
    self.accepted = accepted
    self.resumed = resumed
  }

  func request(_ host: String, body: UpstreamRequest.Body = .none) -> UpstreamRequest {
    UpstreamRequest(
      origin: UpstreamOrigin(scheme: .https, host: host, port: port), method: "PUT", target: "/",
      headers: [:],
      body: body)
  }

  /// Path of the certificate below, for who trusts it and no other.
  static func trust() throws -> String { files.certificate }

  /// Of a server that is trusted so.
  static let files = CertificateFiles(
    certificate: MemoryFile(certificate).path, key: MemoryFile(key).path)

  /// - Parameter isPolite: says farewell when it closes.
  static func run(
    answer: String, closes: Bool = false, isPolite: Bool = true, _ body: (TLSUpstream) async throws -> Void
  ) async throws {
    let tls = ServedTLS(protocols: [])
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let accepted = Counter()
    let resumed = Counter()
    let listening = try await ServerBootstrap(group: group)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          accepted.add()
          try channel.pipeline.syncOperations.addHandlers([
            try tls.handler { if $0 == .resumed { resumed.add() } },
            Answering(answer, closes ? (isPolite ? .politely : .rudely) : .never),
          ])
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    let upstream = TLSUpstream(port: listening.localAddress?.port ?? 0, accepted, resumed)
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
        context.triggerUserOutboundEvent(TLSAbort(), promise: nil)
        context.close(promise: nil)
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

/// The server's side of TLS for the connections of one loop; touched on it only.
final class ServedTLS: @unchecked Sendable {
  private let protocols: [String]
  private var context: ServerTLSContext?

  /// - Parameter protocols: what it chooses from by ALPN, its first choice first; empty: it speaks of none.
  init(protocols: [String]) { self.protocols = protocols }

  func handler(_ onHandshake: @escaping (TLSHandshakeResult) -> Void = { _ in }) throws -> TLSHandler {
    let context = try context ?? ServerTLSContext([TLSUpstream.files], password: nil, protocols: protocols)
    self.context = context
    return TLSHandler(context, onHandshake: onHandshake)
  }
}

/// A file that is in no directory, as long as this process lives.
private struct MemoryFile {
  let path: String

  init(_ text: String) {
    let descriptor = rig_memfd_create("rig-test")
    var text = text
    let count = text.withUTF8 { write(descriptor, $0.baseAddress, $0.count) }
    precondition(count == text.utf8.count, "no memory for a file of a test")
    path = "/proc/self/fd/\(descriptor)"
  }
}
