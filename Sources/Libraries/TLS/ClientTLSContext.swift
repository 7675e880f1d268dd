// What all TLS connections of a client have in common: whose certificates are believed, and sessions to resume.
//
//   server's chain ─▶ an authority that is trusted ─▶ valid now ─▶ for the target's name or address ─▶ believed
//   tickets        ◀─ taken by the next connection to the same target: its handshake needs no certificate
//
// TLS 1.2 and 1.3. Immutable but for the tickets: other authorities are a new context, which knows no tickets. A ticket says that a
// certificate was good once: it is of no use `ticketSeconds` after that, however often it was renewed.

import COpenSSL
import Glibc

/// Whom a client means to talk to.
public struct TLSTarget: Hashable, Sendable {
  /// In lower case; an IPv6 address without brackets.
  public let host: String
  public let port: Int
  let isAddress: Bool

  /// - Parameter host: a name or an address; IPv6 without brackets.
  public init(host: String, port: Int) {
    var address = in6_addr()
    isAddress = inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1
    var name = host.lowercased()
    // The root is no part of a name in certificates (RFC 6066 §3, RFC 9525 §6.3).
    if !isAddress, name.hasSuffix(".") { name.removeLast() }
    self.host = name
    self.port = port
  }
}

/// TLS of one client. Belongs to one thread.
public final class ClientTLSContext {
  /// How long after a certificate was believed a connection may begin without looking at it.
  static let ticketSeconds = 12 * 3600

  /// Where plain bytes are between two calls of OpenSSL; used by one session at a time, within one call of it.
  let scratch: UnsafeMutableRawBufferPointer
  private let context: OpaquePointer
  private let unixSeconds: () -> Int
  private(set) var tickets = TicketStore()

  /// - Parameters:
  ///   - authorities: path of the certificates (PEM) that are trusted, be they of authorities or of servers; nil: those that the
  ///     system trusts.
  ///   - unixSeconds: the wall clock.
  public init(
    authorities: String?, unixSeconds: @escaping () -> Int = { Glibc.time(nil) }
  ) throws(TLSFileError) {
    self.unixSeconds = unixSeconds
    guard let context = SSL_CTX_new(TLS_client_method()) else {
      throw TLSFileError(.authorities, "", "OpenSSL failed: SSL_CTX_new (\(OpenSSLReason.take()))")
    }
    do throws(TLSFileError) {
      try Self.fill(context, authorities)
    } catch {
      SSL_CTX_free(context)
      throw error
    }
    self.context = context
    scratch = .allocate(byteCount: TLSSession.recordBytes, alignment: 16)
  }

  deinit {
    SSL_CTX_free(context)
    scratch.deallocate()
  }

  private static func fill(_ context: OpaquePointer, _ authorities: String?) throws(TLSFileError) {
    ERR_clear_error()
    guard rig_ssl_ctx_prepare_client(context) == 1 else {
      throw TLSFileError(.authorities, "", "OpenSSL doesn't take our settings (\(OpenSSLReason.take()))")
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, certificateIsRefused)
    SSL_CTX_sess_set_new_cb(context, ticketHasCome)
    guard let authorities else {
      // Looked for when they are needed: who has none fails by that.
      SSL_CTX_set_default_verify_paths(context)
      return ERR_clear_error()
    }
    let certificates = try PEMFile.certificates(in: authorities, .authorities)
    defer { for certificate in certificates { X509_free(certificate) } }
    guard let store = SSL_CTX_get_cert_store(context) else { return }
    // Who names a server's own certificate, or an authority below another, trusts that one.
    X509_STORE_set_flags(store, CUnsignedLong(X509_V_FLAG_PARTIAL_CHAIN))
    for (index, certificate) in certificates.enumerated()
    where X509_STORE_add_cert(store, certificate) != 1 {
      throw TLSFileError(
        .authorities, authorities, "certificate \(index + 1) in it can't be used (\(OpenSSLReason.take()))")
    }
  }

  // MARK: Of one connection

  /// A new connection's state, and what its calls back need, which must live as long; nil: no certificate can be for the target, or
  /// there is no memory.
  func makeSession(
    to target: TLSTarget, protocols: [String]
  ) -> (ssl: OpaquePointer, connection: ClientTLSConnection)? {
    ERR_clear_error()
    guard let ssl = SSL_new(context) else { return nil }
    guard Self.prepare(ssl, target, protocols) else {
      SSL_free(ssl)
      ERR_clear_error()
      return nil
    }
    let ticket = tickets.take(for: target, issuedSince: unixSeconds() - Self.ticketSeconds)
    let connection = ClientTLSConnection(self, target, certificateSeconds: ticket?.certificateSeconds)
    if let ticket { SSL_set_session(ssl, ticket.session) }
    rig_ssl_set_owner(ssl, Unmanaged.passUnretained(connection).toOpaque())
    return (ssl, connection)
  }

