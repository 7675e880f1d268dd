// Keys about tokens, roles, presence and who a request comes from.

extension SettingKey {
  static let identity: [SettingKey] = [
    .scalar(
      "JWT_SECRET_KEY", \.jwtSecretKey, form: "a secret, or a key in PEM",
      help: "key of token signatures; an empty one counts as unset, with a warning",
      parse: { (text) throws(ValueProblem) in Secret(text) }, show: { $0.map(\.description) ?? "" }
    ).secret,
    .list(
      "JWT_ALG", \.jwtAlgorithms, form: "names, separated by commas",
      "allowed signature algorithms; empty: HS256, or with a JWK set alone all asymmetric ones",
      parse: { (text) throws(ValueProblem) in try algorithm(text) }),
    SettingKey(
      name: "JWT_JWKS", form: KeySetSource.form,
      help: "JWK set with keys of token signatures; with issuers, each for tokens of that issuer (iss) only",
      assign: { (node, settings) throws(ValueProblems) in
        settings.jwtKeySets = try KeySetSource.list(node)
      },
      show: { $0.jwtKeySets.map(\.text).joined(separator: ",") }),
    .integer(
      "JWT_JWKS_REFRESH_S", \.jwtJWKSRefreshSeconds, 1...86_400, unit: "seconds",
      "time after which a JWK set is looked at again"),
    .list(
      "JWT_AUD", \.jwtAudiences, form: "names, separated by commas",
      "audiences (aud) of which a token must have one; empty: not looked at",
      parse: { (text) throws(ValueProblem) in text }),
    .list(
      "JWT_ISS", \.jwtIssuers, form: "names, separated by commas",
      "issuers (iss) of which one must have issued a token; empty: not looked at",
      parse: { (text) throws(ValueProblem) in text }),
    .flag(
      "JWT_REQUIRE_EXP", \.jwtRequireExpiry,
      "refuse tokens that never expire (without exp); false for tokens of RIG 1"),
    pointer("JWT_SESSION_FIELD", \.jwtSessionPointer, "claim that names the session"),
    .scalar(
      "JWT_USER_FIELD", \.jwtUserPointer, form: claimForm,
      help: "claim that names the user; unset: /user, or else /sub",
      parse: { (text) throws(ValueProblem) in try claim(text) }, show: { $0.map(JSONPointer.text) ?? "" }),
    pointer("JWT_ROLES_FIELD", \.jwtRolesPointer, "claim that lists the roles"),
    .integer(
      "JWT_LEEWAY_S", \.jwtLeewaySeconds, 0...3_600, unit: "seconds",
      "clock difference allowed for exp and nbf"
    ),
    .flag("JWT_CLOSE_ON_EXPIRY", \.jwtCloseOnExpiry, "close a connection when its token expires"),
    .flag(
      "MAY_SWITCH_USER", \.maySwitchUser,
      "let a change of subscriptions show the token of another user than the connection's"),
    .list(
      "PRIVILEGED_ROLES", \.privilegedRoles, form: "names, separated by commas",
      "roles that may follow other users' events and presence",
      parse: { (text) throws(ValueProblem) in try ValueForm.nonEmpty(text) }),
    .scalar(
      "SESSION_ROLE", \.sessionRole, form: "a name",
      help:
        "role of users that presence lists; empty: all; unset: all, and on RIG 1's paths (/rg/sessions) user, as there",
      parse: { (text) throws(ValueProblem) in ValueForm.trimmed(text[...]) }, show: { $0 ?? "" }
    ).setWhenEmpty,
    .integer(
      "JWT_BLACKLIST_DEFAULT_EXPIRY_HOURS", \.jwtBlacklistDefaultExpiryHours, 1...87_600, unit: "hours",
      "for which DELETE /rg/connections/:jti ends a session if nothing says when its tokens end"),
    .integer(
      "PRESENCE_GRACE_S", \.presenceGraceSeconds, 0...3_600, unit: "seconds",
      "time without a connection after which a user counts as gone"),
    .list(
      "TRUSTED_PROXIES", \.trustedProxies, form: "IP addresses or networks, separated by commas",
      "proxies whose forwarding headers count; limits by address count the clients that they name, and without them the proxies",
      parse: { (text) throws(ValueProblem) in try ValueForm.network(text) }),
  ]

  private static func pointer(_ name: String, _ field: SettingField<[String]>, _ help: String) -> SettingKey {
    .scalar(
      name, field, form: claimForm, help: help,
      parse: { (text) throws(ValueProblem) in try claim(text) }, show: { JSONPointer.text($0) })
  }

  private static let claimForm = "a JSON Pointer, or the name of a claim"

  /// A name alone, as RIG 1 had it, is that of a claim; one with a slash in it is rather a pointer that lacks its first.
  private static func claim(_ text: String) throws(ValueProblem) -> [String] {
    if !text.isEmpty, !text.contains(where: { $0 == "/" || $0 == "~" }) { return [text] }
    let tokens = try JSONPointer.parse(text)
    guard !tokens.isEmpty else { throw ValueProblem("the empty pointer names no claim") }
    return tokens
  }

  private static func algorithm(_ text: String) throws(ValueProblem) -> String {
    let known =
      ["HS", "RS", "PS", "ES"].flatMap { family in ["256", "384", "512"].map { family + $0 } } + ["EdDSA"]
    guard known.contains(text) else {
      throw ValueProblem("'\(text)' is unknown; expected some of \(known.joined(separator: ", "))")
    }
    return text
  }
}
