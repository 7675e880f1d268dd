// The handler as a client against OpenSSL's server: who is believed, what is resumed, and how ends are told apart.

import COpenSSL
import NIOCore
import NIOEmbedded
import Testing

@testable import TLS

@Suite("TLSHandler as a client")
struct ClientTLSHandlerTests {
  private let certificates: TestCertificates
  private let own: CertificateFiles
  private let target = TLSTarget(host: "own.example.com", port: 443)

  init() throws {
    certificates = try TestCertificates()
    own = try certificates.make("own", ["own.example.com"])
  }

  /// A client that has said all it has to say to a server with `files`.
  private func call(
    _ target: TLSTarget, _ context: ClientTLSContext, _ server: TestServer, protocols: [String] = []
  ) throws -> TestChannel {
    let client = try TestChannel(context, to: target, protocols: protocols)
    try client.exchange(with: server)
    return client
  }

  private func connected(
    versions: ClosedRange<Int32>? = nil
  ) throws -> (client: TestChannel, server: TestServer) {
    let context = try ClientTLSContext(authorities: own.certificate)
    let server = try TestServer(try TestServerContext(own), versions: versions)
    let client = try call(target, context, server)
    try #require(client.recorder.events.count == 1, "\(client.results)")
    return (client, server)
  }

  private static func pattern(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
  }

