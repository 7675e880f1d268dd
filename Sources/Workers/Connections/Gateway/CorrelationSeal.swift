// Makes the ids by which services answer requests that wait, and tells genuine ones: nobody can guess or forge one.
//
//   CorrelationAddress (slot | epoch | number) | first 16 bytes of its HMAC-SHA256         see ServiceResponse.swift
//
// The key is derived from that of connection tokens, so that no id can pass for a token, or the other way round. Where an id is to
// go can be read without the key; only the worker that has made it finds out whether it is genuine.

import COpenSSL
import Kit
import Links

struct CorrelationSeal: Sendable {
  private static let purpose = Array("rig correlation ids, version 1".utf8)
  private static let digestBytes = 32

  private let slot: UInt16
  private let epoch: UInt64
  private let key: [UInt8]

  /// - Parameters:
  ///   - tokenKey: `WorkerManifest.tokenKey`.
  ///   - epoch: the gateway's.
  init(tokenKey: some Collection<UInt8>, slot: UInt16, epoch: UInt64) throws(TokenCipherError) {
    guard tokenKey.count == TokenCipher.keyBytes else { throw .keyLength(found: tokenKey.count) }
    guard let key = Self.authentication(of: Self.purpose, key: Array(tokenKey)) else {
      throw .cipherFailed(operation: "HMAC-SHA256")
    }
    self.slot = slot
    self.epoch = epoch
    self.key = key
  }

  /// The id of the request with this number. Throws only if OpenSSL can't allocate.
  func seal(_ number: UInt64) throws(TokenCipherError) -> String {
    let address = CorrelationAddress(slot: slot, epoch: epoch, number: number).encoded
    guard let digest = Self.authentication(of: address, key: key) else {
      throw .cipherFailed(operation: "HMAC-SHA256")
    }
    return Base64URL.encode(address + digest.prefix(CorrelationAddress.authenticationBytes))
  }

  /// The number of the request that `text` names; nil if this worker hasn't made it.
  func open(_ text: String) -> UInt64? {
    guard let (address, given) = CorrelationAddress.parse(text), address.slot == slot,
      address.epoch == epoch, let digest = Self.authentication(of: address.encoded, key: key)
    else { return nil }
    // In a time that tells nothing of how much of it is right.
    guard CRYPTO_memcmp(digest, given, CorrelationAddress.authenticationBytes) == 0 else { return nil }
    return address.number
  }

  private static func authentication(of bytes: [UInt8], key: [UInt8]) -> [UInt8]? {
    var digest = [UInt8](repeating: 0, count: digestBytes)
    var length: UInt32 = 0
    guard HMAC(EVP_sha256(), key, CInt(key.count), bytes, bytes.count, &digest, &length) != nil,
      length == UInt32(digestBytes)
    else { return nil }
    return digest
  }
}
