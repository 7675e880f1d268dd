// A directory and a pipe for tests that start processes.

import Foundation
import IPC
import TestSupport

@testable import Supervisor

extension TestDirectory {
  /// F_SETLEASE of fcntl(2), for which Glibc has no Swift name.
  private static let setLease: CInt = 1024

  /// Writes an executable shell script, and waits until it can be executed: a child that another test has just forked holds it open for
  /// writing until its own exec, and whoever executes it meanwhile gets ETXTBSY. A read lease is granted when nobody does.
  func script(_ name: String, _ text: String) throws {
    let file = file(name)
    // Closed by exec: a child that lives on would keep it busy for as long.
    let output = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0o755)
    guard output >= 0 else { throw TestFailure("open \(file): errno \(errno)") }
    let bytes = Array("#!/bin/sh\n\(text)\n".utf8)
    let count = write(output, bytes, bytes.count)
    close(output)
    guard count == bytes.count else { throw TestFailure("write \(file): errno \(errno)") }
    let descriptor = open(file, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TestFailure("open \(file): errno \(errno)") }
    defer { close(descriptor) }
    try eventually("nobody has \(file) open for writing") {
      fcntl(descriptor, Self.setLease, CInt(F_RDLCK)) == 0
    }
    _ = fcntl(descriptor, Self.setLease, CInt(F_UNLCK))
  }
}

/// Reads what a process writes into it.
final class TestPipe {
  let input: CInt
  private let output: CInt
  private var isOpen = true

  init() throws {
    var ends: [CInt] = [-1, -1]
    guard pipe(&ends) == 0 else { throw TestFailure("pipe: errno \(errno)") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    (output, input) = (ends[0], ends[1])
  }

  deinit {
    close(output)
    if isOpen { close(input) }
  }

  /// Everything that is written until the last other holder of `input` closes it, which must happen in time. Once.
  func text() throws -> String {
    close(input)
    isOpen = false
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      try eventually("the pipe is written to or closed") {
        var entry = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 1
      }
      let count = read(output, &chunk, chunk.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      all += chunk[..<count]
    }
    return String(decoding: all, as: UTF8.self)
  }
}

/// Looks until `condition` gives a value; throws, naming `what`, when it doesn't within three minutes.
@discardableResult
func eventually<Value>(_ what: String, _ condition: () throws -> Value?) throws -> Value {
  let patience: Nanoseconds = .seconds(180)
  let lookEveryMilliseconds: CInt = 5
  let deadline = SharedClock.now() + patience
  while true {
    if let value = try condition() { return value }
    guard SharedClock.now() < deadline else { throw TestFailure("not in time: \(what)") }
    poll(nil, 0, lookEveryMilliseconds)
  }
}

/// Looks until `condition` is true.
func eventually(_ what: String, _ condition: () throws -> Bool) throws {
  try eventually(what) { try condition() ? () : nil }
}