  @Test(
    "15.9 A certificate is believed for its names and addresses alone, as far as somebody trusted vouches for it",
    arguments: [
      (["own.example.com"], "own.example.com", nil), (["own.example.com"], "OWN.Example.com.", nil),
      (["*.example.com"], "a.example.com", nil), (["*.example.com"], "a.b.example.com", "hostname mismatch"),
      (["*.example.com"], "example.com", "hostname mismatch"),
      (["a*.example.com"], "ab.example.com", "hostname mismatch"),
      (["other.example.com"], "own.example.com", "hostname mismatch"),
      (["127.0.0.1", "::1"], "127.0.0.1", nil), (["127.0.0.1", "::1"], "::1", nil),
      (["127.0.0.1", "::1"], "127.0.0.2", "IP address mismatch"),
      (["localhost"], "127.0.0.1", "IP address mismatch"),
    ] as [([String], String, String?)])
  func names(names: [String], host: String, refusal: String?) throws {
    let files = try certificates.make("names", names)
    let context = try ClientTLSContext(authorities: files.certificate)
    let server = try TestServer(try TestServerContext(files))
    let client = try call(TLSTarget(host: host, port: 443), context, server)
    defer { client.finish() }
    guard let refusal else { return #expect(client.results == [.done], "\(names) for \(host)") }
    #expect(client.recorder.events.isEmpty && !client.channel.isActive)
    guard case .failed(let reason) = client.results.first, client.results.count == 1 else {
      return #expect(Bool(false), "\(client.results)")
    }
    #expect(reason.contains(refusal) && reason.contains("(it is for \(names[0])"), "\(reason)")
    let told = client.recorder.errors.map { "\($0)" }
    #expect(told.count == 1 && told[0].contains(refusal) && !told[0].contains("it is for"), "\(told)")
    // The server hears of it too.
    #expect(server.handshake() != 1)
  }

  @Test(
    "15.9 Who vouches: the file's certificates, authority or not; nobody for a stranger, and not when it is over"
  )
  func trust() throws {
    let authority = try certificates.make("authority", ["authority.example"])
    let issued = try certificates.issue("issued", ["own.example.com"], by: authority)
    let expired = try certificates.issue("expired", ["own.example.com"], by: authority, days: -1)
    for (files, trusted, refusal) in [
      (issued, authority.certificate, nil), (issued, issued.certificate, nil),
      (issued, own.certificate, "unable to get local issuer certificate"),
      (issued, nil, "unable to get local issuer certificate"), (own, nil, "self-signed certificate"),
      (own, authority.certificate, "self-signed certificate"),
      (expired, authority.certificate, "certificate has expired"),
    ] as [(CertificateFiles, String?, String?)] {
      let context = try ClientTLSContext(authorities: trusted)
      let client = try call(target, context, try TestServer(try TestServerContext(files)))
      defer { client.finish() }
      guard let refusal else {
        #expect(client.results == [.done])
        continue
      }
      guard case .failed(let reason) = client.results.first else {
        #expect(Bool(false), "\(files.certificate) \(client.results)")
        continue
      }
      #expect(reason.contains("its certificate isn't believed: \(refusal)"), "\(reason)")
      #expect(reason.contains("(on 20") == (refusal == "certificate has expired"), "\(reason)")
    }
  }

  @Test("15.9 A server is told the name that is wanted, but not an address, and chooses a protocol")
  func wishes() throws {
    let files = try certificates.make("both", ["own.example.com", "127.0.0.1"])
    let context = try ClientTLSContext(authorities: files.certificate)
    for (host, name) in [("Own.example.com.", "own.example.com"), ("127.0.0.1", nil)] as [(String, String?)] {
      let server = try TestServer(try TestServerContext(files))
      let client = try call(
        TLSTarget(host: host, port: 443), context, server, protocols: ["h2", "http/1.1"])
      defer { client.finish() }
      #expect(server.wantedName == name)
      #expect(client.recorder.events.map(\.alpn) == ["h2"])
    }
    let server = try TestServer(try TestServerContext(files))
    let client = try call(target, context, server)
    defer { client.finish() }
    #expect(client.recorder.events.map(\.alpn) == [nil])
  }

  @Test("15.9 TLS 1.2 and 1.3 are spoken, and nothing older")
  func versions() throws {
    for (version, text) in [(TLS1_2_VERSION, "TLSv1.2"), (TLS1_3_VERSION, "TLSv1.3")] {
      let (client, server) = try connected(versions: version...version)
      defer { client.finish() }
      #expect(server.version == text)
      client.write(Self.pattern(100_000))
      server.give(try client.take().bytes)
      #expect(server.read() == Self.pattern(100_000))
      server.write(Self.pattern(1_000_003))
      try client.give(server.take(), pieceBytes: 1_700)
      #expect(client.recorder.received == Self.pattern(1_000_003))
    }
    let server = try TestServer(try TestServerContext(own), versions: TLS1_VERSION...TLS1_1_VERSION)
    let client = try call(target, try ClientTLSContext(authorities: own.certificate), server)
    defer { client.finish() }
    guard case .failed = client.results.first else { return #expect(Bool(false), "\(client.results)") }
  }

  @Test(
    "15.9 An end without the server's farewell is told as one, an end with it isn't",
    arguments: [true, false])
  func truncation(isPolite: Bool) throws {
    let (client, server) = try connected()
    server.write(Self.pattern(100))
    if isPolite { server.shutdown() }
    try client.give(server.take())
    client.channel.pipeline.fireChannelInactive()
    #expect(client.recorder.received == Self.pattern(100))
    #expect(client.recorder.errors.map { $0 is TLSTruncation } == (isPolite ? [] : [true]))
    if isPolite {
      server.give(try client.take().bytes)
      _ = server.read()
      #expect(server.hasReceivedShutdown && !client.channel.isActive)
    }
    client.finish()
  }

  @Test("15.9 Our end is said to the server")
  func farewell() throws {
    let (client, server) = try connected()
    client.write(Self.pattern(10))
    client.channel.close(promise: nil)
    server.give(try client.take().bytes)
    #expect(server.read() == Self.pattern(10) && server.hasReceivedShutdown)
    #expect(client.recorder.errors.isEmpty)
  }

  @Test("15.9 A peer that speaks no TLS, or goes in the middle, is told as that")
  func noTLS() throws {
    let context = try ClientTLSContext(authorities: own.certificate)
    let plain = try TestChannel(context, to: target)
    try plain.give(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
    #expect(plain.results == [.failed("the peer doesn't speak TLS")] && !plain.channel.isActive)
    let gone = try TestChannel(context, to: target)
    gone.channel.pipeline.fireChannelInactive()
    #expect(gone.results == [.failed("the peer ended the connection in the middle")])
    for channel in [plain, gone] { #expect(channel.recorder.errors.map { $0 is TLSFailure } == [true]) }
    gone.finish()
    let nobody = try TestChannel(context, to: TLSTarget(host: "", port: 1))
    #expect(!nobody.channel.isActive && nobody.recorder.errors.count == 1)
  }

  @Test("15.9 A record that was tampered with ends the connection as an error, and nothing of it is seen")
  func tampered() throws {
    let (client, server) = try connected()
    server.write(Self.pattern(1000))
    var bytes = server.take()
    bytes[500] ^= 1
    try client.give(bytes)
    #expect(client.recorder.received.isEmpty && client.recorder.errors.map { $0 is TLSFailure } == [true])
    #expect(!client.channel.isActive)
  }

  @Test("15.9 A session is resumed with its own target alone", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func resumption(version: Int32) throws {
    let context = try ClientTLSContext(authorities: own.certificate)
    let tls = try TestServerContext(own)
    func isResumed(_ target: TLSTarget) throws -> Bool {
      let server = try TestServer(tls, versions: version...version)
      let client = try call(target, context, server)
      client.channel.close(promise: nil)
      #expect(client.results == [server.isResumed ? .resumed : .done])
      return server.isResumed
    }
    let found = [
      try isResumed(target), try isResumed(target), try isResumed(target),
      try isResumed(TLSTarget(host: target.host, port: 8443)), try isResumed(target),
    ]
    #expect(found == [false, true, true, false, true])
  }

  @Test(
    "15.9 However often it was renewed, a session is of no use 12 hours after its certificate was looked at")
  func renewal() throws {
    final class Clock { var seconds = 1_000_000 }
    let clock = Clock()
    let context = try ClientTLSContext(authorities: own.certificate) { clock.seconds }
    let tls = try TestServerContext(own)
    var resumed: [Bool] = []
    for hours in [0, 5, 5, 3, 1] {
      clock.seconds += hours * 3600
      let server = try TestServer(tls)
      let client = try call(target, context, server)
      client.channel.close(promise: nil)
      resumed.append(server.isResumed)
    }
    #expect(resumed == [false, true, true, false, true])
  }

  @Test("15.9 Sessions to resume are bounded, for each target and in all")
  func bounds() throws {
    let context = try ClientTLSContext(authorities: own.certificate)
    let tls = try TestServerContext(own)
    // All begin before the first ticket comes, so that none is used.
    let clients = try (0..<5).map { _ in try TestChannel(context, to: target) }
    for client in clients { try client.exchange(with: try TestServer(tls)) }
    #expect(context.tickets.count(for: target) == TicketStore.mostPerTarget)
    for port in 0..<TicketStore.mostTargets {
      _ = try call(TLSTarget(host: target.host, port: port + 1000), context, try TestServer(tls))
    }
    #expect(context.tickets.targets == TicketStore.mostTargets && context.tickets.count(for: target) == 0)
  }

  @Test("15.9 A handshake that fails with a ticket is tried without one the next time")
  func forgotten() throws {
    let context = try ClientTLSContext(authorities: own.certificate)
    let tls = try TestServerContext(own)
    _ = try call(target, context, try TestServer(tls))
    #expect(context.tickets.count(for: target) > 0)
    let broken = try TestChannel(context, to: target)
    // An alert instead of an answer: handshake failure.
    try broken.give([21, 3, 3, 0, 2, 2, 40])
    #expect(context.tickets.count(for: target) == 0)
    guard case .failed = broken.results.first else { return #expect(Bool(false), "\(broken.results)") }
  }
}
