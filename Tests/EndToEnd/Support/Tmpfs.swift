// A small disk of a test's own. Needs root; without it the tests that want one are left out.

import Foundation
import Glibc

struct Tmpfs {
  let path: String
  private var filler: String { "\(path)/filler" }

  /// Whether this process may mount.
  static let isPossible: Bool = {
    guard geteuid() == 0, let disk = try? Tmpfs(bytes: 65_536) else { return false }
    disk.remove()
    return true
  }()

  init(bytes: Int) throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("rig-disk-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    guard mount("rig-test", path, "tmpfs", 0, "size=\(bytes)") == 0 else {
      try? FileManager.default.removeItem(atPath: path)
      throw TestFailure("no tmpfs can be mounted: \(String(cString: strerror(errno)))")
    }
  }

  func remove() {
    umount2(path, CInt(MNT_DETACH))
    try? FileManager.default.removeItem(atPath: path)
  }

  /// Leaves no byte free.
  func fill() throws {
    let descriptor = open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw TestFailure("\(filler) can't be opened: errno \(errno)") }
    defer { close(descriptor) }
    let page = [UInt8](repeating: 0, count: 4_096)
    while write(descriptor, page, page.count) > 0 {}
    guard errno == ENOSPC else { throw TestFailure("the disk isn't full: errno \(errno)") }
  }

  func empty() throws { try FileManager.default.removeItem(atPath: filler) }
}
