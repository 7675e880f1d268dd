// What a second source gives goes the same way as Kafka's records: Intake, account of offsets, event ring, positions for a successor.

import Foundation
import IPC
import Kit
import TestSupport
import Testing

@testable import Kafka

@Suite("15.8 A second source: files that grow")
struct FileTailTests {
  private let directory: TestDirectory
  private let path: String

  init() throws {
    directory = try TestDirectory()
    path = directory.file("events.log")
    try "".write(toFile: path, atomically: false, encoding: .utf8)
  }

  private func append(_ text: String, to path: String? = nil) throws {
    let file = try #require(FileHandle(forWritingAtPath: path ?? self.path))
    try file.seekToEnd()
    try file.write(contentsOf: Data(text.utf8))
    try file.close()
  }

  private func lines(_ range: Range<Int>, padding: Int = 0) -> String {
    range.map { MockBroker.event($0, padding: padding) + "\n" }.joined()
  }

  /// The ids of what a reader has seen, in order.
  private func ids(_ gateway: TestGateway) -> [Int] {
    gateway.events.compactMap { event in
      event.json.split(separator: "\"id\":\"").dropFirst().first.flatMap { Int($0.prefix { $0 != "\"" }) }
    }
  }

  /// Turns the worker, and reads what it publishes.
  private func run(_ worker: TailWorker, _ gateway: TestGateway, turns: Int = 5) throws {
    for _ in 0..<turns {
      worker.turn()
      try gateway.read()
    }
    worker.turn()
  }

  @Test("15.8 every whole line is an event, in order and once; what is none is skipped and counted")
  func lines() throws {
    try append(lines(0..<3))
    let gateway = try TestGateway()
    let worker = try TailWorker(gateway, [path])
    defer { worker.vanish() }
    try run(worker, gateway)
    #expect(ids(gateway).isEmpty, "what was there before is for nobody here")
    try append(lines(3..<6) + "nonsense\n" + lines(6..<8) + MockBroker.event(8))
    try run(worker, gateway)
    #expect(ids(gateway) == Array(3..<8))
    try append("\n")
    try run(worker, gateway)
    #expect(ids(gateway) == Array(3..<9))
    #expect(worker.value(#"rig_consumed_events_total{source="file",topic="\#(path)"}"#) == 6)
    #expect(worker.value(#"rig_consumed_events_failed_total{source="file",topic="\#(path)"}"#) == 1)
    let size = Int64(try Data(contentsOf: URL(fileURLWithPath: path)).count)
    #expect(
      gateway.events.last?.origin
        == EventOrigin(source: FileTail.source, topic: path, partition: 0, offset: size - 1))
    #expect(worker.state.ledger.due().map(\.offset) == [size], "the readers have passed all of it")
  }

  @Test("15.8 its records in a ring are passed over by a successor that reads Kafka")
  func passedOver() throws {
    let gateway = try TestGateway()
    let worker = try TailWorker(gateway, [path])
    worker.turn()
    try append(lines(0..<3))
    worker.turn()
    worker.vanish()
    let ring = try RingWriter(attaching: gateway.ring.rawValue, wake: [])
    let kafka = try RingPositions(of: .kafka, in: ring)
    let files = try RingPositions(of: FileTail.source, in: ring)
    #expect(kafka.last.isEmpty && kafka.ringEnd == files.ringEnd && kafka.ringEnd > 0)
    #expect(files.last.keys.map(\.topic) == [path])
  }

  @Test("15.8 a full ring holds the file back; nothing is lost, repeated or reordered")
  func fullRing() throws {
    let gateway = try TestGateway(ringBytes: 64 << 10)
    let worker = try TailWorker(gateway, [path])
    defer { worker.vanish() }
    worker.turn()
    try append(lines(0..<1000, padding: 300))
    for _ in 0..<20 where !worker.isHeld { worker.turn() }
    #expect(worker.isHeld && worker.metrics.ringFull?.value == 1)
    try run(worker, gateway, turns: 200)
    #expect(ids(gateway) == Array(0..<1000))
  }

  @Test("15.8 a successor goes on behind what was published, and what readers haven't passed isn't done")
  func successor() throws {
    let gateway = try TestGateway()
    let first = try TailWorker(gateway, [path])
    first.turn()
    try append(lines(0..<10))
    first.turn()
    #expect(first.state.ledger.due().map(\.offset) == [0])
    first.vanish()
    try append(lines(10..<15))
    let second = try TailWorker(gateway, [path])
    defer { second.vanish() }
    try run(second, gateway)
    #expect(ids(gateway) == Array(0..<15))
    #expect(gateway.gaps.isEmpty)
  }

  @Test("15.8 a file that is moved away is read to its end, then the one in its place from its beginning")
  func rotation() throws {
    let gateway = try TestGateway()
    let worker = try TailWorker(gateway, [path])
    defer { worker.vanish() }
    worker.turn()
    try append(lines(0..<10))
    try run(worker, gateway)
    try append(lines(10..<12))
    try FileManager.default.moveItem(atPath: path, toPath: path + ".1")
    try append(lines(12..<13), to: path + ".1")
    try lines(13..<40).write(toFile: path, atomically: false, encoding: .utf8)
    try run(worker, gateway)
    #expect(ids(gateway) == Array(0..<40) && gateway.gaps.isEmpty)
  }

  @Test("15.8 what is gone with a file that was cut off before it was read is told, before what is there now")
  func cutOff() throws {
    let gateway = try TestGateway(ringBytes: 64 << 10)
    let first = try TailWorker(gateway, [path])
    first.turn()
    try append(lines(0..<1000, padding: 300))
    for _ in 0..<20 where !first.isHeld { first.turn() }
    #expect(first.isHeld)
    first.vanish()
    try lines(5000..<5002).write(toFile: path, atomically: false, encoding: .utf8)
    let second = try TailWorker(gateway, [path])
    defer { second.vanish() }
    try run(second, gateway)
    let read = ids(gateway).dropLast(2)
    #expect(!read.isEmpty && Array(read) == Array(0..<read.count))
    #expect(ids(gateway).suffix(2) == [5000, 5001])
    #expect(gateway.gaps.count == 1 && gateway.gaps.first?.contains(#""count":null,"#) == true)
  }
}
