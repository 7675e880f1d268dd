// Tokens of any header and claims, signed with HS256, for what no proper library would make.

import COpenSSL

@testable import Tokens

enum TestToken {
  /// A moment at which the tokens of `Fixtures` are valid.
  static let now: Double = 1_700_000_100

  static func make(
    _ claims: String, header: String = #"{"alg":"HS256"}"#, secret: String = Fixtures.secret
  ) -> String {
    let signed = "\(encode(header.utf8)).\(encode(claims.utf8))"
    let key = Array(secret.utf8)
    var code = [UInt8](repeating: 0, count: 32)
    var count: CUnsignedInt = 0
    _ = HMAC(EVP_sha256(), key, CInt(key.count), Array(signed.utf8), signed.utf8.count, &code, &count)
    return "\(signed).\(encode(code))"
  }

  static func encode(_ bytes: some Sequence<UInt8>) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    let bytes = Array(bytes)
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let bits = group.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - group.count))
      for position in 0...group.count { text.append(alphabet[(bits >> (18 - 6 * position)) & 0x3F]) }
    }
    return String(decoding: text, as: UTF8.self)
  }
}

extension KeySet {
  init(jwks text: String, algorithms: [SignatureAlgorithm] = SignatureAlgorithm.allCases) throws(KeyProblem) {
    self = try Array(text.utf8).withUnsafeBufferPointer { (bytes) throws(KeyProblem) in
      try KeySet(jwks: UnsafeRawBufferPointer(bytes), algorithms: algorithms)
    }
  }
}

extension TokenVerifier {
  /// A verifier with one key and without a cache, that allows everything unless told otherwise, tokens without exp too.
  convenience init(
    key: String, _ algorithms: [SignatureAlgorithm] = SignatureAlgorithm.allCases, leeway: Double = 0
  ) throws(KeyProblem) {
    self.init(
      keys: try KeySet(configured: key, algorithms: algorithms),
      policy: TokenPolicy(algorithms: algorithms, leeway: leeway, requiresExpiry: false), cacheEntries: 0)
  }
}

/// Why a token is refused; nil if it is accepted.
func refusal(_ token: String, _ verifier: TokenVerifier, now: Double = TestToken.now) -> TokenError? {
  do throws(TokenError) {
    _ = try verifier.verify(token, now: now)
    return nil
  } catch {
    return error
  }
}
