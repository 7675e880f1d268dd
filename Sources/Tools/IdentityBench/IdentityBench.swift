// Measures the checking of tokens and the blacklist on one core, by thread CPU time.
//
//   rig-identitybench [--seconds S] [--entries N]
//
// The limit beside RS256 and ES256 is a bare EVP_DigestVerify of the same signature under the same key, in the same program.

import Foundation
import Glibc
import Kit
import Tokens

@main
struct IdentityBench {
  private static let claims = Array(
    #"{"user":"alice","jti":"0b9c1f8e-5b0e-4f0c-9a39-3a1f","roles":["customer","beta"],"exp":4102444800,"iss":"bench"}"#
      .utf8)
  private static let now = 1_800_000_000.0

  static func main() throws {
    var seconds = 2.0
    var entries = 1_000_000
    var arguments = CommandLine.arguments.dropFirst()
    while let name = arguments.popFirst() {
      guard let value = arguments.popFirst().flatMap(Double.init), value > 0, value <= 1e8 else {
        throw Failure("\(name) needs a number above 0")
      }
      switch name {
      case "--seconds": seconds = value
      case "--entries": entries = Int(value)
      default: throw Failure("\(name) is unknown, expected --seconds or --entries")
      }
    }
    try secrets(seconds)
    for algorithm in [SignatureAlgorithm.rs256, .es256] { try signatures(algorithm, seconds) }
    try blacklist(entries, seconds)
  }

  private static func secrets(_ seconds: Double) throws {
    let secret = "a secret of thirty-two bytes and a few more"
    let token = try Signer.hmac(secret: secret).token(claims, algorithm: .hs256)
    let keys = try KeySet(configured: secret, algorithms: [.hs256])
    let anew = TokenVerifier(keys: keys, policy: TokenPolicy(algorithms: [.hs256]), cacheEntries: 0)
    let nanoseconds = try Stopwatch.nanosecondsPerCall(seconds) { _ = try anew.verify(token, now: now) }
    print("HS256: \(Int(1e9 / nanoseconds)) verifications per second")
    let remembering = TokenVerifier(keys: keys, policy: TokenPolicy(algorithms: [.hs256]))
    let cached = try Stopwatch.nanosecondsPerCall(seconds) { _ = try remembering.verify(token, now: now) }
    print("token that is remembered: \(Int(cached)) ns per verification")
  }

  private static func signatures(_ algorithm: SignatureAlgorithm, _ seconds: Double) throws {
    let signer = try algorithm == .rs256 ? Signer.rsa(bits: 2048) : Signer.p256()
    let token = try signer.token(claims, algorithm: algorithm)
    let verifier = TokenVerifier(
      keys: try KeySet(configured: try signer.publicPEM(), algorithms: [algorithm]),
      policy: TokenPolicy(algorithms: [algorithm]), cacheEntries: 0)
    let bare = try signer.bareVerification(of: claims)
    // Alternately, because the machine's speed changes from second to second.
    var ours: [Double] = []
    var limit: [Double] = []
    for _ in 0..<5 {
      ours.append(try Stopwatch.nanosecondsPerCall(seconds / 5) { _ = try verifier.verify(token, now: now) })
      limit.append(try Stopwatch.nanosecondsPerCall(seconds / 5) { try bare() })
    }
    let ratio = ours.sorted()[2] / limit.sorted()[2]
    print(
      "\(algorithm.rawValue): \(Int(1e9 / ours.sorted()[2])) verifications per second, "
        + String(format: "%.2f × the time of a bare EVP_DigestVerify", ratio))
  }

  private static func blacklist(_ entries: Int, _ seconds: Double) throws {
    guard let hasher = SessionHasher() else { throw Failure("OpenSSL has no SHA-256") }
    let before = Stopwatch.residentBytes()
    var blacklist = SessionBlacklist()
    for number in 0..<entries {
      guard let digest = hasher.digest("session-\(number)") else { throw Failure("no digest") }
      blacklist.add(digest, until: .max, now: 1)
    }
    let grown = Stopwatch.residentBytes() - before
    let names = (0..<100_000).map { "session-\($0 &* 7919 % (2 * entries))" }
    var found = 0
    var next = 0
    let nanoseconds = try Stopwatch.nanosecondsPerCall(seconds) {
      next = next + 1 == names.count ? 0 : next + 1
      if let digest = hasher.digest(names[next]), blacklist.contains(digest, now: 1) { found += 1 }
    }
    guard found > 0 else { throw Failure("nothing was found") }
    print(
      "blacklist of \(blacklist.count): \(Int(nanoseconds)) ns per check, \(blacklist.bytes / 1_000_000) MB of table, "
        + "\(grown / 1_000_000) MB of process")
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

enum Stopwatch {
  private static let callsPerLook = 100

  /// CPU time of this thread for one call of `body`.
  static func nanosecondsPerCall(_ seconds: Double, _ body: () throws -> Void) throws -> Double {
    for _ in 0..<callsPerLook { try body() }
    let start = TurnMeter.threadCPUTime()
    var calls = 0
    var spent: UInt64 = 0
    repeat {
      for _ in 0..<callsPerLook { try body() }
      calls += callsPerLook
      spent = TurnMeter.threadCPUTime() - start
    } while Double(spent) < seconds * 1e9
    return Double(spent) / Double(calls)
  }

  static func residentBytes() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    return pages * Int(getpagesize())
  }
}
