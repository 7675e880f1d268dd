// One key, one algorithm, everything prepared: what OpenSSL would look up for every signature is looked up once.
//
// The contexts are written to by every check, so a check belongs to one thread. After a failure the thread's error
// queue is emptied: what is left in it would be taken for an error of whatever uses OpenSSL next.

import COpenSSL

protocol SignatureCheck: AnyObject {
  /// Whether the key has made `signature` over `message`. A wrong signature and one of impossible form are alike.
  func accepts(_ signature: UnsafeRawBufferPointer, over message: UnsafeRawBufferPointer) -> Bool
}

extension UnsafeRawBufferPointer {
  /// OpenSSL's view of bytes; nil without bytes.
  var octets: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}

// MARK: HMAC

/// HMAC (RFC 2104) with a secret.
final class HMACCheck: SignatureCheck {
  private let context: OpaquePointer
  private let count: Int
  private var code: [UInt8]

  init(secret: [UInt8], digest: SignatureAlgorithm.Digest) throws(KeyProblem) {
    guard let mac = EVP_MAC_fetch(nil, "HMAC", nil) else { throw .library("EVP_MAC_fetch") }
    defer { EVP_MAC_free(mac) }
    guard let context = EVP_MAC_CTX_new(mac) else { throw .library("EVP_MAC_CTX_new") }
    var name = Array(digest.rawValue.utf8CString)
    let isReady = name.withUnsafeMutableBufferPointer { name in
      let parameters = [
        OSSL_PARAM_construct_utf8_string(rig_param_mac_digest(), name.baseAddress, 0),
        OSSL_PARAM_construct_end(),
      ]
      return EVP_MAC_init(context, secret, secret.count, parameters) == 1
    }
    guard isReady else {
      EVP_MAC_CTX_free(context)
      throw .library("EVP_MAC_init")
    }
    self.context = context
    count = digest.bytes
    code = [UInt8](repeating: 0, count: digest.bytes)
  }

  deinit { EVP_MAC_CTX_free(context) }

  func accepts(_ signature: UnsafeRawBufferPointer, over message: UnsafeRawBufferPointer) -> Bool {
    var written = 0
    // Without a key the context begins again with the one it has.
    guard EVP_MAC_init(context, nil, 0, nil) == 1,
      EVP_MAC_update(context, message.octets, message.count) == 1,
      EVP_MAC_final(context, &code, &written, count) == 1, written == count
    else {
      ERR_clear_error()
      return false
    }
    // The length is no secret; where the bytes differ is.
    return signature.count == count && CRYPTO_memcmp(code, signature.baseAddress, count) == 0
  }
}

// MARK: RSA and ECDSA

/// A signature over a digest: RSASSA-PKCS1-v1_5, RSASSA-PSS or ECDSA.
final class DigestCheck: SignatureCheck {
  private let key: PublicKey
  private let digest: OpaquePointer
  private let hashing: OpaquePointer
  private let context: OpaquePointer
  private let digestBytes: Int
  /// Bytes of r and of s; nil for RSA.
  private let fieldBytes: Int?
  private var hash = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
  private var der: [UInt8] = []

  /// - Parameter padding: of RSA; nil for ECDSA.
  init(key: PublicKey, digest: SignatureAlgorithm.Digest, padding: CInt?) throws(KeyProblem) {
    guard let fetched = EVP_MD_fetch(nil, digest.rawValue, nil), let hashing = EVP_MD_CTX_new(),
      let context = EVP_PKEY_CTX_new(key.pointer, nil)
    else { throw .library("EVP_PKEY_CTX_new") }
    self.key = key
    self.digest = fetched
    self.hashing = hashing
    self.context = context
    digestBytes = digest.bytes
    fieldBytes = key.kind.fieldBytes
    guard EVP_PKEY_verify_init(context) == 1 else { throw .library("EVP_PKEY_verify_init") }
    if let padding {
      guard EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1 else {
        throw .library("EVP_PKEY_CTX_set_rsa_padding")
      }
    }
    guard EVP_PKEY_CTX_set_signature_md(context, fetched) == 1 else {
      throw .library("EVP_PKEY_CTX_set_signature_md")
    }
    // RFC 7518 §3.5: the salt is as long as the digest.
    if padding == RSA_PKCS1_PSS_PADDING {
      guard EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) == 1 else {
        throw .library("EVP_PKEY_CTX_set_rsa_pss_saltlen")
      }
    }
  }

  deinit {
    EVP_PKEY_CTX_free(context)
    EVP_MD_CTX_free(hashing)
    EVP_MD_free(digest)
  }

  func accepts(_ signature: UnsafeRawBufferPointer, over message: UnsafeRawBufferPointer) -> Bool {
    var written: CUnsignedInt = 0
    guard EVP_DigestInit_ex2(hashing, digest, nil) == 1,
      EVP_DigestUpdate(hashing, message.baseAddress, message.count) == 1,
      EVP_DigestFinal_ex(hashing, &hash, &written) == 1, Int(written) == digestBytes
    else { return failed() }
    let isRight: Bool
    if let fieldBytes {
      guard ECDSASignature.encode(signature, fieldBytes: fieldBytes, into: &der) else { return false }
      isRight = EVP_PKEY_verify(context, der, der.count, hash, digestBytes) == 1
    } else {
      isRight = EVP_PKEY_verify(context, signature.octets, signature.count, hash, digestBytes) == 1
    }
    return isRight || failed()
  }

  private func failed() -> Bool {
    ERR_clear_error()
    return false
  }
}

