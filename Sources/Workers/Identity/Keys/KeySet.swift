// All keys that a verifier knows: the configured one, those of a JWK set, or both.

/// Keys, and how one is found for a token.
public struct KeySet {
  /// Keys that are tried for a token without `kid`: a set of hundreds must not make one bad token cost hundreds of checks.
  static let maximumTries = 8

  public private(set) var keys: [VerificationKey]
  /// Whether an unknown `kid` can mean that the set has become old.
  public private(set) var isRefreshable: Bool
  /// What the operator should know of keys left out and weak keys.
  public private(set) var warnings: [String]

  /// No keys: every token is invalid.
  public init() {
    keys = []
    isRefreshable = false
    warnings = []
  }

  init(keys: [VerificationKey], isRefreshable: Bool, warnings: [String] = []) {
    self.keys = keys
    self.isRefreshable = isRefreshable
    self.warnings = warnings
  }

  /// The key of `JWT_SECRET_KEY`: PEM, or else a secret whose bytes are those of the text. Throws if none of the
  /// algorithms fits: no token could ever be valid.
  public init(configured text: String, algorithms: [SignatureAlgorithm]) throws(KeyProblem) {
    let key =
      try PublicKey.isPEM(text) ? VerificationKey(pem: text) : VerificationKey(secret: Array(text.utf8))
    guard algorithms.contains(where: key.serves) else {
      let names = algorithms.map(\.rawValue).joined(separator: ", ")
      throw KeyProblem("\(key.kind.rawValue), which fits none of the allowed algorithms (\(names))")
    }
    self.init(
      keys: [key], isRefreshable: false, warnings: key.weakness(under: algorithms).map { [$0] } ?? [])
  }

  /// Whether a token may be verified with it, now or when it has been read again.
  var isUsable: Bool { !keys.isEmpty || isRefreshable }

  /// The keys of both.
  public func adding(_ other: KeySet) -> KeySet {
    KeySet(
      keys: keys + other.keys, isRefreshable: isRefreshable || other.isRefreshable,
      warnings: warnings + other.warnings)
  }

  /// Keys that may have signed a token, the likeliest first. With a `kid` those of that name, or, if there are none,
  /// those without a name.
  func candidates(id: String?, algorithm: SignatureAlgorithm) -> Candidates {
    var found = Candidates()
    if let id {
      // Byte for byte: Swift's own comparison finds texts equal that only look the same.
      let named = keys.filter { $0.id.map { $0.utf8.elementsEqual(id.utf8) } ?? false }
      found.isNamed = !named.isEmpty
      found.keys = (named.isEmpty ? keys.filter { $0.id == nil } : named).filter { $0.serves(algorithm) }
    } else {
      found.keys = keys.filter { $0.serves(algorithm) }
    }
    if found.keys.count > Self.maximumTries { found.keys.removeLast(found.keys.count - Self.maximumTries) }
    return found
  }

  struct Candidates {
    var keys: [VerificationKey] = []
    /// Whether there is a key with the token's `kid`, fitting or not.
    var isNamed = false
  }
}
