// Which keys are taken from PEM and JWK sets, and which are refused with which words.

import Testing

@testable import Tokens

private func problem(_ key: String, _ algorithms: [SignatureAlgorithm] = SignatureAlgorithm.allCases)
  -> String?
{
  do throws(KeyProblem) {
    _ = try KeySet(configured: key, algorithms: algorithms)
    return nil
  } catch {
    return error.description
  }
}

private func policy(_ algorithms: [SignatureAlgorithm] = SignatureAlgorithm.allCases) -> TokenPolicy {
  TokenPolicy(algorithms: algorithms, requiresExpiry: false)
}

@Suite("Keys")
struct KeyTests {
  @Test(
    "every form of PEM gives the key",
    arguments: [
      (Fixtures.rsaPublicPEM, Fixtures.tokenRS256), (Fixtures.rsaPKCS1PEM, Fixtures.tokenPS256),
      (Fixtures.rsaCertificatePEM, Fixtures.tokenRS256), (Fixtures.rsaPrivatePEM, Fixtures.tokenRS512),
      (Fixtures.rsaTraditionalPEM, Fixtures.tokenRS256), (Fixtures.p256TraditionalPEM, Fixtures.tokenES256),
      (Fixtures.ed25519PrivatePEM, Fixtures.tokenEdDSA),
      ("Subject: test\n\n" + Fixtures.rsaPublicPEM + "\n\n", Fixtures.tokenRS256),
      (Fixtures.rsaPublicPEM.replacing("\n", with: #"\n"#), Fixtures.tokenRS256),
      (Fixtures.rsaPublicPEM.replacing("\n", with: "\r\n"), Fixtures.tokenRS256),
      (Fixtures.rsaCertificatePEM + "\n" + Fixtures.rsaCertificatePEM, Fixtures.tokenRS256),
    ])
  func pem(key: String, token: String) throws {
    #expect(refusal(token, try TokenVerifier(key: key)) == nil)
  }

  @Test(
    "keys that can't be used are refused, and the reason doesn't hold them",
    arguments: [
      (Fixtures.rsa1024PublicPEM, "1024 bits"), (Fixtures.secp256k1PublicPEM, "curve"),
      (Fixtures.rsaEncryptedPEM, "password"), ("", "empty secret"),
      ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "can't read"),
      ("-----BEGIN PUBLIC KEY-----", "can't read"), ("-----BEGIN NOTHING-----", "without a public key"),
      (Fixtures.rsaPublicPEM + "\n" + Fixtures.p256PublicPEM, "several keys"),
      (String(Fixtures.rsaPublicPEM.dropLast(120)), "can't read"),
    ])
  func refused(key: String, reason: String) throws {
    let found = try #require(problem(key))
    #expect(found.contains(reason))
    #expect(!found.contains("MII"))
  }

  @Test("a key that fits no allowed algorithm is refused at start")
  func fitsNothing() {
    #expect(
      problem(Fixtures.rsaPublicPEM, [.hs256])?.contains("fits none of the allowed algorithms (HS256)")
        == true)
    #expect(
      problem(Fixtures.secret, [.rs256, .es256])
        == "a secret, which fits none of the allowed algorithms (RS256, ES256)")
    #expect(problem(Fixtures.p256PublicPEM, [.es384]) != nil)
    #expect(problem(Fixtures.p256PublicPEM, [.hs256, .es256]) == nil)
  }

  @Test("a short secret works and is complained about")
  func weakSecret() throws {
    let keys = try KeySet(configured: "mysecret", algorithms: [.hs256])
    #expect(keys.warnings.count == 1)
    #expect(keys.warnings.allSatisfy { $0.contains("8 bytes") && !$0.contains("mysecret") })
    let verifier = TokenVerifier(keys: keys, policy: policy([.hs256]), cacheEntries: 0)
    #expect(refusal(TestToken.make(#"{"sub":"a"}"#, secret: "mysecret"), verifier) == nil)
    #expect(try KeySet(configured: Fixtures.secret, algorithms: [.hs512]).warnings.isEmpty)
  }

  @Test("a secret isn't printed with its key")
  func printing() throws {
    let keys = try KeySet(configured: Fixtures.secret, algorithms: [.hs256])
    var dumped = ""
    dump(keys, to: &dumped)
    #expect(!"\(keys) \(String(reflecting: keys)) \(dumped)".contains("sixty"))
  }

  @Test("without keys everything is refused")
  func noKeys() {
    let verifier = TokenVerifier(keys: KeySet(), policy: policy(), cacheEntries: 0)
    #expect(refusal(Fixtures.tokenHS256, verifier) == .noKeys)
    #expect(refusal("x", verifier) == .noKeys)
  }
}

@Suite("JWK sets")
struct JWKSTests {
  @Test("keys of all types check tokens with and without kid")
  func allTypes() throws {
    let keys = try KeySet(jwks: Fixtures.jwks)
    #expect(keys.warnings.isEmpty)
    #expect(keys.keys.count == 7)
    let verifier = TokenVerifier(keys: keys, policy: policy(), cacheEntries: 0)
    for token in [
      Fixtures.tokenKeyA, Fixtures.tokenKeyB, Fixtures.tokenRS256, Fixtures.tokenES256, Fixtures.tokenES384,
      Fixtures.tokenES512, Fixtures.tokenEdDSA, Fixtures.tokenEd448, Fixtures.tokenHS256,
    ] {
      #expect(refusal(token, verifier) == nil)
    }
    // The RSA key is reserved for RS256, the secret for HS256.
    #expect(refusal(Fixtures.tokenPS256, verifier) == .noKeyFits(.ps256))
    #expect(refusal(Fixtures.tokenHS512, verifier) == .noKeyFits(.hs512))
  }

