// From the text of a token to who it speaks for: keys, policy and cache together. What time it is comes from the caller.
//
// The order is fixed: form, algorithm, key, signature, and only then the claims. Nobody without a key gets to the
// claims' parser, and an error about a claim says that the signature was right.
//
// Whether a session is on the blacklist isn't known here: ask after every verification, cached or not.

/// Verifies tokens. Belongs to one thread.
public final class TokenVerifier {
  /// Of the cache: tokens of 10,000 users, in at most 32 MiB.
  public static let defaultCacheEntries = 10_000
  static let cacheBytes = 33_554_432

  public let policy: TokenPolicy
  /// When keys change, everything that was verified with the old ones is verified again.
  public var keys: KeySet {
    didSet { cache.removeAll() }
  }
  private var cache: TokenCache
  private let hasher: TokenHasher?

  /// - Parameter cacheEntries: verified tokens that are remembered; 0: none.
  public init(keys: KeySet, policy: TokenPolicy, cacheEntries: Int = TokenVerifier.defaultCacheEntries) {
    self.keys = keys
    self.policy = policy
    cache = TokenCache(entries: cacheEntries, bytes: Self.cacheBytes)
    hasher = cacheEntries > 0 ? TokenHasher() : nil
  }

  /// Tokens remembered.
  public var cachedTokens: Int { cache.count }

  /// Verifies a token at `now`, in seconds since 1970.
  public func verify(_ token: String, now: Double) throws(TokenError) -> VerifiedToken {
    var token = token
    return try token.withUTF8 { bytes -> Result<VerifiedToken, TokenError> in
      do throws(TokenError) {
        return .success(try verify(UnsafeRawBufferPointer(bytes), now: now))
      } catch {
        return .failure(error)
      }
    }.get()
  }

  /// Verifies a token that lies somewhere; its bytes aren't kept.
  public func verify(_ token: UnsafeRawBufferPointer, now: Double) throws(TokenError) -> VerifiedToken {
    guard token.count <= CompactToken.maximumBytes else { throw .tooLong(bytes: token.count) }
    guard let digest = hasher?.digest(token) else { return try verifyAnew(token, now: now) }
    if let known = cache.token(digest) {
      guard let validUntil = known.validUntil, now >= validUntil else { return known }
      cache.remove(digest)
      throw .expired(at: known.expiry ?? validUntil)
    }
    let verified = try verifyAnew(token, now: now)
    cache.insert(verified, digest)
    return verified
  }

  private func verifyAnew(_ bytes: UnsafeRawBufferPointer, now: Double) throws(TokenError) -> VerifiedToken {
    guard !keys.keys.isEmpty || keys.isRefreshable else { throw .noKeys }
    let token = try CompactToken(bytes, allowed: policy.algorithms)
    try requireSignature(token)
    return try VerifiedToken(try token.claims(), policy: policy, now: now)
  }

  private func requireSignature(_ token: CompactToken) throws(TokenError) {
    let candidates = keys.candidates(id: token.keyID, algorithm: token.algorithm)
    for key in candidates.keys {
      let isRight: Bool
      do throws(KeyProblem) {
        isRight = try token.signature.withUnsafeBufferPointer { (signature) throws(KeyProblem) in
          try key.accepts(UnsafeRawBufferPointer(signature), over: token.signed, by: token.algorithm)
        }
      } catch {
        throw .unavailable(error.description)
      }
      if isRight { return }
    }
    // A key without a name could have been meant; but where names come and go, a new one is likelier.
    if let id = token.keyID, !candidates.isNamed, keys.isRefreshable { throw .unknownKey(id: id) }
    throw candidates.keys.isEmpty ? .noKeyFits(token.algorithm) : .wrongSignature
  }
}
