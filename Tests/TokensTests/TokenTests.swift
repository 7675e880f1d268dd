// What is refused of a token's form and claims, whoever has signed it.

import TestSupport
import Testing

@testable import Tokens

@Suite("Form of tokens")
struct TokenFormTests {
  private let verifier: TokenVerifier

  init() throws { verifier = try TokenVerifier(key: Fixtures.secret) }

  @Test("a token cut off anywhere is refused")
  func truncated() {
    let token = Fixtures.tokenHS256
    for count in 0..<token.count {
      #expect(refusal(String(token.prefix(count)), verifier) != nil)
      #expect(refusal(String(token.suffix(count)), verifier) != nil)
    }
  }

  @Test(
    "anything but three parts of base64url is refused",
    arguments: [
      "", ".", "..", "...", "a", "a.b", "a.b.c.d", "a.b.c.d.e", " ", "\0", "Bearer a.b.c", "ä.ö.ü", "null",
    ])
  func parts(token: String) {
    #expect(refusal(token, verifier) != nil)
  }

  @Test("a fourth part, padding, blanks and other alphabets are refused")
  func alphabets() {
    let token = Fixtures.tokenHS256
    for changed in [
      token + ".", token + "=", token + "\n", " " + token, token + " ", "." + token,
      token.replacing("-", with: "+"),
      token.replacing("_", with: "/"), token.replacing(".", with: "=."), token + "A",
      token.replacing(".", with: ". "),
    ] where changed != token {
      #expect(refusal(changed, verifier) != nil)
    }
  }

  @Test("no signature has two spellings: bits left over must be zero")
  func leftoverBits() throws {
    let token = Fixtures.tokenHS256
    let last = try #require(token.utf8.last)
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8
    for character in alphabet where character != last {
      let changed = String(decoding: Array(token.utf8.dropLast()) + [character], as: UTF8.self)
      #expect(refusal(changed, verifier) != nil)
    }
  }

