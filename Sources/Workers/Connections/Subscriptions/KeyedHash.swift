// 64-bit hashes of short byte strings under a secret key. Clients choose the strings that are hashed here, so a client
// must not be able to make up strings that collide: each block is mixed in with a 64×64→128 bit multiplication whose
// outcome depends on the key. Everything found by hash is still compared byte by byte.

/// A family of hash functions; two with the same seed are the same.
struct KeyedHash {
  private let key: UInt64
  private let multiplier: UInt64

  /// - Parameter seed: secret, at random per process; fixed in tests.
  init(seed: UInt64) {
    // Odd, and with bits in both halves whatever the seed.
    self.init(key: seed, multiplier: (seed &* 0x9E37_79B9_7F4A_7C15) | 0x8000_0001_0000_0001)
  }

  /// - Parameter multiplier: 0 only in tests, where all strings are to have the same hash.
  init(key: UInt64, multiplier: UInt64) {
    self.key = key
    self.multiplier = multiplier
  }

  /// The hash of the empty string: where byte-wise hashing starts.
  var initial: UInt64 { key }

  /// The hash of a string one byte longer.
  func extend(_ hash: UInt64, with byte: UInt8) -> UInt64 {
    mix(hash ^ (UInt64(byte) + 1))
  }

  /// A hash that depends on both, and on their order.
  func combine(_ first: UInt64, _ second: UInt64) -> UInt64 {
    mix(mix(first) ^ second)
  }

  /// The hash of a string, 8 bytes at a time; not the same as extending byte by byte.
  func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var hash = mix(key ^ UInt64(bytes.count))
    var index = 0
    while index + 8 <= bytes.count {
      hash = mix(hash ^ bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
      index += 8
    }
    var tail: UInt64 = 0
    while index < bytes.count {
      tail = tail << 8 | UInt64(bytes[index])
      index += 1
    }
    return mix(hash ^ tail)
  }

  private func mix(_ value: UInt64) -> UInt64 {
    let product = (value ^ key).multipliedFullWidth(by: multiplier)
    return product.high ^ product.low ^ 0x2545_F491_4F6C_DD1D
  }
}
