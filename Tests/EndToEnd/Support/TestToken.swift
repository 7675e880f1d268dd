// JSON Web Tokens as an issuer makes them, by OpenSSL's HMAC.

import COpenSSL
import Foundation

enum TestToken {
  static let secret = "a secret of the tests, of thirty-two bytes and more"

  /// Settings of a gateway that accepts these tokens.
  static func settings(_ more: [String: String] = [:]) -> [String: String] {
    ["JWT_SECRET_KEY": secret].merging(more) { $1 }
  }

  /// A token with these claims, JSON text.
  ///
  /// - Parameter expires: whether it gets an `exp` far away if it has none, as the gateway demands.
  static func make(
    _ claims: String, header: String = #"{"alg":"HS256","typ":"JWT"}"#, secret: String = secret,
    expires: Bool = true
  ) -> String {
    let claims = expires ? withExpiry(claims) : claims
    let signed = encoded(Array(header.utf8)) + "." + encoded(Array(claims.utf8))
    return signed + "." + encoded(hmac(signed, secret))
  }

  /// The claims with an `exp` in the year 2100, unless they have one.
  static func withExpiry(_ claims: String) -> String {
    guard claims.hasPrefix("{"), claims.hasSuffix("}"), !claims.contains(#""exp""#) else { return claims }
    return claims.dropLast() + (claims.count > 2 ? "," : "") + #""exp":4102444800}"#
  }

  /// A token of a user, with a session and further claims as JSON text (`"a":1`).
  static func of(_ user: String, session: String? = nil, _ more: String = "") -> String {
    let session = session.map { #","jti":"\#($0)""# } ?? ""
    return make(#"{"user":"\#(user)"\#(session)\#(more.isEmpty ? "" : ",\(more)")}"#)
  }

  static func bearer(_ tokens: String...) -> (String, String) {
    ("authorization", tokens.map { "Bearer \($0)" }.joined(separator: ", "))
  }

  static func encoded(_ bytes: [UInt8]) -> String {
    Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing(
      "=", with: "")
  }

  private static func hmac(_ text: String, _ secret: String) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    var length: UInt32 = 0
    let key = Array(secret.utf8)
    let bytes = Array(text.utf8)
    HMAC(EVP_sha256(), key, CInt(key.count), bytes, bytes.count, &digest, &length)
    return digest
  }
}
