// Connection tokens: unguessable, unforgeable, telling nothing.

import Kit
import Testing

@testable import Connections

@Suite("Connection token")
struct ConnectionTokenTests {
  private let key = (0..<32).map { UInt8($0 * 7 + 1) }

  @Test(
    "survives the way through text",
    arguments: [(0, 0), (1, 1), (.max, .max), (3, 1 << 40)] as [(UInt16, UInt64)])
  func roundTrip(slot: UInt16, serial: UInt64) throws {
    let cipher = try TokenCipher(key: key)
    let token = ConnectionToken(slot: slot, serial: serial)
    let text = try cipher.seal(token)
    #expect(text.utf8.count == TokenCipher.textLength)
    #expect(text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") })
    #expect(cipher.open(text) == token)
    #expect(try cipher.seal(token) == text, "one text per connection")
  }

  @Test("is AES-256 of slot, serial and tag, as any other implementation computes it")
  func knownAnswer() throws {
    // FIPS 197 appendix C.3: the block 00112233…ff under the key 000102…1f gives 8ea2b7ca516745bfeafc49904b496089.
    let cipher = try TokenCipher(key: Array(0..<32))
    let sealed: [UInt8] = [
      0x8E, 0xA2, 0xB7, 0xCA, 0x51, 0x67, 0x45, 0xBF, 0xEA, 0xFC, 0x49, 0x90, 0x4B, 0x49, 0x60, 0x89,
    ]
    #expect(cipher.open(Base64URL.encode(sealed)) == nil, "a block that decrypts well but has no tag")
    // openssl enc -aes-256-ecb -nopad of 0100 0200000000000000 000000000000 under the same key
    let text = try cipher.seal(ConnectionToken(slot: 1, serial: 2))
    #expect(text == Base64URL.encode(Self.sealedOneTwo))
  }

  private static let sealedOneTwo: [UInt8] = [
    0xEB, 0xB3, 0xFA, 0x97, 0xAF, 0xEB, 0xBC, 0x0B, 0x96, 0xB9, 0xBD, 0xC1, 0x8E, 0x13, 0xF4, 0x64,
  ]

  @Test("changes beyond recognition with each connection")
  func revealsNothing() throws {
    let cipher = try TokenCipher(key: key)
    var texts = Set<String>()
    var differingBits = 0
    var previous: [UInt8]?
    for serial in UInt64(0)..<1000 {
      let text = try cipher.seal(ConnectionToken(slot: 0, serial: serial))
      texts.insert(text)
      let bytes = try #require(Base64URL.decode(text))
      if let previous {
        differingBits += zip(bytes, previous).reduce(0) { $0 + ($1.0 ^ $1.1).nonzeroBitCount }
      }
      previous = bytes
    }
    #expect(texts.count == 1000)
    #expect((60...68).contains(differingBits / 999), "consecutive tokens differ in about half of 128 bits")
  }

  @Test("with a single character changed is refused")
  func tampered() throws {
    let cipher = try TokenCipher(key: key)
    let text = Array(try cipher.seal(ConnectionToken(slot: 2, serial: 77)))
    for index in text.indices {
      for replacement in "ABab09-_" where replacement != text[index] {
        var changed = text
        changed[index] = replacement
        #expect(cipher.open(String(changed)) == nil)
      }
    }
  }

  @Test("of another key is refused")
  func otherKey() throws {
    let text = try TokenCipher(key: key).seal(ConnectionToken(slot: 2, serial: 77))
    let other = try TokenCipher(key: key.reversed())
    #expect(other.open(text) == nil)
  }

  @Test(
    "that isn't 22 characters of base64url is refused",
    arguments: [
      "", "abc", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA=",
      "++++++++++++++++++++++",
      "AAAAAAAAAAAAAAAAAAAAAB", "ÄÄÄÄÄÄÄÄÄÄÄ", "..%2F..%2Fetc%2Fpasswd",
    ])
  func malformed(text: String) throws {
    #expect(try TokenCipher(key: key).open(text) == nil)
  }

  @Test("needs a key of 32 bytes", arguments: [0, 16, 31, 33])
  func keyLength(count: Int) {
    #expect(throws: TokenCipherError.keyLength(found: count)) {
      try TokenCipher(key: [UInt8](repeating: 1, count: count))
    }
  }
}
