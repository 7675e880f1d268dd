// A real server that speaks Kafka's protocol, for one test: noida-db, which keeps its data over a restart.

import Foundation

final class KafkaBroker {
  let port: Int
  let directory: String
  private var process: ChildProcess

  var address: String { "127.0.0.1:\(port)" }
  var processes: [RunningProcess] { process.tree() }

  private init(directory: String) throws {
    port = try FreePorts.next()
    self.directory = directory
    process = try Self.start(port: port, directory: directory)
  }

  private static func start(port: Int, directory: String) throws -> ChildProcess {
    try ChildProcess(
      Tools.python("noida-db"),
      ["start", "--only", "kafka", "--kafka-port", String(port), "--data-dir", "\(directory)/data"],
      environment: [:], directory: directory)
  }

  /// Runs `body` with a broker that holds `topics`, then removes it with its data.
  static func run(topics: [String] = ["rig"], _ body: (KafkaBroker) throws -> Void) throws {
    let directory = try TestDirectory()
    let broker = try KafkaBroker(directory: directory.path)
    do {
      for topic in topics { try broker.awaitTopic(topic) }
      try body(broker)
    } catch {
      try? broker.kill()
      throw error
    }
    try broker.kill()
  }

  /// Asking for a topic creates it.
  private func awaitTopic(_ topic: String) throws {
    try eventually("the broker knows topic \(topic)") {
      let listing = try ChildProcess(
        Tools.system("kcat"),
        ["-L", "-b", address, "-t", topic, "-m", "2", "-X", "allow.auto.create.topics=true"],
        environment: [:], directory: directory, log: "kcat-\(UUID().uuidString)")
      defer { try? listing.killTree() }
      guard try listing.wait() == .exited(0) else { return false }
      return true
    }
  }

  /// Ends the broker at once, as a crash does.
  func kill() throws {
    try process.killTree()
  }

  /// Ends the broker in order, its data written.
  func stop() throws {
    for member in process.tree() { Glibc.kill(member.pid, SIGTERM) }
    // The first of them is a wrapper, which ends before the server has written everything.
    try eventually("the broker has ended") { process.tree().isEmpty }
    try process.killTree()
  }

  /// Starts it again on the same port with the same data.
  func restart() throws {
    process = try Self.start(port: port, directory: directory)
    try awaitTopic("rig")
  }

  /// Publishes records and waits until the broker has them.
  func publish(_ records: [String], topic: String = "rig", headers: [String] = []) throws {
    let producer = try producer(topic: topic, headers: headers)
    for record in records { try producer.write(record + "\n") }
    try producer.finish()
  }

  /// A producer that stays open.
  func producer(topic: String = "rig", headers: [String] = []) throws -> KafkaProducer {
    try KafkaProducer(address, topic: topic, headers: headers, directory: directory)
  }
}

/// `kcat -P`, fed line by line.
final class KafkaProducer {
  private let process: ChildProcess

  /// - Parameter partition: nil: whichever kcat chooses.
  init(
    _ brokers: String, topic: String, partition: Int? = nil, headers: [String] = [], directory: String
  ) throws {
    // One request in flight keeps the order over retries.
    let options = ["linger.ms=0", "max.in.flight=1", "message.timeout.ms=120000", "retry.backoff.ms=50"]
    process = try ChildProcess(
      Tools.system("kcat"),
      ["-P", "-E", "-b", brokers, "-t", topic] + (partition.map { ["-p", String($0)] } ?? [])
        + options.flatMap { ["-X", $0] }
        + headers.flatMap { ["-H", $0] },
      environment: [:], directory: directory, log: "kcat-\(UUID().uuidString)", piped: true)
  }

  deinit {
    try? process.killTree()
  }

  func write(_ text: String) throws {
    try process.write(text)
  }

  /// Waits until the broker has acknowledged everything.
  func finish() throws {
    process.closeInput()
    let ending = try process.wait(within: 150)
    guard ending == .exited(0) else { throw TestFailure("kcat: \(ending)") }
  }
}
