// A token whose signature, times and claims have been found right. It can be made in no other way.

import Kit
import Settings

/// Who a token speaks for, and until when.
public final class VerifiedToken: Sendable {
  /// Users, sessions and roles are names: longer ones are refused.
  public static let maximumNameBytes = 1_024
  public static let maximumRoles = 256
  /// The end of the year 9999: later times count as this one, so that no arithmetic with them overflows.
  public static let latestTime: Double = 253_402_300_799

  /// Never empty. Compare its UTF-8: Swift finds names equal that only look the same.
  public let user: String?
  /// Never empty. Compare its UTF-8.
  public let session: String?
  /// Each once, in the token's order.
  public let roles: [String]
  /// `exp`, in seconds since 1970; nil: it never expires.
  public let expiry: Double?
  /// When it stops being accepted: `exp` and the leeway.
  public let validUntil: Double?
  public let claims: Claims

  /// Checks times and claims of a token whose signature is right.
  init(_ claims: Claims, policy: TokenPolicy, now: Double) throws(TokenError) {
    expiry = try Self.time("exp", of: claims)
    guard expiry != nil || !policy.requiresExpiry else {
      throw .badClaim("exp is missing (JWT_REQUIRE_EXP)")
    }
    validUntil = expiry.map { $0 + policy.leeway }
    // RFC 7519 §4.1.4: valid *before* exp, and not at it.
    if let expiry, let validUntil, now >= validUntil { throw .expired(at: expiry) }
    // iat says nothing about whether a token is valid (RFC 7519 §4.1.6): the issuer's clock may be ahead.
    if let start = try Self.time("nbf", of: claims), now + policy.leeway < start {
      throw .notYetValid(from: start)
    }
    if !policy.issuers.isEmpty { try Self.requireIssuer(of: claims, among: policy.issuers) }
    if !policy.audiences.isEmpty { try Self.requireAudience(of: claims, among: policy.audiences) }
    session = try Self.name("the session", at: policy.sessionPointer, of: claims)
    var user: String?
    for pointer in policy.userPointers where user == nil {
      user = try Self.name("the user", at: pointer, of: claims)
    }
    self.user = user
    roles = try Self.roles(at: policy.rolesPointer, of: claims)
    self.claims = claims
  }

  /// The scalar at a pointer into the claims; nil if it leads nowhere, or to an object or list.
  public func value(at pointer: [String]) -> ScalarValue? { claims.value(at: pointer) }

  /// Whether its claim `scopes.rg.actions` names the action: what RIG 1's paths let a token do (contract §7).
  public func allows(action: String) -> Bool {
    (claims.strings(at: Self.actionsPointer) ?? []).contains { $0.utf8.elementsEqual(action.utf8) }
  }

  private static let actionsPointer = ["scopes", "rg", "actions"]

  private static func time(_ name: String, of claims: Claims) throws(TokenError) -> Double? {
    switch claims.target(of: [name]) {
    case .nothing: return nil
    case .scalar(.integer(let seconds)): return min(Double(seconds), latestTime)
    case .scalar(.number(let seconds)): return min(seconds, latestTime)
    case .scalar, .array, .object, .unusable: throw .badClaim("\(name) is no number of seconds since 1970")
    }
  }

  private static func requireIssuer(of claims: Claims, among allowed: [String]) throws(TokenError) {
    switch claims.target(of: ["iss"]) {
    case .nothing: throw .badClaim("iss is missing (JWT_ISS)")
    case .scalar(.string(let issuer)):
      guard allowed.contains(where: { $0.utf8.elementsEqual(issuer.utf8) }) else { throw .wrongIssuer }
    case .scalar, .array, .object, .unusable: throw .badClaim("iss is no string")
    }
  }

  private static func requireAudience(of claims: Claims, among allowed: [String]) throws(TokenError) {
    guard claims.target(of: ["aud"]) != .nothing else { throw .badClaim("aud is missing (JWT_AUD)") }
    guard let audiences = claims.strings(at: ["aud"]) else {
      throw .badClaim("aud is neither a string nor a list of strings")
    }
    let isMeant = audiences.contains { audience in
      allowed.contains { $0.utf8.elementsEqual(audience.utf8) }
    }
    guard isMeant else { throw .wrongAudience }
  }

  private static func name(_ what: String, at pointer: [String], of claims: Claims) throws(TokenError)
    -> String?
  {
    switch claims.target(of: pointer) {
    case .nothing: return nil
    case .scalar(.string(let name)):
      try require(what, name)
      return name
    case .scalar, .array, .object, .unusable:
      throw .badClaim("\(what) at \(JSONPointer.text(pointer)) is no string")
    }
  }

  private static func roles(at pointer: [String], of claims: Claims) throws(TokenError) -> [String] {
    guard claims.target(of: pointer) != .nothing else { return [] }
    guard let names = claims.strings(at: pointer) else {
      throw .badClaim("the roles at \(JSONPointer.text(pointer)) are no list of strings")
    }
    guard names.count <= maximumRoles else { throw .badClaim("more than \(maximumRoles) roles") }
    var roles: [String] = []
    for name in names {
      try require("a role", name)
      if !roles.contains(where: { $0.utf8.elementsEqual(name.utf8) }) { roles.append(name) }
    }
    return roles
  }

  private static func require(_ what: String, _ name: String) throws(TokenError) {
    guard !name.isEmpty else { throw .badClaim("\(what) is an empty string") }
    guard name.utf8.count <= maximumNameBytes else {
      throw .badClaim("\(what) is longer than \(maximumNameBytes) bytes")
    }
  }
}
