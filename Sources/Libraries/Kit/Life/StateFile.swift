// A file of STATE_DIR, replaced as a whole: whoever reads it, after whatever end of this process or the machine, finds all of
// the old or all of the new.
//
//   NAME.new  written ─▶ fsync ─▶ rename to NAME ─▶ fsync of the directory
//
// Only one gateway writes there: the supervisor holds the lock of the directory. Each file has one writer.

import Glibc

/// One file that outlives the gateway. It has no state of its own: the disk has.
public struct StateFile: Sendable {
  /// For the gateway's own user only: definitions may hold credentials in headers.
  private static let mode: mode_t = 0o600
  private static let bytesAtOnce = 1 << 20

  private let directory: String
  private let maximumBytes: Int
  public let path: String
  private var temporaryPath: String { "\(path).new" }

  /// - Parameters:
  ///   - name: of the file in `directory`.
  ///   - maximumBytes: what is larger isn't written, so a larger one is none of ours.
  public init(directory: String, name: String, maximumBytes: Int) {
    self.directory = directory
    self.maximumBytes = maximumBytes
    path = "\(directory)/\(name)"
  }

  /// Says STATE_DIR, the file and why, for people. A gateway doesn't start with it.
  public struct Failure: ConfigurationFault, Equatable, CustomStringConvertible {
    public let description: String

    public init(description: String) { self.description = description }
  }

  private func failure(_ path: String, _ what: String, _ number: CInt) -> Failure {
    Failure(description: "STATE_DIR: \(path) can't be \(what): \(String(cString: strerror(number)))")
  }

  /// The whole file; nil: there is none.
  public func read() throws(Failure) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else {
      if errno == ENOENT { return nil }
      throw failure(path, "read", errno)
    }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: Self.bytesAtOnce)
    while true {
      let count = Glibc.read(descriptor, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw failure(path, "read", errno) }
      if count == 0 { return bytes }
      bytes += buffer[..<count]
      guard bytes.count <= maximumBytes else {
        throw Failure(description: "STATE_DIR: \(path) has more than \(maximumBytes) bytes")
      }
    }
  }

  /// What a writer that was interrupted has left is of no use.
  public func removeLeftover() { unlink(temporaryPath) }

  /// Replaces the file; it holds `bytes`, on the disk, when this returns. When it throws, it holds what it held.
  ///
  /// - Parameter old: what it holds.
  public func replace(_ old: [UInt8]?, by bytes: [UInt8]) throws(Failure) {
    guard bytes.count <= maximumBytes else {
      throw Failure(description: "STATE_DIR: \(path) would have more than \(maximumBytes) bytes")
    }
    try put(bytes)
    do throws(Failure) {
      try syncDirectory()
    } catch {
      // The new file may be there after a crash, or not. The answer will be that it isn't: so it shouldn't.
      if let old { try? put(old) } else { unlink(path) }
      throw error
    }
  }

  /// Replaces the file; it holds `bytes`, on the disk, when this returns. When it throws, it holds what it held, or these.
  public func write(_ bytes: [UInt8]) throws(Failure) {
    guard bytes.count <= maximumBytes else {
      throw Failure(description: "STATE_DIR: \(path) would have more than \(maximumBytes) bytes")
    }
    try put(bytes)
    try syncDirectory()
  }

  private func put(_ bytes: [UInt8]) throws(Failure) {
    removeLeftover()
    let descriptor = open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, Self.mode)
    guard descriptor >= 0 else { throw failure(temporaryPath, "made", errno) }
    var isKept = false
    defer { if !isKept { removeLeftover() } }
    do throws(Failure) {
      try write(bytes, descriptor)
      guard fsync(descriptor) == 0 else { throw failure(temporaryPath, "written", errno) }
    } catch {
      close(descriptor)
      throw error
    }
    guard close(descriptor) == 0 else { throw failure(temporaryPath, "written", errno) }
    guard rename(temporaryPath, path) == 0 else { throw failure(path, "replaced", errno) }
    isKept = true
  }

  private func write(_ bytes: [UInt8], _ descriptor: CInt) throws(Failure) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw failure(temporaryPath, "written", errno) }
      rest = rest.dropFirst(count)
    }
  }

  private func syncDirectory() throws(Failure) {
    let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure(directory, "opened", errno) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw failure(directory, "written", errno) }
  }
}

/// What a file of STATE_DIR looks like: lines of text under a head that says what they are and whether they are whole.
///
///   rig-state 1 1597639105 1834        name, version, CRC-32C of all that follows and its bytes
///   …                                  lines, each with its end
///
/// A file that isn't exactly this is damaged: nothing of it is believed.
public enum StateDocument {
  /// Why a file can't be believed, for people.
  public struct Damage: Error, Equatable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
  }

  public static func encode(_ name: String, version: Int, body: [UInt8]) -> [UInt8] {
    Array("\(name) \(version) \(Checksum.crc32c(body)) \(body.count)\n".utf8) + body
  }

  /// The lines of a file without their ends; the first of them is the file's second.
  public static func lines(
    of bytes: [UInt8], _ name: String, version: Int
  ) throws(Damage) -> [ArraySlice<UInt8>] {
    guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else {
      throw Damage("its first line has no end")
    }
    let head = bytes[..<end].split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
    let body = bytes[(end + 1)...]
    guard head.count == 4, head[0] == name else { throw Damage("its first line isn't that of a state file") }
    guard head[1] == String(version) else {
      throw Damage("it has version \(head[1].prefix(20)), expected \(version)")
    }
    guard head[3] == String(body.count) else {
      throw Damage("it has \(body.count) bytes after its first line, expected \(head[3].prefix(20))")
    }
    guard head[2] == String(Checksum.crc32c(body)) else { throw Damage("its checksum is wrong") }
    guard body.isEmpty || body.last == UInt8(ascii: "\n") else { throw Damage("its last line has no end") }
    return body.dropLast().split(separator: UInt8(ascii: "\n"))
  }
}

/// CRC-32C (Castagnoli, reflected), as iSCSI and ext4 use it: finds every damage of up to 32 bits in a row. It protects
/// against disks and editors, not against somebody who means harm.
public enum Checksum {
  private static let polynomial: UInt32 = 0x82F6_3B78

  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ polynomial : crc >> 1 }
  }

  /// Takes some nanoseconds for each byte.
  public static func crc32c(_ bytes: some Sequence<UInt8>) -> UInt32 {
    table.withUnsafeBufferPointer { table in
      ~bytes.reduce(~0) { crc, byte in crc >> 8 ^ table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
    }
  }
}
