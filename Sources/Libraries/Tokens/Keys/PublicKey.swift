// An RSA, EC or Edwards key under OpenSSL, only ever its public part, and known to be one that tokens may be signed with.

import COpenSSL

/// A public key. Immutable after construction, so that it may be shared.
final class PublicKey: @unchecked Sendable {
  /// NIST SP 800-131A and RFC 7518 §3.3: shorter ones are refused.
  private static let minimumRSABits = 2_048
  /// Longer ones make every check slow: the time grows with the square of the length.
  private static let maximumRSABits = 8_192

  /// An `EVP_PKEY` that this object owns.
  let pointer: OpaquePointer
  let kind: KeyKind

  /// Takes over `pointer`, also when it throws.
  private init(adopting pointer: OpaquePointer) throws(KeyProblem) {
    do throws(KeyProblem) {
      kind = try Self.kind(of: pointer)
    } catch {
      EVP_PKEY_free(pointer)
      ERR_clear_error()
      throw error
    }
    self.pointer = pointer
  }

  deinit { EVP_PKEY_free(pointer) }

  /// A copy of the public part of `key`, which stays the caller's.
  convenience init(publicPartOf key: OpaquePointer) throws(KeyProblem) {
    var encoded: UnsafeMutablePointer<UInt8>?
    let count = i2d_PUBKEY(key, &encoded)
    defer { CRYPTO_free(encoded, #file, #line) }
    var next = UnsafePointer(encoded)
    guard count > 0, let copy = d2i_PUBKEY(nil, &next, CLong(count)) else {
      ERR_clear_error()
      throw KeyProblem("a key without a public part that can be used")
    }
    try self.init(adopting: copy)
  }

  // MARK: From numbers

  /// An RSA key from its modulus and exponent, big endian.
  convenience init(modulus: [UInt8], exponent: [UInt8]) throws(KeyProblem) {
    let n = BN_bin2bn(modulus, CInt(clamping: modulus.count), nil)
    let e = BN_bin2bn(exponent, CInt(clamping: exponent.count), nil)
    defer {
      BN_free(n)
      BN_free(e)
    }
    guard let n, let e else { throw .library("BN_bin2bn") }
    let key = try Self.build("RSA") { builder in
      OSSL_PARAM_BLD_push_BN(builder, rig_param_rsa_n(), n) == 1
        && OSSL_PARAM_BLD_push_BN(builder, rig_param_rsa_e(), e) == 1
    }
    try self.init(adopting: key)
  }

  /// A point on one of the NIST curves, from its coordinates.
  convenience init(curve: KeyKind, x: [UInt8], y: [UInt8]) throws(KeyProblem) {
    let group: String
    switch curve {
    case .p256: group = "P-256"
    case .p384: group = "P-384"
    case .p521: group = "P-521"
    case .secret, .rsa, .ed25519, .ed448: throw KeyProblem("\(curve.rawValue) has no coordinates")
    }
    let uncompressed: UInt8 = 4
    let point = [uncompressed] + x + y
    // The builder keeps pointers: both have to stay where they are until the key is made.
    let key = try Array(group.utf8CString).withUnsafeBufferPointer { (group) throws(KeyProblem) in
      try point.withUnsafeBufferPointer { (point) throws(KeyProblem) in
        try Self.build("EC") { builder in
          OSSL_PARAM_BLD_push_utf8_string(builder, rig_param_ec_group(), group.baseAddress, 0) == 1
            && OSSL_PARAM_BLD_push_octet_string(builder, rig_param_ec_point(), point.baseAddress, point.count)
              == 1
        }
      }
    }
    try self.init(adopting: key)
  }

  convenience init(edwards bytes: [UInt8], is448: Bool) throws(KeyProblem) {
    let type = is448 ? EVP_PKEY_ED448 : EVP_PKEY_ED25519
    guard let key = EVP_PKEY_new_raw_public_key(type, nil, bytes, bytes.count) else {
      ERR_clear_error()
      throw KeyProblem("x is no key of \(is448 ? "Ed448" : "Ed25519")")
    }
    try self.init(adopting: key)
  }

  private static func build(
    _ type: String, _ push: (OpaquePointer) -> Bool
  ) throws(KeyProblem) -> OpaquePointer {
    let builder = OSSL_PARAM_BLD_new()
    let context = EVP_PKEY_CTX_new_from_name(nil, type, nil)
    defer {
      OSSL_PARAM_BLD_free(builder)
      EVP_PKEY_CTX_free(context)
    }
    guard let builder, let context, push(builder), let parameters = OSSL_PARAM_BLD_to_param(builder) else {
      throw .library("OSSL_PARAM_BLD_to_param")
    }
    defer { OSSL_PARAM_free(parameters) }
    var key: OpaquePointer?
    guard EVP_PKEY_fromdata_init(context) == 1,
      EVP_PKEY_fromdata(context, &key, rig_evp_pkey_public_key, parameters) == 1, let key
    else {
      ERR_clear_error()
      throw KeyProblem("its numbers make no \(type) key")
    }
    return key
  }

  // MARK: What it is

  private static func kind(of key: OpaquePointer) throws(KeyProblem) -> KeyKind {
    if EVP_PKEY_is_a(key, "RSA") == 1 {
      try requireSoundRSA(key)
      return .rsa
    }
    if EVP_PKEY_is_a(key, "EC") == 1 { return try curve(of: key) }
    if EVP_PKEY_is_a(key, "ED25519") == 1 { return .ed25519 }
    if EVP_PKEY_is_a(key, "ED448") == 1 { return .ed448 }
    throw KeyProblem("a key of a type that tokens aren't signed with, expected RSA, EC, Ed25519 or Ed448")
  }

  private static func requireSoundRSA(_ key: OpaquePointer) throws(KeyProblem) {
    let bits = Int(EVP_PKEY_get_bits(key))
    guard bits >= minimumRSABits, bits <= maximumRSABits else {
      throw KeyProblem("an RSA key of \(bits) bits, expected \(minimumRSABits) to \(maximumRSABits)")
    }
    var exponent: OpaquePointer?
    defer { BN_free(exponent) }
    // With exponent 1 a signature is its own message: anybody can make one.
    guard EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) == 1, let exponent,
      BN_is_odd(exponent) == 1, BN_is_one(exponent) == 0
    else { throw KeyProblem("an RSA key with an exponent that is even or 1") }
  }

  private static func curve(of key: OpaquePointer) throws(KeyProblem) -> KeyKind {
    var name = [CChar](repeating: 0, count: 80)
    var count = 0
    let isNamed = EVP_PKEY_get_group_name(key, &name, name.count, &count) == 1
    let kind: KeyKind
    switch isNamed ? String(decoding: name.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self) : "" {
    case "prime256v1", "P-256": kind = .p256
    case "secp384r1", "P-384": kind = .p384
    case "secp521r1", "P-521": kind = .p521
    default:
      throw KeyProblem("an EC key on a curve that tokens aren't signed with, expected P-256, P-384 or P-521")
    }
    let check = EVP_PKEY_CTX_new(key, nil)
    defer { EVP_PKEY_CTX_free(check) }
    guard let check, EVP_PKEY_public_check(check) == 1 else {
      throw KeyProblem("an EC key that is no point of its curve")
    }
    return kind
  }

  // MARK: PEM

  // The key in a PEM text (RFC 7468): a public key, a certificate, or a private key of which the public part is taken.
  //
  // One text is one key. Of several certificates the first counts, as in every chain: the others are those of authorities,
  // which sign no tokens.

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

/// A key that can't be used, with a text that never holds the key.
public struct KeyProblem: Error, Equatable, Sendable, CustomStringConvertible {
  public let description: String

  init(_ description: String) {
    self.description = description
  }

  /// OpenSSL refused something that doesn't depend on the key, mostly for want of memory.
  static func library(_ call: String) -> KeyProblem {
    KeyProblem("OpenSSL failed: \(call)")
  }
}
