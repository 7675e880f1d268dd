// Every algorithm against tokens of an independent implementation, and every way of using a wrong key or algorithm.

import Kit
import Testing

@testable import Tokens

private let signed: [(SignatureAlgorithm, token: String, key: String)] = [
  (.hs256, Fixtures.tokenHS256, Fixtures.secret), (.hs384, Fixtures.tokenHS384, Fixtures.secret),
  (.hs512, Fixtures.tokenHS512, Fixtures.secret), (.rs256, Fixtures.tokenRS256, Fixtures.rsaPublicPEM),
  (.rs384, Fixtures.tokenRS384, Fixtures.rsaPublicPEM), (.rs512, Fixtures.tokenRS512, Fixtures.rsaPublicPEM),
  (.ps256, Fixtures.tokenPS256, Fixtures.rsaPublicPEM), (.ps384, Fixtures.tokenPS384, Fixtures.rsaPublicPEM),
  (.ps512, Fixtures.tokenPS512, Fixtures.rsaPublicPEM), (.es256, Fixtures.tokenES256, Fixtures.p256PublicPEM),
  (.es384, Fixtures.tokenES384, Fixtures.p384PublicPEM),
  (.es512, Fixtures.tokenES512, Fixtures.p521PublicPEM),
  (.edDSA, Fixtures.tokenEdDSA, Fixtures.ed25519PublicPEM),
  (.edDSA, Fixtures.tokenEd448, Fixtures.ed448PublicPEM),
]

@Suite("Algorithms")
struct AlgorithmTests {
  @Test(
    "tokens of joserfc are right with their key, alone or among all algorithms", arguments: signed.indices)
  func accepted(index: Int) throws {
    let (algorithm, token, key) = signed[index]
    for allowed in [[algorithm], SignatureAlgorithm.allCases] {
      let verified = try TokenVerifier(key: key, allowed).verify(token, now: TestToken.now)
      #expect(verified.user == "alice")
      #expect(verified.session == "session-1")
      #expect(verified.roles == ["support", "user"])
      #expect(verified.expiry == 1_700_003_600)
      #expect(verified.value(at: ["address", "city"]) == .string("Köln"))
      #expect(verified.value(at: ["address", "codes", "1"]) == .number(2.5))
    }
  }

  @Test("a verifier checks any number of tokens, also after wrong ones", arguments: signed.indices)
  func again(index: Int) throws {
    let (_, token, key) = signed[index]
    let verifier = try TokenVerifier(key: key)
    for _ in 0..<3 {
      #expect(refusal(token, verifier) == nil)
      #expect(refusal(token.replacing(".ey", with: ".fy"), verifier) == .wrongSignature)
    }
  }

  @Test("an algorithm that isn't allowed is refused before any key is looked at", arguments: signed.indices)
  func notAllowed(index: Int) throws {
    let (algorithm, token, _) = signed[index]
    let allowed = SignatureAlgorithm.allCases.filter { $0 != algorithm }
    let keys = try KeySet(jwks: Fixtures.jwks)
    let verifier = TokenVerifier(keys: keys, policy: TokenPolicy(algorithms: allowed), cacheEntries: 0)
    #expect(refusal(token, verifier) == .algorithmNotAllowed(allowed: allowed))
  }

  @Test("no key checks a token of another kind of key", arguments: signed.indices)
  func everyOtherKey(index: Int) throws {
    let (algorithm, token, key) = signed[index]
    for other in signed where other.key != key {
      let found = refusal(token, try TokenVerifier(key: other.key))
      #expect(found == .noKeyFits(algorithm) || (algorithm == .edDSA && found == .wrongSignature))
    }
  }

