// OpenSSL's own client and server over two memory BIOs, and a handler under test in an embedded channel: bytes go from one to the
// other only as the test says.

import COpenSSL
import NIOCore
import NIOEmbedded
import Testing

@testable import TLS

/// A client.
final class TestClient: TestPeer {
  init(
    serverName: String? = nil, alpn: [String] = [], versions: ClosedRange<Int32>? = nil,
    session: OpaquePointer? = nil
  ) throws {
    try super.init(try #require(SSL_CTX_new(TLS_client_method())), versions)
    SSL_set_connect_state(ssl)
    if let serverName { rig_ssl_set_server_name(ssl, serverName) }
    let protocols = alpn.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
    if !alpn.isEmpty { SSL_set_alpn_protos(ssl, protocols, UInt32(protocols.count)) }
    if let session { SSL_set_session(ssl, session) }
  }

  /// The common name of the server's certificate.
  var serverCommonName: String? {
    guard let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
    defer { X509_free(certificate) }
    var text = [CChar](repeating: 0, count: 256)
    let count = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, &text, 256)
    return count < 0
      ? nil : String(decoding: text.prefix(Int(count)).map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}

/// What all connections of a server have in common, the keys of its tickets among it.
final class TestServerContext {
  let context: OpaquePointer

  init(_ files: CertificateFiles, chain: String? = nil) throws {
    context = try #require(SSL_CTX_new(TLS_server_method()))
    try #require(
      SSL_CTX_use_certificate_chain_file(context, chain ?? files.certificate) == 1
        && SSL_CTX_use_PrivateKey_file(context, files.key, SSL_FILETYPE_PEM) == 1)
    // The first of the client's list, which has the form of an answer.
    SSL_CTX_set_alpn_select_cb(
      context,
      { _, selected, count, offered, _, _ in
        guard let selected, let count, let offered else { return SSL_TLSEXT_ERR_NOACK }
        selected.pointee = offered + 1
        count.pointee = offered.pointee
        return SSL_TLSEXT_ERR_OK
      }, nil)
  }

  deinit { SSL_CTX_free(context) }
}

/// A server.
final class TestServer: TestPeer {
  init(_ server: TestServerContext, versions: ClosedRange<Int32>? = nil) throws {
    SSL_CTX_up_ref(server.context)
    try super.init(server.context, versions)
    SSL_set_accept_state(ssl)
  }

  /// The name that the client wants to reach.
  var wantedName: String? { rig_ssl_server_name(ssl).map { String(cString: $0) } }
  var isResumed: Bool { SSL_session_reused(ssl) == 1 }
}

/// One end of a connection.
class TestPeer {
  private let context: OpaquePointer
  let ssl: OpaquePointer
  private let input: OpaquePointer
  private let output: OpaquePointer

  /// - Parameter context: a reference that is this one's from here on.
  fileprivate init(_ context: OpaquePointer, _ versions: ClosedRange<Int32>?) throws {
    self.context = context
    if let versions {
      try #require(rig_ssl_ctx_limit_version(context, versions.lowerBound, versions.upperBound) == 1)
      SSL_CTX_set_security_level(context, 0)
    }
    ssl = try #require(SSL_new(context))
    input = try #require(BIO_new(BIO_s_mem()))
    output = try #require(BIO_new(BIO_s_mem()))
    SSL_set_bio(ssl, input, output)
  }

  deinit {
    SSL_free(ssl)
    SSL_CTX_free(context)
  }

  /// 1: done.
  @discardableResult
  func handshake() -> CInt {
    ERR_clear_error()
    return SSL_do_handshake(ssl)
  }

  func give(_ bytes: [UInt8]) {
    if !bytes.isEmpty { BIO_write(input, bytes, CInt(bytes.count)) }
  }

  func take() -> [UInt8] {
    let count = BIO_ctrl_pending(output)
    var bytes = [UInt8](repeating: 0, count: count)
    if count > 0 { BIO_read(output, &bytes, CInt(count)) }
    return bytes
  }

  func write(_ bytes: [UInt8]) {
    ERR_clear_error()
    #expect(bytes.isEmpty || SSL_write(ssl, bytes, CInt(bytes.count)) == CInt(bytes.count))
  }

  /// What can be decrypted now.
  func read() -> [UInt8] {
    var all: [UInt8] = []
    var some = [UInt8](repeating: 0, count: 20_000)
    while true {
      ERR_clear_error()
      let count = SSL_read(ssl, &some, CInt(some.count))
      guard count > 0 else { return all }
      all += some[..<Int(count)]
    }
  }

