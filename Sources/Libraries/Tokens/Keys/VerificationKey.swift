// A key that tokens are checked with: a secret or a public key, perhaps with a name, perhaps for one algorithm only.
//
// A secret and a public key are different cases of one type: no path leads from the bytes of a public key to HMAC.

import COpenSSL

/// One key with what is prepared for it. Belongs to the thread of its verifier.
public final class VerificationKey {
  enum Material {
    case secret([UInt8])
    case publicKey(PublicKey)
  }

  /// The name that a token's `kid` chooses it by; nil: a key for tokens of any name.
  public let id: String?
  /// The algorithm that the key is reserved for; nil: all that fit its kind.
  public let algorithm: SignatureAlgorithm?
  public let kind: KeyKind
  private let material: Material
  private var checks: [SignatureAlgorithm: any SignatureCheck] = [:]

  init(_ material: Material, id: String? = nil, algorithm: SignatureAlgorithm? = nil) throws(KeyProblem) {
    switch material {
    case .secret(let bytes):
      guard !bytes.isEmpty else { throw KeyProblem("an empty secret") }
      guard !PublicKey.isPEM(String(decoding: bytes, as: UTF8.self)) else {
        throw KeyProblem("a PEM text as secret")
      }
      kind = .secret
    case .publicKey(let key): kind = key.kind
    }
    if let algorithm {
      guard algorithm.fits(kind) else {
        throw KeyProblem("\(kind.rawValue), which doesn't fit alg \(algorithm.rawValue)")
      }
    }
    self.material = material
    self.id = id
    self.algorithm = algorithm
  }

  public convenience init(secret: [UInt8]) throws(KeyProblem) {
    try self.init(.secret(secret))
  }

  /// The public part of a key, or the key of a certificate, in PEM.
  public convenience init(pem: String) throws(KeyProblem) {
    try self.init(.publicKey(PublicKey(pem: pem)))
  }

  /// Whether the key may check tokens of `algorithm`.
  func serves(_ algorithm: SignatureAlgorithm) -> Bool {
    algorithm.fits(kind) && (self.algorithm == nil || self.algorithm == algorithm)
  }

  /// What is weak about the key under `algorithms`, for the log; nil if nothing is.
  func weakness(under algorithms: [SignatureAlgorithm]) -> String? {
    guard case .secret(let bytes) = material else { return nil }
    let wanted = algorithms.filter(serves).compactMap { algorithm -> Int? in
      if case .hmac(let digest) = algorithm.scheme { return digest.bytes }
      return nil
    }.max()
    guard let wanted, bytes.count < wanted else { return nil }
    return "the secret has \(bytes.count) bytes, expected at least \(wanted) (RFC 7518 §3.2): "
      + "short secrets can be guessed from one token"
  }

  /// Whether the key has made `signature`; false for an algorithm that it doesn't serve.
  func accepts(
    _ signature: UnsafeRawBufferPointer, over message: UnsafeRawBufferPointer,
    by algorithm: SignatureAlgorithm
  ) throws(KeyProblem) -> Bool {
    guard serves(algorithm) else { return false }
    if let check = checks[algorithm] { return check.accepts(signature, over: message) }
    let check = try prepare(algorithm)
    checks[algorithm] = check
    return check.accepts(signature, over: message)
  }

  private func prepare(_ algorithm: SignatureAlgorithm) throws(KeyProblem) -> any SignatureCheck {
    switch (algorithm.scheme, material) {
    case (.hmac(let digest), .secret(let secret)): try HMACCheck(secret: secret, digest: digest)
    case (.rsa(let digest), .publicKey(let key)):
      try DigestCheck(key: key, digest: digest, padding: RSA_PKCS1_PADDING)
    case (.rsaPSS(let digest), .publicKey(let key)):
      try DigestCheck(key: key, digest: digest, padding: RSA_PKCS1_PSS_PADDING)
    case (.ecdsa(let digest), .publicKey(let key)): try DigestCheck(key: key, digest: digest, padding: nil)
    case (.edwards, .publicKey(let key)): try EdwardsCheck(key: key)
    case (.hmac, .publicKey), (.rsa, .secret), (.rsaPSS, .secret), (.ecdsa, .secret), (.edwards, .secret):
      throw KeyProblem("\(kind.rawValue) can't be used with \(algorithm.rawValue)")
    }
  }
}

/// Shows what kind of key it is, never the key.
extension VerificationKey: CustomStringConvertible, CustomReflectable {
  public var description: String { kind.rawValue }
  public var customMirror: Mirror { Mirror(self, children: []) }
}
