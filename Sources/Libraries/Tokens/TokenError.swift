// Why a token isn't accepted. The texts go into answers and logs: none holds anything of the token or of a key.

public enum TokenError: Error, Equatable, Sendable {
  case tooLong(bytes: Int)
  /// No signed token at all, or one that this gateway can't read.
  case malformed(String)
  case unsigned
  case algorithmNotAllowed(allowed: [SignatureAlgorithm])
  /// Keys there are, but none for this algorithm.
  case noKeyFits(SignatureAlgorithm)
  /// Neither a key nor a JWK set is configured.
  case noKeys
  /// No key has the token's `kid`: a JWK set may have to be read again.
  case unknownKey(id: String)
  case wrongSignature
  /// `exp` has passed; seconds since 1970.
  case expired(at: Double)
  /// `nbf` lies in the future; seconds since 1970.
  case notYetValid(from: Double)
  /// Every issuer has keys of its own, and there are none of the one in `iss`. Said before any signature is checked.
  case unknownIssuer
  /// `iss` is none of `JWT_ISS`.
  case wrongIssuer
  /// `aud` has none of `JWT_AUD`.
  case wrongAudience
  /// A claim that the gateway needs is of the wrong kind.
  case badClaim(String)
  /// OpenSSL failed: no matter of the token.
  case unavailable(String)

  /// Whether other keys could make it right.
  var concernsKeys: Bool {
    switch self {
    case .noKeyFits, .noKeys, .unknownKey, .wrongSignature: true
    default: false
    }
  }

  /// Whether reading the JWK set again may help.
  public var isUnknownKey: Bool {
    if case .unknownKey = self { return true }
    return false
  }
}

extension TokenError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .tooLong(let bytes): "the token has \(bytes) bytes, expected at most \(CompactToken.maximumBytes)"
    case .malformed(let reason): "the token is malformed: \(reason)"
    case .unsigned: "the token is not signed (alg none)"
    case .algorithmNotAllowed(let allowed):
      "the token's algorithm is not allowed, expected \(allowed.map(\.rawValue).joined(separator: ", "))"
    case .noKeyFits(let algorithm):
      "no key is configured that fits the token's algorithm \(algorithm.rawValue)"
    case .noKeys: "no key is configured that tokens could be verified with"
    case .unknownKey: "the token names a key (kid) that is unknown"
    case .wrongSignature: "the token's signature is wrong"
    case .expired: "the token has expired"
    case .notYetValid: "the token is not valid yet (nbf)"
    case .unknownIssuer: "the token's issuer (iss) is none that JWT_JWKS has keys of"
    case .wrongIssuer: "the token's issuer (iss) is none of JWT_ISS"
    case .wrongAudience: "the token is for none of the audiences (aud) of JWT_AUD"
    case .badClaim(let reason): "the token's claims can't be used: \(reason)"
    case .unavailable(let reason): "the token can't be verified: \(reason)"
    }
  }
}
