// The tokens of a request's `Authorization` fields (RFC 6750 §2.1, and as RIG reads it): several fields, and several
// credentials in one field.
//
//   authorization: Bearer eyJ…, Bearer eyJ…
//   authorization: Basic dXNlcg==           ignored: meant for somebody behind the gateway
//   authorization: eyJ…                     ignored, but on RIG 1's paths: its clients sent the token without a scheme

import Kit

/// Finds bearer tokens. Says nothing about whether they are valid.
public enum BearerTokens {
  /// Each token costs a verification: more in one request are refused.
  public static let maximumTokens = 16

  /// The tokens in `fields`, the values of all `Authorization` fields, in order. Throws if `Bearer` comes without a token:
  /// whoever sends that means to be somebody, and must not be taken for nobody.
  ///
  /// - Parameter takesBare: whether what has the form of a signed JWT counts without the scheme, too.
  public static func parse(
    _ fields: some Sequence<String>, takesBare: Bool = false
  ) throws(TokenError) -> [String] {
    var tokens: [String] = []
    for field in fields {
      for credential in split(field) {
        guard let token = try token(credential) ?? (takesBare ? bareToken(credential) : nil) else { continue }
        guard tokens.count < maximumTokens else {
          throw .malformed("more than \(maximumTokens) tokens in one request")
        }
        tokens.append(token)
      }
    }
    return tokens
  }

  /// Whether a token has the form of a signed JWT, three parts with dots between them (RFC 7515 §3.1), valid or not. Others are opaque:
  /// only whoever has issued them knows what they say.
  public static func mayBeJWT(_ token: String) -> Bool {
    token.utf8.count(where: { $0 == UInt8(ascii: ".") }) == 2
  }

  /// What is between commas; those in quotes separate nothing (`Digest realm="a, b"`).
  private static func split(_ field: String) -> [Substring] {
    var parts: [Substring] = []
    let utf8 = field.utf8
    var start = utf8.startIndex
    var index = start
    var isQuoted = false
    while index < utf8.endIndex {
      switch utf8[index] {
      case UInt8(ascii: "\""): isQuoted.toggle()
      case UInt8(ascii: "\\") where isQuoted:
        let next = utf8.index(after: index)
        if next < utf8.endIndex { index = next }
      case UInt8(ascii: ",") where !isQuoted:
        parts.append(field[start..<index])
        start = utf8.index(after: index)
      default: break
      }
      index = utf8.index(after: index)
    }
    parts.append(field[start...])
    return parts
  }

  /// The token of one credential; nil for other schemes.
  private static func token(_ credential: Substring) throws(TokenError) -> String? {
    let scheme = "bearer"
    let text = HTTPOctets.trimmed(credential.utf8)
    guard text.count >= scheme.utf8.count,
      zip(text, scheme.utf8).allSatisfy({ $0 | 0x20 == $1 })
    else { return nil }
    let rest = text.dropFirst(scheme.utf8.count)
    if let next = rest.first, !HTTPOctets.isBlank(next) { return nil }
    let token = HTTPOctets.trimmed(rest)
    guard !token.isEmpty else { throw .malformed("Bearer without a token in Authorization") }
    return String(Substring(token))
  }

  /// A credential that is nothing but a token.
  private static func bareToken(_ credential: Substring) -> String? {
    let text = String(Substring(HTTPOctets.trimmed(credential.utf8)))
    return mayBeJWT(text) && !text.utf8.contains(where: HTTPOctets.isBlank) ? text : nil
  }
}
