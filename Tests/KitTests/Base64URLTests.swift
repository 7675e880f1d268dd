// One text per value, and one value per text.

import TestSupport
import Testing

@testable import Kit

@Suite("Base64url")
struct Base64URLTests {
  @Test(
    "is RFC 4648's, without padding",
    arguments: [
      ("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE"),
      ("foobar", "Zm9vYmFy"),
    ])
  func vectors(plain: String, text: String) {
    #expect(Base64URL.encode(plain.utf8) == text)
    #expect(Base64URL.decode(text) == Array(plain.utf8))
  }

  @Test("uses the URL-safe letters for 62 and 63")
  func urlSafe() {
    #expect(Base64URL.encode([0xFB, 0xFF]) == "-_8")
    #expect(Base64URL.decode("-_8") == [0xFB, 0xFF])
  }

  @Test(
    "has one text per value",
    arguments: [
      "Zh", "Zm9", "Z", "Zg==", "Z g", "+/8", "AQIDB", "AQI=", "+/+/", "AQ\n", "ÄQ", "AQ.I", "AQID\0",
    ])
  func refuses(text: String) {
    #expect(Base64URL.decode(text) == nil)
  }

  @Test("decodes what it has encoded, of every length, and reads nothing behind it")
  func roundTrip() {
    var random = SeededRandom(seed: 1)
    for count in 0..<100 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      #expect(withGuarded(Base64URL.encode(bytes).utf8) { Base64URL.decode($0) } == bytes)
    }
  }
}
