// A ring's shared memory as a worker gone mad would treat it: written into by somebody who isn't its writer, through the
// descriptor that /proc shows.

import Glibc

struct TamperedRing: ~Copyable {
  private let descriptor: CInt

  /// Where the records begin (Sources/IPC/RingLayout.swift), and where the header says how far they go.
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

  /// Writes nonsense over `count` bytes.
  func scribble(at offset: Int, count: Int) throws {
    let nonsense = [UInt8](repeating: 0xA5, count: count)
    guard pwrite(descriptor, nonsense, count, off_t(offset)) == count else {
      throw TestFailure("pwrite: \(String(cString: strerror(errno)))")
    }
  }
}