// MARK: EdDSA

/// Ed25519 or Ed448 over the message itself (RFC 8037).
final class EdwardsCheck: SignatureCheck {
  private let key: PublicKey
  private let context: OpaquePointer

  init(key: PublicKey) throws(KeyProblem) {
    guard let context = EVP_MD_CTX_new() else { throw .library("EVP_MD_CTX_new") }
    self.key = key
    self.context = context
  }

  deinit { EVP_MD_CTX_free(context) }

  func accepts(_ signature: UnsafeRawBufferPointer, over message: UnsafeRawBufferPointer) -> Bool {
    // Beginning again costs a microsecond or two, and the check itself fifty times that.
    guard EVP_MD_CTX_reset(context) == 1, EVP_DigestVerifyInit(context, nil, nil, nil, key.pointer) == 1,
      EVP_DigestVerify(context, signature.octets, signature.count, message.octets, message.count) == 1
    else {
      ERR_clear_error()
      return false
    }
    return true
  }
}

/// From the two numbers of a JWS signature to what OpenSSL reads (RFC 7518 §3.4, RFC 3279 §2.2.3).
///
///   r (32, 48 or 66 bytes, big endian) | s (as long)    →    30 len | 02 len r | 02 len s
enum ECDSASignature {
  private static let sequence: UInt8 = 0x30
  private static let integer: UInt8 = 0x02
  /// Contents from this length on have their length in a byte of its own. P-521's longest is 139 bytes: one is enough.
  private static let longLength = 0x80

  /// Writes the DER form into `der`; false if `raw` isn't exactly two numbers. The curve's order is OpenSSL's to check.
  static func encode(_ raw: UnsafeRawBufferPointer, fieldBytes: Int, into der: inout [UInt8]) -> Bool {
    guard raw.count == 2 * fieldBytes else { return false }
    let r = significant(raw, 0..<fieldBytes)
    let s = significant(raw, fieldBytes..<2 * fieldBytes)
    der.removeAll(keepingCapacity: true)
    der.append(sequence)
    appendLength(2 + encodedBytes(r, raw) + 2 + encodedBytes(s, raw), to: &der)
    append(r, of: raw, to: &der)
    append(s, of: raw, to: &der)
    return true
  }

  /// Without leading zeros; one byte stays.
  private static func significant(_ raw: UnsafeRawBufferPointer, _ range: Range<Int>) -> Range<Int> {
    var start = range.lowerBound
    while start < range.upperBound - 1, raw[start] == 0 { start += 1 }
    return start..<range.upperBound
  }

  /// A first bit that is set would make the number negative: a zero byte goes before it.
  private static func encodedBytes(_ number: Range<Int>, _ raw: UnsafeRawBufferPointer) -> Int {
    number.count + (raw[number.lowerBound] >= 0x80 ? 1 : 0)
  }

  private static func append(_ number: Range<Int>, of raw: UnsafeRawBufferPointer, to der: inout [UInt8]) {
    der.append(integer)
    appendLength(encodedBytes(number, raw), to: &der)
    if raw[number.lowerBound] >= 0x80 { der.append(0) }
    der.append(contentsOf: raw[number])
  }

  private static func appendLength(_ length: Int, to der: inout [UInt8]) {
    if length >= longLength { der.append(UInt8(longLength | 1)) }
    der.append(UInt8(length))
  }
}
