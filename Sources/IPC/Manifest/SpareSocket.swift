// How a process that was started in advance becomes a worker: over a pair of sockets it gets what others inherit.
//
//   spare ── warm ──▶ supervisor
//   spare ◀── numbers, with as many descriptors; more of them; the last one says so ── supervisor
//
// The numbers are those by which the manifest names the descriptors. The manifest is one of them.

import CLinux
import Glibc

/// One end of the pair.
public struct SpareSocket {
  /// The environment variable that holds the number of the spare's end.
  public static let environmentName = "RIG_SPARE_FD"
  /// What `ps` shows of a spare of an executable with this name, and the executable's path behind it.
  public static func title(of executable: String) -> String { "\(executable): spare" }

  /// Of one message; the kernel takes 253.
  static let descriptorsPerMessage = 250
  private static let version: Int32 = 1
  /// version, 1 in the last message, number of the manifest, a number above all others: then a number for each descriptor.
  private static let headWords = 4

  public let descriptor: CInt

  /// - Parameter descriptor: stays the caller's.
  public init(_ descriptor: CInt) {
    self.descriptor = descriptor
  }

  // MARK: The supervisor's end

  /// Whether the spare has said that it waits. To be asked again until it has; true once.
  public func takeWarm() -> Bool {
    var word: Int32 = 0
    var count: CInt = 0
    let bytes = rig_message_receive(descriptor, &word, MemoryLayout<Int32>.size, nil, &count)
    return bytes == MemoryLayout<Int32>.size && word == Self.version
  }

  /// Gives the spare its descriptors, without waiting for it.
  ///
  /// - Parameters:
  ///   - sources: descriptors of this process.
  ///   - targets: at the same places, what they will be called by the spare.
  ///   - manifest: the target of the manifest.
  public func give(_ sources: [CInt], as targets: [CInt], manifest: CInt) throws(IPCError) {
    let floor = (targets.max() ?? 2) + 1
    var next = 0
    repeat {
      let end = min(next + Self.descriptorsPerMessage, sources.count)
      let isLast: Int32 = end == sources.count ? 1 : 0
      let message = [Self.version, isLast, manifest, floor] + targets[next..<end]
      let bytes = message.count * MemoryLayout<Int32>.size
      let part = Array(sources[next..<end])
      guard rig_message_send_with(descriptor, message, bytes, part, CInt(part.count)) == bytes else {
        throw .system(call: "sendmsg", errno: errno)
      }
      next = end
    } while next < sources.count
  }

  // MARK: The spare's end

  /// The spare's end, if this process is one. To be called once, before there are other threads.
  public static func inherited() throws(IPCError) -> SpareSocket? {
    guard let text = getenv(environmentName).map({ String(cString: $0) }) else { return nil }
    unsetenv(environmentName)
    guard let number = CInt(text), number > 2, rig_set_close_on_exec(number) == 0 else {
      throw .invalid("\(environmentName) is \"\(text)\", expected the number of an inherited descriptor")
    }
    return SpareSocket(number)
  }

  public func sayWarm() throws(IPCError) {
    var word = Self.version
    guard rig_message_send(descriptor, &word, MemoryLayout<Int32>.size) > 0 else {
      throw .system(call: "send", errno: errno)
    }
  }

  /// Sleeps until this process is to become a worker. Its descriptors have their numbers then, and the socket is closed. Returns the
  /// number of the manifest; nil: the supervisor doesn't need it any more.
  public func awaitManifest() throws(IPCError) -> CInt? {
    var pairs: [(from: CInt, to: CInt)] = []
    while true {
      rig_message_wait(descriptor)
      var message = [Int32](repeating: 0, count: Self.headWords + Self.descriptorsPerMessage)
      var received = [CInt](repeating: -1, count: Self.descriptorsPerMessage)
      var count = CInt(received.count)
      let bytes = rig_message_receive(
        descriptor, &message, message.count * MemoryLayout<Int32>.size, &received, &count)
      guard bytes > 0 else {
        if bytes == 0 || errno == ECONNRESET { return nil }
        throw .system(call: "recvmsg", errno: errno)
      }
      let words = bytes / MemoryLayout<Int32>.size
      guard message[0] == Self.version, words == Self.headWords + Int(count) else {
        // As many as were sent, or there is no room for them.
        throw .invalid("a spare was sent \(words) numbers and \(count) descriptors")
      }
      // Above every number that is still to be given.
      for (descriptor, target) in zip(received, message[Self.headWords..<words]) {
        let high = rig_duplicate_from(descriptor, message[3])
        guard high >= 0 else { throw .system(call: "fcntl", errno: errno) }
        close(descriptor)
        pairs.append((high, target))
      }
      if message[1] == 1 {
        close(descriptor)
        try Self.number(pairs)
        return message[2]
      }
    }
  }

  /// Gives the descriptors their numbers.
  private static func number(_ pairs: [(from: CInt, to: CInt)]) throws(IPCError) {
    for (from, to) in pairs {
      let number = rig_duplicate_from(from, to)
      guard number >= 0 else { throw .system(call: "fcntl", errno: errno) }
      guard number == to else { throw .invalid("descriptor \(to) of a spare is in use") }
      close(from)
    }
  }
}
