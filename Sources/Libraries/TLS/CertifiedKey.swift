// A certificate with its chain and its private key, from two PEM files (which may be one and the same).
//
//   certificate file   leaf, then the authorities between it and the root, in any number
//   key file           PKCS #8, PKCS #1 or SEC 1; under a password or not
//
// What doesn't fit together is found here and not by the first client.

import COpenSSL
import Glibc

public struct CertificateFiles: Equatable, Sendable {
  public let certificate: String
  public let key: String

  /// - Parameters:
  ///   - certificate: path of the certificate with its chain.
  ///   - key: path of its private key.
  public init(certificate: String, key: String) {
    self.certificate = certificate
    self.key = key
  }
}

final class CertifiedKey {
  /// The leaf first; never empty after `load`.
  private(set) var certificates: [OpaquePointer] = []
  private(set) var key: OpaquePointer?
  /// The DNS names that the certificate is for, in lower case; `*.` begins those of any one label.
  private(set) var names: [String] = []
  /// End of the leaf's validity, in seconds since 1970.
  private(set) var notAfter = 0

  private init() {}

  deinit {
    for certificate in certificates { X509_free(certificate) }
    EVP_PKEY_free(key)
  }

  /// - Parameter password: for a key under one; nil: there is none.
  static func load(_ files: CertificateFiles, password: String?) throws(TLSFileError) -> CertifiedKey {
    let loaded = CertifiedKey()
    loaded.certificates = try PEMFile.certificates(in: files.certificate, .certificate)
    try loaded.readKey(files.key, password)
    guard let leaf = loaded.certificates.first else {
      throw TLSFileError(.certificate, files.certificate, "there is no certificate in it")
    }
    guard X509_check_private_key(leaf, loaded.key) == 1 else {
      ERR_clear_error()
      throw TLSFileError(.key, files.key, "is not the key of the certificate in '\(files.certificate)'")
    }
    loaded.names = CertificateNames.names(of: leaf)
    loaded.notAfter = CertificateNames.notAfter(of: leaf)
    return loaded
  }

  private func readKey(_ path: String, _ password: String?) throws(TLSFileError) {
    let bio = try PEMFile.open(path, .key)
    defer { BIO_free(bio) }
    ERR_clear_error()
    let answer = PasswordAnswer(password)
    key = PEM_read_bio_PrivateKey(
      bio, nil,
      { (target, room, _, answer) in
        guard let answer else { return -1 }
        return Unmanaged<PasswordAnswer>.fromOpaque(answer).takeUnretainedValue().give(target, room)
      }, Unmanaged.passUnretained(answer).toOpaque())
    withExtendedLifetime(answer) {}
    guard key == nil else { return ERR_clear_error() }
    let reason = OpenSSLReason.take()
    if answer.wasAsked {
      throw TLSFileError(
        .key, path,
        password == nil ? "is under a password, and none is given" : "can't be decrypted with the password")
    }
    throw TLSFileError(.key, path, "there is no private key in it that can be read, expected PEM (\(reason))")
  }
}

/// What OpenSSL is told when it asks for a key's password; without this it would ask on the terminal.
private final class PasswordAnswer {
  private let password: [UInt8]?
  private(set) var wasAsked = false

  init(_ password: String?) {
    self.password = password.map { Array($0.utf8) }
  }

  func give(_ target: UnsafeMutablePointer<CChar>?, _ room: CInt) -> CInt {
    wasAsked = true
    guard let target, let password, password.count <= Int(room) else { return -1 }
    for (index, byte) in password.enumerated() { target[index] = CChar(bitPattern: byte) }
    return CInt(password.count)
  }
}
