// How a manifest gets from the supervisor to a worker: through a memfd sealed against every change.

import CLinux
import FoundationEssentials
import Glibc

extension WorkerManifest {
  /// The environment variable that holds the descriptor's number.
  public static let environmentName = "RIG_MANIFEST_FD"
  /// More than a gateway with 63 connection workers and 64 proxy workers needs: its ring table alone takes 800 KB.
  public static let maximumBytes = 4 << 20

  /// Writes `manifest` into a memfd and seals it. The descriptor is close-on-exec: pass it on by name.
  public static func write(_ manifest: WorkerManifest) throws(IPCError) -> Descriptor {
    let json: Data
    do {
      json = try JSONEncoder().encode(manifest)
    } catch {
      throw .invalid("manifest of \(manifest.worker.name) can't be encoded: \(error)")
    }
    guard json.count <= maximumBytes else { throw .tooLarge(bytes: json.count, limit: maximumBytes) }
    let descriptor = try SharedMemory.unsealed(name: "rig-manifest")
    try writeAll(json, to: descriptor.rawValue)
    try SharedMemory.seal(descriptor.rawValue, SharedMemory.sizeSeals | CInt(RIG_SEAL_WRITE))
    return descriptor
  }

  /// Reads the manifest that this process has inherited, closes its descriptor, removes the environment variable,
  /// and sets close-on-exec on every descriptor that it names. To be called once, before there are other threads.
  public static func inherited() throws(IPCError) -> WorkerManifest {
    guard let text = getenv(environmentName).map({ String(cString: $0) }) else {
      throw .invalid("\(environmentName) is not set: a worker is started by the supervisor only")
    }
    guard let number = CInt(text), number > 2 else {
      throw .invalid("\(environmentName) is \"\(text)\", expected the number of an inherited descriptor")
    }
    unsetenv(environmentName)
    let manifest = try read(number)
    close(number)
    for descriptor in manifest.descriptors {
      guard descriptor > 2, rig_set_close_on_exec(descriptor) == 0 else {
        throw .invalid("the manifest names descriptor \(descriptor), which this process has not inherited")
      }
    }
    return manifest
  }

  /// Reads a manifest from `fd`, which stays open.
  static func read(_ fd: CInt) throws(IPCError) -> WorkerManifest {
    try SharedMemory.requireSeals(of: fd, SharedMemory.sizeSeals | CInt(RIG_SEAL_WRITE))
    let size = try SharedMemory.size(of: fd)
    guard size <= maximumBytes else { throw .tooLarge(bytes: size, limit: maximumBytes) }
    var json = [UInt8](repeating: 0, count: size)
    let read = json.withUnsafeMutableBytes { pread(fd, $0.baseAddress, size, 0) }
    guard read == size else { throw .system(call: "pread", errno: errno) }
    // The format first: a manifest of another one may have nothing else in common with this one.
    let format = try decode(Format.self, json).format
    let known = UInt64(WorkerManifest.format)
    guard format == WorkerManifest.format else {
      throw .unknownLayout(found: UInt64(clamping: format), known: known...known)
    }
    return try decode(WorkerManifest.self, json)
  }

  private struct Format: Decodable {
    var format: Int
  }

  private static func decode<Value: Decodable>(_ type: Value.Type, _ json: [UInt8]) throws(IPCError) -> Value
  {
    do {
      return try JSONDecoder().decode(type, from: Data(json))
    } catch {
      throw .invalid("the manifest can't be decoded: \(error)")
    }
  }

  private static func writeAll(_ data: Data, to fd: CInt) throws(IPCError) {
    let bytes = [UInt8](data)
    var written = 0
    while written < bytes.count {
      let count = bytes.withUnsafeBytes { buffer -> Int in
        guard let base = buffer.baseAddress else { return 0 }
        return Glibc.write(fd, base + written, buffer.count - written)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw .system(call: "write", errno: errno) }
      written += count
    }
  }
}
