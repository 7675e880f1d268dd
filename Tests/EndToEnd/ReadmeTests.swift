// README against the gateway: its first commands, taken from the page and given to a shell, do what it says of them.

import Foundation
import Testing

@Suite("14.D22 README", .serialized)
struct ReadmeTests {
  private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent()
    .deletingLastPathComponent()

  private static func page(_ name: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(name), encoding: .utf8)
  }

  /// The blocks of README that a reader gives to a shell, in order.
  private static func commands() throws -> [String] {
    var blocks: [String] = []
    var open: [Substring]?
    for line in try page("README.md").split(separator: "\n", omittingEmptySubsequences: false) {
      if let lines = open {
        if line == "```" {
          (blocks, open) = (blocks + [lines.joined(separator: "\n")], nil)
        } else {
          open?.append(line)
        }
      } else if line == "```sh" {
        open = []
      }
    }
    return blocks
  }

  private static func command(beginning start: String, holding part: String) throws -> String {
    try #require(
      try commands().first { $0.hasPrefix(start) && $0.contains(part) }, "README has no such command")
  }

  /// Runs a command of README, whose ports are those of `scripts/run`, against `gateway`.
  private static func run(
    _ command: String, _ gateway: Gateway, _ broker: String, _ directory: String, log: String
  ) throws -> ChildProcess {
    let here = command.replacing("localhost:4000", with: "127.0.0.1:\(gateway.inboundPort)")
      .replacing("localhost:4010", with: "127.0.0.1:\(gateway.managementPort)")
    return try ChildProcess(
      "/bin/sh", ["-c", here], environment: ["BROKER": broker], directory: directory, log: log)
  }

  @Test(
    "14.D22 The first commands push an event by Kafka and one by HTTP to a stream, and there is a licence")
  func firstCommands() throws {
    try #expect(Self.page("LICENSE").contains("Apache License"))
    let directory = try TestDirectory()
    try KafkaBroker.run { broker in
      try Gateway.run(Gateway.kafka(broker.address)) { gateway in
        try gateway.awaitReading()
        let waiting = try Self.command(beginning: "curl -N ", holding: "greeting")
        let stream = try Self.run(waiting, gateway, broker.address, directory.path, log: "stream.log")
        defer { try? stream.killTree() }
        let output = { try String(contentsOfFile: directory.file("stream.log"), encoding: .utf8) }
        try eventually("the stream is open") { try output().contains("event: rig.connection.create") }
        for publish in [
          try Self.command(beginning: "echo ", holding: "kcat"),
          try Self.command(beginning: "curl -H ", holding: "/v3/messages"),
        ] {
          let publisher = try Self.run(publish, gateway, broker.address, directory.path, log: "publisher.log")
          defer { try? publisher.killTree() }
          #expect(try publisher.wait() == .exited(0), "\(publish)")
        }
        for id in ["1", "2"] {
          try eventually("event \(id) of README arrives") {
            try output().split(separator: "\n").contains {
              $0.hasPrefix("data: ") && $0.contains(#""type":"greeting""#) && $0.contains("\"id\":\"\(id)\"")
            }
          }
        }
      }
    }
  }

  @Test("14.D22 What scripts/run prints is what README says, at the same ports")
  func printedCommands() throws {
    let script = try Self.page("scripts/run").replacing("$inbound", with: "4000").replacing(
      "$management", with: "4010")
    let waiting = try Self.command(beginning: "curl -N ", holding: "greeting")
    #expect(script.contains(waiting))
    for printed in [
      "| kcat -P -b $broker -t ", "curl http://localhost:4010/metrics", "http://localhost:4000/_rig/demo",
    ] {
      #expect(script.contains(printed), "\(printed)")
    }
    #expect(try Self.page("README.md").contains("curl http://localhost:4010/metrics"))
  }
}
