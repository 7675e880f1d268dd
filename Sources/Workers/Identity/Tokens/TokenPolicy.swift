// What a deployment demands of tokens, and where in their claims it looks.

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
