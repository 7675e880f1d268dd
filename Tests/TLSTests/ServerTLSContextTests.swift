// Certificates and keys: which client gets which, and what is said about those that can't be used.

import COpenSSL
import Foundation
import Testing

@testable import TLS

@Suite("ServerTLSContext")
struct ServerTLSContextTests {
  private let certificates: TestCertificates

  init() throws { certificates = try TestCertificates() }

  private func context(
    _ files: [CertificateFiles], password: String? = nil, protocols: [String] = ["http/1.1"],
    ticketSecret: [UInt8] = []
  ) throws -> ServerTLSContext {
    try ServerTLSContext(files, password: password, protocols: protocols, ticketSecret: ticketSecret)
  }

  private func reason(_ files: CertificateFiles, password: String? = nil) throws -> TLSFileError {
    try #require(throws: TLSFileError.self) {
      _ = try ServerTLSContext([files], password: password, protocols: [])
    }
  }

  @Test("The certificate is chosen by the name that the client asks for; the first one is for everybody else")
  func serverNames() throws {
    let context = try context([
      certificates.make("first", ["first.example.com"]),
      certificates.make("second", ["second.example.com", "*.second.example.com"]),
      certificates.make("third", ["third.example.com", "a.second.example.com"], key: ["rsa:2048"]),
    ])
    let table: [(String?, String)] = [
      (nil, "first.example.com"), ("unknown.example.com", "first.example.com"),
      ("second.example.com", "second.example.com"), ("SECOND.example.COM", "second.example.com"),
      ("b.second.example.com", "second.example.com"), ("a.second.example.com", "third.example.com"),
      ("b.c.second.example.com", "first.example.com"), ("third.example.com", "third.example.com"),
    ]
    for version in [TLS1_2_VERSION, TLS1_3_VERSION] {
      for (name, expected) in table {
        let client = try TestClient(serverName: name, versions: version...version)
        let server = try TestChannel(context)
        try server.exchange(with: client)
        #expect(client.serverCommonName == expected, "\(name ?? "no name")")
        #expect(server.recorder.events.first?.serverName?.lowercased() == name?.lowercased())
        server.finish()
      }
    }
  }

  @Test("The first of our protocols that the client knows is taken; none in common ends the handshake")
  func protocols() throws {
    let context = try context(
      [certificates.make("own", ["own.example.com"])], protocols: ["h2", "http/1.1"])
    for (offered, expected) in [
      (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["h3", "http/1.1"], "http/1.1"), ([], nil),
    ] as [([String], String?)] {
      let server = try TestChannel(context)
      try server.exchange(with: try TestClient(alpn: offered))
      #expect(server.recorder.events.map(\.alpn) == [expected])
      server.finish()
    }
    let server = try TestChannel(context)
    try server.exchange(with: try TestClient(alpn: ["h3"]))
    #expect(server.recorder.events.isEmpty && !server.channel.isActive)
  }

  @Test("A key under a password needs that password")
  func encrypted() throws {
    let files = try certificates.make("own", ["own.example.com"], options: ["-passout", "pass:right"])
    _ = try context([files], password: "right")
    let wrong = try reason(files, password: "wrong")
    #expect(wrong.role == .key && wrong.path == files.key)
    #expect(wrong.description == "key file '\(files.key)': can't be decrypted with the password")
    #expect(try reason(files).description.contains("is under a password, and none is given"))
    #expect(
      try reason(files, password: String(repeating: "x", count: 5000)).description.contains("decrypted"))
  }

  @Test("Keys of every common form are taken")
  func keyForms() throws {
    let rsa = try certificates.make("rsa", ["rsa.example.com"], key: ["rsa:2048"])
    try certificates.openssl(["rsa", "-traditional", "-in", rsa.key, "-out", certificates.path("pkcs1.key")])
    _ = try context([CertificateFiles(certificate: rsa.certificate, key: certificates.path("pkcs1.key"))])
    let ec = try certificates.make("ec", ["ec.example.com"])
    try certificates.openssl(["ec", "-in", ec.key, "-out", certificates.path("sec1.key")])
    let parameters = try certificates.openssl(["ecparam", "-name", "prime256v1"])
    let sec1 = try String(contentsOfFile: certificates.path("sec1.key"), encoding: .utf8)
    try (parameters + sec1).write(
      toFile: certificates.path("sec1.key"), atomically: false, encoding: .utf8)
    _ = try context([CertificateFiles(certificate: ec.certificate, key: certificates.path("sec1.key"))])
    let both =
      try String(contentsOfFile: ec.key, encoding: .utf8)
      + String(contentsOfFile: ec.certificate, encoding: .utf8)
    try both.write(toFile: certificates.path("both.pem"), atomically: false, encoding: .utf8)
    let file = certificates.path("both.pem")
    _ = try context([CertificateFiles(certificate: file, key: file)])
  }

  @Test("The chain behind the certificate goes to the client")
  func chain() throws {
    let authority = try certificates.make("authority", ["authority"])
    try certificates.openssl([
      "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", certificates.path("leaf.key"), "-out",
      certificates.path("leaf.csr"), "-subj", "/CN=leaf.example.com",
    ])
    try certificates.openssl([
      "x509", "-req", "-in", certificates.path("leaf.csr"), "-CA", authority.certificate, "-CAkey",
      authority.key, "-CAcreateserial", "-days", "10", "-out", certificates.path("leaf.pem"),
    ])
    let chain =
      try String(contentsOfFile: certificates.path("leaf.pem"), encoding: .utf8)
      + String(contentsOfFile: authority.certificate, encoding: .utf8)
    try chain.write(toFile: certificates.path("chain.pem"), atomically: false, encoding: .utf8)
    let context = try context([
      CertificateFiles(certificate: certificates.path("chain.pem"), key: certificates.path("leaf.key"))
    ])
    #expect(context.names == ["leaf.example.com"])
    let client = try TestClient()
    let server = try TestChannel(context)
    defer { server.finish() }
    try server.exchange(with: client)
    #expect(client.serverCommonName == "leaf.example.com")
    #expect(OPENSSL_sk_num(SSL_get_peer_cert_chain(client.ssl)) == 2)
  }

  @Test("A mistake names the file and what is wrong with it")
  func mistakes() throws {
    let own = try certificates.make("own", ["own.example.com"])
    let other = try certificates.make("other", ["other.example.com"])
    let small = try certificates.make("small", ["small.example.com"], key: ["rsa:1024"])
    let text = certificates.path("text")
    try "no PEM".write(toFile: text, atomically: false, encoding: .utf8)
    let broken = certificates.path("broken")
    try "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".write(
      toFile: broken, atomically: false, encoding: .utf8)
    let table: [(CertificateFiles, TLSFileError.Role, String, String)] = [
      (CertificateFiles(certificate: "/nowhere", key: own.key), .certificate, "/nowhere", "No such file"),
      (CertificateFiles(certificate: own.certificate, key: "/nowhere"), .key, "/nowhere", "No such file"),
      (CertificateFiles(certificate: "/tmp", key: own.key), .certificate, "/tmp", "no regular file"),
      (CertificateFiles(certificate: text, key: own.key), .certificate, text, "no certificate in it"),
      (CertificateFiles(certificate: broken, key: own.key), .certificate, broken, "certificate 1 in it"),
      (CertificateFiles(certificate: own.certificate, key: text), .key, text, "no private key in it"),
      (
        CertificateFiles(certificate: own.certificate, key: own.certificate), .key, own.certificate,
        "no private key in it"
      ),
      (
        CertificateFiles(certificate: own.certificate, key: other.key), .key, other.key,
        "not the key of the certificate in '\(own.certificate)'"
      ),
      (small, .certificate, small.certificate, "key too small"),
    ]
    for (files, role, path, words) in table {
      let error = try reason(files)
      #expect(error.role == role && error.path == path && error.reason.contains(words), "\(error)")
    }
  }

  @Test("A ticket is good at every server that has the secret, until the secret's time is over")
  func tickets() throws {
    let files = try certificates.make("own", ["own.example.com"])
    let secret = [UInt8](repeating: 9, count: 32)
    let version = TLS1_2_VERSION...TLS1_2_VERSION
    let first = try context([files], ticketSecret: secret)
    let client = try TestClient(versions: version)
    let server = try TestChannel(first)
    try server.exchange(with: client)
    let session = try #require(SSL_get1_session(client.ssl))
    defer { SSL_SESSION_free(session) }
    func result(at context: ServerTLSContext) throws -> [TLSHandshakeResult] {
      let server = try TestChannel(context)
      defer { server.finish() }
      try server.exchange(with: try TestClient(versions: version, session: session))
      return server.results
    }
    let second = try context([files], ticketSecret: secret)
    #expect(try result(at: second) == [.resumed])
    #expect(try result(at: context([files], ticketSecret: [UInt8](repeating: 8, count: 32))) == [.done])
    second.refreshTickets(unixSeconds: Int(time(nil)) + ServerTLSContext.ticketPeriodSeconds)
    #expect(try result(at: second) == [.done])
  }

  @Test("The end of the validity is known")
  func notAfter() throws {
    let context = try context([certificates.make("own", ["own.example.com"])])
    let days = Double(context.notAfter - Int(time(nil))) / 86_400
    #expect(days > 29 && days < 31)
  }
}
