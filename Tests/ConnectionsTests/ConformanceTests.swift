// RFC 6455 as the Autobahn test suite understands it: its protocol cases against our frame handling (issue 2, shown by 5).

import Foundation
import Testing

@testable import Connections

@Suite("WebSocket conformance")
struct ConformanceTests {
  /// Framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, and automatic fragmentation.
  private static let cases = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
  /// How many these are in version 25.10.1: fewer would mean that some didn't run.
  private static let caseCount = 247
  /// Case 7.1.6 sends 256 KiB in one message; the others less.
  private static let maximumMessageBytes = 1 << 20
  private static let patience = Duration.seconds(120)

  @Test(
    "Every protocol case of the Autobahn test suite behaves as the standard says",
    .enabled(
      if: FuzzingClient() != nil,
      "Autobahn isn't installed: scripts/test installs it on machines that have a Python 2.7"))
  func autobahn() async throws {
    let client = try #require(FuzzingClient())
    try await EchoServer.serve(maximumMessageBytes: Self.maximumMessageBytes) { port in
      let outcomes = try await client.run(Self.cases, port: port, patience: Self.patience)
      #expect(outcomes.count == Self.caseCount)
      for (name, outcome) in outcomes.sorted(by: { $0.key < $1.key }) where !outcome.isGood {
        Issue.record("case \(name): \(outcome.behavior), closing \(outcome.behaviorClose)")
      }
    }
  }
}
