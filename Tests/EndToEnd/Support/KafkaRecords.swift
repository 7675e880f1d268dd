// Records of a topic with their keys and headers, as told by kcat.

import Foundation

struct KafkaRecord {
  let key: String
  /// As kcat writes them: name=value,…
  let headers: String
  let value: String

  var json: JSON { get throws { try JSON(parsing: value) } }
}

extension KafkaLog {
  /// Everything in partition 0 of a topic, in order.
  static func records(_ topic: String, at brokers: String) throws -> [KafkaRecord] {
    let directory = try TestDirectory()
    let kcat = try ChildProcess(
      Tools.system("kcat"),
      ["-C", "-b", brokers, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%k\t%h\t%s\n"],
      environment: [:], directory: directory.path)
    defer { try? kcat.killTree() }
    guard try kcat.wait() == .exited(0) else { throw TestFailure("kcat can't read \(topic)") }
    let text = try String(contentsOfFile: directory.file("output.log"), encoding: .utf8)
    return text.split(separator: "\n").compactMap { line in
      let parts = line.split(separator: "\t", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
      return parts.count == 3 ? KafkaRecord(key: parts[0], headers: parts[1], value: parts[2]) : nil
    }
  }

  /// The only record of a topic.
  static func record(_ topic: String, at brokers: String) throws -> KafkaRecord {
    let records = try records(topic, at: brokers)
    guard records.count == 1, let first = records.first else {
      throw TestFailure("\(records.count) records in \(topic), expected one")
    }
    return first
  }
}

extension KafkaBroker {
  /// The broker answers nothing, and its connections stay.
  func freeze() throws { for member in processes { try member.freeze() } }
  func thaw() { for member in processes { member.thaw() } }

  /// Writes one record with these bytes and waits until the broker has it.
  ///
  /// - Parameter printed: one more header, as `printf` is told it ("x=\\351"): what a test gives a process is UTF-8.
  func publish(_ bytes: [UInt8], topic: String, headers: [String], printed: String? = nil) throws {
    let directory = try TestDirectory()
    try Data(bytes).write(to: URL(fileURLWithPath: directory.file("record")))
    let printer = #"printed=$(printf "$1"); shift; exec "$@" -H "$printed""#
    let kcat = try ChildProcess(
      Tools.system("env"),
      (printed.map { ["sh", "-c", printer, "sh", $0] } ?? [])
        + ["kcat", "-P", "-b", address, "-t", topic, "-X", "linger.ms=0", "-X", "message.max.bytes=4000000"]
        + headers.flatMap { ["-H", $0] } + [directory.file("record")],
      environment: [:], directory: directory.path)
    defer { try? kcat.killTree() }
    guard try kcat.wait() == .exited(0) else { throw TestFailure("kcat can't write to \(topic)") }
  }

  /// Answers a waiting request by a record, as a service does.
  func respond(
    _ correlation: String, status: String? = nil, headers: [String] = [], body: [UInt8] = Array("x".utf8),
    topic: String = "rig-proxy-response", printed: String? = nil
  ) throws {
    let own = ["rig-correlation=\(correlation)"] + (status.map { ["rig-response-code=\($0)"] } ?? [])
    try publish(body, topic: topic, headers: own + headers, printed: printed)
  }
}

extension Gateway {
  /// Answers a waiting request by HTTP, as a service does.
  func respond(
    _ correlation: String, status: String = "200", headers: [(String, String)] = [], body: String = "",
    path: String = "/v3/responses"
  ) throws -> HTTPAnswer {
    try management(
      "POST", path, headers: [("rig-correlation", correlation), ("rig-response-code", status)] + headers,
      body: body)
  }
}
