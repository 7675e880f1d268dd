// The client's end of TLS under a Wire: OpenSSL over two memory BIOs. Certificates aren't verified, only shown.

import COpenSSL

final class TLSEnd {
  private let context: OpaquePointer
  private let ssl: OpaquePointer
  private let input: OpaquePointer
  private let output: OpaquePointer

  /// - Parameter protocols: what is offered by ALPN (RFC 7301).
  init(serverName: String? = nil, protocols: [String] = []) throws {
    guard let context = SSL_CTX_new(TLS_client_method()), let ssl = SSL_new(context),
      let input = BIO_new(BIO_s_mem()), let output = BIO_new(BIO_s_mem())
    else { throw TestFailure("OpenSSL has no memory") }
    self.context = context
    self.ssl = ssl
    self.input = input
    self.output = output
    SSL_set_bio(ssl, input, output)
    SSL_set_connect_state(ssl)
    let offered = protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
    if !offered.isEmpty { SSL_set_alpn_protos(ssl, offered, UInt32(offered.count)) }
    if let serverName { rig_ssl_set_server_name(ssl, serverName) }
  }

  deinit {
    SSL_free(ssl)
    SSL_CTX_free(context)
  }

  /// Whether it is done; false: more is needed from the server.
  func handshake() throws -> Bool {
    ERR_clear_error()
    let result = SSL_do_handshake(ssl)
    if result == 1 { return true }
    guard SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else { throw TestFailure("TLS handshake failed") }
    return false
  }

  func give(_ bytes: UnsafeRawBufferPointer) {
    BIO_write(input, bytes.baseAddress, CInt(bytes.count))
  }

  /// What has to be sent.
  func take() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: BIO_ctrl_pending(output))
    if !bytes.isEmpty { BIO_read(output, &bytes, CInt(bytes.count)) }
    return bytes
  }

  func write(_ bytes: [UInt8]) throws {
    ERR_clear_error()
    guard bytes.isEmpty || SSL_write(ssl, bytes, CInt(bytes.count)) == CInt(bytes.count) else {
      throw TestFailure("TLS: can't be written")
    }
  }

  /// Decrypts what has come. Whether there was anything.
  func read(into queue: inout ByteQueue) -> Bool {
    var some = [UInt8](repeating: 0, count: 16_384)
    var hasRead = false
    while true {
      ERR_clear_error()
      let count = SSL_read(ssl, &some, CInt(some.count))
      guard count > 0 else { return hasRead }
      queue.append(Array(some[..<Int(count)]))
      hasRead = true
    }
  }

  /// The server has said that it sends no more.
  var isEndedByServer: Bool { SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN != 0 }

  /// The common name of the server's certificate.
  var serverName: String? {
    guard let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
    defer { X509_free(certificate) }
    var text = [CChar](repeating: 0, count: 256)
    let count = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, &text, 256)
    return count < 0
      ? nil : String(decoding: text.prefix(Int(count)).map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
