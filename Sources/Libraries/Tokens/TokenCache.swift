// Tokens found right, by their digest, so that the same token isn't verified for every request. Bounded in number and
// in bytes. Only good tokens are remembered: bad ones would push them out.
//
//   young ── full ──▶ old ── young is full again ──▶ dropped
//     ▲                │
//     └──── asked for ─┘        what is used stays, what isn't is gone after two rounds; each step O(1)

/// Verified tokens. Belongs to one thread.
struct TokenCache {
  /// A claim's text of a few hundred bytes makes about a kilobyte with all that belongs to it.
  private static let entryOverheadBytes = 512

  private struct Generation {
    var tokens: [TokenDigest: VerifiedToken] = [:]
    var bytes = 0
  }

  private let entriesPerGeneration: Int
  private let bytesPerGeneration: Int
  private var young = Generation()
  private var old = Generation()

  /// A cache for at most `entries` tokens (0: none) of about `bytes`.
  init(entries: Int, bytes: Int) {
    entriesPerGeneration = entries / 2
    bytesPerGeneration = bytes / 2
  }

  /// Tokens held, good or expired.
  var count: Int { young.tokens.count + old.tokens.count }
  var bytes: Int { young.bytes + old.bytes }

  /// The token with this digest; its expiry is the caller's to check.
  mutating func token(_ digest: TokenDigest) -> VerifiedToken? {
    if let token = young.tokens[digest] { return token }
    guard let token = old.tokens.removeValue(forKey: digest) else { return nil }
    old.bytes -= Self.size(token)
    insert(token, digest)
    return token
  }

  mutating func insert(_ token: VerifiedToken, _ digest: TokenDigest) {
    let size = Self.size(token)
    guard size <= bytesPerGeneration, entriesPerGeneration > 0 else { return }
    if young.tokens.count >= entriesPerGeneration || young.bytes + size > bytesPerGeneration {
      old = young
      young = Generation()
    }
    if let replaced = young.tokens.updateValue(token, forKey: digest) { young.bytes -= Self.size(replaced) }
    young.bytes += size
  }

  mutating func remove(_ digest: TokenDigest) {
    if let removed = young.tokens.removeValue(forKey: digest) { young.bytes -= Self.size(removed) }
    if let removed = old.tokens.removeValue(forKey: digest) { old.bytes -= Self.size(removed) }
  }

  mutating func removeAll() {
    young = Generation()
    old = Generation()
  }

  private static func size(_ token: VerifiedToken) -> Int { token.claims.bytes + entryOverheadBytes }
}
