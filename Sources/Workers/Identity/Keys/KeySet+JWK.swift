// A JWK set (RFC 7517 §5) into keys: RSA and EC (RFC 7518 §6), Ed25519 and Ed448 (RFC 8037 §2), secrets (RFC 7518 §6.4).
//
// A set belongs to somebody else and holds keys of all sorts: one that can't check signatures is left out, with a
// reason, and the others are used. Only a text that is no set at all is an error.

import Kit

extension KeySet {
  /// A set of hundreds of keys has a few hundred kilobytes.
  public static let maximumJWKSBytes = 1_048_576
  /// Providers publish two or three keys, or one per customer.
  static let maximumKeys = 1_000
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
