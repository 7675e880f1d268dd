// What a topic really holds, as told by a client that has nothing to do with the gateway: a producer that retries may have
// written a record twice, which is then no fault of the gateway.

import Foundation

enum KafkaLog {
  /// The values in a topic of one partition, in order.
  static func values(_ topic: String, at brokers: String) throws -> [String] {
    let directory = try TestDirectory()
    let kcat = try ChildProcess(
      Tools.system("kcat"), ["-C", "-b", brokers, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q"],
      environment: [:], directory: directory.path)
    defer { try? kcat.killTree() }
    guard try kcat.wait() == .exited(0) else { throw TestFailure("kcat can't read \(topic)") }
    let text = try String(contentsOfFile: directory.file("output.log"), encoding: .utf8)
    return text.split(separator: "\n").map(String.init)
  }

  /// What a client sees that gets every numbered event of the topic once, in order.
  static func account(_ topic: String, at brokers: String) throws -> Account {
    var account = Account()
    for value in try values(topic, at: brokers) {
      if let number = NumberedEvents.number(in: Array(value.utf8)) { account.add(number) }
    }
    return account
  }
}

extension Gateway {
  /// The settings that make a gateway read from `brokers`.
  static func kafka(_ brokers: String, _ settings: [String: String] = [:]) -> [String: String] {
    settings.merging([
      "KAFKA_BROKERS": brokers, "KAFKA_PUBLISH_TIMEOUT_MS": "60000", "PROXY_KAFKA_RESPONSE_TIMEOUT": "60000",
    ]) { given, _ in given }
  }

  /// Waits until the streams worker reads `topic`: what is published from then on arrives.
  func awaitReading(_ topic: String = "rig", partition: Int = 0) throws {
    try eventually("partition \(topic)/\(partition) is read") {
      logged("reading a partition").contains { $0["partition"]?.string == "\(topic)/\(partition)" }
    }
  }

  /// The offset that the broker is known to have, as the gateway reads a partition: of its last line about that.
  func startOfReading(_ topic: String = "rig") throws -> (offset: Int, reason: String) {
    try awaitReading(topic)
    let line = logged("reading a partition").last { $0["partition"]?.string == "\(topic)/0" }
    guard let offset = line?["offset"]?.string.flatMap(Int.init), let reason = line?["start"]?.string else {
      throw TestFailure("no start in \(String(describing: line))")
    }
    return (offset, reason)
  }

  /// Waits until every record of the topic is in the ring, and its offset with the broker.
  func awaitCommitted(_ commitsBefore: Double = 0) throws {
    try eventually("offsets are committed") { try metric("rig_kafka_offset_commits_total") > commitsBefore }
  }
}