  @Test("tokens of more than 64 KiB are refused by their length, others aren't")
  func length() {
    let claims = { (count: Int) in #"{"sub":"a","x":"\#(String(repeating: "x", count: count))"}"# }
    #expect(refusal(TestToken.make(claims(48_000)), verifier) == nil)
    let long = TestToken.make(claims(50_000))
    #expect(refusal(long, verifier) == .tooLong(bytes: long.utf8.count))
    #expect(refusal(String(repeating: "A", count: 10_000_000), verifier) == .tooLong(bytes: 10_000_000))
  }

  @Test(
    "headers that can't be trusted are refused",
    arguments: [
      #"{"alg":"HS256","alg":"HS256"}"#, #"{"alg":"none","alg":"HS256"}"#,
      #"{"alg":"HS256","kid":"a","kid":"b"}"#,
      #"{"alg":"HS256","\u0061lg":"HS256"}"#, #"{"alg":"HS256","crit":["exp"]}"#,
      #"{"alg":"HS256","crit":[]}"#,
      #"{"alg":"HS256","b64":false,"crit":["b64"]}"#, #"{"alg":"HS256","crit":null}"#, #"{"alg":7}"#,
      #"{"alg":["HS256"]}"#, #"{"alg":null}"#, "{}", "[]", "", "null", #""HS256""#, #"{"alg":"HS256"} x"#,
      #"{"alg":"HS256","kid":7}"#, #"{"alg":"HS256","kid":null}"#, #"{"alg":"HS256","x":{"y":1,"y":1}}"#,
      #"{"alg":"HS256","kid":"\#(String(repeating: "k", count: 2_000))"}"#,
    ])
  func headers(header: String) throws {
    guard case .malformed? = refusal(TestToken.make(#"{"sub":"a"}"#, header: header), verifier) else {
      Issue.record("\(header) should be malformed")
      return
    }
  }

  @Test(
    "other members of the header don't matter",
    arguments: [
      #"{"alg":"HS256","typ":"JWT"}"#, #"{"typ":7,"alg":"HS256"}"#,
      #" { "alg" : "HS256", "x5c":[1,{"a":2}] } "#,
      #"{"\u0061lg":"HS256"}"#, #"{"alg":"HS\u003256"}"#, #"{"alg":"HS256","kid":"ignored"}"#,
    ])
  func otherMembers(header: String) {
    #expect(refusal(TestToken.make(#"{"sub":"a"}"#, header: header), verifier) == nil)
  }

  @Test("a changed byte is never accepted and never crashes")
  func anyByteChanged() throws {
    var random = SeededRandom(seed: 42)
    for (token, key) in [
      (Fixtures.tokenHS256, Fixtures.secret), (Fixtures.tokenRS256, Fixtures.rsaPublicPEM),
      (Fixtures.tokenES256, Fixtures.p256PublicPEM), (Fixtures.tokenEdDSA, Fixtures.ed25519PublicPEM),
    ] {
      let verifier = try TokenVerifier(key: key)
      let original = Array(token.utf8)
      var changes = original.indices.map { ($0, UInt8(1) << UInt8.random(in: 0...7, using: &random)) }
      changes += (0..<1_000).map { _ in
        (Int.random(in: original.indices, using: &random), UInt8.random(in: 1...255, using: &random))
      }
      for (index, mask) in changes {
        var bytes = original
        bytes[index] ^= mask
        let isRefused = bytes.withUnsafeBytes { bytes in
          (try? verifier.verify(bytes, now: TestToken.now)) == nil
        }
        #expect(isRefused, "byte \(index) changed by \(mask)")
      }
      #expect(refusal(token, verifier) == nil)
    }
  }

  @Test("random bytes never crash")
  func noise() {
    var random = SeededRandom(seed: 7)
    let alphabet = Array(#"eyJhbGciOiJIUzI1NiJ9.{}":,[]0\u=-_"#.utf8)
    for _ in 0..<5_000 {
      let count = Int.random(in: 0...80, using: &random)
      let bytes = (0..<count).map { _ in alphabet[Int.random(in: alphabet.indices, using: &random)] }
      #expect(refusal(String(decoding: bytes, as: UTF8.self), verifier) != nil)
      let claims = String(decoding: bytes, as: UTF8.self)
      if refusal(TestToken.make(claims), verifier) == nil { #expect(claims.contains("{")) }
    }
  }
}

@Suite("Claims of tokens")
struct ClaimTests {
  private let verifier: TokenVerifier

  init() throws { verifier = try TokenVerifier(key: Fixtures.secret) }

  private func verify(_ claims: String, now: Double = TestToken.now) throws(TokenError) -> VerifiedToken {
    try verifier.verify(TestToken.make(claims), now: now)
  }

  @Test("a token is valid before exp and not at it, with fractions and leeway")
  func expiry() throws {
    let token = TestToken.make(#"{"exp":1000.5}"#)
    #expect(refusal(token, verifier, now: 1_000.4) == nil)
    #expect(refusal(token, verifier, now: 1_000.5) == .expired(at: 1_000.5))
    let patient = try TokenVerifier(key: Fixtures.secret, leeway: 60)
    #expect(refusal(token, patient, now: 1_060.4) == nil)
    #expect(refusal(token, patient, now: 1_060.5) == .expired(at: 1_000.5))
    #expect(try patient.verify(token, now: 0).validUntil == 1_060.5)
  }

  @Test("a token isn't valid before nbf, with leeway")
  func notYet() throws {
    let token = TestToken.make(#"{"nbf":1e3}"#)
    #expect(refusal(token, verifier, now: 999.9) == .notYetValid(from: 1_000))
    #expect(refusal(token, verifier, now: 1_000) == nil)
    #expect(refusal(token, try TokenVerifier(key: Fixtures.secret, leeway: 60), now: 940) == nil)
    #expect(refusal(token, try TokenVerifier(key: Fixtures.secret, leeway: 60), now: 939) != nil)
  }

  @Test(
    "13.A5: a token from the future by iat isn't refused", arguments: ["1003", "1e300", #""soon""#, "null"])
  func issuedLater(value: String) {
    #expect(refusal(TestToken.make(#"{"iat":\#(value)}"#), verifier, now: 1_000) == nil)
  }

  @Test(
    "times that are no numbers are refused",
    arguments: ["exp", "nbf"], [#""1000""#, "null", "true", "[1]", "{}", #""""#, "1e400"])
  func badTimes(name: String, value: String) {
    #expect(
      refusal(TestToken.make(#"{"\#(name)":\#(value)}"#), verifier)
        == .badClaim("\(name) is no number of seconds since 1970"))
  }

  @Test(
    "times beyond the calendar count as its end",
    arguments: ["1e300", "9223372036854775807", "1e18", "253402300800"])
  func farTimes(value: String) throws {
    #expect(try verify(#"{"exp":\#(value)}"#).expiry == VerifiedToken.latestTime)
    let longAgo = try #require(Double("-\(value)"))
    #expect(refusal(TestToken.make(#"{"exp":-\#(value)}"#), verifier) == .expired(at: longAgo))
  }

  private func verifier(_ policy: TokenPolicy) throws -> TokenVerifier {
    TokenVerifier(
      keys: try KeySet(configured: Fixtures.secret, algorithms: [.hs256]), policy: policy, cacheEntries: 10)
  }

  @Test("13.A5: a token without exp is refused, unless the policy says that it never expires")
  func noExpiry() throws {
    #expect(try verify("{}").validUntil == nil)
    let strict = try verifier(TokenPolicy())
    #expect(refusal(TestToken.make("{}"), strict) == .badClaim("exp is missing (JWT_REQUIRE_EXP)"))
    #expect(refusal(TestToken.make(#"{"exp":2e9}"#), strict) == nil)
  }

  @Test(
    "13.A5: aud must have one of those that are demanded, as a string or in a list",
    arguments: [
      (#""a""#, nil), (#"["a"]"#, nil), (#"["x","b"]"#, nil), (#""x""#, TokenError.wrongAudience),
      (#"["x"]"#, .wrongAudience), ("[]", .wrongAudience), (#""A""#, .wrongAudience),
      (#""""#, .wrongAudience),
      (nil, .badClaim("aud is missing (JWT_AUD)")),
      ("7", .badClaim("aud is neither a string nor a list of strings")),
      (#"["a",7]"#, .badClaim("aud is neither a string nor a list of strings")),
      (#"{"a":"a"}"#, .badClaim("aud is neither a string nor a list of strings")),
      ("null", .badClaim("aud is neither a string nor a list of strings")),
    ] as [(String?, TokenError?)])
  func audience(value: String?, expected: TokenError?) throws {
    let verifier = try verifier(TokenPolicy(requiresExpiry: false, audiences: ["a", "b"]))
    let token = TestToken.make(value.map { #"{"aud":\#($0)}"# } ?? "{}")
    // The second time it might be remembered.
    for _ in 0..<2 { #expect(refusal(token, verifier) == expected) }
    #expect(refusal(token, self.verifier) == nil, "nothing is demanded")
  }

  @Test(
    "13.A5: iss must be one of those that are demanded",
    arguments: [
      (#""https://a.example""#, nil), (#""https:\/\/a.example""#, nil), (#""b""#, nil),
      (#""https://a.example/""#, TokenError.wrongIssuer), (#""B""#, .wrongIssuer), (#""""#, .wrongIssuer),
      (nil, .badClaim("iss is missing (JWT_ISS)")), (#"["b"]"#, .badClaim("iss is no string")),
      ("7", .badClaim("iss is no string")), ("null", .badClaim("iss is no string")),
    ] as [(String?, TokenError?)])
  func issuer(value: String?, expected: TokenError?) throws {
    let verifier = try verifier(TokenPolicy(requiresExpiry: false, issuers: ["https://a.example", "b"]))
    let token = TestToken.make(value.map { #"{"iss":\#($0)}"# } ?? "{}")
    for _ in 0..<2 { #expect(refusal(token, verifier) == expected) }
    #expect(refusal(token, self.verifier) == nil, "nothing is demanded")
  }

  @Test("user and session come from their claims, and may be missing")
  func identity() throws {
    let full = try verify(#"{"user":"alice","sub":"bob","jti":"s"}"#)
    #expect(full.user == "alice")
    #expect(full.session == "s")
    #expect(try verify(#"{"sub":"bob"}"#).user == "bob")
    let empty = try verify("{}")
    #expect(empty.user == nil && empty.session == nil && empty.roles.isEmpty)
  }

  @Test("pointers lead into the claims, also through escapes, and /sub counts for the default only")
  func pointers() throws {
    let verifier = TokenVerifier(
      keys: try KeySet(configured: Fixtures.secret, algorithms: [.hs256]),
      policy: TokenPolicy(
        requiresExpiry: false, sessionPointer: ["a/b", "1"],
        userPointers: [["https://x.example/who", "name"]],
        rolesPointer: ["m~n", "r"]),
      cacheEntries: 0)
    let token = try verifier.verify(
      TestToken.make(
        #"{"a/b":[0,"s"],"https:\/\/x.example\/who":{"n":1,"na\u006de":"carol"},"m~n":{"r":["x"]},"sub":"bob"}"#
      ),
      now: 0)
    #expect(token.session == "s")
    #expect(token.user == "carol")
    #expect(token.roles == ["x"])
    #expect(try verifier.verify(TestToken.make(#"{"sub":"bob","user":"u"}"#), now: 0).user == nil)
    #expect(
      refusal(TestToken.make(#"{"a/b":[0,7]}"#), verifier) == .badClaim("the session at /a~1b/1 is no string")
    )
  }

  @Test(
    "names that aren't non-empty strings are refused", arguments: ["user", "sub", "jti"],
    ["7", "null", "true", #"["a"]"#, #"{"a":"b"}"#, #""""#, "1e999"])
  func badNames(name: String, value: String) {
    guard case .badClaim? = refusal(TestToken.make(#"{"\#(name)":\#(value)}"#), verifier) else {
      Issue.record("\(name) \(value) should be refused")
      return
    }
  }

  @Test("names of more than a kilobyte are refused")
  func longNames() {
    let name = { (count: Int) in TestToken.make(#"{"user":"\#(String(repeating: "n", count: count))"}"#) }
    #expect(refusal(name(1_024), verifier) == nil)
    #expect(refusal(name(1_025), verifier) == .badClaim("the user is longer than 1024 bytes"))
  }

  @Test("roles are a list of strings, or one string")
  func roles() throws {
    #expect(try verify(#"{"roles":["a","b","a"]}"#).roles == ["a", "b"])
    #expect(try verify(#"{"roles":"a"}"#).roles == ["a"])
    #expect(try verify(#"{"roles":[]}"#).roles.isEmpty)
    let many = (0..<257).map { #""\#($0)""# }.joined(separator: ",")
    for bad in [
      "7", "null", "true", #"{"a":1}"#, #"["a",7]"#, #"[["a"]]"#, #"["a",null]"#, #"[""]"#, #""""#,
      "[\(many)]",
    ] {
      guard case .badClaim? = refusal(TestToken.make(#"{"roles":\#(bad)}"#), verifier) else {
        Issue.record("roles \(bad) should be refused")
        return
      }
    }
  }

  @Test(
    "claims that come twice are refused, however they are written and however deep",
    arguments: [
      #"{"sub":"a","sub":"b"}"#, #"{"sub":"a","sub":"a"}"#, #"{"user":"a","\u0075ser":"b"}"#,
      #"{"a":{"b":1,"b":2}}"#,
      #"{"a":[{"b":1,"c":2,"b":3}]}"#, #"{"\u00e9":1,"é":2}"#, #"{"exp":1,"x":2,"exp":99999999999}"#,
      "{\((0..<40).map { #""k\#($0)":0"# }.joined(separator: ",")),\"k3\":1}",
      "{\((0..<40).map { #""k\#($0)":0"# }.joined(separator: ",")),\"k39\":1}",
    ])
  func duplicates(claims: String) {
    guard case .malformed(let reason)? = refusal(TestToken.make(claims), verifier) else {
      Issue.record("\(claims) should be refused")
      return
    }
    #expect(reason.contains("twice"))
  }

  @Test("the same name in different objects is no repetition")
  func sameNameElsewhere() throws {
    let claims = #"{"a":{"a":{"a":1},"b":2},"b":{"a":1},"c":[{"a":1},{"a":2}]}"#
    #expect(try verify(claims).value(at: ["a", "a", "a"]) == .integer(1))
    #expect(try verify(claims).value(at: ["c", "1", "a"]) == .integer(2))
  }

  @Test("nesting without end is refused")
  func deep() {
    for (open, close) in [("[", "]"), (#"{"a":"#, "}")] {
      let nested = { (levels: Int) in
        #"{"a":\#(String(repeating: open, count: levels))1\#(String(repeating: close, count: levels))}"#
      }
      #expect(refusal(TestToken.make(nested(100)), verifier) == nil)
      guard case .malformed? = refusal(TestToken.make(nested(5_000)), verifier) else {
        Issue.record("5,000 levels should be refused")
        return
      }
    }
  }

  @Test(
    "claims that are no JSON object are refused",
    arguments: ["", "[]", "7", "null", "{", #"{"a":}"#, "{} {}", "\u{FEFF}{}"])
  func noObject(claims: String) {
    guard case .malformed? = refusal(TestToken.make(claims), verifier) else {
      Issue.record("\(claims) should be refused")
      return
    }
  }

  @Test("thousands of claims cost no square of time and are found")
  func manyClaims() throws {
    let claims = "{\((0..<3_500).map { #""k\#($0)":\#($0)"# }.joined(separator: ","))}"
    #expect(claims.utf8.count < 49_000)
    #expect(try verify(String(claims)).value(at: ["k3499"]) == .integer(3_499))
  }

  @Test("values at pointers are what extractors need")
  func values() throws {
    let token = try verify(
      #"{"s":"x","i":7,"n":2.5,"b":true,"z":null,"o":{"a":["q"]},"l":["a","b"],"m":["a",1]}"#)
    #expect(token.value(at: ["s"]) == .string("x"))
    #expect(token.value(at: ["i"]) == .integer(7))
    #expect(token.value(at: ["n"]) == .number(2.5))
    #expect(token.value(at: ["b"]) == .bool(true))
    #expect(token.value(at: ["z"]) == .null)
    #expect(token.value(at: ["o", "a", "0"]) == .string("q"))
    for pointer in [
      [], ["x"], ["o"], ["o", "a"], ["o", "a", "1"], ["o", "a", "00"], ["o", "a", "-1"], ["s", "0"],
      ["o", "a", "-"],
    ] {
      #expect(token.value(at: pointer) == nil)
    }
    #expect(token.claims.strings(at: ["l"]) == ["a", "b"])
    #expect(token.claims.strings(at: ["s"]) == ["x"])
    #expect(token.claims.strings(at: ["m"]) == nil)
    #expect(token.claims.strings(at: ["o"]) == nil)
  }

  @Test("no error text holds anything of the token")
  func texts() {
    for claims in [
      #"{"user":7,"x":"hidden"}"#, #"{"hidden":1,"hidden":2}"#, #"{"exp":"hidden"}"#,
      #"{"roles":["hidden",7]}"#, #"hidden"#,
    ] {
      let found = refusal(TestToken.make(claims), verifier)
      #expect(found != nil)
      #expect(found.map { "\($0)".contains("hidden") } == false)
    }
  }
}
