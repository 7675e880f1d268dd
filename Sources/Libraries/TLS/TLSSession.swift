// One side of one TLS connection: bytes in, bytes out. No channel and no time in here.
//
//   feed ─▶ handshake… ─▶ read…, write…, shutdown ─▶ takeOutput after each of them

import COpenSSL
import NIOCore

/// Belongs to the thread of its context.
final class TLSSession {
  enum HandshakeStep {
    /// More is needed from the peer.
    case unfinished
    case done
    /// There may be an alert to send.
    case failed(String)
  }

  enum ReadStep {
    /// So many bytes are in the context's scratch.
    case bytes(Int)
    /// More is needed from the peer.
    case none
    /// The peer has said that it sends no more.
    case ended
    /// There may be an alert to send.
    case failed(String)
  }

  /// The largest record (RFC 8446 §5.1).
  static let recordBytes = 16 * 1024
  /// Header, nonce, content type and tag of a record, with some room to spare.
  private static let recordOverheadBytes = 48

  /// Plain bytes between two calls of OpenSSL; the context's, used within one call of this.
  private let scratch: UnsafeMutableRawBufferPointer
  /// Whom calls back are made to, and the scratch belongs to.
  private let context: AnyObject
  private let pipe: RecordPipe
  private let ssl: OpaquePointer
  /// Of a client's side.
  private let connection: ClientTLSConnection?

  /// The server's side. Nil: no memory.
  init?(_ context: ServerTLSContext, allocator: ByteBufferAllocator) {
    guard let ssl = context.makeSession() else { return nil }
    pipe = RecordPipe(allocator: allocator)
    self.context = context
    connection = nil
    scratch = context.scratch
    self.ssl = ssl
    guard Self.connect(ssl, pipe) else { return nil }
    SSL_set_accept_state(ssl)
  }

  /// The client's side. Nil: no certificate can be for the target, or no memory.
  init?(
    _ context: ClientTLSContext, to target: TLSTarget, protocols: [String], allocator: ByteBufferAllocator
  ) {
    guard let (ssl, connection) = context.makeSession(to: target, protocols: protocols) else { return nil }
    pipe = RecordPipe(allocator: allocator)
    self.context = context
    self.connection = connection
    scratch = context.scratch
    self.ssl = ssl
    guard Self.connect(ssl, pipe) else { return nil }
    SSL_set_connect_state(ssl)
  }

  private static func connect(_ ssl: OpaquePointer, _ pipe: RecordPipe) -> Bool {
    guard let bio = pipe.makeBIO() else { return false }
    // One reference serves both ways.
    SSL_set_bio(ssl, bio, bio)
    return true
  }

  deinit { SSL_free(ssl) }

  /// Takes records from the peer. Call `handshake` or `read` until they want more before feeding again.
  func feed(_ bytes: ByteBuffer) {
    if pipe.inbound.readableBytes == 0 {
      pipe.inbound = bytes
    } else {
      pipe.inbound.writeImmutableBuffer(bytes)
    }
  }

  /// What was fed and not read is of no use.
  func dropInput() { pipe.inbound = ByteBuffer() }

  /// Fed and not read.
  var inputBytes: Int { pipe.inbound.readableBytes }

  func takeOutput() -> ByteBuffer? {
    let output = pipe.outbound
    pipe.outbound = nil
    return output?.readableBytes == 0 ? nil : output
  }

  func handshake() -> HandshakeStep {
    ERR_clear_error()
    let result = SSL_do_handshake(ssl)
    guard result != 1 else { return .done }
    guard SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else {
      let reason = OpenSSLReason.take()
      connection?.handshakeFailed()
      return .failed(connection?.refusal?.reason ?? reason)
    }
    forgetInput()
    return .unfinished
  }

  /// What the peer's certificate says to its refusal.
  var refusedCertificate: String? { connection?.refusal?.detail }

  /// Decrypts what one record holds.
  func read() -> ReadStep {
    ERR_clear_error()
    var count = 0
    let result = SSL_read_ex(ssl, scratch.baseAddress, scratch.count, &count)
    if result == 1 { return .bytes(count) }
    switch SSL_get_error(ssl, result) {
    case SSL_ERROR_WANT_READ:
      forgetInput()
      return .none
    case SSL_ERROR_ZERO_RETURN:
      forgetInput()
      return .ended
    default: return .failed(OpenSSLReason.take())
    }
  }

  func withRead<Result>(_ count: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    body(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
  }

  /// Encrypts buffers into as few records as they fit. False: impossible, the connection is of no use any more.
  func write(_ buffers: some Collection<ByteBuffer>) -> Bool {
    let total = buffers.reduce(0) { $0 + $1.readableBytes }
    let records = total / Self.recordBytes + 1
    pipe.expect(bytes: total + records * Self.recordOverheadBytes)
    var filled = 0
    for buffer in buffers {
      let isWritten = buffer.withUnsafeReadableBytes { bytes in
        var rest = bytes[...]
        while !rest.isEmpty {
          // Whole records need no copy, unless something stands before them.
          if filled == 0, rest.count >= scratch.count {
            let whole = rest.prefix(rest.count / scratch.count * scratch.count)
            guard encrypt(UnsafeRawBufferPointer(rebasing: whole)) else { return false }
            rest = rest.dropFirst(whole.count)
            continue
          }
          let piece = rest.prefix(scratch.count - filled)
          UnsafeMutableRawBufferPointer(rebasing: scratch[filled...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: piece))
          filled += piece.count
          rest = rest.dropFirst(piece.count)
          if filled == scratch.count {
            guard encrypt(UnsafeRawBufferPointer(scratch)) else { return false }
            filled = 0
          }
        }
        return true
      }
      guard isWritten else { return false }
    }
    return filled == 0 || encrypt(UnsafeRawBufferPointer(rebasing: scratch[..<filled]))
  }

  private func encrypt(_ bytes: UnsafeRawBufferPointer) -> Bool {
    ERR_clear_error()
    var count = 0
    let isDone = SSL_write_ex(ssl, bytes.baseAddress, bytes.count, &count) == 1
    if !isDone { ERR_clear_error() }
    return isDone && count == bytes.count
  }

  func shutdown() {
    ERR_clear_error()
    _ = SSL_shutdown(ssl)
    ERR_clear_error()
  }

  // MARK: What was agreed

  /// The protocol that was agreed on; nil: the client doesn't ask for one.
  var alpn: String? {
    var name: UnsafePointer<UInt8>?
    var count: CUnsignedInt = 0
    SSL_get0_alpn_selected(ssl, &name, &count)
    guard let name, count > 0 else { return nil }
    return String(decoding: UnsafeBufferPointer(start: name, count: Int(count)), as: UTF8.self)
  }

  var serverName: String? { rig_ssl_server_name(ssl).map { String(cString: $0) } }

  /// Whether the client came with a ticket that was good.
  var isResumed: Bool { SSL_session_reused(ssl) == 1 }

  /// The channel reads into the same memory again only if nobody else holds it.
  private func forgetInput() {
    if pipe.inbound.readableBytes == 0 { pipe.inbound = ByteBuffer() }
  }
}
