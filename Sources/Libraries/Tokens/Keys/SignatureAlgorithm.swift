// The signature algorithms that a token may name (RFC 7518 §3.1, RFC 8037 §3.1), and which keys they work with. `none`
// isn't among them, and no key fits two families: that a public key serves as a secret can't be written down here.

/// An algorithm as the header of a token and `JWT_ALG` name it.
public enum SignatureAlgorithm: String, CaseIterable, Hashable, Sendable {
  case hs256 = "HS256"
  case hs384 = "HS384"
  case hs512 = "HS512"
  case rs256 = "RS256"
  case rs384 = "RS384"
  case rs512 = "RS512"
  case ps256 = "PS256"
  case ps384 = "PS384"
  case ps512 = "PS512"
  case es256 = "ES256"
  case es384 = "ES384"
  case es512 = "ES512"
  case edDSA = "EdDSA"

  enum Scheme {
    case hmac(Digest)
    case rsa(Digest)
    case rsaPSS(Digest)
    case ecdsa(Digest)
    case edwards
  }

  /// A hash function under OpenSSL's name for it.
  enum Digest: String {
    case sha256 = "SHA256"
    case sha384 = "SHA384"
    case sha512 = "SHA512"

    var bytes: Int {
      switch self {
      case .sha256: 32
      case .sha384: 48
      case .sha512: 64
      }
    }
  }

  var scheme: Scheme {
    switch self {
    case .hs256: .hmac(.sha256)
    case .hs384: .hmac(.sha384)
    case .hs512: .hmac(.sha512)
    case .rs256: .rsa(.sha256)
    case .rs384: .rsa(.sha384)
    case .rs512: .rsa(.sha512)
    case .ps256: .rsaPSS(.sha256)
    case .ps384: .rsaPSS(.sha384)
    case .ps512: .rsaPSS(.sha512)
    case .es256: .ecdsa(.sha256)
    case .es384: .ecdsa(.sha384)
    case .es512: .ecdsa(.sha512)
    case .edDSA: .edwards
    }
  }

  /// Whether a key of that kind can have made such a signature.
  func fits(_ kind: KeyKind) -> Bool {
    switch self {
    case .hs256, .hs384, .hs512: kind == .secret
    case .rs256, .rs384, .rs512, .ps256, .ps384, .ps512: kind == .rsa
    case .es256: kind == .p256
    case .es384: kind == .p384
    case .es512: kind == .p521
    case .edDSA: kind == .ed25519 || kind == .ed448
    }
  }
}

/// What a key is; curves count, sizes don't.
public enum KeyKind: String, Sendable {
  case secret = "a secret"
  case rsa = "an RSA key"
  case p256 = "a P-256 key"
  case p384 = "a P-384 key"
  case p521 = "a P-521 key"
  case ed25519 = "an Ed25519 key"
  case ed448 = "an Ed448 key"

  /// Bytes of each of the two numbers of an ECDSA signature, and of each coordinate of a point; nil for other keys.
  var fieldBytes: Int? {
    switch self {
    case .p256: 32
    case .p384: 48
    case .p521: 66
    case .secret, .rsa, .ed25519, .ed448: nil
    }
  }
}
