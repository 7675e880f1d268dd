// Writing to a stream whose reader is slow or gone: nobody waits longer than told, and nothing changes for others who
// write there.

import Glibc
import Testing

@testable import IPC

@Suite struct SharedOutputTests {
  private static let page = 4096

  private static func fill(_ descriptor: CInt) {
    let bytes = [UInt8](repeating: UInt8(ascii: "x"), count: page)
    #expect(Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
  }

  private static func write(_ text: String, _ output: borrowing SharedOutput, patience: Int = 0) -> Bool {
    Array(text.utf8).withUnsafeBytes { output.write($0, patience: patience) }
  }

  private static func read(_ descriptor: CInt, _ count: Int) -> String {
    var bytes: [UInt8] = []
    while bytes.count < count {
      var buffer = [UInt8](repeating: 0, count: count - bytes.count)
      let got = Glibc.read(descriptor, &buffer, buffer.count)
      guard got > 0 else { break }
      bytes.append(contentsOf: buffer[..<got])
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  @Test("A full pipe takes nothing and holds nobody up, and blocks its other writers as before")
  func fullPipe() throws {
    let pipe = try Pair.pipe(capacity: Self.page)
    Self.fill(pipe.writing)
    let output = SharedOutput(pipe.writing)
    let isLostWritten = Self.write("lost\n", output)
    #expect(!isLostWritten)
    #expect(fcntl(pipe.writing, F_GETFL) & O_NONBLOCK == 0)
    #expect(Self.read(pipe.reading, Self.page).allSatisfy { $0 == "x" })
    let isWritten = Self.write("there\n", output)
    #expect(isWritten)
    #expect(Self.read(pipe.reading, 6) == "there\n")
  }

  @Test("A full socket takes nothing and holds nobody up, and blocks its other writers as before")
  func fullSocket() throws {
    let socket = try Pair.socket()
    let bytes = [UInt8](repeating: 0, count: Self.page)
    var filled = 0
    while true {
      let count = send(socket.writing, bytes, bytes.count, CInt(MSG_DONTWAIT))
      guard count > 0 else { break }
      filled += count
    }
    let output = SharedOutput(socket.writing)
    let isLostWritten = Self.write("lost\n", output)
    #expect(!isLostWritten)
    #expect(fcntl(socket.writing, F_GETFL) & O_NONBLOCK == 0)
    _ = Self.read(socket.reading, filled)
    let isWritten = Self.write("there\n", output)
    #expect(isWritten)
    #expect(Self.read(socket.reading, 6) == "there\n")
  }

  @Test("A line that is longer than the pipe waits for its reader")
  func patience() async throws {
    let pipe = try Pair.pipe(capacity: Self.page)
    let (source, target) = (pipe.reading, pipe.writing)
    let text = String(repeating: "0123456789", count: 2000)
    async let isWritten = onOwnThread { Self.write(text, SharedOutput(target), patience: 60_000) }
    let count = text.utf8.count
    let got = try await onOwnThread { Self.read(source, count) }
    #expect(try await isWritten)
    #expect(got == text)
    withExtendedLifetime(pipe) {}
  }

  @Test("Two who write one file write one behind the other")
  func file() throws {
    var path = Array("/tmp/rig-shared-output.XXXXXX".utf8CString)
    let first = Descriptor(owning: mkstemp(&path))
    try #require(first.rawValue >= 0)
    unlink(path)
    let second = Descriptor(owning: dup(first.rawValue))
    let output = SharedOutput(first.rawValue)
    let other = SharedOutput(second.rawValue)
    let areWritten = [Self.write("one\n", output), Self.write("two\n", other), Self.write("three\n", output)]
    #expect(areWritten == [true, true, true])
    lseek(first.rawValue, 0, SEEK_SET)
    #expect(Self.read(first.rawValue, 100) == "one\ntwo\nthree\n")
  }

  @Test("A pipe without a reader takes nothing, however patient one is")
  func nobody() throws {
    signal(SIGPIPE, SIG_IGN)
    let pipe = try Pair.pipe(capacity: Self.page)
    Self.fill(pipe.writing)
    let output = SharedOutput(pipe.writing)
    pipe.closeReading()
    let isLostWritten = Self.write("lost\n", output, patience: 60_000)
    #expect(!isLostWritten)
  }
}

/// Two ends; closed with the object.
private final class Pair {
  private(set) var reading: CInt
  let writing: CInt

  private init(_ ends: [CInt]) { (reading, writing) = (ends[0], ends[1]) }

  static func pipe(capacity: Int) throws -> Pair {
    var ends: [CInt] = [-1, -1]
    try #require(Glibc.pipe(&ends) == 0)
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let pair = Pair(ends)
    let setPipeSize: CInt = 1031  // F_SETPIPE_SZ
    try #require(fcntl(pair.writing, setPipeSize, CInt(capacity)) == capacity)
    return pair
  }

  static func socket() throws -> Pair {
    var ends: [CInt] = [-1, -1]
    try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &ends) == 0)
    return Pair(ends)
  }

  func closeReading() {
    close(reading)
    reading = -1
  }

  deinit {
    close(reading)
    close(writing)
  }
}
