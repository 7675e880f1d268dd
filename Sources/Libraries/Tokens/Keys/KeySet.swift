// All keys that a verifier knows: the configured one, those of a JWK set, or both.

import Kit

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

  // MARK: JWK

  // A JWK set (RFC 7517 §5) into keys: RSA and EC (RFC 7518 §6), Ed25519 and Ed448 (RFC 8037 §2), secrets (RFC 7518 §6.4).
  //
  // A set belongs to somebody else and holds keys of all sorts: one that can't check signatures is left out, with a
  // reason, and the others are used. Only a text that is no set at all is an error.

  /// A set of hundreds of keys has a few hundred kilobytes.
  public static let maximumJWKSBytes = 1_048_576
  /// Providers publish two or three keys, or one per customer.
  private static let maximumKeys = 1_000
  private static let maximumIDBytes = CompactToken.maximumKeyIDBytes

  /// Parses a JWK set.
  /// - Parameter algorithms: those that tokens may use, for warnings about weak secrets.
  public init(jwks bytes: UnsafeRawBufferPointer, algorithms: [SignatureAlgorithm]) throws(KeyProblem) {
    guard bytes.count <= Self.maximumJWKSBytes else {
      throw KeyProblem("a JWK set of \(bytes.count) bytes, expected at most \(Self.maximumJWKSBytes)")
    }
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue(parsing: bytes)
    } catch {
      throw KeyProblem("a JWK set that is no JSON: \(error)")
    }
    guard case .array(let elements)? = document["keys"] else {
      throw KeyProblem("a JWK set without a list 'keys'")
    }
    guard elements.count <= Self.maximumKeys else {
      throw KeyProblem("a JWK set of \(elements.count) keys, expected at most \(Self.maximumKeys)")
    }
    var keys: [VerificationKey] = []
    var warnings: [String] = []
    for (index, element) in elements.enumerated() {
      do throws(KeyProblem) {
        let key = try Self.key(element)
        keys.append(key)
        if let weakness = key.weakness(under: algorithms) { warnings.append("key \(index): \(weakness)") }
      } catch {
        warnings.append("key \(index) is not used: \(error)")
      }
    }
    self.init(keys: keys, isRefreshable: true, warnings: warnings)
  }

  private static func key(_ jwk: JSONValue) throws(KeyProblem) -> VerificationKey {
    guard case .object = jwk else { throw KeyProblem("it is \(jwk.kindName), expected an object") }
    try requireForSignatures(jwk)
    let id = try text("kid", of: jwk)
    guard (id?.utf8.count ?? 0) <= maximumIDBytes else {
      throw KeyProblem("kid is longer than \(maximumIDBytes) bytes")
    }
    var algorithm: SignatureAlgorithm?
    if let name = try text("alg", of: jwk) {
      algorithm = SignatureAlgorithm(rawValue: name)
      guard algorithm != nil else { throw KeyProblem("its alg is no signature algorithm that is supported") }
    }
    return try VerificationKey(try material(jwk), id: id, algorithm: algorithm)
  }

  /// `use` and `key_ops`, where given, must allow the checking of signatures.
  private static func requireForSignatures(_ jwk: JSONValue) throws(KeyProblem) {
    if let use = try text("use", of: jwk) {
      guard use == "sig" else { throw KeyProblem("its use isn't sig") }
    }
    switch jwk["key_ops"] {
    case nil: break
    case .array(let operations)?:
      guard operations.contains(where: { $0.string == "verify" }) else {
        throw KeyProblem("its key_ops lack verify")
      }
    case .some: throw KeyProblem("key_ops is no list")
    }
  }

  private static func material(_ jwk: JSONValue) throws(KeyProblem) -> VerificationKey.Material {
    switch try text("kty", of: jwk) {
    case "RSA":
      return .publicKey(
        try PublicKey(modulus: try bytes("n", of: jwk), exponent: try bytes("e", of: jwk)))
    case "EC": return .publicKey(try ellipticCurve(jwk))
    case "OKP": return .publicKey(try edwards(jwk))
    case "oct": return .secret(try bytes("k", of: jwk))
    case nil: throw KeyProblem("kty is missing")
    default: throw KeyProblem("its kty is unknown, expected RSA, EC, OKP or oct")
    }
  }

  private static func ellipticCurve(_ jwk: JSONValue) throws(KeyProblem) -> PublicKey {
    let curve: KeyKind
    switch try text("crv", of: jwk) {
    case "P-256": curve = .p256
    case "P-384": curve = .p384
    case "P-521": curve = .p521
    default: throw KeyProblem("its crv isn't P-256, P-384 or P-521")
    }
    let x = try bytes("x", of: jwk)
    let y = try bytes("y", of: jwk)
    guard x.count == curve.fieldBytes, y.count == curve.fieldBytes else {
      throw KeyProblem("x and y haven't the length of the curve")
    }
    return try PublicKey(curve: curve, x: x, y: y)
  }

  private static func edwards(_ jwk: JSONValue) throws(KeyProblem) -> PublicKey {
    switch try text("crv", of: jwk) {
    case "Ed25519": return try PublicKey(edwards: try bytes("x", of: jwk), is448: false)
    case "Ed448": return try PublicKey(edwards: try bytes("x", of: jwk), is448: true)
    default: throw KeyProblem("its crv isn't Ed25519 or Ed448")
    }
  }

  private static func text(_ name: String, of jwk: JSONValue) throws(KeyProblem) -> String? {
    guard let value = jwk[name] else { return nil }
    guard let text = value.string else { throw KeyProblem("\(name) is \(value.kindName), expected a string") }
    return text
  }

  private static func bytes(_ name: String, of jwk: JSONValue) throws(KeyProblem) -> [UInt8] {
    guard let text = try text(name, of: jwk) else { throw KeyProblem("\(name) is missing") }
    let decoded = Base64URL.decode(text)
    guard let decoded, !decoded.isEmpty else { throw KeyProblem("\(name) is no base64url") }
    return decoded
  }
}
