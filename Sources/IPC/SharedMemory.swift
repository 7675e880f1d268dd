// A sealed memfd, and its mapping into this process.
//
// The seals are what makes a mapping safe to follow: a file that can't shrink can't raise SIGBUS, whatever the
// other side does. An unsealed or wrongly sized descriptor is refused before the first byte is read. The size
// reported by the kernel is the one number in a segment that no process can falsify.

import CLinux
import Glibc

/// One mapping of a sealed memfd; unmapped when the last reference goes.
///
/// Sendable as the memory itself is: other processes use it at the same time in any case.
@usableFromInline
final class SharedMemory: @unchecked Sendable {
  static let pageBytes = 4096
  /// Against resizing, and against removing these seals.
  static let sizeSeals = CInt(RIG_SEAL_SHRINK | RIG_SEAL_GROW | RIG_SEAL_SEAL)

  let base: UnsafeMutableRawPointer
  let bytes: Int

  /// Maps the whole of `fd`, which must be sealed against resizing and at least `minimumBytes` long.
  init(mapping fd: CInt, writable: Bool, minimumBytes: Int) throws(IPCError) {
    try Self.requireSeals(of: fd, Self.sizeSeals)
    let bytes = try Self.size(of: fd)
    guard bytes >= minimumBytes, bytes % Self.pageBytes == 0 else {
      throw .invalid(
        "segment is \(bytes) bytes long, expected a multiple of \(Self.pageBytes) from \(minimumBytes) on")
    }
    var address: UnsafeMutableRawPointer?
    guard rig_map_shared(fd, bytes, writable ? 1 : 0, &address) == 0, let address else {
      throw .system(call: "mmap", errno: errno)
    }
    self.base = address
    self.bytes = bytes
  }

  deinit {
    rig_unmap_shared(base, bytes)
  }

  /// Takes write access to everything from `offset` (a multiple of the page size) on away from this process.
  func protect(from offset: Int) throws(IPCError) {
    guard mprotect(base + offset, bytes - offset, PROT_READ) == 0 else {
      throw .system(call: "mprotect", errno: errno)
    }
  }

  /// A new zero-filled memfd of `bytes`, sealed against resizing. `name` shows in /proc only.
  static func create(name: String, bytes: Int) throws(IPCError) -> Descriptor {
    let descriptor = try unsealed(name: name)
    guard ftruncate(descriptor.rawValue, off_t(bytes)) == 0 else {
      throw .system(call: "ftruncate", errno: errno)
    }
    try seal(descriptor.rawValue, sizeSeals)
    return descriptor
  }

  /// A new empty memfd that can still be resized and sealed.
  static func unsealed(name: String) throws(IPCError) -> Descriptor {
    let number = rig_memfd_create(name)
    guard number >= 0 else { throw .system(call: "memfd_create", errno: errno) }
    return Descriptor(owning: number)
  }

  static func seal(_ fd: CInt, _ seals: CInt) throws(IPCError) {
    guard rig_add_seals(fd, seals) == 0 else {
      throw .system(call: "fcntl(F_ADD_SEALS)", errno: errno)
    }
  }

  static func requireSeals(of fd: CInt, _ seals: CInt) throws(IPCError) {
    let found = rig_get_seals(fd)
    guard found >= 0 else { throw .system(call: "fcntl(F_GET_SEALS)", errno: errno) }
    guard found & seals == seals else {
      throw .invalid("descriptor \(fd) carries the seals \(found), expected at least \(seals)")
    }
  }

  static func size(of fd: CInt) throws(IPCError) -> Int {
    var information = stat()
    guard fstat(fd, &information) == 0 else { throw .system(call: "fstat", errno: errno) }
    return Int(information.st_size)
  }
}