  func shutdown() { SSL_shutdown(ssl) }
  var hasReceivedShutdown: Bool { SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN != 0 }
  var version: String { String(cString: SSL_get_version(ssl)) }
}

/// The last handler of the channel: what the server's own code would see.
final class Recorder: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  var received: [UInt8] = []
  var reads = 0
  var events: [TLSEstablished] = []
  var inputClosed = 0
  var errors: [any Error] = []
  var onEstablished: ((ChannelHandlerContext) -> Void)?

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    received += Array(unwrapInboundIn(data).readableBytesView)
    reads += 1
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let event = event as? TLSEstablished {
      events.append(event)
      onEstablished?(context)
    }
    if let event = event as? ChannelEvent, event == .inputClosed { inputClosed += 1 }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { errors.append(error) }
}

/// Stands where the socket would be: an embedded channel takes the end of its output for the end of everything.
final class TestSocket: ChannelOutboundHandler {
  typealias OutboundIn = ByteBuffer
  private(set) var outputClosed = 0

  func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
    guard mode == .output else { return context.close(mode: mode, promise: promise) }
    outputClosed += 1
    promise?.succeed(())
  }
}

/// The end of a connection that is ours.
final class TestChannel {
  let channel = EmbeddedChannel()
  let handler: TLSHandler
  let recorder = Recorder()
  let socket = TestSocket()
  private(set) var results: [TLSHandshakeResult] = []

  init(_ context: ServerTLSContext, allowsHalfClosure: Bool = true) throws {
    var report: (TLSHandshakeResult) -> Void = { _ in }
    handler = TLSHandler(context, onHandshake: { report($0) })
    report = { [unowned self] in results.append($0) }
    try connect(allowsHalfClosure)
  }

  /// A client's.
  init(_ context: ClientTLSContext, to target: TLSTarget, protocols: [String] = []) throws {
    var report: (TLSHandshakeResult) -> Void = { _ in }
    handler = TLSHandler(context, to: target, protocols: protocols, onHandshake: { report($0) })
    report = { [unowned self] in results.append($0) }
    try connect(false)
  }

  private func connect(_ allowsHalfClosure: Bool) throws {
    channel.allowRemoteHalfClosure = allowsHalfClosure
    try channel.pipeline.syncOperations.addHandlers([socket, handler, recorder])
    try channel.connect(to: SocketAddress(unixDomainSocketPath: "/nowhere")).wait()
  }

  /// `pieceBytes`: how much of it one read of the channel brings.
  func give(_ bytes: [UInt8], pieceBytes: Int = 65_536) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      try channel.writeInbound(ByteBuffer(bytes: rest.prefix(pieceBytes)))
      rest = rest.dropFirst(pieceBytes)
    }
  }

  /// What has been written and flushed, and in how many pieces.
  func take() throws -> (bytes: [UInt8], pieces: Int) {
    var bytes: [UInt8] = []
    var pieces = 0
    while let buffer = try channel.readOutbound(as: ByteBuffer.self) {
      bytes += Array(buffer.readableBytesView)
      pieces += 1
    }
    return (bytes, pieces)
  }

  func write(_ bytes: [UInt8]) { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }

  /// Lets both sides talk until neither has anything more to say.
  func exchange(with peer: TestPeer, pieceBytes: Int = 65_536) throws {
    var isQuiet = false
    while !isQuiet {
      peer.handshake()
      let fromPeer = peer.take()
      if channel.isActive { try give(fromPeer, pieceBytes: pieceBytes) }
      let toPeer = try take().bytes
      peer.give(toPeer)
      isQuiet = fromPeer.isEmpty && toPeer.isEmpty
    }
  }

  func finish() { _ = try? channel.finish(acceptAlreadyClosed: true) }
}

/// The length of every record in `bytes`, and its type.
func records(_ bytes: [UInt8]) -> [(type: UInt8, count: Int)] {
  var found: [(type: UInt8, count: Int)] = []
  var rest = bytes[...]
  while rest.count >= 5 {
    let start = rest.startIndex
    let count = Int(rest[start + 3]) << 8 | Int(rest[start + 4])
    found.append((rest[start], count))
    rest = rest.dropFirst(5 + count)
  }
  return found
}
