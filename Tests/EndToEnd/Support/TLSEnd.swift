// One end of TLS under a Wire: OpenSSL over two memory BIOs. A client's end doesn't verify certificates, it only shows them.

import COpenSSL

/// What all connections of a service have in common: its certificate, what it speaks, and the keys of its tickets.
///
/// `@unchecked Sendable`: OpenSSL's contexts are shared by threads, and this is made before there are any.
final class TLSServing: @unchecked Sendable {
  fileprivate let context: OpaquePointer
  private let wanted: String?

  /// - Parameter protocol: what it chooses by ALPN if it is offered; nil: it speaks of none.
  init(_ certificate: TestCertificate, protocol wanted: String? = "http/1.1", maximumVersion: Int32? = nil)
    throws
  {
    guard let context = SSL_CTX_new(TLS_server_method()) else { throw TestFailure("OpenSSL has no memory") }
    self.context = context
    self.wanted = wanted
    guard SSL_CTX_use_certificate_chain_file(context, certificate.file) == 1,
      SSL_CTX_use_PrivateKey_file(context, certificate.keyFile, SSL_FILETYPE_PEM) == 1
    else { throw TestFailure("OpenSSL doesn't take \(certificate.file)") }
    if let maximumVersion { _ = rig_ssl_ctx_limit_version(context, TLS1_2_VERSION, maximumVersion) }
    SSL_CTX_set_alpn_select_cb(
      context,
      { _, selected, selectedCount, offered, count, argument in
        guard let selected, let selectedCount, let offered, let argument else { return SSL_TLSEXT_ERR_NOACK }
        let this = Unmanaged<TLSServing>.fromOpaque(argument).takeUnretainedValue()
        guard let place = this.place(in: UnsafeBufferPointer(start: offered, count: Int(count))) else {
          return SSL_TLSEXT_ERR_NOACK
        }
        selectedCount.pointee = offered[place]
        selected.pointee = offered + place + 1
        return SSL_TLSEXT_ERR_OK
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  deinit { SSL_CTX_free(context) }

  /// Where in a client's list, in which each name is behind its length, the wanted one begins.
  private func place(in offered: UnsafeBufferPointer<UInt8>) -> Int? {
    var place = 0
    while place < offered.count {
      let end = place + 1 + Int(offered[place])
      if let wanted, offered[(place + 1)..<min(end, offered.count)].elementsEqual(wanted.utf8) {
        return place
      }
      place = end
    }
    return nil
  }
}

final class TLSEnd {
  private let context: OpaquePointer
  private let ssl: OpaquePointer
  private let input: OpaquePointer
  private let output: OpaquePointer
  /// Of a service's end; keeps what its calls back need.
  private let serving: TLSServing?

  private init(_ context: OpaquePointer, _ serving: TLSServing?) throws {
    guard let ssl = SSL_new(context), let input = BIO_new(BIO_s_mem()), let output = BIO_new(BIO_s_mem())
    else { throw TestFailure("OpenSSL has no memory") }
    self.context = context
    self.serving = serving
    self.ssl = ssl
    self.input = input
    self.output = output
    SSL_set_bio(ssl, input, output)
  }

  /// A service's end.
  convenience init(_ serving: TLSServing) throws {
    SSL_CTX_up_ref(serving.context)
    try self.init(serving.context, serving)
    SSL_set_accept_state(ssl)
  }

  /// A client's end.
  ///
  /// - Parameter protocols: what is offered by ALPN (RFC 7301).
  convenience init(serverName: String? = nil, protocols: [String] = []) throws {
    guard let context = SSL_CTX_new(TLS_client_method()) else { throw TestFailure("OpenSSL has no memory") }
    try self.init(context, nil)
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
    guard SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ else {
      let reason = ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) } ?? "no reason"
      throw TestFailure("TLS handshake failed: \(reason)")
    }
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

  /// Says that no more will be sent.
  func end() { SSL_shutdown(ssl) }

  /// The name that the client wants to reach.
  var wantedName: String? { rig_ssl_server_name(ssl).map { String(cString: $0) } }
  var isResumed: Bool { SSL_session_reused(ssl) == 1 }

  /// The protocol that was agreed on by ALPN.
  var agreedProtocol: String? {
    var name: UnsafePointer<UInt8>?
    var count: CUnsignedInt = 0
    SSL_get0_alpn_selected(ssl, &name, &count)
    guard let name, count > 0 else { return nil }
    return String(decoding: UnsafeBufferPointer(start: name, count: Int(count)), as: UTF8.self)
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
