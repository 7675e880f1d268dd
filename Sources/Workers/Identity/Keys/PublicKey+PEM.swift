// The key in a PEM text (RFC 7468): a public key, a certificate, or a private key of which the public part is taken.
//
// One text is one key. Of several certificates the first counts, as in every chain: the others are those of authorities,
// which sign no tokens.

import COpenSSL

extension PublicKey {
  /// Whether a text is meant as PEM. Such a text is never a secret, however broken it is.
  static func isPEM(_ text: some StringProtocol) -> Bool { text.utf8.count > 0 && text.contains(boundary) }

  private static let boundary = "-----BEGIN"

  /// Parses a PEM text. `\n` may stand for its ends of line, as in variables that hold one line only.
  convenience init(pem text: String) throws(KeyProblem) {
    let text = Self.withLines(text)
    let labels = Self.labels(in: text)
    let keys = labels.filter { $0.hasSuffix("KEY") }
    guard !text.contains("ENCRYPTED") else {
      throw KeyProblem(
        "a private key under a password, expected the public key, or the private key without a password")
    }
    guard keys.count <= 1, keys.isEmpty || !labels.contains("CERTIFICATE") else {
      throw KeyProblem("several keys in one PEM text, expected one")
    }
    let bio = Array(text.utf8).withUnsafeBytes { bytes in
      let bio = BIO_new(BIO_s_mem())
      BIO_write(bio, bytes.baseAddress, CInt(clamping: bytes.count))
      return bio
    }
    defer { BIO_free(bio) }
    guard let bio else { throw .library("BIO_new") }
    let key: OpaquePointer?
    switch keys.first ?? (labels.contains("CERTIFICATE") ? "CERTIFICATE" : "") {
    case "PUBLIC KEY": key = PEM_read_bio_PUBKEY(bio, nil, nil, nil)
    case "RSA PUBLIC KEY": key = Self.pkcs1(bio)
    case "CERTIFICATE": key = Self.certified(bio)
    case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
      // The callback keeps OpenSSL from asking for a password on the terminal.
      key = PEM_read_bio_PrivateKey(bio, nil, { (_, _, _, _) in -1 }, nil)
    default: throw KeyProblem("a PEM text without a public key, a certificate or a private key")
    }
    guard let key else {
      ERR_clear_error()
      throw KeyProblem("a PEM text that OpenSSL can't read")
    }
    defer { EVP_PKEY_free(key) }
    try self.init(publicPartOf: key)
  }

  private static func withLines(_ text: String) -> String {
    var lines: [UInt8] = []
    var previous: UInt8?
    for byte in text.utf8 {
      if previous == UInt8(ascii: "\\"), byte == UInt8(ascii: "n") {
        lines[lines.count - 1] = UInt8(ascii: "\n")
      } else {
        lines.append(byte)
      }
      previous = byte
    }
    return String(decoding: lines, as: UTF8.self)
  }

  /// What stands between `-----BEGIN ` and `-----`, in order.
  private static func labels(in text: String) -> [String] {
    text.split(whereSeparator: \.isNewline).compactMap { line in
      let line = line.drop { $0 == " " || $0 == "\t" }
      guard line.hasPrefix(boundary) else { return nil }
      let label = line.dropFirst(boundary.count).drop { $0 == " " }
      return String(label.prefix { $0 != "-" })
    }
  }

  private static func certified(_ bio: OpaquePointer) -> OpaquePointer? {
    guard let certificate = PEM_read_bio_X509(bio, nil, nil, nil) else { return nil }
    defer { X509_free(certificate) }
    return X509_get_pubkey(certificate)
  }

  private static func pkcs1(_ bio: OpaquePointer) -> OpaquePointer? {
    var key: OpaquePointer?
    guard
      let context = OSSL_DECODER_CTX_new_for_pkey(&key, "PEM", nil, "RSA", rig_evp_pkey_public_key, nil, nil)
    else { return nil }
    defer { OSSL_DECODER_CTX_free(context) }
    return OSSL_DECODER_from_bio(context, bio) == 1 ? key : nil
  }
}
