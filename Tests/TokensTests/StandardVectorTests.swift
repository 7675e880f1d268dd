// The examples of the standards: RFC 7515 appendix A, RFC 7519 §3.1, RFC 7520 §4, RFC 8037 appendix A.

import Testing

@testable import Tokens

private let joe =
  "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
private let frodo =
  "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250by"
  + "B0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUg"
  + "eW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"

struct Vector: CustomTestStringConvertible, Sendable {
  let name: String
  let jwk: String
  let signed: String
  let signature: String

  var testDescription: String { name }
  var token: String { "\(signed).\(signature)" }
}

private let rfc7519 = Vector(
  name: "RFC 7515 A.1 and RFC 7519 §3.1, HS256",
  jwk:
    #"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
  signed: "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\(joe)",
  signature: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")

private let rfc7515RSA = Vector(
  name: "RFC 7515 A.2, RS256",
  jwk:
    #"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS"#
    + "2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5"
    + "z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DW"
    + #"NmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
  signed: "eyJhbGciOiJSUzI1NiJ9.\(joe)",
  signature:
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJd"
    + "bF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN938"
    + "3LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkW"
    + "ywlVmtVrBp0igcN_IoypGlUPQGe77Rw")

private let rfc7515P256 = Vector(
  name: "RFC 7515 A.3, ES256",
  jwk: #"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#
    + #""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
  signed: "eyJhbGciOiJFUzI1NiJ9.\(joe)",
  signature: "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")

private let rfc7515P521 = Vector(
  name: "RFC 7515 A.4, ES512",
  jwk:
    #"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4q"#
    + #"UxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
  signed: "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA",
  signature:
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZ"
    + "goXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn")

private let rfc7520P521 = Vector(
  name: "RFC 7520 §4.3, ES512",
  jwk: #"{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521","#
    + #""x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","#
    + #""y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}"#,
  signed: "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.\(frodo)",
  signature:
    "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sD"
    + "DyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2")

private let rfc7520HMAC = Vector(
  name: "RFC 7520 §4.4, HS256",
  jwk: #"{"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256","#
    + #""k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}"#,
  signed: "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.\(frodo)",
  signature: "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0")

private let rfc8037 = Vector(
  name: "RFC 8037 A.4, Ed25519",
  jwk: #"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
  signed: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
  signature: "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")

@Suite("Examples of the standards")
struct StandardVectorTests {
  private static func verifier(_ vector: Vector) throws -> TokenVerifier {
    let keys = try KeySet(jwks: #"{"keys":[\#(vector.jwk)]}"#)
    return TokenVerifier(
      keys: keys, policy: TokenPolicy(algorithms: SignatureAlgorithm.allCases, requiresExpiry: false),
      cacheEntries: 0)
  }

  @Test(
    "signatures over claims are right, and the claims are read",
    arguments: [rfc7519, rfc7515RSA, rfc7515P256])
  func claims(vector: Vector) throws {
    let verifier = try Self.verifier(vector)
    let token = try verifier.verify(vector.token, now: 1_300_819_379)
    #expect(token.expiry == 1_300_819_380)
    #expect(token.value(at: ["iss"]) == .string("joe"))
    #expect(token.value(at: ["http://example.com/is_root"]) == .bool(true))
    #expect(refusal(vector.token, verifier, now: 1_300_819_380) == .expired(at: 1_300_819_380))
  }

  @Test(
    "signatures over other texts are right: only then the texts are found to be no claims",
    arguments: [rfc7515P521, rfc7520P521, rfc7520HMAC, rfc8037])
  func otherPayloads(vector: Vector) throws {
    let verifier = try Self.verifier(vector)
    guard case .malformed(let reason)? = refusal(vector.token, verifier) else {
      Issue.record("\(vector.name): expected malformed claims")
      return
    }
    #expect(reason.hasPrefix("its claims: "))
  }

  @Test(
    "a signature with its first character changed is wrong",
    arguments: [rfc7519, rfc7515RSA, rfc7515P256, rfc7515P521, rfc7520P521, rfc7520HMAC, rfc8037])
  func changed(vector: Vector) throws {
    let other = (vector.signature.hasPrefix("B") ? "C" : "B") + vector.signature.dropFirst()
    #expect(refusal("\(vector.signed).\(other)", try Self.verifier(vector)) == .wrongSignature)
  }
}
