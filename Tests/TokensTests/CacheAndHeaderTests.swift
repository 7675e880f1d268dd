// Verified tokens are remembered within bounds, and found in `Authorization`.

import Testing

@testable import Tokens

@Suite("Remembered tokens")
struct TokenCacheTests {
  private static func verifier(_ entries: Int, leeway: Double = 0) throws -> TokenVerifier {
    TokenVerifier(
      keys: try KeySet(configured: Fixtures.secret, algorithms: [.hs256]),
      policy: TokenPolicy(leeway: leeway, requiresExpiry: false),
      cacheEntries: entries)
  }

  @Test("the same token is verified once")
  func once() throws {
    let verifier = try Self.verifier(10)
    let first = try verifier.verify(Fixtures.tokenHS256, now: TestToken.now)
    #expect(try verifier.verify(Fixtures.tokenHS256, now: TestToken.now + 1) === first)
    #expect(verifier.cache.count == 1)
  }

  @Test("a remembered token expires like any other, leeway included")
  func expiry() throws {
    let verifier = try Self.verifier(10, leeway: 5)
    let token = TestToken.make(#"{"exp":1000}"#)
    #expect(refusal(token, verifier, now: 1_000) == nil)
    #expect(refusal(token, verifier, now: 1_004.9) == nil)
    #expect(refusal(token, verifier, now: 1_005) == .expired(at: 1_000))
    #expect(verifier.cache.count == 0)
  }

  @Test("bad tokens aren't remembered")
  func bad() throws {
    let verifier = try Self.verifier(10)
    #expect(refusal(TestToken.make("{}", secret: "x"), verifier) == .wrongSignature)
    #expect(refusal(TestToken.make(#"{"exp":1}"#), verifier) == .expired(at: 1))
    #expect(refusal("x", verifier) != nil)
    #expect(verifier.cache.count == 0)
  }

  @Test("new keys forget what was verified with the old ones")
  func newKeys() throws {
    let verifier = try Self.verifier(10)
    #expect(refusal(Fixtures.tokenHS256, verifier) == nil)
    verifier.keys = try KeySet(configured: "another secret", algorithms: [.hs256])
    #expect(refusal(Fixtures.tokenHS256, verifier) == .wrongSignature)
  }

  @Test("the number is bounded, and what is used stays")
  func bounded() throws {
    let verifier = try Self.verifier(100)
    let kept = try verifier.verify(Fixtures.tokenHS256, now: TestToken.now)
    for number in 0..<1_000 {
      #expect(refusal(TestToken.make(#"{"jti":"\#(number)"}"#), verifier) == nil)
      #expect(verifier.cache.count <= 100)
      #expect(try verifier.verify(Fixtures.tokenHS256, now: TestToken.now) === kept)
    }
  }

  @Test("bytes are bounded, and counted right")
  func bytes() throws {
    let verifier = try Self.verifier(0)
    let hasher = try #require(TokenHasher())
    var cache = TokenCache(entries: 1_000, bytes: 20_000)
    func add(_ number: Int, _ padding: Int) throws -> TokenDigest {
      let text = TestToken.make(#"{"jti":"\#(number)","x":"\#(String(repeating: "x", count: padding))"}"#)
      let digest = try #require(Array(text.utf8).withUnsafeBytes { hasher.digest($0) })
      cache.insert(try verifier.verify(text, now: 0), digest)
      return digest
    }
    let first = try add(0, 100)
    for number in 1..<200 {
      _ = try add(number, 1_000)
      #expect(cache.bytes <= 20_000)
    }
    #expect(cache.token(first) == nil)
    let held = cache.count
    _ = try add(200, 12_000)
    #expect(cache.count == held)
    let last = try add(201, 10)
    let again = try add(201, 10)
    #expect(last == again)
    cache.remove(last)
    #expect(cache.token(last) == nil)
    cache.removeAll()
    #expect(cache.bytes == 0 && cache.count == 0)
  }

  @Test("without a cache nothing is remembered")
  func none() throws {
    let verifier = try Self.verifier(0)
    #expect(refusal(Fixtures.tokenHS256, verifier) == nil)
    #expect(verifier.cache.count == 0)
  }
}

@Suite("Bearer tokens in Authorization")
struct BearerTokenTests {
  @Test(
    "all tokens are found, in order",
    arguments: [
      ([], []), (["Bearer a"], ["a"]), (["bearer a"], ["a"]), (["BEARER\ta"], ["a"]),
      (["  Bearer   a  "], ["a"]),
      (["Bearer a, Bearer b"], ["a", "b"]), (["Bearer a,bearer b,"], ["a", "b"]),
      (["Bearer a", "Bearer b"], ["a", "b"]),
      (["Basic dXNlcg==, Bearer a"], ["a"]), (["Basic dXNlcg=="], []),
      (["Bearer a, Basic x, Bearer b"], ["a", "b"]),
      ([#"Digest realm="x, Bearer evil", nonce="y\", Bearer evil", Bearer a"#], ["a"]),
      (["Bearer a b"], ["a b"]),
      ([""], []), ([","], []), (["Bearera"], []), (["Bear a"], []), (["a.b.c"], []), (["BearerToken a"], []),
    ] as [([String], [String])])
  func found(fields: [String], tokens: [String]) throws {
    #expect(try BearerTokens.parse(fields) == tokens)
  }

  @Test(
    "14.D20 RIG 1: a token without a scheme counts where it may, and nothing else does",
    arguments: [
      (["a.b.c"], ["a.b.c"]), ([" a.b.c "], ["a.b.c"]), (["a.b.c, Bearer d"], ["a.b.c", "d"]),
      (["Bearer a.b.c"], ["a.b.c"]), (["a.b"], []), (["secret"], []), (["Basic a.b.c"], []),
      (["a.b.c d"], []),
      ([#"Digest realm="a.b.c""#], []), ([""], []),
    ] as [([String], [String])])
  func bare(fields: [String], tokens: [String]) throws {
    #expect(try BearerTokens.parse(fields, takesBare: true) == tokens)
  }

  @Test(
    "Bearer without a token is an error",
    arguments: ["Bearer", "Bearer ", "Bearer ,Bearer a", "Bearer a, bearer"])
  func empty(field: String) {
    #expect(throws: TokenError.self) { try BearerTokens.parse([field]) }
  }

  @Test("more than 16 tokens are refused")
  func tooMany() throws {
    let tokens = { (count: Int) in Array(repeating: "Bearer a", count: count).joined(separator: ",") }
    #expect(try BearerTokens.parse([tokens(16)]).count == 16)
    #expect(throws: TokenError.self) { try BearerTokens.parse([tokens(17)]) }
    #expect(throws: TokenError.self) { try BearerTokens.parse([tokens(10), tokens(10)]) }
  }
}