  @Test("a key of the right kind that didn't sign is refused")
  func wrongKey() throws {
    #expect(
      refusal(Fixtures.tokenRS256, try TokenVerifier(key: Fixtures.rsaOtherPublicPEM)) == .wrongSignature)
    #expect(refusal(Fixtures.tokenHS256, try TokenVerifier(key: "another secret")) == .wrongSignature)
  }

  @Test("a public key is never a secret, whatever the token says")
  func confusion() throws {
    #expect(
      refusal(Fixtures.tokenConfused, try TokenVerifier(key: Fixtures.rsaPublicPEM)) == .noKeyFits(.hs256))
    #expect(
      refusal(Fixtures.tokenConfused, try TokenVerifier(key: Fixtures.rsaPublicPEM, [.rs256]))
        == .algorithmNotAllowed(allowed: [.rs256]))
    let ours = TestToken.make(#"{"sub":"a"}"#, secret: Fixtures.rsaPublicPEM)
    #expect(refusal(ours, try TokenVerifier(key: Fixtures.rsaPublicPEM)) == .noKeyFits(.hs256))
  }

  @Test("a key that the token brings along is not looked at")
  func embeddedKey() throws {
    #expect(
      refusal(Fixtures.tokenEmbeddedKey, try TokenVerifier(key: Fixtures.rsaPublicPEM)) == .wrongSignature)
    #expect(refusal(Fixtures.tokenEmbeddedKey, try TokenVerifier(key: Fixtures.rsaOtherPublicPEM)) == nil)
  }

  @Test("none is refused in every spelling", arguments: ["none", "None", "NONE", "nOnE", #"\u006eone"#])
  func none(name: String) throws {
    let verifier = try TokenVerifier(key: Fixtures.secret)
    let header = TestToken.encode(#"{"alg":"\#(name)"}"#.utf8)
    for signature in ["", "AAAA"] {
      #expect(
        refusal("\(header).\(TestToken.encode(#"{"sub":"a"}"#.utf8)).\(signature)", verifier) == .unsigned)
    }
    #expect(refusal(TestToken.make("{}", header: #"{"alg":"\#(name)"}"#), verifier) == .unsigned)
  }

  @Test(
    "names of algorithms are compared as they are",
    arguments: ["hs256", "HS256 ", "HS1", "RS1", "ES256K", ""])
  func otherNames(name: String) throws {
    let found = refusal(
      TestToken.make("{}", header: #"{"alg":"\#(name)"}"#), try TokenVerifier(key: Fixtures.secret))
    #expect(found == .algorithmNotAllowed(allowed: SignatureAlgorithm.allCases))
  }

  @Test(
    "an ECDSA signature of zeros is wrong", arguments: [(64, Fixtures.tokenES256), (96, Fixtures.tokenES384)])
  func zeros(bytes: Int, token: String) throws {
    let head = token.split(separator: ".").prefix(2).joined(separator: ".")
    let zeros = TestToken.encode(repeatElement(0, count: bytes))
    let key = bytes == 64 ? Fixtures.p256PublicPEM : Fixtures.p384PublicPEM
    #expect(refusal("\(head).\(zeros)", try TokenVerifier(key: key)) == .wrongSignature)
  }

  @Test("an ECDSA signature in DER is wrong: JWS has the two numbers themselves")
  func der() throws {
    let parts = Fixtures.tokenES256.split(separator: ".")
    let raw = try #require(Base64URL.decode(String(parts[2])))
    var der: [UInt8] = []
    #expect(raw.withUnsafeBytes { ECDSASignature.encode($0, fieldBytes: 32, into: &der) })
    let token = "\(parts[0]).\(parts[1]).\(TestToken.encode(der))"
    #expect(refusal(token, try TokenVerifier(key: Fixtures.p256PublicPEM)) == .wrongSignature)
  }

  @Test("numbers get the DER of their size and sign")
  func derForm() {
    func encoded(_ raw: [UInt8]) -> [UInt8]? {
      var der: [UInt8] = [9]
      return raw.withUnsafeBytes { ECDSASignature.encode($0, fieldBytes: 2, into: &der) } ? der : nil
    }
    #expect(encoded([0, 1, 0x7F, 2]) == [0x30, 7, 2, 1, 1, 2, 2, 0x7F, 2])
    #expect(encoded([0, 0x80, 0, 0]) == [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0])
    #expect(encoded([0xFF, 0xFF, 0x80, 0]) == [0x30, 10, 2, 3, 0, 0xFF, 0xFF, 2, 3, 0, 0x80, 0])
    #expect(encoded([1, 2, 3]) == nil)
  }
}
