// What all TLS connections of a server have in common: certificates, versions, ciphers, protocols, keys of tickets.
//
//   ClientHello ─▶ server name ─▶ certificate (the first one if none is for the name)
//              └─▶ ALPN        ─▶ the first of our protocols that the client knows; none in common: an alert. Who has none doesn't look
//
// TLS 1.2 with forward secrecy, and 1.3. Sessions are kept by the clients (tickets): the keys for that come from a secret
// that all workers share, so that a client resumes at any of them and after a reload; they change with time. Immutable but for
// these keys: new certificates are a new context, and connections keep the one that they began with.

import COpenSSL
import Glibc

/// TLS of one server. Belongs to one thread.
public final class ServerTLSContext {
  /// Forward secrecy and authenticated encryption; those of TLS 1.3 are all so.
  private static let ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20"
  private static let groups = "X25519:P-256:P-384"
  /// How long tickets can be used at most; then a client shakes hands anew.
  static let ticketPeriodSeconds = 12 * 3600

  /// The end of validity of the certificate that ends first, in seconds since 1970.
  public let notAfter: Int
  public let names: [String]

  /// Where plain bytes are between two calls of OpenSSL; used by one session at a time, within one call of it.
  let scratch: UnsafeMutableRawBufferPointer
  private let contexts: [OpaquePointer]
  private let choice: CertificateChoice
  /// The protocols as they are compared in a handshake: each behind its length.
  private let protocols: [UInt8]
  private let ticketSecret: [UInt8]
  private var ticketPeriod = -1

  /// - Parameters:
  ///   - files: of each certificate, the default one first; not empty.
  ///   - password: of the keys that are under one; nil: none.
  ///   - protocols: names for ALPN, the preferred one first; empty: it isn't looked at.
  ///   - ticketSecret: the same for all servers that take each other's tickets; empty: this one alone.
  public init(
    _ files: [CertificateFiles], password: String?, protocols: [String], ticketSecret: [UInt8] = []
  ) throws(TLSFileError) {
    var pairs: [CertifiedKey] = []
    for file in files { pairs.append(try CertifiedKey.load(file, password: password)) }
    guard !pairs.isEmpty else { throw TLSFileError(.certificate, "", "no certificate is given") }
    var contexts: [OpaquePointer] = []
    do throws(TLSFileError) {
      for (pair, file) in zip(pairs, files) { contexts.append(try Self.context(pair, file)) }
    } catch {
      for context in contexts { SSL_CTX_free(context) }
      throw error
    }
    self.contexts = contexts
    choice = CertificateChoice(pairs.map(\.names))
    names = pairs.flatMap(\.names)
    notAfter = pairs.map(\.notAfter).min() ?? 0
    self.protocols = protocols.flatMap { [UInt8(clamping: $0.utf8.count)] + Array($0.utf8) }
    self.ticketSecret = ticketSecret
    scratch = .allocate(byteCount: TLSSession.recordBytes, alignment: 16)
    let this = Unmanaged.passUnretained(self).toOpaque()
    if !protocols.isEmpty {
      for context in contexts { SSL_CTX_set_alpn_select_cb(context, protocolIsWanted, this) }
    }
    // The connection begins with the first one's.
    if let first = contexts.first { rig_ssl_ctx_set_servername(first, certificateIsWanted, this) }
    refreshTickets(unixSeconds: Glibc.time(nil))
  }

  deinit {
    for context in contexts { SSL_CTX_free(context) }
    scratch.deallocate()
  }

  /// Changes the keys of tickets when it is time. Call now and then.
  public func refreshTickets(unixSeconds: Int) {
    let period = unixSeconds / Self.ticketPeriodSeconds
    guard period != ticketPeriod, !ticketSecret.isEmpty, let first = contexts.first else { return }
    let count = rig_ssl_ctx_ticket_key_bytes(first)
    var keys: [UInt8] = []
    var block: UInt8 = 0
    while keys.count < count {
      guard let bytes = derive("rig tls tickets \(period) \(block)") else { return }
      keys += bytes
      block += 1
    }
    // Tickets are made and read with the keys of the context that the connection began with.
    if rig_ssl_ctx_set_ticket_keys(first, keys, count) == 1 { ticketPeriod = period }
    ERR_clear_error()
  }

  private func derive(_ label: String) -> [UInt8]? {
    let label = Array(label.utf8)
    var bytes = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var count: CUnsignedInt = 0
    guard
      HMAC(
        EVP_sha256(), ticketSecret, CInt(clamping: ticketSecret.count), label, label.count, &bytes, &count)
        != nil
    else { return nil }
    return Array(bytes[..<Int(count)])
  }

