// An issuer of tokens: makes a key and signs with it. Owns what OpenSSL gives it.

import COpenSSL
import Foundation
import Tokens

final class Signer {
  private enum Key {
    case secret([UInt8])
    case pair(OpaquePointer)
  }

  private let key: Key
  private static let rawIntegerBytes = 32

  private init(_ key: Key) { self.key = key }

  deinit {
    if case .pair(let key) = key { EVP_PKEY_free(key) }
  }

  static func hmac(secret: String) -> Signer { Signer(.secret(Array(secret.utf8))) }

  static func rsa(bits: CInt) throws -> Signer {
    Signer(.pair(try generate("RSA") { EVP_PKEY_CTX_set_rsa_keygen_bits($0, bits) }))
  }

  static func p256() throws -> Signer {
    Signer(.pair(try generate("EC") { EVP_PKEY_CTX_set_group_name($0, "P-256") }))
  }

  private static func generate(_ name: String, _ configure: (OpaquePointer) -> CInt) throws -> OpaquePointer {
    guard let context = EVP_PKEY_CTX_new_from_name(nil, name, nil) else {
      throw Failure("no \(name) in OpenSSL")
    }
    defer { EVP_PKEY_CTX_free(context) }
    var key: OpaquePointer?
    guard EVP_PKEY_keygen_init(context) == 1, configure(context) == 1, EVP_PKEY_generate(context, &key) == 1,
      let key
    else { throw Failure("no \(name) key could be made") }
    return key
  }

  /// A token with these claims, JSON text.
  func token(_ claims: [UInt8], algorithm: SignatureAlgorithm) throws -> String {
    let head = Self.encoded(Array(#"{"alg":"\#(algorithm.rawValue)","typ":"JWT"}"#.utf8))
    let signed = head + "." + Self.encoded(claims)
    var signature = try sign(Array(signed.utf8))
    if algorithm == .es256 { signature = try Self.raw(signature) }
    return signed + "." + Self.encoded(signature)
  }

  func publicPEM() throws -> String {
    guard case .pair(let key) = key, let output = BIO_new(BIO_s_mem()) else { throw Failure("no public key") }
    defer { BIO_free(output) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    guard PEM_write_bio_PUBKEY(output, key) == 1 else { throw Failure("no PEM") }
    let count = BIO_read(output, &bytes, CInt(bytes.count))
    guard count > 0 else { throw Failure("no PEM") }
    return String(decoding: bytes[..<Int(count)], as: UTF8.self)
  }

  /// Verifies a signature over `text`, and does nothing else.
  func bareVerification(of text: [UInt8]) throws -> () throws -> Void {
    guard case .pair(let key) = key else { throw Failure("no public key") }
    let signature = try sign(text)
    return { [self] in
      guard let context = EVP_MD_CTX_new() else { throw Failure("no memory") }
      defer { EVP_MD_CTX_free(context) }
      guard EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, key) == 1,
        EVP_DigestVerify(context, signature, signature.count, text, text.count) == 1
      else { throw Failure("the signature is wrong") }
      withExtendedLifetime(self) {}
    }
  }

  private func sign(_ text: [UInt8]) throws -> [UInt8] {
    switch key {
    case .secret(let secret):
      var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
      var length: UInt32 = 0
      guard HMAC(EVP_sha256(), secret, CInt(secret.count), text, text.count, &digest, &length) != nil else {
        throw Failure("HMAC failed")
      }
      return Array(digest[..<Int(length)])
    case .pair(let key):
      guard let context = EVP_MD_CTX_new() else { throw Failure("no memory") }
      defer { EVP_MD_CTX_free(context) }
      var length = 1024
      var signature = [UInt8](repeating: 0, count: length)
      guard EVP_DigestSignInit(context, nil, EVP_sha256(), nil, key) == 1,
        EVP_DigestSign(context, &signature, &length, text, text.count) == 1
      else { throw Failure("signing failed") }
      return Array(signature[..<length])
    }
  }

  /// The two integers of a DER signature, 32 bytes each (RFC 7518 §3.4).
  private static func raw(_ der: [UInt8]) throws -> [UInt8] {
    var raw: [UInt8] = []
    var index = 2
    for _ in 0..<2 {
      guard index + 2 <= der.count, der[index] == 2 else { throw Failure("no DER integer") }
      let end = index + 2 + Int(der[index + 1])
      guard end <= der.count else { throw Failure("no DER integer") }
      let digits = der[(index + 2)..<end].drop { $0 == 0 }
      raw += Array(repeating: 0, count: rawIntegerBytes - digits.count) + digits
      index = end
    }
    return raw
  }

  private static func encoded(_ bytes: [UInt8]) -> String {
    Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing(
      "=", with: "")
  }
}
