// librdkafka's mock cluster in a process of its own (rig-devbroker), whose brokers go down, come back and answer slowly
// on command. Their records stay in memory meanwhile.

import Foundation

final class DevBroker {
  let address: String
  private let directory: String
  private let process: ChildProcess
  private var commands = 0

  private init(topics: [String], brokers: Int, directory: String) throws {
    self.directory = directory
    let process = try ChildProcess(
      Tools.ours("rig-devbroker"),
      ["--commands", "--brokers", String(brokers)] + topics.flatMap { ["--topic", $0] },
      environment: [:], directory: directory, piped: true)
    self.process = process
    address = try eventually("the mock cluster tells its address") {
      Self.lines(of: directory).first { $0.contains(":") && !$0.contains(" ") }
    }
  }

  /// Runs `body` with a cluster that has `topics`, each "NAME" or "NAME:PARTITIONS".
  static func run(topics: [String] = ["rig"], brokers: Int = 1, _ body: (DevBroker) throws -> Void) throws {
    let directory = try TestDirectory()
    let broker = try DevBroker(topics: topics, brokers: brokers, directory: directory.path)
    defer { try? broker.process.killTree() }
    try body(broker)
  }

  /// Gives a command (see BrokerCommand) and waits until it is carried out.
  func command(_ text: String) throws {
    try process.write(text + "\n")
    commands += 1
    let answers = try eventually("the mock cluster answers") {
      let answers = Self.lines(of: directory).filter { $0 == "ok" || $0.hasPrefix("error: ") }
      return answers.count == commands ? answers : nil
    }
    guard answers.last == "ok" else { throw TestFailure("\(text): \(answers.last ?? "")") }
  }

  /// A producer that stays open.
  func producer(topic: String = "rig", partition: Int? = nil) throws -> KafkaProducer {
    try KafkaProducer(address, topic: topic, partition: partition, directory: directory)
  }

  /// Publishes records and waits until the broker has them.
  func publish(_ records: [String], topic: String = "rig", partition: Int? = nil) throws {
    let producer = try producer(topic: topic, partition: partition)
    for record in records { try producer.write(record + "\n") }
    try producer.finish()
  }

  private static func lines(of directory: String) -> [String] {
    let text = (try? String(contentsOfFile: "\(directory)/output.log", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").map(String.init)
  }
}
