// The name that a client knows its connection by: `connection_token`, in URLs and cookies.
//
//   one AES-256 block:  slot (2 bytes) | serial (8) | tag (6)     → 22 characters of base64url
//
// One block under AES is a permutation that nobody without the key can tell from a random one: equal tokens
// mean equal connections, nothing else can be read off them, and hitting one of n live connections by guessing
// takes 2^128 / n attempts. The fixed tag tells a forged or foreign token (no such connection can have existed)
// from one whose connection is gone. The key is drawn when the gateway starts and shared by its workers; a serial
// must never repeat within a slot (which of the slot's processes has opened it is part of it).

import COpenSSL
import Kit

/// Which connection of which connection worker.
struct ConnectionToken: Hashable, Sendable {
  /// Number of the connection worker that holds the connection.
  let slot: UInt16
  /// Number of the connection within the slot, never used twice.
  let serial: UInt64
}

/// Why the cipher can't be used: never a matter of a client's input.
enum TokenCipherError: Error, Equatable, CustomStringConvertible {
  case keyLength(found: Int)
  case cipherFailed(operation: String)

  var description: String {
    switch self {
    case .keyLength(let found):
      "tokenKey has \(found) bytes, expected \(TokenCipher.keyBytes)"
    case .cipherFailed(let operation):
      "OpenSSL's AES-256 failed: \(operation)"
    }
  }
}

/// Turns tokens into text and back. Construction checks the key and that the cipher works.
struct TokenCipher: Sendable {
  static let keyBytes = 32
  /// Characters of a token.
  static let textLength = 22
  private static let blockBytes = 16
  private static let tagBytes = 6
  private let key: [UInt8]

  /// - Parameter key: `WorkerManifest.tokenKey`, 32 bytes.
  init(key: some Collection<UInt8>) throws(TokenCipherError) {
    guard key.count == Self.keyBytes else { throw .keyLength(found: key.count) }
    self.key = Array(key)
    let probe = ConnectionToken(slot: 1, serial: 2)
    guard try open(seal(probe)) == probe else { throw .cipherFailed(operation: "self-test") }
  }

  /// The text of a token. Throws only if OpenSSL can't allocate.
  func seal(_ token: ConnectionToken) throws(TokenCipherError) -> String {
    var block: [UInt8] = []
    block.reserveCapacity(Self.blockBytes)
    withUnsafeBytes(of: token.slot.littleEndian) { block.append(contentsOf: $0) }
    withUnsafeBytes(of: token.serial.littleEndian) { block.append(contentsOf: $0) }
    block.append(contentsOf: repeatElement(0, count: Self.tagBytes))
    guard let sealed = crypt(block, encrypting: true) else { throw .cipherFailed(operation: "encryption") }
    return Base64URL.encode(sealed)
  }

  /// Whether some gateway may have made it: this one in its present life, or in an earlier one, or another node.
  static func hasForm(_ text: String) -> Bool {
    text.utf8.count == textLength && Base64URL.decode(text)?.count == blockBytes
  }

  /// The token that `text` stands for; nil if this gateway's key hasn't made it.
  func open(_ text: String) -> ConnectionToken? {
    guard Self.hasForm(text), let sealed = Base64URL.decode(text),
      let block = crypt(sealed, encrypting: false),
      block[(Self.blockBytes - Self.tagBytes)...].allSatisfy({ $0 == 0 })
    else { return nil }
    return block.withUnsafeBytes { bytes in
      ConnectionToken(
        slot: UInt16(littleEndian: bytes.loadUnaligned(as: UInt16.self)),
        serial: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self)))
    }
  }

  /// One block through AES-256; nil if OpenSSL fails. Tokens are made once per connection, so the context isn't kept.
  private func crypt(_ block: [UInt8], encrypting: Bool) -> [UInt8]? {
    guard block.count == Self.blockBytes, let context = EVP_CIPHER_CTX_new() else { return nil }
    defer { EVP_CIPHER_CTX_free(context) }
    var output = [UInt8](repeating: 0, count: Self.blockBytes)
    var written: CInt = 0
    guard EVP_CipherInit_ex(context, EVP_aes_256_ecb(), nil, key, nil, encrypting ? 1 : 0) == 1,
      EVP_CIPHER_CTX_set_padding(context, 0) == 1,
      EVP_CipherUpdate(context, &output, &written, block, CInt(block.count)) == 1,
      written == CInt(Self.blockBytes)
    else { return nil }
    return output
  }
}

/// What the connections of one worker are called.
struct ConnectionNames {
  private let place: UInt16
  private let cipher: TokenCipher

  /// - Parameter place: of the worker.
  init(place: Int, _ cipher: TokenCipher) {
    self.place = UInt16(clamping: place)
    self.cipher = cipher
  }

  /// Whether a connection of the worker in `slot` is one of here.
  func isHere(_ slot: UInt16) -> Bool { slot == place }

  /// The token of a connection of here; nil if OpenSSL can't allocate.
  func text(serial: UInt64) -> String? { text(of: ConnectionToken(slot: place, serial: serial)) }

  func text(of token: ConnectionToken) -> String? { try? cipher.seal(token) }

  /// As `TokenCipher.open`.
  func open(_ text: String) -> ConnectionToken? { cipher.open(text) }
}
