// JWT_JWKS: one JWK set, or sets with their issuers, in every form that a layer has.

import Testing

@testable import Settings

@Suite("JWK sets")
struct KeySetSourceTests {
  private static func sets(_ text: String) throws -> [KeySetSource] {
    try load(["JWT_JWKS": text]).settings.jwtKeySets
  }

  private static func inFile(_ text: String) throws -> Settings {
    try withFile(text) { path in try load([:], ["--config", path]).settings }
  }

  @Test(
    "A single path or URL is a set for every issuer, whatever its query holds",
    arguments: [
      "/etc/keys.json", "keys.json", "./a=b.json", "/etc/a=/b.json", "http://issuer/keys",
      "https://idp.example/keys?tenant=a", "https://idp.example/keys?path=/x",
      "https://idp.example/keys?a=1,2",
      "https://idp.example/keys?next=https://x", "https://idp.example/keys;v=1",
    ])
  func single(location: String) throws {
    #expect(try Self.sets(location) == [KeySetSource(location: location)])
    #expect(try Self.sets(" \(location) ").first?.url == (location.contains("://") ? location : nil))
    #expect(
      try Self.inFile("jwt_jwks: '\(location)'").jwtKeySets == [KeySetSource(location: location)])
  }

  @Test("13.A5: sets with issuers are a list, and issuers may hold what URLs hold")
  func issuers() throws {
    let two = [
      KeySetSource(issuer: "https://a.example", location: "https://a.example/jwks.json"),
      KeySetSource(issuer: "b=c", location: "/etc/b=c.json"),
    ]
    #expect(try Self.sets("https://a.example=https://a.example/jwks.json, b=c=/etc/b=c.json,") == two)
    #expect(
      try Self.sets("https://a.example:8443/x;y=z/=http://[::1]:80/k?a=/b&c=https://d")
        == [
          KeySetSource(
            issuer: "https://a.example:8443/x;y=z/", location: "http://[::1]:80/k?a=/b&c=https://d")
        ])
    let list = "jwt_jwks:\n  - https://a.example=https://a.example/jwks.json\n  - b=c=/etc/b=c.json\n"
    #expect(try Self.inFile(list).jwtKeySets == two)
  }

  @Test("13.A5: an object names issuers of any form")
  func object() throws {
    let odd = [
      KeySetSource(issuer: "https://a.example/?x=/1,2#=https://b", location: "https://a.example/jwks.json"),
      KeySetSource(issuer: "accounts.example", location: "/etc/b.json"),
    ]
    let text =
      #"{"https://a.example/?x=/1,2#=https://b":"https://a.example/jwks.json","accounts.example":"/etc/b.json"}"#
    #expect(try Self.sets(text) == odd)
    let object =
      "jwt_jwks:\n  \"https://a.example/?x=/1,2#=https://b\": https://a.example/jwks.json\n"
      + "  accounts.example: /etc/b.json\n"
    #expect(try Self.inFile(object).jwtKeySets == odd)
    #expect(try Self.sets("{}").isEmpty)
  }

  @Test(
    "13.A5: what is no set, or could be read in two ways, is a mistake that says what was expected",
    arguments: [
      ("https://a/keys,https://b/keys", "no issuers"), ("/etc/a.json,/etc/b.json", "no issuers"),
      ("https://a=https://a/keys,https://b/keys", "has no issuer"),
      ("https://a=keys.json", "each location absolute"), ("a=keys.json", "each location absolute"),
      ("a=ftp://b/keys", "each location absolute"), ("a=https://b=https://c", "two ways"),
      ("=https://a/keys", "without an issuer"), ("a=https://", "no URL"), ("a=https://b/#c", "no URL"),
      ("a=https://a/1,b=/2,a=/3", "comes twice"), (#"{"a":"keys.json"}"#, "no location"),
      (#"{"a":7,"b":"/c"}"#, "no location"), (#"{"a":["/b"]}"#, "each a text"),
      (#"{"":"/b"}"#, "without an issuer"),
      (#"{"a":"/b""#, "did not find"), (#"{"a":"/b","a":"/c"}"#, "more than once"),
      ("ftp://a/keys", "no URL"),
      ("https://user:sec=ret@a/keys", "neither a path"),
      ("a=https://user:secret@a/keys", "holds credentials"),
      ("a=https://b/keys,https://user:secret@a/keys", "an entry"),
    ])
  func mistake(text: String, says: String) {
    let found = mistakes(["JWT_JWKS": text])
    #expect(found.count == 1, "\(text): \(found)")
    #expect(
      found.allSatisfy { $0.hasPrefix("environment JWT_JWKS: JWT_JWKS: ") && $0.contains(says) }, "\(found)")
    #expect(!found.joined().contains("ret@"), "\(found)")
  }

  @Test("13.A5: a mistake in a file is named with its line")
  func place() throws {
    try withFile("jwt_jwks:\n  - a=/b\n  - c\n") { path in
      #expect(
        mistakes([:], ["--config", path]).first?.hasPrefix("\(path):3:5: JWT_JWKS: 'c' has no issuer") == true
      )
    }
    try withFile("jwt_jwks:\n  a: /b\n  c: d\n") { path in
      #expect(
        mistakes([:], ["--config", path]).first?.hasPrefix("\(path):3:6: JWT_JWKS: 'd' is no loc") == true)
    }
    let many = (0...100).map { "i\($0)=/k\($0)" }.joined(separator: ",")
    #expect(mistakes(["JWT_JWKS": many]).first?.contains("at most 100") == true)
  }

  @Test("13.A5: keys of an issuer that JWT_ISS leaves out are of no use, and a mistake")
  func contradiction() throws {
    let keys = "a=/a,b=/b"
    #expect(mistakes(["JWT_JWKS": keys, "JWT_ISS": "a"]).first?.hasPrefix("JWT_ISS, JWT_JWKS: ") == true)
    #expect(mistakes(["JWT_JWKS": keys, "JWT_ISS": "a,b,c"]).isEmpty)
    #expect(mistakes(["JWT_JWKS": "/a", "JWT_ISS": "a"]).isEmpty)
  }

  @Test("13.A5: whose tokens are taken is configured by lists, and tokens without exp aren't by default")
  func claims() throws {
    let defaults = Settings()
    #expect(defaults.jwtRequireExpiry && defaults.jwtAudiences.isEmpty && defaults.jwtIssuers.isEmpty)
    let settings = try load(["JWT_AUD": "a, b", "JWT_ISS": "https://i", "JWT_REQUIRE_EXP": "off"]).settings
    #expect(settings.jwtAudiences == ["a", "b"] && settings.jwtIssuers == ["https://i"])
    #expect(!settings.jwtRequireExpiry)
    #expect(try Self.inFile("JWT_AUD: ['a,b', c]").jwtAudiences == ["a,b", "c"])
  }
}
