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
  private static let patience = Duration.seconds(600)

  @Test(
    "Every protocol case of the Autobahn test suite behaves as the standard says",
    .enabled(
      if: FuzzingClient() != nil,
      "Autobahn isn't installed: scripts/test installs it on machines that have a Python 2.7"))
  func autobahn() async throws {
    let client = try #require(FuzzingClient())
    try await Self.run(client, Self.cases, count: Self.caseCount)
  }

  /// Compression, small messages and some larger ones, text and binary, with several offers: all of them take minutes.
  private static let deflateCases = [
    "12.1.1", "12.1.2", "12.1.5", "12.1.11", "12.2.3", "12.4.4", "12.5.6", "13.1.2", "13.2.3", "13.4.3",
    "13.6.4",
    "13.7.2",
  ]

  @Test(
    "14.C17 Compressed messages behave as the Autobahn test suite expects, whatever is offered",
    .enabled(
      if: FuzzingClient() != nil,
      "Autobahn isn't installed: scripts/test installs it on machines that have a Python 2.7"))
  func deflate() async throws {
    let client = try #require(FuzzingClient())
    try await Self.run(client, Self.deflateCases, count: Self.deflateCases.count)
  }

  private static func run(_ client: FuzzingClient, _ cases: [String], count: Int) async throws {
    try await EchoServer.serve(maximumMessageBytes: maximumMessageBytes) { port in
      var outcomes = try await client.run(cases, port: port, patience: patience)
      #expect(outcomes.count == count)
      // The suite's own client has time-outs of a second: on a machine that stands still it fails itself now and then.
      for _ in 0..<2 {
        let bad = outcomes.filter { !$0.value.isGood }.keys.sorted()
        if bad.isEmpty { break }
        outcomes.merge(try await client.run(bad, port: port, patience: patience)) { $1 }
      }
      for (name, outcome) in outcomes.sorted(by: { $0.key < $1.key }) where !outcome.isGood {
        Issue.record("case \(name): \(outcome.behavior), closing \(outcome.behaviorClose)")
      }
    }
  }
}
