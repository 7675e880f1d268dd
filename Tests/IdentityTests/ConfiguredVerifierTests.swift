// Keys as the configuration names them: a JWK set in a file that changes, goes away, or was never any good.

import Foundation
import Logging
import Settings
import Testing

@testable import Identity

@Suite struct ConfiguredVerifierTests {
  private static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  private static let unixMs: Int64 = 1_700_000_100_000

  /// A file of its own, gone with this object.
  private final class KeyFile {
    let path = FileManager.default.temporaryDirectory.path + "/jwks-\(UUID().uuidString)"

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
      #"{"user":"alice"}"#, header: #"{"alg":"HS256","kid":"\#(kid)"}"#, secret: KeyFile.secret(kid))
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
    let verifier = try verifier { $0.jwtJWKS = file.path }
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
      $0.jwtJWKS = file.path
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
    let verifier = try verifier { $0.jwtJWKS = file.path }
    #expect(accepts(verifier, "a"))
    if let text { try file.write(text) } else { try FileManager.default.removeItem(atPath: file.path) }
    verifier.tick(unixMs: Self.unixMs + 3_600_000)
    #expect(accepts(verifier, "a", after: 3600))
  }

  @Test("a file that comes later is found")
  func later() throws {
    let file = KeyFile()
    let verifier = try verifier { $0.jwtJWKS = file.path }
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
      $0.jwtJWKS = file.path
    }
    #expect(!accepts(publicOnly, "a"))
    let secret = try verifier {
      $0.jwtAlgorithms = []
      $0.jwtSecretKey = Secret(Fixtures.secret)
    }
    #expect(throws: Never.self) { try secret.verify(TestToken.make("{}"), unixMs: Self.unixMs) }
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
}
