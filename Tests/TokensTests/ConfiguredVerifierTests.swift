// Keys as the configuration names them: a JWK set in a file that changes, goes away, or was never any good.

import Foundation
import Logging
import Settings
import Testing

@testable import Tokens

@Suite struct ConfiguredVerifierTests {
  private static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  private static let unixMs: Int64 = 1_700_000_100_000

  /// A file of its own, gone with this object.
  private final class KeyFile {
    let path = FileManager.default.temporaryDirectory.path + "/jwks-\(UUID().uuidString)"

    var source: KeySetSource { KeySetSource(location: path) }

    func write(_ text: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: path)) }

    /// A set of secrets, each with its own name as the key.
    func write(keys: [String]) throws {
      let list = keys.map { name in
        #"{"kty":"oct","kid":"\#(name)","alg":"HS256","k":"\#(TestToken.encode(Self.secret(name).utf8))"}"#
      }
      try write(#"{"keys":[\#(list.joined(separator: ","))]}"#)
    }

    static func secret(_ name: String) -> String { "secret \(name) " + String(repeating: "x", count: 32) }

    deinit { try? FileManager.default.removeItem(atPath: path) }
  }

  private func token(_ kid: String) -> String {
    TestToken.make(
      #"{"user":"alice","exp":2e9}"#, header: #"{"alg":"HS256","kid":"\#(kid)"}"#, secret: KeyFile.secret(kid)
    )
  }

  private func verifier(_ change: (inout Settings) -> Void) throws -> ConfiguredVerifier {
    var settings = Settings()
    settings.jwtAlgorithms = ["HS256"]
    change(&settings)
    return try ConfiguredVerifier(settings: settings, log: Self.log)
  }

  private func accepts(_ verifier: ConfiguredVerifier, _ kid: String, after seconds: Int64 = 0) -> Bool {
    (try? verifier.verify(token(kid), unixMs: Self.unixMs + seconds * 1000)) != nil
  }

  @Test("a rotated key is found when a token names it, and the one that has gone is refused from then on")
  func rotation() throws {
    let file = KeyFile()
    try file.write(keys: ["a"])
    let verifier = try verifier { $0.jwtKeySets = [file.source] }
    #expect(accepts(verifier, "a"))
    #expect(!accepts(verifier, "b"))
    try file.write(keys: ["b"])
    #expect(!accepts(verifier, "b", after: 9), "it was read a moment ago")
    #expect(accepts(verifier, "b", after: 10))
    #expect(!accepts(verifier, "a", after: 10))
  }

  @Test("the file is read again in its time, without a token that asks for it")
  func refresh() throws {
    let file = KeyFile()
    try file.write(keys: ["a"])
    let verifier = try verifier {
      $0.jwtKeySets = [file.source]
      $0.jwtJWKSRefreshSeconds = 60
    }
    #expect(accepts(verifier, "a"))
    try file.write(keys: ["b"])
    verifier.tick(unixMs: Self.unixMs + 59_000)
    #expect(accepts(verifier, "a", after: 59))
    verifier.tick(unixMs: Self.unixMs + 60_000)
    #expect(!accepts(verifier, "a", after: 60))
  }

  @Test(
    "a file that is garbage, empty or gone leaves the keys that are known", arguments: ["{", "", "[]", nil])
  func unusable(_ text: String?) throws {
    let file = KeyFile()
    try file.write(keys: ["a"])
    let verifier = try verifier { $0.jwtKeySets = [file.source] }
    #expect(accepts(verifier, "a"))
    if let text { try file.write(text) } else { try FileManager.default.removeItem(atPath: file.path) }
    verifier.tick(unixMs: Self.unixMs + 3_600_000)
    #expect(accepts(verifier, "a", after: 3600))
  }

  @Test("a file that comes later is found")
  func later() throws {
    let file = KeyFile()
    let verifier = try verifier { $0.jwtKeySets = [file.source] }
    #expect(verifier.isConfigured)
    #expect(!accepts(verifier, "a"))
    try file.write(keys: ["a"])
    #expect(accepts(verifier, "a", after: 10))
  }

  @Test(
    "with public keys alone the symmetric algorithms are refused, and with a secret alone only HS256 is taken"
  )
  func algorithms() throws {
    let file = KeyFile()
    try file.write(keys: ["a"])
    let publicOnly = try verifier {
      $0.jwtAlgorithms = []
      $0.jwtKeySets = [file.source]
    }
    #expect(!accepts(publicOnly, "a"))
    let secret = try verifier {
      $0.jwtAlgorithms = []
      $0.jwtSecretKey = Secret(Fixtures.secret)
    }
    #expect(throws: Never.self) { try secret.verify(TestToken.make(#"{"exp":2e9}"#), unixMs: Self.unixMs) }
    #expect(throws: TokenError.self) { try secret.verify(Fixtures.tokenHS512, unixMs: Self.unixMs) }
    #expect(throws: UnusableKeys.self) {
      try verifier { $0.jwtSecretKey = Secret(Fixtures.rsaPublicPEM) }
    }
    #expect(throws: UnusableKeys.self) {
      try verifier {
        $0.jwtSecretKey = Secret(Fixtures.secret)
        $0.jwtAlgorithms = ["none"]
      }
    }
  }

  // MARK: Sets with issuers

  /// What a token is refused for; nil: it is valid.
  private func refusal(
    _ verifier: ConfiguredVerifier, iss: String?, kid: String, after seconds: Int64 = 0
  ) -> TokenError? {
    let claims = (iss.map { #"{"iss":"\#($0)","# } ?? "{") + #""user":"alice","exp":2e9}"#
    let token = TestToken.make(
      claims, header: #"{"alg":"HS256","kid":"\#(kid)"}"#, secret: KeyFile.secret(kid))
    do throws(TokenError) {
      _ = try verifier.verify(token, unixMs: Self.unixMs + seconds * 1000)
      return nil
    } catch {
      return error
    }
  }

  @Test("13.A5: a token is verified with the keys of its issuer alone")
  func issuers() throws {
    let (a, b) = (KeyFile(), KeyFile())
    try a.write(keys: ["a"])
    try b.write(keys: ["b"])
    let sets = [
      KeySetSource(issuer: "https://a.example", location: a.path),
      KeySetSource(issuer: "b", location: b.path),
    ]
    let verifier = try verifier { $0.jwtKeySets = sets }
    for second in Int64(0)..<2 {
      #expect(refusal(verifier, iss: "https://a.example", kid: "a", after: second) == nil)
      #expect(refusal(verifier, iss: "b", kid: "b", after: second) == nil)
      #expect(refusal(verifier, iss: "b", kid: "a", after: second) == .unknownKey(id: "a"))
      #expect(refusal(verifier, iss: "https://a.example", kid: "b", after: second) == .unknownKey(id: "b"))
      #expect(refusal(verifier, iss: "c", kid: "a", after: second) == .unknownIssuer)
      #expect(refusal(verifier, iss: "https://a.example/", kid: "a", after: second) == .unknownIssuer)
      #expect(refusal(verifier, iss: nil, kid: "a", after: second) == .unknownIssuer)
    }
    try b.write(keys: ["a"])
    verifier.tick(unixMs: Self.unixMs + 60_000)
    #expect(refusal(verifier, iss: "b", kid: "a", after: 60) == nil, "its set has changed")
    #expect(refusal(verifier, iss: "b", kid: "b", after: 60) != nil, "what was remembered is forgotten")
    #expect(refusal(verifier, iss: "https://a.example", kid: "a", after: 60) == nil)
  }

  @Test("13.A5: a key of JWT_SECRET_KEY is for the tokens of all other issuers")
  func secretBesideIssuers() throws {
    let a = KeyFile()
    try a.write(keys: ["a"])
    let verifier = try verifier {
      $0.jwtKeySets = [KeySetSource(issuer: "a", location: a.path)]
      $0.jwtSecretKey = Secret(KeyFile.secret("own"))
    }
    #expect(refusal(verifier, iss: nil, kid: "own") == nil)
    #expect(refusal(verifier, iss: "x", kid: "own") == nil)
    #expect(refusal(verifier, iss: "a", kid: "own") == .unknownKey(id: "own"))
    #expect(refusal(verifier, iss: "x", kid: "a") == .wrongSignature)
    #expect(refusal(verifier, iss: "a", kid: "a") == nil)
  }

  @Test("13.A5: each set is fetched in its own time; whose set hasn't come yet is told so, others are judged")
  func ownFetches() throws {
    let verifier = try verifier {
      $0.jwtKeySets = [
        KeySetSource(issuer: "a", location: "http://a/"), KeySetSource(issuer: "b", location: "http://b/"),
      ]
    }
    var fetches: [(set: Int, end: (Result<[UInt8], UnusableKeys>) -> Void)] = []
    verifier.fetch = { fetches.append(($0, $1)) }
    func set(_ name: String) -> [UInt8] {
      let key = TestToken.encode(KeyFile.secret(name).utf8)
      return Array(#"{"keys":[{"kty":"oct","kid":"\#(name)","alg":"HS256","k":"\#(key)"}]}"#.utf8)
    }
    func isUnavailable(_ error: TokenError?) -> Bool {
      if case .unavailable? = error { true } else { false }
    }
    #expect(refusal(verifier, iss: "c", kid: "a") == .unknownIssuer)
    #expect(refusal(verifier, iss: nil, kid: "a") == .unknownIssuer)
    #expect(fetches.isEmpty, "nobody's token has a set fetched that isn't its issuer's")
    #expect(isUnavailable(refusal(verifier, iss: "b", kid: "b")))
    #expect(fetches.map(\.set) == [1])
    verifier.tick(unixMs: Self.unixMs)
    #expect(fetches.map(\.set) == [1, 0])
    fetches[1].end(.failure(UnusableKeys("down")))
    fetches[0].end(.success(set("b")))
    #expect(refusal(verifier, iss: "b", kid: "b", after: 1) == nil)
    #expect(isUnavailable(refusal(verifier, iss: "a", kid: "a", after: 1)))
    #expect(refusal(verifier, iss: "b", kid: "new", after: 1) == .unknownKey(id: "new"))
    #expect(fetches.count == 2, "both were tried a moment ago")
    // The one that failed is tried sooner; a key that nobody knows has the other one fetched.
    #expect(isUnavailable(refusal(verifier, iss: "a", kid: "a", after: 5)))
    #expect(refusal(verifier, iss: "b", kid: "new", after: 5) == .unknownKey(id: "new"))
    #expect(fetches.map(\.set) == [1, 0, 0])
    let token = TestToken.make(#"{"iss":"a"}"#, header: #"{"alg":"HS256","kid":"a"}"#, secret: "x")
    let other = TestToken.make(#"{"iss":"b"}"#, header: #"{"alg":"HS256","kid":"a"}"#, secret: "x")
    #expect(verifier.fetchedSet(for: token) == 0)
    #expect(verifier.fetchedSet(for: other) == nil, "it doesn't wait for the keys of somebody else")
    var isTold = false
    verifier.whenFetched(0) { isTold = true }
    #expect(!isTold)
    fetches[2].end(.success(set("a")))
    #expect(isTold)
    #expect(refusal(verifier, iss: "a", kid: "a", after: 5) == nil)
    #expect(refusal(verifier, iss: "b", kid: "a", after: 5) == .unknownKey(id: "a"))
    #expect(refusal(verifier, iss: "b", kid: "b", after: 5) == nil)
  }
}