  @Test("an unknown kid is told apart, so that the set can be read again")
  func unknownKey() throws {
    let verifier = TokenVerifier(keys: try KeySet(jwks: Fixtures.jwks), policy: policy())
    let found = try #require(refusal(Fixtures.tokenKeyC, verifier))
    #expect(found == .unknownKey(id: "c"))
    #expect(found.isUnknownKey)
    verifier.keys = try KeySet(jwks: Fixtures.jwks.replacing(#""kid":"a""#, with: #""kid":"c""#))
    #expect(refusal(Fixtures.tokenKeyC, verifier) == nil)
    #expect(refusal(Fixtures.tokenKeyA, verifier) == .unknownKey(id: "a"))
  }

  @Test("a kid chooses the key: others aren't tried")
  func chosen() throws {
    let set = try KeySet(jwks: Fixtures.jwks.replacing(#""kid":"b""#, with: #""kid":"c""#))
    let verifier = TokenVerifier(keys: set, policy: policy(), cacheEntries: 0)
    #expect(refusal(Fixtures.tokenKeyC, verifier) == .noKeyFits(.rs256))
  }

  @Test("the configured key has no name: it checks tokens of any kid that no set knows")
  func configuredAndSet() throws {
    let alone = TokenVerifier(
      keys: try KeySet(configured: Fixtures.rsaPublicPEM, algorithms: [.rs256]), policy: policy(),
      cacheEntries: 0)
    #expect(refusal(Fixtures.tokenKeyC, alone) == nil)
    #expect(refusal(Fixtures.tokenRSAOther, alone) == .wrongSignature)
    let both = TokenVerifier(
      keys: try KeySet(configured: Fixtures.rsaPublicPEM, algorithms: [.rs256]).adding(
        KeySet(jwks: Fixtures.jwks)),
      policy: policy(), cacheEntries: 0)
    #expect(refusal(Fixtures.tokenKeyC, both) == nil)
    #expect(refusal(Fixtures.tokenKeyB, both) == nil)
  }

  @Test(
    "keys that aren't for signatures, or are broken, are left out with a reason",
    arguments: [
      (#"{"kty":"oct","k":"AAAA","use":"enc"}"#, "use isn't sig"),
      (#"{"kty":"oct","k":"AAAA","use":1}"#, "use is a number"),
      (#"{"kty":"oct","k":"AAAA","key_ops":["sign"]}"#, "lack verify"),
      (#"{"kty":"oct","k":"AAAA","key_ops":"verify"}"#, "no list"),
      (#"{"kty":"oct","k":"AAAA","alg":"A128KW"}"#, "alg is no signature"),
      (#"{"kty":"oct","k":"AAAA","alg":"RS256"}"#, "doesn't fit"),
      (#"{"kty":"oct","k":"AA=="}"#, "no base64url"), (#"{"kty":"oct","k":""}"#, "no base64url"),
      (#"{"kty":"oct"}"#, "k is missing"),
      (#"{"kty":"oct","k":"AAAA","kid":7}"#, "kid is a number"), (#"{"k":"AAAA"}"#, "kty is missing"),
      (#"{"kty":"XYZ"}"#, "kty is unknown"), (#""oct""#, "expected an object"),
      ("null", "expected an object"),
      (#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, "bits"), (#"{"kty":"RSA","n":"AQAB"}"#, "e is missing"),
      (#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#, "crv isn't"),
      (#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#, "length"),
      (#"{"kty":"OKP","crv":"X25519","x":"AA"}"#, "crv isn't"),
      (#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#, "no key of Ed25519"),
      (
        #"{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","#
          + #""y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}"#, "make no EC key"
      ),
    ])
  func leftOut(jwk: String, reason: String) throws {
    let good = #"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","alg":"HS256"}"#
    let keys = try KeySet(jwks: #"{"keys":[\#(jwk),\#(good)]}"#)
    #expect(keys.keys.count == 1)
    #expect(keys.warnings.count == 1)
    #expect(keys.warnings.allSatisfy { $0.contains("key 0 is not used: ") && $0.contains(reason) })
  }

  @Test("an RSA key with exponent 1 or an even one is left out", arguments: ["AQ", "Ag"])
  func badExponent(exponent: String) throws {
    let set = Fixtures.jwks.replacing(#""e":"AQAB""#, with: #""e":"\#(exponent)""#)
    let keys = try KeySet(jwks: set)
    #expect(keys.warnings.count == 1)
    #expect(keys.keys.count == 6)
  }

  @Test(
    "a text that is no set is refused whole",
    arguments: [
      "", "x", "[]", "{}", #"{"keys":{}}"#, #"{"keys":[]"#, #"{"keys":[],"keys":[]}"#, "<html></html>",
    ])
  func noSet(text: String) {
    #expect(throws: KeyProblem.self) { try KeySet(jwks: text) }
  }

  @Test("a token without kid isn't tried against hundreds of keys")
  func tries() throws {
    let many = (0..<100).map {
      #"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"\#($0)"}"#
    }
    let keys = try KeySet(jwks: #"{"keys":[\#(many.joined(separator: ","))]}"#)
    #expect(keys.candidates(id: nil, algorithm: .hs256).keys.count == KeySet.maximumTries)
    #expect(keys.candidates(id: "77", algorithm: .hs256).keys.count == 1)
  }
}
