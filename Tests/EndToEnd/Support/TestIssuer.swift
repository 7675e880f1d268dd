// An issuer of tokens with an RSA key of its own, by the openssl command: nothing of the gateway's has a part in it.

import Foundation

final class TestIssuer {
  /// How a token is signed, with what the command needs for that.
  enum Algorithm: String {
    case rs256 = "RS256"
    case ps256 = "PS256"

    fileprivate var options: [String] {
      switch self {
      case .rs256: []
      case .ps256: ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
      }
    }
  }

  let kid: String
  /// The public key in PEM.
  let publicKey: String
  /// The public key as a member of a JWK set.
  let jwk: String
  private let directory: TestDirectory
  private var signatures = 0

  init(kid: String) throws {
    self.kid = kid
    directory = try TestDirectory()
    let path = directory.path
    try Self.openssl("key", ["genrsa", "-out", "key.pem", "2048"], path)
    publicKey = try Self.openssl("public", ["pkey", "-in", "key.pem", "-pubout"], path)
    let modulus = try Self.openssl("modulus", ["rsa", "-in", "key.pem", "-noout", "-modulus"], path)
    let digits = Array(modulus.split(separator: "=").last?.filter(\.isHexDigit) ?? "")
    let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap {
      UInt8(String(digits[$0...$0 + 1]), radix: 16)
    }
    jwk = #"{"kty":"RSA","kid":"\#(kid)","n":"\#(TestToken.encoded(bytes))","e":"AQAB"}"#
  }

  /// A token with these claims, JSON text, and an `exp` far away if they have none.
  func token(_ claims: String, _ algorithm: Algorithm = .rs256, kid: String? = nil) throws -> String {
    signatures += 1
    let header = #"{"alg":"\#(algorithm.rawValue)","kid":"\#(kid ?? self.kid)"}"#
    let signed =
      TestToken.encoded(Array(header.utf8)) + "."
      + TestToken.encoded(Array(TestToken.withExpiry(claims).utf8))
    let name = "signature\(signatures)"
    try signed.write(toFile: directory.file("\(name).txt"), atomically: false, encoding: .utf8)
    let command =
      ["dgst", "-sha256", "-sign", "key.pem"] + algorithm.options + ["-out", name, "\(name).txt"]
    try Self.openssl(name, command, directory.path)
    let signature = try Data(contentsOf: URL(fileURLWithPath: directory.file(name)))
    return signed + "." + TestToken.encoded(Array(signature))
  }

  static func set(_ issuers: TestIssuer...) -> String {
    #"{"keys":[\#(issuers.map(\.jwk).joined(separator: ","))]}"#
  }

  /// Runs the command in the directory. What it prints.
  @discardableResult
  private static func openssl(_ name: String, _ arguments: [String], _ directory: String) throws -> String {
    let process = try ChildProcess(
      Tools.system("openssl"), arguments, environment: [:], directory: directory, log: "\(name).log")
    defer { try? process.killTree() }
    let ending = try process.wait()
    let output = try String(contentsOfFile: "\(directory)/\(name).log", encoding: .utf8)
    guard ending == .exited(0) else { throw TestFailure("openssl \(arguments): \(ending) \(output)") }
    return output
  }
}