  private static func prepare(_ ssl: OpaquePointer, _ target: TLSTarget, _ protocols: [String]) -> Bool {
    let rules = SSL_get0_param(ssl)
    if target.isAddress {
      // An address has no place in SNI (RFC 6066 §3).
      guard X509_VERIFY_PARAM_set1_ip_asc(rules, target.host) == 1 else { return false }
    } else {
      // A star stands for a whole label (RFC 9525 §6.3).
      X509_VERIFY_PARAM_set_hostflags(rules, CUnsignedInt(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
      guard !target.host.isEmpty, X509_VERIFY_PARAM_set1_host(rules, target.host, 0) == 1,
        rig_ssl_set_server_name(ssl, target.host) == 1
      else { return false }
    }
    let offered = protocols.flatMap { [UInt8(clamping: $0.utf8.count)] + Array($0.utf8) }
    return offered.isEmpty || SSL_set_alpn_protos(ssl, offered, CUnsignedInt(offered.count)) == 0
  }

  /// - Parameter certificateSeconds: when the server's certificate was believed; nil: just now.
  fileprivate func keep(_ session: OpaquePointer, for target: TLSTarget, certificateSeconds: Int?) {
    tickets.keep(
      TLSTicket(taking: session, certificateSeconds: certificateSeconds ?? unixSeconds()), for: target)
  }

  /// A handshake that began with a ticket has failed: the next one begins without.
  fileprivate func forgetTickets(for target: TLSTarget) { tickets.forget(target) }
}

/// One connection as OpenSSL's calls back about it need it.
final class ClientTLSConnection {
  let context: ClientTLSContext
  private let target: TLSTarget
  /// When the certificate was believed by which the ticket was given that the handshake begins with; nil: it begins without.
  private let certificateSeconds: Int?
  /// Why the server's certificate isn't believed; nil: it is, or none has come.
  private(set) var refusal: CertificateRefusal?

  fileprivate init(_ context: ClientTLSContext, _ target: TLSTarget, certificateSeconds: Int?) {
    self.context = context
    self.target = target
    self.certificateSeconds = certificateSeconds
  }

  func handshakeFailed() {
    if certificateSeconds != nil { context.forgetTickets(for: target) }
  }

  fileprivate func refuse(_ refusal: CertificateRefusal) { self.refusal = refusal }

  fileprivate func keep(_ session: OpaquePointer, isResumed: Bool) {
    context.keep(session, for: target, certificateSeconds: isResumed ? certificateSeconds : nil)
  }
}

/// Why a server's certificate isn't believed.
struct CertificateRefusal {
  private static let mostNames = 5
  private static let mostNameBytes = 100

  /// In OpenSSL's words.
  let reason: String
  /// What the certificate says to that; nil: nothing that helps.
  let detail: String?

  fileprivate init(_ store: OpaquePointer) {
    let error = X509_STORE_CTX_get_error(store)
    reason = "its certificate isn't believed: " + String(cString: X509_verify_cert_error_string(CLong(error)))
    switch error {
    case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH:
      let names = X509_STORE_CTX_get0_cert(store).map { CertificateNames.names(of: $0) } ?? []
      detail = names.isEmpty ? "it has no names" : "it is for \(Self.text(names))"
    case X509_V_ERR_CERT_HAS_EXPIRED:
      detail = X509_STORE_CTX_get_current_cert(store).flatMap { Self.end($0) }.map { "on \($0)" }
    default: detail = nil
    }
  }

  /// What a certificate holds is its maker's word: bounded, and nothing but what names are made of.
  private static func text(_ names: [String]) -> String {
    names.prefix(mostNames).map { name in
      let bytes = name.utf8.prefix(mostNameBytes).map { (0x21...0x7e).contains($0) ? $0 : UInt8(ascii: "?") }
      return String(decoding: bytes, as: UTF8.self)
    }.joined(separator: ", ")
  }

  /// The day on which a certificate's validity ends.
  private static func end(_ certificate: OpaquePointer) -> String? {
    var time = tm()
    guard ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) == 1 else { return nil }
    let parts = [(Int(time.tm_year) + 1900, 4), (Int(time.tm_mon) + 1, 2), (Int(time.tm_mday), 2)]
    return parts.map { number, digits in
      let text = String(number)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }.joined(separator: "-")
  }
}

// OpenSSL's calls back. They come only from within a call about a session, and that keeps the connection alive.

private func connection(_ owner: UnsafeMutableRawPointer?) -> ClientTLSConnection? {
  owner.map { Unmanaged<ClientTLSConnection>.fromOpaque($0).takeUnretainedValue() }
}

private func certificateIsRefused(_ isGood: CInt, _ store: OpaquePointer?) -> CInt {
  if isGood == 0, let store { connection(rig_store_owner(store))?.refuse(CertificateRefusal(store)) }
  return isGood
}

/// 1: the session is ours from here on.
private func ticketHasCome(_ ssl: OpaquePointer?, _ session: OpaquePointer?) -> CInt {
  guard let ssl, let session, let connection = connection(rig_ssl_owner(ssl)) else { return 0 }
  connection.keep(session, isResumed: SSL_session_reused(ssl) == 1)
  return 1
}