  private static func context(
    _ pair: CertifiedKey, _ files: CertificateFiles
  ) throws(TLSFileError) -> OpaquePointer {
    guard let context = SSL_CTX_new(TLS_server_method()) else {
      throw TLSFileError(.certificate, "", "OpenSSL failed: SSL_CTX_new (\(OpenSSLReason.take()))")
    }
    do throws(TLSFileError) {
      try fill(context, pair, files)
    } catch {
      SSL_CTX_free(context)
      throw error
    }
    return context
  }

  private static func fill(
    _ context: OpaquePointer, _ pair: CertifiedKey, _ files: CertificateFiles
  ) throws(TLSFileError) {
    ERR_clear_error()
    let name = Array("rig".utf8)
    guard rig_ssl_ctx_prepare(context, groups) == 1, SSL_CTX_set_cipher_list(context, ciphers) == 1,
      SSL_CTX_set_session_id_context(context, name, CUnsignedInt(name.count)) == 1
    else {
      throw TLSFileError(.certificate, "", "OpenSSL doesn't take our settings (\(OpenSSLReason.take()))")
    }
    guard let leaf = pair.certificates.first, SSL_CTX_use_certificate(context, leaf) == 1 else {
      throw TLSFileError(.certificate, files.certificate, "can't be used: \(OpenSSLReason.take())")
    }
    for authority in pair.certificates.dropFirst() {
      // The context takes over a reference of its own.
      X509_up_ref(authority)
      guard rig_ssl_ctx_add_chain(context, authority) == 1 else {
        X509_free(authority)
        throw TLSFileError(
          .certificate, files.certificate, "its chain can't be used: \(OpenSSLReason.take())")
      }
    }
    guard SSL_CTX_use_PrivateKey(context, pair.key) == 1 else {
      throw TLSFileError(.key, files.key, "can't be used: \(OpenSSLReason.take())")
    }
  }

  // MARK: Of one connection

  func makeSession() -> OpaquePointer? {
    guard let first = contexts.first else { return nil }
    ERR_clear_error()
    return SSL_new(first)
  }

  fileprivate func useCertificate(for name: String, in session: OpaquePointer) -> CInt {
    guard let index = choice.index(for: name) else { return SSL_TLSEXT_ERR_NOACK }
    if index > 0, SSL_set_SSL_CTX(session, contexts[index]) == nil { return SSL_TLSEXT_ERR_NOACK }
    return SSL_TLSEXT_ERR_OK
  }

  /// - Parameter offered: the client's protocols, each behind its length.
  fileprivate func selectProtocol(
    offered: UnsafeBufferPointer<UInt8>, _ selected: UnsafeMutablePointer<UnsafePointer<UInt8>?>,
    _ count: UnsafeMutablePointer<UInt8>
  ) -> CInt {
    var own = protocols[...]
    while let length = own.first {
      let name = own.dropFirst().prefix(Int(length))
      own = own.dropFirst(1 + Int(length))
      var index = 0
      while index < offered.count {
        let end = index + 1 + Int(offered[index])
        guard end <= offered.count else { break }
        if offered[(index + 1)..<end].elementsEqual(name), let base = offered.baseAddress {
          selected.pointee = base + index + 1
          count.pointee = length
          return SSL_TLSEXT_ERR_OK
        }
        index = end
      }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL
  }
}

// OpenSSL's calls back. They come only from within a call about a session, and that keeps the context alive.

private func certificateIsWanted(
  _ session: OpaquePointer?, _ alert: UnsafeMutablePointer<CInt>?, _ argument: UnsafeMutableRawPointer?
) -> CInt {
  guard let session, let argument, let name = rig_ssl_server_name(session) else {
    return SSL_TLSEXT_ERR_NOACK
  }
  let context = Unmanaged<ServerTLSContext>.fromOpaque(argument).takeUnretainedValue()
  return context.useCertificate(for: String(cString: name), in: session)
}

private func protocolIsWanted(
  _ session: OpaquePointer?, _ selected: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
  _ count: UnsafeMutablePointer<UInt8>?, _ offered: UnsafePointer<UInt8>?, _ offeredCount: CUnsignedInt,
  _ argument: UnsafeMutableRawPointer?
) -> CInt {
  guard let selected, let count, let offered, let argument else { return SSL_TLSEXT_ERR_ALERT_FATAL }
  let context = Unmanaged<ServerTLSContext>.fromOpaque(argument).takeUnretainedValue()
  let list = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
  return context.selectProtocol(offered: list, selected, count)
}
