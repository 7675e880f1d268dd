// From the text of a token to who it speaks for: keys, policy and cache together. What time it is comes from the caller.
//
// The order is fixed: form, algorithm, key, signature, and only then the claims. Nobody without a key gets to the
// claims' parser, and an error about a claim says that the signature was right. Where issuers have keys of their own, the
// claims must be read first for the issuer, of which nothing is believed but whose keys to try: nobody signs for another.
//
// Whether a session is on the blacklist isn't known here: ask after every verification, cached or not.

/// Verifies tokens. Belongs to one thread.
public final class TokenVerifier {
  /// Of the cache: tokens of 10,000 users, in at most 32 MiB.
  public static let defaultCacheEntries = 10_000
  private static let cacheBytes = 33_554_432

  public let policy: TokenPolicy
  /// Of tokens whose issuer is none of `issuerKeys`. When keys change, everything that was verified with the old ones is
  /// verified again.
  public var keys: KeySet {
    didSet { cache.removeAll() }
  }
  /// Of the tokens of these issuers, which no other keys verify.
  public var issuerKeys: [IssuerKeys] = [] {
    didSet { cache.removeAll() }
  }
  private(set) var cache: TokenCache
  private let hasher: TokenHasher?

  /// - Parameter cacheEntries: verified tokens that are remembered; 0: none.
  public init(keys: KeySet, policy: TokenPolicy, cacheEntries: Int = TokenVerifier.defaultCacheEntries) {
    self.keys = keys
    self.policy = policy
    cache = TokenCache(entries: cacheEntries, bytes: Self.cacheBytes)
    hasher = cacheEntries > 0 ? TokenHasher() : nil
  }

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
    guard issuerKeys.isEmpty else { return try verifyByIssuer(bytes, now: now) }
    guard keys.isUsable else { throw .noKeys }
    let token = try CompactToken(bytes, allowed: policy.algorithms)
    try Self.requireSignature(token, by: keys)
    return try VerifiedToken(try token.claims(), policy: policy, now: now)
  }

  private func verifyByIssuer(
    _ bytes: UnsafeRawBufferPointer, now: Double
  ) throws(TokenError) -> VerifiedToken {
    let token = try CompactToken(bytes, allowed: policy.algorithms)
    let claims = try token.claims()
    let issuer = Self.issuer(of: claims)
    let own = issuerKeys.first { $0.isOf(issuer) }?.keys
    guard let keys = own ?? (keys.isUsable ? keys : nil) else { throw .unknownIssuer }
    guard keys.isUsable else { throw .noKeys }
    try Self.requireSignature(token, by: keys)
    return try VerifiedToken(claims, policy: policy, now: now)
  }

  /// Which of `issuerKeys` a token would be verified with, by what it says itself; nil: none of them.
  func issuerKeys(for token: String) -> Int? {
    var token = token
    let issuer = token.withUTF8 { bytes -> String? in
      let bytes = UnsafeRawBufferPointer(bytes)
      guard let parts = try? CompactToken(bytes, allowed: policy.algorithms), let claims = try? parts.claims()
      else { return nil }
      return Self.issuer(of: claims)
    }
    return issuerKeys.firstIndex { $0.isOf(issuer) }
  }

  private static func issuer(of claims: Claims) -> String? {
    if case .scalar(.string(let issuer)) = claims.target(of: ["iss"]) { issuer } else { nil }
  }

  private static func requireSignature(_ token: CompactToken, by keys: KeySet) throws(TokenError) {
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

/// An issuer and the keys that it signs with.
public struct IssuerKeys {
  /// The claim `iss` of its tokens; compare its UTF-8.
  let issuer: String
  var keys: KeySet

  fileprivate func isOf(_ other: String?) -> Bool {
    other.map { $0.utf8.elementsEqual(issuer.utf8) } ?? false
  }
}

/// Algorithms, times and places of claims.
public struct TokenPolicy: Sendable, Equatable {
  /// `JWT_ALG`: all others are refused before any key is looked at.
  public var algorithms: [SignatureAlgorithm]
  /// `JWT_LEEWAY_S`: clock difference between the issuer and this machine, in seconds.
  public var leeway: Double
  /// `JWT_REQUIRE_EXP`: whether a token without `exp` is refused, as RIG 3 does.
  public var requiresExpiry: Bool
  /// `JWT_AUD`: one of these a token must be for; empty: `aud` isn't looked at.
  public var audiences: [String]
  /// `JWT_ISS`: one of these must have issued it; empty: `iss` isn't looked at.
  public var issuers: [String]
  /// `JWT_SESSION_FIELD`, unescaped.
  public var sessionPointer: [String]
  /// `JWT_USER_FIELD`, unescaped: the first that leads anywhere counts.
  public var userPointers: [[String]]
  /// `JWT_ROLES_FIELD`, unescaped.
  public var rolesPointer: [String]

  /// Where the user is looked for if the operator hasn't said.
  public static let defaultUserPointers = [["user"], ["sub"]]

  public init(
    algorithms: [SignatureAlgorithm] = [.hs256], leeway: Double = 0, requiresExpiry: Bool = true,
    audiences: [String] = [], issuers: [String] = [], sessionPointer: [String] = ["jti"],
    userPointers: [[String]] = Self.defaultUserPointers,
    rolesPointer: [String] = ["roles"]
  ) {
    self.algorithms = algorithms
    self.leeway = leeway
    self.requiresExpiry = requiresExpiry
    self.audiences = audiences
    self.issuers = issuers
    self.sessionPointer = sessionPointer
    self.userPointers = userPointers
    self.rolesPointer = rolesPointer
  }
}
