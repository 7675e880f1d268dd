// Records of proxied requests, and the thread that writes lines for whom nobody waits.

import Foundation
import Glibc
import IPC
import Testing

@testable import Kit

@Suite("Request log")
struct RequestLogTests {
  @Test("14.D20 A record is RIG's CloudEvent with our fields, numbers as numbers, and a path that is bounded")
  func record() throws {
    var record = RequestRecord()
    record.method = "GET"
    record.path = "/\"\n" + String(repeating: "é", count: 2000)
    record.api = "books"
    record.status = 200
    record.isComplete = true
    record.bytesOut = 1 << 40
    record.remote = "192.0.2.1"
    record.endpoint = "get-book"
    let json = record.event(id: "1", time: "2026-11-24T09:00:00.000Z")
    let event = try #require(try JSONSerialization.jsonObject(with: Data(json)) as? [String: Any])
    #expect(event["type"] as? String == "com.rig.proxy.api.call" && event["source"] as? String == "/rig")
    #expect(event["specversion"] as? String == "1.0" && event["id"] as? String == "1")
    #expect(event["time"] as? String == "2026-11-24T09:00:00.000Z" && event["traceparent"] == nil)
    let data = try #require(event["data"] as? [String: Any])
    #expect((data["request_path"] as? String)?.hasPrefix("/\"\né") == true)
    #expect(data["remote_ip"] as? String == "192.0.2.1" && data["method"] as? String == "GET")
    #expect((data["endpoint"] as? [String: Any])?["id"] as? String == "get-book")
    #expect(data["status"] as? Int == 200 && data["complete"] as? Bool == true)
    #expect(data["bytes_out"] as? Int == 1 << 40 && data["duration_ms"] as? Int == 0)
    #expect(json.count < 4096)
    record.endpointJSON = Array(#"{"id":"get-book","secured":true}"#.utf8)
    record.traceparent = Fixture.traceparent
    let fuller = record.event(id: "2", time: "")
    let other = try #require(try JSONSerialization.jsonObject(with: Data(fuller)) as? [String: Any])
    #expect(other["traceparent"] as? String == Fixture.traceparent)
    #expect(((other["data"] as? [String: Any])?["endpoint"] as? [String: Any])?["secured"] as? Bool == true)
  }
}

@Suite("Line writer")
struct LineWriterTests {
  private let pipe: (read: CInt, write: CInt)
  private let dropped: Metric
  private let page: StatusPage

  init() throws {
    var ends: [CInt] = [-1, -1]
    try #require(Glibc.pipe(&ends) == 0)
    pipe = (ends[0], ends[1])
    let memory = try StatusPage.create(name: "test")
    page = try StatusPage(attaching: memory.rawValue)
    dropped = try #require(page.metric(.counter, "dropped"))
  }

  private func line(_ number: Int) -> [UInt8] {
    Array("line \(number) \(String(repeating: "x", count: 89 - String(number).count))\n".utf8)
  }

  private func readToEnd() -> [Substring] {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = read(pipe.read, &buffer, buffer.count), count > 0 { all += buffer[..<count] }
    return String(decoding: all, as: UTF8.self).split(separator: "\n")
  }

  @Test("Lines come out whole and in order, and all of them before it is closed")
  func order() throws {
    let writer = try LineWriter(pipe.write, dropped: dropped)
    for number in 0..<500 { writer.write(line(number)) }
    writer.close(patienceMilliseconds: 60_000)
    close(pipe.write)
    let lines = readToEnd()
    #expect(lines.count == 500 && dropped.value == 0)
    #expect(lines.enumerated().allSatisfy { $1.hasPrefix("line \($0) ") })
    close(pipe.read)
  }

  @Test("When nobody reads, writing doesn't wait: what is too much is dropped and counted")
  func noReader() throws {
    let writer = try LineWriter(pipe.write, maximumBytes: 10_000, dropped: dropped)
    for number in 0..<10_000 { writer.write(line(number)) }
    // A pipe holds 64 KiB and the writer 10,000 bytes.
    #expect(dropped.value > 9_000)
    let count = 10_000 - Int(dropped.value)
    writer.close(patienceMilliseconds: 0)
    // The thread still holds its lines: a reader that comes late gets them.
    var seen = 0
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while seen < count {
      var entry = pollfd(fd: pipe.read, events: Int16(POLLIN), revents: 0)
      try #require(poll(&entry, 1, 60_000) == 1)
      let bytes = read(pipe.read, &buffer, buffer.count)
      try #require(bytes > 0)
      seen += buffer[..<bytes].count { $0 == 0x0A }
    }
    #expect(seen == count)
    close(pipe.write)
    close(pipe.read)
  }

  @Test("When the reader has gone, lines are counted as dropped")
  func gone() throws {
    signal(SIGPIPE, SIG_IGN)
    close(pipe.read)
    let writer = try LineWriter(pipe.write, dropped: dropped)
    writer.write(line(0))
    writer.close(patienceMilliseconds: 60_000)
    #expect(dropped.value == 1)
    writer.write(line(1))
    #expect(dropped.value == 2)
    close(pipe.write)
  }
}
