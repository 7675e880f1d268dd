// HMAC-SHA256 (RFC 2104, FIPS 180-4), written out for making tokens: independent of the code that verifies them.

import Glibc

enum TestHMAC {
  private static let constants: [UInt32] = primes(64).map { fraction(Double($0), cubic: true) }

  static func sha256(key: [UInt8], _ message: [UInt8]) -> [UInt8] {
    let block = (key.count > 64 ? sha256(key) : key) + [UInt8](repeating: 0, count: 64 - min(key.count, 64))
    return sha256(block.map { $0 ^ 0x5C } + sha256(block.map { $0 ^ 0x36 } + message))
  }

  static func sha256(_ message: [UInt8]) -> [UInt8] {
    var padded = message + [0x80]
    while padded.count % 64 != 56 { padded.append(0) }
    withUnsafeBytes(of: UInt64(message.count * 8).bigEndian) { padded.append(contentsOf: $0) }
    var state = primes(8).map { fraction(Double($0), cubic: false) }
    for start in stride(from: 0, to: padded.count, by: 64) {
      compress(Array(padded[start..<start + 64]), &state)
    }
    return state.flatMap { word in withUnsafeBytes(of: word.bigEndian) { Array($0) } }
  }

  private static func compress(_ block: [UInt8], _ state: inout [UInt32]) {
    var words = (0..<16).map { index in
      block[index * 4..<index * 4 + 4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    }
    for index in 16..<64 {
      let low = words[index - 15]
      let high = words[index - 2]
      let small = rotate(low, 7) ^ rotate(low, 18) ^ (low >> 3)
      let large = rotate(high, 17) ^ rotate(high, 19) ^ (high >> 10)
      words.append(words[index - 16] &+ small &+ words[index - 7] &+ large)
    }
    var s = state
    for index in 0..<64 {
      let choice = (s[4] & s[5]) ^ (~s[4] & s[6])
      let sum1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)
      let first = s[7] &+ sum1 &+ choice &+ constants[index] &+ words[index]
      let majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])
      let sum0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)
      s = [first &+ sum0 &+ majority, s[0], s[1], s[2], s[3] &+ first, s[4], s[5], s[6]]
    }
    for index in 0..<8 { state[index] &+= s[index] }
  }

  private static func rotate(_ word: UInt32, _ bits: UInt32) -> UInt32 { word >> bits | word << (32 - bits) }

  private static func primes(_ count: Int) -> [Int] {
    (2...400).lazy.filter { number in !(2..<number).contains { number % $0 == 0 } }.prefix(count).map { $0 }
  }

  /// The first 32 bits of the fraction of a square or cube root.
  private static func fraction(_ number: Double, cubic: Bool) -> UInt32 {
    let root = cubic ? cbrt(number) : number.squareRoot()
    return UInt32((root - root.rounded(.down)) * 4_294_967_296)
  }
}
