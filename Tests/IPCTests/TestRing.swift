// What the tests of this folder share: rings and eventfds that close themselves, and records with known bytes.

import Glibc
import Testing

@testable import IPC

/// A ring of the test, with one eventfd per reader slot.
final class TestRing {
  let fd: CInt
  let wake: [CInt]

  init(capacity: Int = 4096, readers: Int = 1) throws {
    fd = try Ring.create(name: "test", capacity: capacity, readers: readers).take()
    wake = try (0..<readers).map { _ in try EventFD.create().take() }
  }

  deinit {
    close(fd)
    for descriptor in wake { close(descriptor) }
  }

  func writer() throws -> RingWriter { try RingWriter(attaching: fd, wake: wake) }

  func reader(_ slot: Int = 0) throws -> RingReader { try RingReader(attaching: fd, slot: slot) }

  func usage() throws -> RingUsage { try RingInspector(attaching: fd).usage() }

  /// Whether somebody has signalled the slot's eventfd since it was last asked for.
  func takeSignal(_ slot: Int = 0) -> Bool {
    var request = pollfd(fd: wake[slot], events: Int16(POLLIN), revents: 0)
    guard poll(&request, 1, 0) == 1 else { return false }
    EventFD.drain(wake[slot])
    return true
  }
}

/// A record as a value.
struct Seen: Equatable, CustomStringConvertible {
  var sequence: UInt64
  var type: UInt16
  var bytes: [UInt8]

  init(_ sequence: UInt64, _ type: UInt16, _ bytes: [UInt8]) {
    self.sequence = sequence
    self.type = type
    self.bytes = bytes
  }

  init(_ record: RingRecord) {
    self.init(record.sequence, record.type, [UInt8](record.bytes))
  }

  var description: String { "#\(sequence) type \(type), \(bytes.count) bytes" }
}

extension RingWriter {
  /// Appends `bytes`; the answer says what became of them.
  @discardableResult
  func append(_ bytes: [UInt8], type: UInt16 = 1) -> Append {
    append(type: type, length: bytes.count) { $0.copyBytes(from: bytes) }
  }

  /// Appends `count` bytes of `value` and publishes them; false if the ring is full.
  @discardableResult
  func send(_ value: UInt8, count: Int = 16) -> Bool {
    guard case .appended = append([UInt8](repeating: value, count: count)) else { return false }
    publish()
    return true
  }
}

extension RingReader {
  /// Everything that is there, without committing it.
  func all() throws -> [Seen] {
    var seen: [Seen] = []
    while let record = try next() { seen.append(Seen(record)) }
    return seen
  }

  /// What a replay shows, and how it ended.
  func history(after: UInt64, through: UInt64 = .max) throws -> ([Seen], Replay) {
    var seen: [Seen] = []
    let result = try replay(after: after, through: through) {
      seen.append(Seen($0))
      return true
    }
    return (seen, result)
  }
}

extension RingWriter {
  /// Bytes appended, published or not, that the slowest registered reader has not committed.
  var usedBytes: Int { Int(appendedEnd) - Int(slowestReaderPosition()) }
}

/// Writes into a segment behind everybody's back.
final class Vandal {
  let memory: SharedMemory

  init(_ fd: CInt) throws {
    memory = try SharedMemory(mapping: fd, writable: true, minimumBytes: 0)
  }

  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: memory.base, count: memory.bytes)
  }

  func word(_ offset: Int) -> UInt64 { bytes.load(fromByteOffset: offset, as: UInt64.self) }

  func setWord(_ offset: Int, _ value: UInt64) {
    bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
  }
}
