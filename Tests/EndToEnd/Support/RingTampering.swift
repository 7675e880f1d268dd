// A ring's shared memory as a worker gone mad would treat it: written into by somebody who isn't its writer, through the
// descriptor that /proc shows.

import Glibc
import IPC

struct TamperedRing: ~Copyable {
  private let descriptor: CInt

  /// Where the records begin (Sources/IPC/Ring/RingLayout.swift), and where the header says how far they go.
  static let dataOffset = 12_288
  static let tailOffset = 256

  /// Opens the ring called `name` ("events.control") that `worker` holds.
  init(_ name: String, heldBy worker: RunningProcess) throws {
    descriptor = try Self.open(name, worker)
  }

  private static func open(_ name: String, _ worker: RunningProcess) throws -> CInt {
    guard let number = worker.descriptors.first(where: { $0.value.hasPrefix("/memfd:rig-\(name) ") })?.key
    else {
      throw TestFailure("\(worker.name) holds no ring \(name): \(worker.descriptors)")
    }
    let descriptor = Glibc.open("/proc/\(worker.pid)/fd/\(number)", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else { throw TestFailure("ring \(name): \(String(cString: strerror(errno)))") }
    return descriptor
  }

  deinit {
    close(descriptor)
  }

  /// Appends records in the place of the ring's writer, which must not write any more. Nobody is woken for them.
  func append(_ records: [(type: UInt16, bytes: [UInt8])]) throws {
    let writer = try RingWriter(attaching: descriptor, wake: [])
    for record in records {
      let appended = writer.append(type: record.type, length: record.bytes.count) {
        $0.copyBytes(from: record.bytes)
      }
      guard case .appended = appended else { throw TestFailure("the ring is full") }
    }
    writer.publish()
  }

  /// The records that the ring still holds, oldest first.
  func records() throws -> [(type: UInt16, bytes: [UInt8])] {
    var records: [(type: UInt16, bytes: [UInt8])] = []
    try RingWriter(attaching: descriptor, wake: []).forEachRetained { record in
      records.append((record.type, Array(record.bytes)))
    }
    return records
  }

  /// Writes nonsense over `count` bytes.
  func scribble(at offset: Int, count: Int) throws {
    let nonsense = [UInt8](repeating: 0xA5, count: count)
    guard pwrite(descriptor, nonsense, count, off_t(offset)) == count else {
      throw TestFailure("pwrite: \(String(cString: strerror(errno)))")
    }
  }
}
